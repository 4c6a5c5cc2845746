"""Training pictures and their faces: annotated folders, decoded once into one memory-mapped file.

A folder holds `annotations.jsonl`, one JSON object a line: image (path in the folder), width, height (px), boxes
[[x, y, w, h], ...] and attrs [[blur, expression, illumination, invalid, occlusion, pose], ...]. A box without width
or height is dropped; one marked invalid is no face, and no background either. This file knows nothing of crops.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.errors import InputError

CACHE_FORMAT = 1
_INVALID = 3  # place of the invalid mark among a box's attributes


@dataclass(frozen=True)
class Annotated:
    """One picture: its file, size, and boxes (K, 4) float32 xyxy in continuous px. unclear_M4: marked invalid."""

    path: Path
    picture_hw: tuple[int, int]
    faces_K4: NDArray[np.float32]
    unclear_M4: NDArray[np.float32]


def read_annotations(folder: Path) -> list[Annotated]:
    """The folder's pictures in the order of its annotations.

    Raises:
        InputError: no annotations.jsonl, or a line that is not of the form above; names the line.
    """
    file = folder / "annotations.jsonl"
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{folder}: needs an annotations.jsonl ({error}).") from error
    pictures = []
    for number, line in enumerate(lines, start=1):
        try:
            pictures.append(_annotated(folder, json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{file}:{number}: not an annotation ({type(error).__name__}: {error}).") from error
    return pictures


def _annotated(folder: Path, line: dict[str, Any]) -> Annotated:
    xywh = np.asarray(line["boxes"], np.float32).reshape(-1, 4)
    invalid = np.asarray([attributes[_INVALID] for attributes in line["attrs"]], bool)
    if len(invalid) != len(xywh):
        raise ValueError(f"{len(xywh)} boxes, {len(invalid)} attrs")
    boxes_K4 = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    solid = (xywh[:, 2:] > 0).all(axis=1)
    size_hw = (int(line["height"]), int(line["width"]))
    return Annotated(folder / line["image"], size_hw, boxes_K4[solid & ~invalid], boxes_K4[solid & invalid])


class PictureCache:
    """The decoded pixels of a list of pictures, in one flat uint8 file of the given folder; built when missing.

    The file is named by the pictures' paths, sizes and modification times, so a changed set gets a file of its own.
    Several processes may build it at once: the last one to finish wins, with the same bytes.
    """

    def __init__(self, pictures: Sequence[Annotated], folder: Path) -> None:
        sizes = [height * width * 3 for height, width in (picture.picture_hw for picture in pictures)]
        self.pictures = tuple(pictures)
        self._offsets = np.cumsum([0, *sizes])
        path = folder / f"pictures-{_fingerprint(pictures)}.u8"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            with unfinished.open("wb") as file:
                for pixels_HW3 in _decoded(pictures):
                    file.write(pixels_HW3.tobytes())
            unfinished.rename(path)
        self._pixels = np.memmap(path, np.uint8, "r")

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels_HW3(self, index: int) -> NDArray[np.uint8]:
        """RGB of one picture, (height, width, 3), a view of the file: nothing is read before it is used."""
        begin, end = self._offsets[index : index + 2]
        return self._pixels[begin:end].reshape(*self.pictures[index].picture_hw, 3)


def _fingerprint(pictures: Sequence[Annotated]) -> str:
    digest = hashlib.blake2b(str(CACHE_FORMAT).encode(), digest_size=8)
    for picture in pictures:
        try:
            state = picture.path.stat()
        except OSError as error:
            raise InputError(f"{picture.path}: named by annotations.jsonl, but {error.strerror}.") from error
        digest.update(
            f"{picture.path.resolve()}\0{picture.picture_hw}\0{state.st_size}\0{state.st_mtime_ns}\0".encode()
        )
    return digest.hexdigest()


def _decoded(pictures: Sequence[Annotated]) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        try:
            with Image.open(picture.path) as image:
                pixels_HW3 = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{picture.path}: cannot be decoded ({error}). Take it out of annotations.jsonl."
            ) from error
        if pixels_HW3.shape[:2] != picture.picture_hw:
            found, needed = pixels_HW3.shape[:2], picture.picture_hw
            raise InputError(f"{picture.path}: is {found} (height, width), annotations.jsonl says {needed}.")
        yield pixels_HW3
