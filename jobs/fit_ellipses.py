"""Fits the regressor of ellipses of a checkpoint, and writes the checkpoint with it. One core call.

    python jobs/fit_ellipses.py hr-resnet50 --output new.safetensors --ellipses FDDB-folds --pictures originalPics

    python jobs/fit_ellipses.py hr-resnet50 --output new.safetensors --eye-lines yunet.onnx --data train_fold12

Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from options import job_app, refuse_unwritable, run_job
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.runtime import choose_runtime
from tinyface_core.errors import SettingsError
from tinyface_core.model.checkpoint import is_half, load_checkpoint, save_checkpoint
from tinyface_core.model.spec import find_bundled
from tinyface_core.train.data import read_annotated
from tinyface_core.train.fit_ellipses import SAMPLING, fit, samples_of
from tinyface_core.train.fit_ellipses_truth import EyeLines, Truth, annotated_ellipses, turned_views

app = job_app("fit_ellipses.py", __doc__ or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TruthFlags:
    """Where the angles of faces are known from."""

    ellipses: Path | None = None
    "FDDB's annotation: its folder of FDDB-fold-NN-ellipseList.txt, or .jsonl(.gz). Needs --pictures."
    pictures: Path | None = None
    "Folder of FDDB's pictures (originalPics)."
    eye_lines: Path | None = None
    "YuNet's .onnx, without FDDB: angles of faces over 40 px from their eyes, in pictures that are then turned."
    data: Annotated[tuple[Path, ...], Parameter(consume_multiple=1, negative=(), show_default=False)] = ()
    "Annotated folders of training pictures, for --eye-lines."


@app.default
def fit_ellipses(
    model: str,
    /,
    *,
    output: Path,
    known: TruthFlags | None = None,
    count: int = 2000,
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Prints how far its ellipses are off in ten-fold cross-validation, beside those of the best constant.

    Parameters
    ----------
    model
        A bundled model by name, or a checkpoint file.
    output
        Checkpoint to write: the model with its regressor.
    count
        Turned views, or FDDB's pictures, at most.
    seed
        The same seed gives the same regressor.
    overwrite
        Replace the file that is there.
    """
    refuse_unwritable("--output", output, overwrite=overwrite)
    if count < 1:
        raise SettingsError(f"--count {count}: needs a number from 1 on.")
    path = find_bundled(model) or Path(model)
    network, spec = load_checkpoint(path)  # as it is written; the detector's own is folded for speed
    truths, source = _truths(known or TruthFlags(), count, seed)
    fitted = fit(samples_of(Detector.load(path, SAMPLING, choose_runtime(precision="fp32")), truths))
    network.regress(torch.from_numpy(fitted.weight_5C), torch.from_numpy(fitted.bias_5))
    made = {"from": source, "count": count, "seed": seed, **fitted.figures()}
    spec = replace(spec, ellipses=True, provenance={**spec.provenance, "ellipses": made})
    save_checkpoint(output, network, spec, half=is_half(network))
    print(json.dumps(made, indent=1))


def _truths(known: TruthFlags, count: int, seed: int) -> tuple[Iterator[Truth], str]:
    """Where ellipses are known, and what to call it."""
    ellipses, eye_lines = known.ellipses, known.eye_lines
    if ellipses is not None and known.pictures is not None and eye_lines is None:
        return annotated_ellipses(ellipses, known.pictures, count), f"ellipses of {ellipses.name}"
    if eye_lines is not None and known.data and ellipses is None:
        annotated = [picture for folder in known.data for picture in read_annotated(folder)[0]]
        names = " ".join(folder.name for folder in known.data)
        return turned_views(annotated, EyeLines(eye_lines), count, seed), f"eye lines by {eye_lines.name} on {names}"
    raise SettingsError("give --ellipses and --pictures, or --eye-lines and --data: where the angles are known from.")


if __name__ == "__main__":
    sys.exit(run_job(app))
