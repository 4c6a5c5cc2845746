"""Annotated pictures out of the usual forms: a folder of ours, WIDER FACE's text and .mat, COCO JSON, our own tables.

Each reader gives lines: a picture's path and its boxes, as they stand there. What of them can be learned from is
decided in one place, `annotated`, which counts what it leaves out and why. Knows no pixels but the pictures' sizes.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from tinyface_core.errors import InputError
from tinyface_core.train.data import AnnotatedPicture

_INVALID = (
    3  # place of the invalid mark among WIDER's attributes of a box: blur, expression, illumination, invalid, ...
)


@dataclass(frozen=True)
class Line:
    """boxes_K4: x, y, width, height. unclear_K: marked invalid, or a crowd. picture_hw: None where it is not told."""

    path: Path
    boxes_K4: NDArray[np.float64]
    unclear_K: NDArray[np.bool_]
    picture_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class DataCheck:
    """What a data set holds, and what of it was left out, by reason."""

    pictures: int
    faces: int
    left_out: Counter[str]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.left_out.items()))
        return f"{self.pictures:,} pictures with {self.faces:,} faces; left out: {reasons or 'nothing'}"


def read_annotated(source: Path, pictures: Path | None = None) -> tuple[list[AnnotatedPicture], DataCheck]:
    """The pictures of one source, in its order, and what was left out.

    Args:
        source: a folder with annotations.jsonl, or an output of the detection job; a WIDER .txt or .mat; a COCO .json.
        pictures: the folder that the paths in it begin at; None: the folder itself, or that of the file.
    Raises:
        InputError: none of these; a line that is not of its form; no picture that can be read.
    """
    found, left_out, faces = list[AnnotatedPicture](), Counter[str](), 0
    base = pictures or (source if source.is_dir() else source.parent)
    for line in _reader(source)(source, base):
        one = annotated(line, left_out)
        if one is not None:
            found.append(one)
            faces += len(one.faces_K4)
    if not found:
        example = f", as {line.path}" if left_out else ""
        raise InputError(
            f"{source}: no picture of it can be read below {base}{example}. Name the pictures' folder: --pictures."
        )
    return found, DataCheck(len(found), faces, +left_out)


def read_boxes(source: Path) -> NDArray[np.float64]:
    """Width, height of every box of a source that is not marked invalid, (N, 2) px; pictures need not be there."""
    lines = list(_reader(source)(source, source.parent))
    if not lines:
        raise InputError(f"{source}: names no picture.")
    return np.concatenate([line.boxes_K4[~line.unclear_K, 2:] for line in lines])


def _reader(source: Path) -> Callable[[Path, Path], Iterator[Line]]:
    if (source / "annotations.jsonl").is_file():
        return _jsonl
    if (source / "detections").is_dir():
        return _output
    readers = {".txt": _wider_text, ".gz": _wider_text, ".mat": _wider_mat, ".json": _coco}
    if source.is_file() and source.suffix in readers:
        return readers[source.suffix]
    raise InputError(
        f"{source}: needs to be a folder with annotations.jsonl, an output of detect_archive.py, WIDER FACE's .txt or "
        ".mat, or a COCO .json."
    )


def annotated(line: Line, left_out: Counter[str]) -> AnnotatedPicture | None:
    """What can be learned from a line; None for a picture that is not there or no picture."""
    picture_hw = line.picture_hw or _size_of(line.path)
    if picture_hw is None or not line.path.is_file():
        left_out["pictures that are not there, or are none"] += 1
        return None
    height, width = picture_hw
    corners_K4 = np.concatenate([line.boxes_K4[:, :2], line.boxes_K4[:, :2] + line.boxes_K4[:, 2:]], axis=1)
    whole_K = (line.boxes_K4[:, 2:] > 0).all(axis=1)
    clipped_K4 = np.clip(corners_K4, 0, (width, height, width, height))
    inside_K = whole_K & (clipped_K4[:, 2:] > clipped_K4[:, :2]).all(axis=1)
    left_out["empty boxes"] += int((~whole_K).sum())
    left_out["boxes outside the picture"] += int((whole_K & ~inside_K).sum())
    left_out["boxes marked invalid (neither face nor background)"] += int((inside_K & line.unclear_K).sum())
    boxes_K4 = corners_K4.astype(np.float32)
    return AnnotatedPicture(
        line.path, picture_hw, boxes_K4[inside_K & ~line.unclear_K], boxes_K4[inside_K & line.unclear_K]
    )


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _boxes(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 4)


def _jsonl(source: Path, base: Path) -> Iterator[Line]:
    file = source / "annotations.jsonl"
    for number, text in enumerate(file.read_text().splitlines(), start=1):
        try:
            line = json.loads(text)
            unclear_K = np.asarray([attributes[_INVALID] for attributes in line["attrs"]], bool)
            boxes_K4 = _boxes(line["boxes"])
            if len(unclear_K) != len(boxes_K4):
                raise ValueError(f"{len(boxes_K4)} boxes, {len(unclear_K)} attrs")
            yield Line(base / line["image"], boxes_K4, unclear_K, (int(line["height"]), int(line["width"])))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{file}:{number}: not an annotation ({type(error).__name__}: {error}).") from error


def _wider_text(source: Path, base: Path) -> Iterator[Line]:
    """A name, how many boxes, then ten numbers a box: x y w h, blur, expression, illumination, invalid and two more.

    A picture without faces has a line of zeros.
    """
    opened = gzip.open if source.suffix == ".gz" else open
    try:
        with opened(source, "rt", encoding="utf-8") as file:
            lines = iter(enumerate(file.read().splitlines(), start=1))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read as text ({error}).") from error
    for number, name in lines:
        try:
            count = int(next(lines)[1])
            rows = [[float(word) for word in next(lines)[1].split()[:10]] for _ in range(max(1, count))]
            values = np.array(rows, np.float64).reshape(-1, 10)[:count]
        except (ValueError, StopIteration) as error:
            raise InputError(f"{source}:{number}: not WIDER FACE's form (name, count, ten numbers a box).") from error
        yield Line(base / name.strip(), values[:, :4], values[:, 4 + _INVALID] > 0)


def _wider_mat(source: Path, base: Path) -> Iterator[Line]:
    try:
        mat = loadmat(source)
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise InputError(f"{source}: not WIDER FACE's .mat ({error}).") from error
    try:
        events = [str(event[0]) for event in mat["event_list"][:, 0]]
        for place, event in enumerate(events):
            for number, name in enumerate(mat["file_list"][place, 0][:, 0]):
                boxes_K4 = _boxes(mat["face_bbx_list"][place, 0][number, 0])
                unclear_K = np.asarray(mat["invalid_label_list"][place, 0][number, 0]).ravel() > 0
                yield Line(base / event / f"{name[0]}.jpg", boxes_K4, unclear_K)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{source}: not WIDER FACE's .mat ({type(error).__name__}: {error}).") from error


def _coco(source: Path, base: Path) -> Iterator[Line]:
    """All boxes are faces, whatever their category; those of a crowd (iscrowd) are unclear."""
    try:
        content = json.loads(source.read_text())
        boxes: dict[Any, list[tuple[list[float], bool]]] = {image["id"]: [] for image in content["images"]}
        for one in content["annotations"]:
            boxes[one["image_id"]].append((one["bbox"], bool(one.get("iscrowd", 0))))
        for image in content["images"]:
            here = boxes[image["id"]]
            size_hw = (int(image["height"]), int(image["width"]))
            unclear_K = np.array([unclear for _, unclear in here], bool)
            yield Line(base / image["file_name"], _boxes([box for box, _ in here]), unclear_K, size_hw)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source}: not COCO's form ({type(error).__name__}: {error}).") from error


def _output(source: Path, base: Path) -> Iterator[Line]:
    """Loose pictures on disk of an output of ours: every detection is a face. Archives' members are left out."""
    images, faces = (
        "'" + re.sub(r"[*?\[]", lambda sign: f"[{sign[0]}]", str(source / table)).replace("'", "''") + "/**/*.parquet'"
        for table in ("images", "detections")
    )
    query = (
        f"SELECT uri, width, height, list([x1, y1, x2 - x1, y2 - y1]) FILTER (x1 IS NOT NULL) FROM {images} i "
        f"LEFT JOIN {faces} d USING (image_id, commit) WHERE status = 'ok' AND member IS NULL AND uri LIKE 'file://%' "
        "GROUP BY ALL ORDER BY uri"
    )
    with duckdb.connect() as connection:
        for uri, width, height, boxes in connection.sql(query).fetchall():
            boxes_K4 = _boxes(boxes or [])
            yield Line(Path(uri.removeprefix("file://")), boxes_K4, np.zeros(len(boxes_K4), bool), (height, width))
