"""Small labelled sets for the tests of retraining: photographs of the demo, labelled by the bundled light model."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.integration.job_pictures import photo
from tinyface_core.detect.detector import Detector
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.spec import find_bundled

LIGHT = "hr-mobilenetv2"
LONGEST_PX = 320


@cache
def _boxes(number: int) -> tuple[tuple[float, ...], ...]:
    """x, y, width, height of the faces that the light model finds."""
    with Image.open(io.BytesIO(photo(number, LONGEST_PX))) as picture:
        found = _detector()(np.asarray(picture))
    corners_K4 = found.boxes_K4.round(2).astype(float)
    return tuple((x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners_K4.tolist())


@cache
def _detector() -> Detector:
    torch.set_num_threads(1)
    return Detector.load(LIGHT)


def labelled(folder: Path, numbers: Iterable[int], dates: Mapping[int, str] | None = None) -> Path:
    """A folder with annotations.jsonl and its pictures; dates: a `date` for each picture."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        data, boxes = photo(number, LONGEST_PX), _boxes(number)
        (folder / "images" / f"{number}.jpg").write_bytes(data)
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
        line = {"image": f"images/{number}.jpg", "width": width, "height": height, "boxes": boxes}
        dated = {"date": dates[number]} if dates else {}
        lines.append(json.dumps({**line, "attrs": [[0] * 6] * len(boxes), **dated}))
    (folder / "annotations.jsonl").write_text("\n".join(lines))
    return folder


def weakened(path: Path) -> Path:
    """The light model with noise in its heads: it finds next to nothing, and can be trained on."""
    bundled = find_bundled(LIGHT)
    assert bundled is not None
    network, spec = load_checkpoint(bundled)
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for head in network.heads.values():
            weight = head.get_parameter("weight")
            weight += 3 * weight.std() * torch.randn(weight.shape, generator=noise)
    save_checkpoint(path, network, spec)
    return path
