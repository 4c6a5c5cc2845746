"""Gives a checkpoint what it needs to run in int8: the ranges of its feature maps, as a sample of pictures shows them.

Example: python jobs/calibrate.py mine.safetensors --input s3://bucket/pictures --output mine_int8.safetensors

No annotation is needed. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Group, Parameter
from numpy.typing import NDArray

from options import StorageFlags, Texts, before_first_write, job_app, many, refuse_unwritable, run_job
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import list_sources
from tinyface_core.errors import SettingsError
from tinyface_core.forecast.sample import InputSample, decoded
from tinyface_core.model.checkpoint import is_half, load_checkpoint, save_checkpoint
from tinyface_core.model.locate import fetch, locate
from tinyface_core.storage import Storage
from tinyface_core.train.calibrate import ranges_of

app = job_app("calibrate.py", __doc__ or "")


@app.default
def calibrate(
    model: str,
    /,
    *,
    input: Annotated[Texts, many(Group("What to read"))],
    output: Path,
    count: int = 32,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    storage: StorageFlags | None = None,
) -> None:
    """Prints what it did; the weights stay as they are.

    Parameters
    ----------
    model
        A bundled model by name, or a checkpoint by path or url.
    input
        Folder, url, archive or manifest, as detect_archive.py takes it: pictures like those to be worked, and none of
        those that the model is judged by.
    output
        Checkpoint to write: the model with its ranges.
    count
        Pictures at most, drawn evenly from the whole input; a 1080p one takes some 15 s with hr-resnet50.
    overwrite
        Replace the file that is there.
    """
    refuse_unwritable("--output", output, overwrite=overwrite)
    if count < 1:
        raise SettingsError(f"--count {count}: needs a number from 1 on.")
    reached = Storage((storage or StorageFlags()).options())
    with before_first_write():
        path = fetch(locate(model, reached), reached)
        network, spec = load_checkpoint(path)  # as it is written; that which computes is folded for speed
        ranges, shown = ranges_of(path, _sample(input, count, reached))
    made = {"pictures": shown, "from": ["/".join(name.rstrip("/").split("/")[-2:]) for name in input]}
    spec = replace(spec, ranges=ranges, provenance={**spec.provenance, "int8": made})
    save_checkpoint(output, network, spec, half=is_half(network))
    print(json.dumps({**made, "convolutions": len(ranges)}, indent=1))


def _sample(inputs: Texts, count: int, storage: Storage) -> Iterator[NDArray[np.uint8]]:
    candidates = CandidateFilter()
    sample = InputSample.of(list_sources(inputs, storage, candidates), pictures=count)
    pictures = decoded(sample.units(), storage, candidates)
    return (picture.rgb_HW3 for picture in islice(pictures, count))


if __name__ == "__main__":
    sys.exit(run_job(app))
