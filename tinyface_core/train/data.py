"""Training pictures and their faces: what of annotations can be learned from, and the pixels, decoded once.

Knows neither the forms of annotations (labels/forms.py) nor crops.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.errors import InputError
from tinyface_core.labels.forms import Line, picture_folder, read_lines
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Picture
from tinyface_core.storage import ObjectError, Storage

CACHE_FORMAT = 2
_READERS = 16  # a store answers many at once
_ORIENTATION = 0x0112  # EXIF's tag; from 5 on the upright picture is turned by a quarter


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture, its size upright, and boxes (K, 4) float32 xyxy in continuous px. unclear_M4: marked invalid.

    uri, version: of its file, as storage.py has them.
    """

    uri: str
    picture_hw: tuple[int, int]
    faces_K4: NDArray[np.float32]
    unclear_M4: NDArray[np.float32]
    version: str | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        return PurePosixPath(self.uri).name

    @property
    def path(self) -> Path:
        """Of a picture on this disk."""
        return Path(self.uri.removeprefix("file://"))


@dataclass(frozen=True)
class DataCheck:
    """What a data set holds, and what of it was left out, by reason."""

    pictures: int
    faces: int
    left_out: Counter[str]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.left_out.items()))
        return f"{self.pictures:,} pictures with {self.faces:,} faces; left out: {reasons or 'nothing'}"


def read_annotated(
    source: str | Path, pictures: str | Path | None = None, storage: Storage | None = None
) -> tuple[list[AnnotatedPicture], DataCheck]:
    """The pictures of one source, in its order, and what was left out. Arguments as of `labels.forms.read_lines`.

    Raises:
        InputError: as read_lines; no picture that can be read.
    """
    storage = storage or Storage()
    found, check = annotated(read_lines(source, pictures, storage), storage)
    if not found:
        base = picture_folder(source, pictures, storage)
        raise InputError(f"{source}: no picture of it can be read below {base}. Name the pictures' folder: --pictures.")
    return found, check


def annotated(lines: Iterable[Line], storage: Storage) -> tuple[list[AnnotatedPicture], DataCheck]:
    """The pictures of these lines that are there, in their order, and what was left out."""
    left_out = Counter[str]()
    with ThreadPoolExecutor(_READERS) as pool:
        looked_at = pool.map(lambda line: (line, *_look_at(line, storage)), lines)
        found = [one for seen in looked_at if (one := _annotated(*seen, left_out)) is not None]
    return found, DataCheck(len(found), sum(len(one.faces_K4) for one in found), +left_out)


def _look_at(line: Line, storage: Storage) -> tuple[tuple[int, int] | None, str | None]:
    """(upright height and width, version) of a line's picture; None, None when it is not there or no picture."""
    info = storage.stat(line.uri)
    if info is None:
        return None, None
    if line.picture_hw is not None:
        return line.picture_hw, info.version
    try:
        with storage.open(line.uri) as file, Image.open(file) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) >= 5
            return (picture.width, picture.height) if turned else (picture.height, picture.width), info.version
    except (OSError, ValueError, Image.DecompressionBombError, ObjectError):
        return None, None


def _annotated(
    line: Line, picture_hw: tuple[int, int] | None, version: str | None, left_out: Counter[str]
) -> AnnotatedPicture | None:
    """What can be learned from a line; None for a picture that is not there or no picture."""
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
    return AnnotatedPicture(line.uri, picture_hw, faces_K4, unclear_M4, version)


class PictureCache:
    """The decoded pixels of a list of pictures, in one flat uint8 file of the given folder; built when missing.

    The file is named by the pictures' uris, sizes and versions, so a changed set gets a file of its own.
    Several processes may build it at once: the last one to finish wins, with the same bytes. faces_P: how many faces
    each picture has.
    """

    def __init__(self, pictures: Sequence[AnnotatedPicture], folder: Path, storage: Storage | None = None) -> None:
        sizes = [height * width * 3 for height, width in (picture.picture_hw for picture in pictures)]
        self.pictures = tuple(pictures)
        self._offsets = np.cumsum([0, *sizes])
        path = folder / f"pictures-{_fingerprint(pictures)}.u8"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            with unfinished.open("wb") as file:
                for pixels_HW3 in decoded(pictures, storage or Storage()):
                    file.write(pixels_HW3.tobytes())
            unfinished.rename(path)
        self._pixels = np.memmap(path, np.uint8, "r")
        self.faces_P = np.array([len(picture.faces_K4) for picture in pictures], np.float64)

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels_HW3(self, index: int) -> NDArray[np.uint8]:
        """RGB of one picture, (height, width, 3), a view of the file: nothing is read before it is used."""
        begin, end = self._offsets[index : index + 2]
        return self._pixels[begin:end].reshape(*self.pictures[index].picture_hw, 3)


def _fingerprint(pictures: Sequence[AnnotatedPicture]) -> str:
    digest = hashlib.blake2b(str(CACHE_FORMAT).encode(), digest_size=8)
    for picture in pictures:
        digest.update(f"{picture.uri}\0{picture.picture_hw}\0{picture.version}\0".encode())
    return digest.hexdigest()


def decoded(pictures: Sequence[AnnotatedPicture], storage: Storage) -> Iterator[NDArray[np.uint8]]:
    """RGB (H, W, 3) of each picture, upright, in order; files are read ahead.

    Raises:
        InputError: one is gone, another version, no picture, or not of the size that its annotation says.
    """

    def read(picture: AnnotatedPicture) -> bytes:
        try:
            return storage.read(picture.uri, picture.version)
        except ObjectError as error:
            raise InputError(f"{picture.uri}: named by the annotations, but {error}.") from error

    with ThreadPoolExecutor(_READERS) as pool:
        for begin in range(0, len(pictures), _READERS):
            few = pictures[begin : begin + _READERS]
            for picture, data in zip(few, pool.map(read, few), strict=True):
                found = decode(data)
                if not isinstance(found, Picture):
                    raise InputError(
                        f"{picture.uri}: cannot be decoded ({found.message}). Take it out of the annotations."
                    )
                if (size := found.rgb_HW3.shape[:2]) != picture.picture_hw:
                    needed = picture.picture_hw
                    raise InputError(f"{picture.uri}: is {size} (height, width) upright, its annotation says {needed}.")
                yield found.rgb_HW3
