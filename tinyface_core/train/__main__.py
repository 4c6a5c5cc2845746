"""`python -m tinyface_core.train`: trains a preset in this process, with as many threads as OMP_NUM_THREADS says.

Writes into --out: model.safetensors (the moving average, a checkpoint as detection reads it), state.pt (to resume:
the same command goes on) and metrics.jsonl. Several processes: the Ray job around loop.py.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import torch
from safetensors.torch import load_file

from tinyface_core.errors import CheckpointError, TinyfaceError
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.trunks import load_imagenet
from tinyface_core.train.data import PictureCache, read_annotations
from tinyface_core.train.loop import Budget, Report, Trainer, as_metrics, resume, save_state, train
from tinyface_core.train.presets import preset

log = logging.getLogger("tinyface.train")
app = cyclopts.App(name="python -m tinyface_core.train", help="Train a detector on annotated folders.")


def read_imagenet(path: Path) -> dict[str, Any]:
    """A torchvision state dict, from .safetensors or .pth. Raises CheckpointError when it is neither."""
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as error:  # each library has errors of its own for a bad file
        raise CheckpointError(f"{path}: not a state dict in .safetensors or .pth form ({error}).") from error


@app.default
def main(
    *,
    preset_name: Annotated[str, cyclopts.Parameter(name="--preset")],
    data: list[Path],
    out: Path,
    hours: float | None = None,
    crops: int | None = None,
    imagenet: Path | None = None,
    cache: Path | None = None,
    name: str | None = None,
) -> None:
    """Train until the budget (hours at work, or crops) is spent.

    Example: python -m tinyface_core.train --preset light --data wider/train --hours 0.4 --out runs/light
    --imagenet mobilenet_v2.pth

    Args:
        preset_name: light or accurate.
        data: a folder with annotations.jsonl; may be given several times.
        out: the run's folder.
        imagenet: torchvision weights that the trunk starts from; without them it starts from noise.
        cache: folder for the decoded pictures (about 3 bytes a pixel); default: in --out.
        name: of the model; default: the preset's.
    """
    settings, budget = preset(preset_name), Budget(crops=crops, hours=hours)
    spec = replace(settings.spec, name=name or settings.spec.name)
    network = HRNetwork(spec.network)
    if imagenet is not None:
        load_imagenet(network.trunk, read_imagenet(imagenet))
    pictures = PictureCache([p for folder in data for p in read_annotations(folder)], cache or out / "cache")
    trainer = Trainer(network, settings, budget)
    if resume(out / "state.pt", trainer):
        log.info("resumed after %d crops", trainer.crops)

    def report(values: Report) -> None:
        line = json.dumps(as_metrics(values))
        log.info("%s", line)
        with (out / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")

    def save() -> None:
        save_state(out / "state.pt", trainer)
        command = " ".join(["python -m tinyface_core.train", *sys.argv[1:]])
        provenance = {"command": command, "crops": trainer.crops, "hours": round(trainer.seconds / 3600, 4)}
        with trainer.averaged() as averaged:
            save_checkpoint(out / "model.safetensors", averaged, replace(spec, provenance=provenance))

    out.mkdir(parents=True, exist_ok=True)
    train(trainer, pictures, on_report=report, on_save=save)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        app()
    except TinyfaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
