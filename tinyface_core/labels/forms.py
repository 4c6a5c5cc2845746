"""Annotated pictures in the usual forms: a folder of ours, WIDER FACE's text and .mat, COCO JSON, our own tables.

`read_lines` gives what stands there, a picture a line; what of it is learned from or judged by is for others to say.
Annotations may lie in a store: they are copied to this disk to be read, their pictures are not. Knows no pixels.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from tinyface_core.errors import InputError
from tinyface_core.storage import Storage
from tinyface_core.tables.footer import sql_glob
from tinyface_core.tables.format_version import check_tables

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")  # WIDER's order
_INVALID = ATTRIBUTES.index("invalid")


@dataclass(frozen=True)
class Line:
    """One picture, by its canonical uri. boxes_K4: x, y, width, height, px. picture_hw: None where it is not told.

    attributes_K6: in the order of ATTRIBUTES, 0 where not told.
    """

    uri: str
    boxes_K4: NDArray[np.float64]
    attributes_K6: NDArray[np.int8]
    picture_hw: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """What WIDER calls a picture: its file name without folders and extension."""
        return PurePosixPath(self.uri).stem

    @property
    def path(self) -> Path:
        """Of a picture on this disk."""
        return Path(self.uri.removeprefix("file://"))

    @property
    def invalid_K(self) -> NDArray[np.bool_]:
        """Marked invalid, or a crowd: neither a face nor background."""
        return np.asarray(self.attributes_K6[:, _INVALID] > 0)


def read_lines(
    source: str | Path, pictures: str | Path | None = None, storage: Storage | None = None
) -> Iterator[Line]:
    """The pictures of one source, in its order.

    Args:
        source: path or url of a folder with annotations.jsonl, or an output of the detection job; of a WIDER .txt
            (.gz) or .mat; of a COCO .json.
        pictures: the folder that the paths in it begin at; None: the folder itself, or that of the file.
    Raises:
        InputError: none of these, or a line that is not of its form.
        StorageError, ObjectError: of a source in a store.
    """
    storage = storage or Storage()
    base = picture_folder(source, pictures, storage)
    with _on_disk(str(source), storage) as path:
        try:
            yield from _reader(path)(path, base)
        except InputError as error:
            raise InputError(str(error).replace(str(path), str(source))) from error


def picture_folder(source: str | Path, pictures: str | Path | None, storage: Storage) -> str:
    """The uri that the paths in a source begin at."""
    if pictures is not None:
        return storage.canonical(str(pictures)).rstrip("/")
    uri = storage.canonical(str(source)).rstrip("/")
    on_disk = Path(uri.removeprefix("file://"))
    is_file = on_disk.is_file() if uri.startswith("file://") else PurePosixPath(uri).suffix in _FILES
    return uri.rpartition("/")[0] if is_file else uri


@contextmanager
def _on_disk(source: str, storage: Storage) -> Iterator[Path]:
    """The annotations as files: themselves, or copies of what lies in a store."""
    uri = storage.canonical(source).rstrip("/")
    if uri.startswith("file://"):
        yield Path(uri.removeprefix("file://"))
        return
    with tempfile.TemporaryDirectory(prefix="tinyface-labels-") as folder:
        copy = Path(folder) / PurePosixPath(uri).name
        if PurePosixPath(uri).suffix in _FILES:
            wanted = [uri]
        elif storage.stat(f"{uri}/annotations.jsonl") is not None:
            wanted = [f"{uri}/annotations.jsonl"]
        else:
            wanted = [one.uri for table in ("images", "detections") for one in storage.list(f"{uri}/{table}/")]
        storage.copy_here(wanted, uri.rpartition("/")[0], Path(folder))
        yield copy


def _reader(source: Path) -> Callable[[Path, str], Iterator[Line]]:
    if (source / "annotations.jsonl").is_file():
        return _jsonl
    if (source / "detections").is_dir():
        return _output
    if source.is_file() and source.suffix in _FILES:
        return _FILES[source.suffix]
    raise InputError(
        f"{source}: needs to be a folder with annotations.jsonl, an output of detect_archive.py, WIDER FACE's .txt or "
        ".mat, or a COCO .json."
    )


def _at(base: str, name: str) -> str:
    """The uri of a picture: below base, unless the name is a url or a path from the root."""
    return name if "://" in name else f"file://{name}" if name.startswith("/") else f"{base}/{name}"


def _boxes(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 4)


def _written_boxes(values: Any) -> NDArray[np.float64]:
    """Of JSON, where null and NaN may stand for a number. Raises: ValueError for these: such a face is never found."""
    boxes_K4 = _boxes(values)
    if not np.isfinite(boxes_K4).all():
        raise ValueError(f"a box with what is no number: {values[int(np.argmin(np.isfinite(boxes_K4).all(axis=1)))]}")
    return boxes_K4


def attributes_of(invalid_K: NDArray[np.generic]) -> NDArray[np.int8]:
    """Attributes (K, 6) of boxes of which only that mark is known."""
    attributes_K6 = np.zeros((len(invalid_K), len(ATTRIBUTES)), np.int8)
    attributes_K6[:, _INVALID] = invalid_K
    return attributes_K6


def _jsonl(source: Path, base: str) -> Iterator[Line]:
    file = source / "annotations.jsonl"
    for number, text in enumerate(file.read_text().splitlines(), start=1):
        try:
            yield line_of(json.loads(text), base)
        except NOT_A_LINE as error:
            raise InputError(f"{file}:{number}: not an annotation ({type(error).__name__}: {error}).") from error


NOT_A_LINE = (ValueError, KeyError, TypeError, OverflowError)


def line_of(values: Mapping[str, Any], base: str) -> Line:
    """One line of annotations.jsonl. base: the folder that its path begins at. Raises: one of NOT_A_LINE."""
    boxes_K4 = _written_boxes(values["boxes"])
    attributes_K6 = np.asarray(values["attrs"], np.int8).reshape(-1, len(ATTRIBUTES))
    if len(attributes_K6) != len(boxes_K4):
        raise ValueError(f"{len(boxes_K4)} boxes, {len(attributes_K6)} attrs")
    return Line(_at(base, values["image"]), boxes_K4, attributes_K6, (int(values["height"]), int(values["width"])))


def _wider_text(source: Path, base: str) -> Iterator[Line]:
    """A name, how many boxes, then ten numbers a box: x y w h and the ATTRIBUTES.

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
        yield Line(_at(base, name.strip()), values[:, :4], values[:, 4:].astype(np.int8))


