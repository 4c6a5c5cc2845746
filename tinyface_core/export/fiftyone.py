"""FiftyOne's own JSON for detections: the labels.json of a `FiftyOneImageDetectionDataset`.

Labels by picture, as text (there is no `classes`, so that targets are the labels themselves), with boxes as x, y, width
and height relative to the upright picture. A loose picture on this disk is named by its path from the root, which
FiftyOne opens where it lies; all others by a path without extension, as FiftyOne knows pictures in the folder `data/`
beside the file. A picture with an error row is left out: it would stand there as one without faces.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyface_core.export.names import Names
from tinyface_core.export.pictures import Picture, Tally

LABEL = "face"
_DECIMALS = 8  # a hundredth of a pixel at a side of 1,000,000


def write_fiftyone(pictures: Iterable[Picture], file: Path, names: Names, tally: Tally) -> None:
    """One JSON object; the order of pictures is kept."""
    with file.open("w", encoding="utf-8") as out:
        out.write('{"labels": {')
        for picture in pictures:
            if picture.error_class is not None:
                continue
            key = names.once(_key(picture, names), picture, "FiftyOne")
            before = ",\n" if tally.pictures else "\n"
            faces = json.dumps(list(_faces(picture)), ensure_ascii=False)
            out.write(f"{before}{json.dumps(key, ensure_ascii=False)}: {faces}")
            tally.took(picture)
        out.write("\n}}\n")


def _key(picture: Picture, names: Names) -> str:
    path = names.path(picture)
    if picture.member is None and path.startswith("/"):
        return path
    name, _ = posixpath.splitext((path.partition("://")[2] or path).lstrip("/"))
    return posixpath.normpath(name)  # both as FiftyOne does with the files that it finds


def _faces(picture: Picture) -> Iterable[dict[str, Any]]:
    width, height = picture.width or 1, picture.height or 1
    for (x1, y1, x2, y2), score in zip(picture.boxes_K4.tolist(), picture.scores_K, strict=True):
        box = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
        yield {
            "label": LABEL,
            "bounding_box": [round(value, _DECIMALS) for value in box],
            "confidence": float(str(score)),
        }
