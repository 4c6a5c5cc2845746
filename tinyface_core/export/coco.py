"""COCO's JSON: images, annotations with boxes, one category.

Written as it comes, annotations beside the images until these are whole: memory holds an id a picture. An image's id is
made of its `image_id`, so that it is the same in every export; annotations are numbered from 1 (pycocotools takes an id
of 0 for none). Boxes are x, y, width, height of the upright picture, with `score`; no file of COCO's result form beside
it, as an annotation has all that one asks for. A picture with an error row is left out: COCO would say that it has no
faces.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tinyface_core
from tinyface_core.export.names import Names
from tinyface_core.export.pictures import Picture, Tally

CATEGORY = {"id": 1, "name": "face", "supercategory": "person"}
_ID_DIGITS = 13  # of 4 bits: JavaScript and numpy's float64 know whole numbers up to 2^53
_DECIMALS = 3  # of a pixel


def write_coco(pictures: Iterable[Picture], file: Path, names: Names, tally: Tally) -> None:
    """One JSON object; the order of pictures is kept."""
    ids: set[int] = set()
    with file.open("w", encoding="utf-8") as out, _beside(file) as annotations:
        out.write(f'{{"info": {_text(_info())},\n"licenses": [],\n"categories": [{_text(CATEGORY)}],\n"images": [')
        number = 0
        for picture in pictures:
            if picture.error_class is not None:
                continue
            image_id = _free_id(picture.image_id, ids)
            out.write((",\n" if tally.pictures else "\n") + _text(_image(picture, image_id, names)))
            for one in _faces(picture):
                number += 1
                annotations.write((",\n" if number > 1 else "\n") + _text({"id": number, "image_id": image_id, **one}))
            tally.took(picture)
        out.write('],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, out)
        out.write("]}\n")


def _beside(file: Path) -> Any:
    return tempfile.TemporaryFile("w+", encoding="utf-8", dir=file.parent)


def _info() -> dict[str, str]:
    return {
        "description": "Faces found by tinyface; boxes are of the upright picture, with its EXIF orientation applied",
        "version": tinyface_core.__version__,
    }


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _free_id(image_id: str, taken: set[int]) -> int:
    """Of 52 bits of the hash: two of 10^6 pictures share them in one of 10,000 outputs; then the next number."""
    number = int(image_id[:_ID_DIGITS], 16) or 1
    while number in taken:
        number += 1
    taken.add(number)
    return number


def _image(picture: Picture, image_id: int, names: Names) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": names.path(picture),
        "width": picture.width,
        "height": picture.height,
        "tinyface_id": picture.image_id,
    }


def _faces(picture: Picture) -> Iterable[dict[str, Any]]:
    for (x1, y1, x2, y2), score in zip(picture.boxes_K4.tolist(), picture.scores_K, strict=True):
        width, height = x2 - x1, y2 - y1
        yield {
            "category_id": CATEGORY["id"],
            "bbox": [round(value, _DECIMALS) for value in (x1, y1, width, height)],
            "area": round(width * height, _DECIMALS),
            "iscrowd": 0,
            "score": float(str(score)),  # the shortest number that is this float32
        }
