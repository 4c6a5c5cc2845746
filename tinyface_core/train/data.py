"""Training pictures and their faces: what of annotations can be learned from, and the pixels, decoded once.

Knows neither the forms of annotations (labels/forms.py) nor crops.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.errors import InputError
from tinyface_core.labels.forms import Line, picture_folder, read_lines

CACHE_FORMAT = 1


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture: its file, size, and boxes (K, 4) float32 xyxy in continuous px. unclear_M4: marked invalid."""

    path: Path
    picture_hw: tuple[int, int]
    faces_K4: NDArray[np.float32]
    unclear_M4: NDArray[np.float32]


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
    """The pictures of one source, in its order, and what was left out. Arguments as of `labels.forms.read_lines`.

    Raises:
        InputError: as read_lines; no picture that can be read.
    """
    found, left_out = list[AnnotatedPicture](), Counter[str]()
    for line in read_lines(source, pictures):
        if (one := _annotated(line, left_out)) is not None:
            found.append(one)
    if not found:
        base = picture_folder(source, pictures)
        raise InputError(f"{source}: no picture of it can be read below {base}. Name the pictures' folder: --pictures.")
    return found, DataCheck(len(found), sum(len(one.faces_K4) for one in found), +left_out)


def _annotated(line: Line, left_out: Counter[str]) -> AnnotatedPicture | None:
    """What can be learned from a line; None for a picture that is not there or no picture."""
    picture_hw = _size_of(line)
    if picture_hw is None:
        left_out["pictures that are not there, or are none"] += 1
        return None
    height, width = picture_hw
    corners_K4 = np.concatenate([line.boxes_K4[:, :2], line.boxes_K4[:, :2] + line.boxes_K4[:, 2:]], axis=1)
    solid_K = (line.boxes_K4[:, 2:] > 0).all(axis=1)
    clipped_K4 = np.clip(corners_K4, 0, (width, height, width, height))
    inside_K = solid_K & (clipped_K4[:, 2:] > clipped_K4[:, :2]).all(axis=1)
    left_out["empty boxes"] += int((~solid_K).sum())
    left_out["boxes outside the picture"] += int((solid_K & ~inside_K).sum())
    left_out["boxes marked invalid (neither face nor background)"] += int((inside_K & line.invalid_K).sum())
    boxes_K4 = corners_K4.astype(np.float32)
    faces_K4, unclear_M4 = boxes_K4[inside_K & ~line.invalid_K], boxes_K4[inside_K & line.invalid_K]
    return AnnotatedPicture(line.path, picture_hw, faces_K4, unclear_M4)


def _size_of(line: Line) -> tuple[int, int] | None:
    if line.picture_hw is not None:
        return line.picture_hw if line.path.is_file() else None
    try:
        with Image.open(line.path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


class PictureCache:
    """The decoded pixels of a list of pictures, in one flat uint8 file of the given folder; built when missing.

    The file is named by the pictures' paths, sizes and modification times, so a changed set gets a file of its own.
    Several processes may build it at once: the last one to finish wins, with the same bytes.
    """

    def __init__(self, pictures: Sequence[AnnotatedPicture], folder: Path) -> None:
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


def _fingerprint(pictures: Sequence[AnnotatedPicture]) -> str:
    digest = hashlib.blake2b(str(CACHE_FORMAT).encode(), digest_size=8)
    for picture in pictures:
        try:
            state = picture.path.stat()
        except OSError as error:
            raise InputError(f"{picture.path}: named by the annotations, but {error.strerror}.") from error
        digest.update(
            f"{picture.path.resolve()}\0{picture.picture_hw}\0{state.st_size}\0{state.st_mtime_ns}\0".encode()
        )
    return digest.hexdigest()


def _decoded(pictures: Sequence[AnnotatedPicture]) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        try:
            with Image.open(picture.path) as image:
                pixels_HW3 = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise InputError(f"{picture.path}: cannot be decoded ({error}). Take it out of the annotations.") from error
        if pixels_HW3.shape[:2] != picture.picture_hw:
            found, needed = pixels_HW3.shape[:2], picture.picture_hw
            raise InputError(f"{picture.path}: is {found} (height, width), its annotation says {needed}.")
        yield pixels_HW3