def _wider_mat(source: Path, base: str) -> Iterator[Line]:
    for event, name, cell in wider_cells(source):
        attributes = [cell(f"{attribute}_label_list").ravel() for attribute in ATTRIBUTES]
        boxes_K4 = _boxes(cell("face_bbx_list"))
        yield Line(f"{base}/{event}/{name}.jpg", boxes_K4, np.stack(attributes, axis=1).astype(np.int8))


def wider_cells(source: Path) -> Iterator[tuple[str, str, Callable[[str], NDArray[Any]]]]:
    """(event, picture, the picture's part of a list by the list's name) of one of WIDER FACE's .mat files.

    Raises: InputError, also from the function that is given.
    """
    try:
        mat = loadmat(source)
        events = [str(event[0]) for event in mat["event_list"][:, 0]]
        files = [[str(name[0]) for name in of_event[:, 0]] for of_event in mat["file_list"][:, 0]]
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise InputError(f"{source}: not a .mat of WIDER FACE ({type(error).__name__}: {error}).") from error
    for place, event in enumerate(events):
        for number, name in enumerate(files[place]):

            def cell(key: str, place: int = place, number: int = number) -> NDArray[Any]:
                try:
                    return np.asarray(mat[key][place, 0][number, 0])
                except (KeyError, IndexError) as error:
                    raise InputError(f"{source}: not a .mat of WIDER FACE (without {error}).") from error

            yield event, name, cell


def _coco(source: Path, base: str) -> Iterator[Line]:
    """All boxes are faces, whatever their category; those of a crowd (iscrowd) count as invalid."""
    try:
        content = json.loads(source.read_text())
        boxes: dict[Any, list[tuple[list[float], int]]] = {image["id"]: [] for image in content["images"]}
        for one in content["annotations"]:
            boxes[one["image_id"]].append((one["bbox"], one.get("iscrowd", 0)))
        for image in content["images"]:
            here = boxes[image["id"]]
            attributes_K6 = attributes_of(np.array([crowd for _, crowd in here]))
            size_hw = (int(image["height"]), int(image["width"]))
            yield Line(_at(base, image["file_name"]), _written_boxes([box for box, _ in here]), attributes_K6, size_hw)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source}: not COCO's form ({type(error).__name__}: {error}).") from error


def _output(source: Path, base: str) -> Iterator[Line]:
    """Loose pictures of an output of ours: every detection is a face. Archives' members are left out."""
    images, faces = (sql_glob(str(source), table) for table in ("images", "detections"))
    query = (
        f"SELECT uri, width, height, list([x1, y1, x2 - x1, y2 - y1]) FILTER (x1 IS NOT NULL) FROM {images} i "
        f"LEFT JOIN {faces} d USING (image_id, commit) WHERE status = 'ok' AND member IS NULL "
        "GROUP BY ALL ORDER BY uri"
    )
    with duckdb.connect() as connection:
        check_tables(connection, images)
        for uri, width, height, boxes in connection.sql(query).fetchall():
            boxes_K4 = _boxes(boxes or [])
            nothing_K6 = attributes_of(np.zeros(len(boxes_K4)))
            yield Line(uri, boxes_K4, nothing_K6, (height, width))


_FILES = {".txt": _wider_text, ".gz": _wider_text, ".mat": _wider_mat, ".json": _coco}
