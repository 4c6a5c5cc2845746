"""The learning curve of a run: what its epochs say, as a picture and as TensorBoard's events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

Epochs = Sequence[dict[str, float]]  # one a validation; see meter.Report and validate.FixedCrops for the keys


def draw_curves(epochs: Epochs, path: Path) -> None:
    """A PNG: losses, the rate, and average precision on the fixed crops, over the crops seen."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    losses, rates, precision, heights = figure.subplots(2, 2).flat
    crops = [epoch["crops"] for epoch in epochs]

    def draw(axes: object, names: Sequence[str], title: str) -> None:
        for name in names:
            at = [(x, epoch[name]) for x, epoch in zip(crops, epochs, strict=True) if name in epoch]
            axes.plot(*zip(*at, strict=True), marker=".", label=name)  # type: ignore[attr-defined]
        axes.set(title=title, xlabel="crops seen")  # type: ignore[attr-defined]
        axes.grid(alpha=0.3)  # type: ignore[attr-defined]
        if names:
            axes.legend(fontsize="small")  # type: ignore[attr-defined]

    by_height = sorted({name for epoch in epochs for name in epoch if name.startswith("val_ap ")})
    draw(losses, [name for name in ("labels_loss", "boxes_loss") if any(name in epoch for epoch in epochs)], "loss")
    draw(rates, ["rate"], "learning rate of the finest head")
    draw(precision, ["val_ap"], "average precision on fixed crops")
    draw(heights, by_height, "the same by height in the crop")
    figure.savefig(path, dpi=110)


def write_tensorboard(epochs: Epochs, folder: Path) -> None:
    """An events file with every number of every epoch."""
    with SummaryWriter(str(folder)) as writer:
        for epoch in epochs:
            for name, value in epoch.items():
                writer.add_scalar(name.replace(" ", "/"), value, global_step=int(epoch["crops"]))
