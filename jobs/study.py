"""Studies behind the detector's choices, re-run on annotated pictures. One core call; no Ray.

Example: python jobs/study.py levels --data val --truth wider_face_split/ground_truth --output study --every 4

`levels`: average precision with and without each pyramid level, with and without regression, and which face heights a
level is good at. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from options import Texts, job_app, refuse_unwritable, run_job
from tinyface_core.errors import OutputError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.studies.level_choices import as_limits
from tinyface_core.studies.level_report import levels_json, levels_table
from tinyface_core.studies.levels import ZOOMS, LevelStudy, study_levels

_MANY = Parameter(consume_multiple=1, negative=())

app = job_app("study.py", __doc__ or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """What to study, and where the results go."""

    data: Path
    "Annotated pictures: a folder with annotations.jsonl, or another form of docs/training.md."
    out: Annotated[Path, Parameter("--output")]
    "Folder for levels.md, levels.json and, in boxes/, each picture's boxes: the same command goes on from them."
    model: str = "hr-resnet50"
    "A bundled model's name, or a checkpoint."
    truth: Path | None = None
    "WIDER's ground truth, which has the levels easy, medium and hard; else the annotations are judged by."
    zooms: Annotated[tuple[float, ...], _MANY] = ZOOMS
    "All pyramid levels to compute; those that the model does not use are added to its own one by one."
    limit: Annotated[Texts, Parameter("--level-heights", consume_multiple=1, negative=())] = ()
    "A row more: heights in px that levels may give, ZOOM=FROM-TO,..., as 4=0-12,0.25=80-; may be repeated."
    every: int = 1
    "Every n-th picture."
    min_score: float = 0.05
    "Floor of all boxes. At 0.05 a picture with 4x may have 400,000 boxes (15 MB), at 0.1 a quarter of them."
    processes: int = 1
    "Side by side, one thread each."
    new: Path | None = None
    "Write the model here with the limits of heights that find most with all levels; they hold where those run."
    overwrite: Annotated[bool, Parameter(negative=())] = False
    "Replace the --new that is there."

    def levels(self) -> LevelStudy:
        """As the core takes it."""
        return LevelStudy(
            model=self.model,
            data=self.data,
            folder=self.out / "boxes",
            truth=self.truth,
            every=self.every,
            zooms=self.zooms,
            min_score=self.min_score,
            limits=self.limit,
            processes=self.processes,
        )


@app.default
def study(which: Literal["levels"], /, options: Options) -> None:
    """Prints the study's tables, and keeps them.

    Parameters
    ----------
    which
        The study.
    """
    asked = options.levels()
    refuse_unwritable("--new", options.new, overwrite=options.overwrite)
    found = study_levels(asked)
    head = f"{found.pictures} pictures, {asked.model}, average precision of boxes above {asked.min_score:g}"
    text = f"{head}\n\n{levels_table(found)}"
    print(text)
    if options.new is not None:
        network, spec = load_checkpoint(asked.checkpoint)
        defaults = replace(spec.defaults, level_heights=as_limits(found.best))
        save_checkpoint(options.new, network, replace(spec, defaults=defaults))
        print(f"\n{options.new}: {found.best.name}")
    try:
        (options.out / f"{which}.md").write_text(text + "\n")
        (options.out / f"{which}.json").write_text(json.dumps(levels_json(found, asked), indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"--output {options.out}: cannot be written to ({error.strerror}).") from error


if __name__ == "__main__":
    sys.exit(run_job(app))
