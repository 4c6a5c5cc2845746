"""The baseline of whole_job.py: batch inference on Ray Data as an engineer writes it in an hour, from the docs.

    python benchmarks/plain_ray.py FOLDER OUTPUT --model NAME [--detector plain|ours] [--workers 2]

Pictures are read and decoded by Ray Data, go to an actor a CPU in batches, boxes go to Parquet. There is no plan, no
commit, no row for a picture that fails, no way on after a kill. detector: the straightforward one of plain_torch.py, or
ours, in whatever memory and precision a process has that nobody thought of.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
from cyclopts import App
from numpy.typing import NDArray

app = App(help=__doc__)
Kind = Literal["plain", "ours"]


class FindFaces:
    """A batch of pictures in, a batch of lists of boxes out."""

    def __init__(self, model: str, kind: Kind) -> None:
        if kind == "plain":
            from plain_torch import PlainDetector

            self.find = PlainDetector(model)
        else:
            from tinyface_core.detect.detector import Detector
            from tinyface_core.detect.options import Runtime

            detector = Detector.load(model, runtime=Runtime("cpu", "fp32", "what torch does by itself"))
            self.find = lambda rgb_HW3: ((found := detector(rgb_HW3)).boxes_K4, found.scores_K)  # type: ignore[assignment]

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        found = [self.find(np.ascontiguousarray(image)) for image in batch["image"]]
        return {
            "path": batch["path"],
            "boxes": [boxes_K4.tolist() for boxes_K4, _ in found],
            "scores": [scores_K.tolist() for _, scores_K in found],
        }


@app.default
def main(folder: Path, output: Path, *, model: str, detector: Kind = "plain", workers: int = 2) -> None:
    """Prints the seconds from the first read to the last file."""
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}, log_to_driver=False)
    pictures = ray.data.read_images(str(folder), mode="RGB", include_paths=True)
    began = time.monotonic()
    faces = pictures.map_batches(
        FindFaces,
        fn_constructor_args=(model, detector),
        batch_size=8,
        num_cpus=0.5,  # reading and writing ask for a whole CPU: with more, two actors on two CPUs wait for ever
        concurrency=workers,
    )
    faces.write_parquet(str(output))
    print(f"{time.monotonic() - began:.1f}")


if __name__ == "__main__":
    sys.exit(app())
