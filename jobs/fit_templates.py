"""Fits templates to annotated boxes by k-medoids under the Jaccard distance. One core call; no pictures are needed.

Example: python jobs/fit_templates.py wider_face_train_bbx_gt.txt --output templates.json

Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from options import job_app, refuse_unwritable, run_job
from tinyface_core.errors import SettingsError
from tinyface_core.templates import TemplateSet
from tinyface_core.train.fit_templates import annotated_sizes, face_sizes, fit, kept_sizes, mean_best_iou, template_set

app = job_app("fit_templates.py", __doc__ or "")


@app.default
def fit_templates(
    source: Path,
    /,
    *,
    output: Path | None = None,
    count: Annotated[int, Parameter(name=["--count", "-k"])] = 25,
    restarts: int = 10,
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Prints the templates, and how well they and the published 25 cover the same boxes.

    Parameters
    ----------
    source
        Annotations: WIDER FACE's .txt (also .txt.gz) or .mat, COCO .json, or a folder with annotations.jsonl.
    output
        JSON file for the templates, with their sets A and B.
    count
        Templates.
    restarts
        Runs of k-medoids, of which the best is taken.
    seed
        The same seed gives the same templates.
    overwrite
        Replace the file that is there.
    """
    if count < 1 or restarts < 1:
        raise SettingsError("--count and --restarts: need a number from 1 on.")
    refuse_unwritable("--output", output, overwrite=overwrite)
    sizes_N2 = annotated_sizes(source)
    fitted = fit(sizes_N2, count, restarts=restarts, seed=seed)
    templates = template_set(fitted.sizes_K2)
    published = mean_best_iou(kept_sizes(sizes_N2, np.random.default_rng(seed)), face_sizes(TemplateSet()))
    print(f"{fitted.boxes:,} boxes of 10 px or more; mean best IoU {fitted.mean_iou:.4f} with these {count}, "
          f"{published:.4f} with the published 25\n")  # fmt: skip
    print("| id | face, px | resolution | set |\n|---:|---|---:|---|")
    for place, ((width, height), template) in enumerate(zip(fitted.sizes_K2, templates.templates, strict=True)):
        in_set = "A" if place in templates.a else "B" if place in templates.b else ""
        print(f"| {place} | {width:g} x {height:g} | {template.resolution:g} | {in_set} |")
    if output is not None:
        output.write_text(json.dumps(asdict(templates), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_job(app))
