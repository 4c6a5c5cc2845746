"""Training pictures and their faces, decoded once into one memory-mapped file. Knows neither forms nor crops."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.errors import InputError

CACHE_FORMAT = 1


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture: its file, size, and boxes (K, 4) float32 xyxy in continuous px. unclear_M4: marked invalid."""

    path: Path
    picture_hw: tuple[int, int]
    faces_K4: NDArray[np.float32]
    unclear_M4: NDArray[np.float32]


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
