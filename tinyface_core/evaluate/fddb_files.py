"""FDDB's annotation and detections to be judged by it: the files, read and written. METHOD, sections 5 and 6.

FDDB's two text forms, by the README that comes with it: the picture's name (a path without extension), how many faces
it has, then a line a face; the annotation's are `major minor angle x y 1`, those of results `x y width height score` or
`major minor angle x y score`, px and radians. Half axes, not whole ones; the angle is that of our own tables but for a
multiple of pi (fddb_overlap.py), and is written in -pi/2..pi/2 as FDDB's files have it.

FDDB does not say where in a pixel its coordinates begin; they are taken as they stand, which is half a pixel at most.
Its 2,845 pictures have 1,507 file names, so a picture is known by its path's end. One of its 5,171 faces is a circle
of 1 px at (0, 0), in 2002/07/24/big/img_67, which nobody will find: it counts, as it does in FDDB's own code.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TextIO

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinyface_core.errors import InputError
from tinyface_core.tables.footer import sql_glob
from tinyface_core.tables.format_version import check_tables

FOLDS, LINES_FILE = "FDDB-fold-*-ellipseList.txt", "ellipses.jsonl"
_ELLIPSE = ("ellipse_major", "ellipse_minor", "ellipse_angle", "ellipse_cx", "ellipse_cy")
_BOX = ("x1", "y1", "x2 - x1", "y2 - y1")
_EXTENSION = re.compile(r"\.(jpe?g|png|webp|tiff?|bmp|gif|ppm|heic|avif)$", re.IGNORECASE)
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error)
_LOOKED_AT = 4096  # characters of a file, to tell what it is

Floats = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Faces:
    """Annotated faces of one picture: ellipses_F5 float64 (major, minor, angle, x, y), px and radians.

    fold: 1..10, 0 where it is not told. picture_hw: height and width, px; None where it is not told.
    """

    ellipses_F5: Floats
    fold: int = 0
    picture_hw: Size | None = None


@dataclass(frozen=True)
class Found:
    """Detections of one picture: regions_KR float64, px; boxes (x, y, width, height), or ellipses as in Faces.

    scores_K: any real numbers, in any order. picture_hw: as in Faces.
    """

    regions_KR: Floats
    scores_K: Floats
    picture_hw: Size | None = None


def is_fddb(path: Path) -> bool:
    """Whether this is FDDB's annotation, by the names in a folder or the first lines of a file; raises nothing."""
    if path.is_dir():
        return any(path.glob(FOLDS)) or _lines_file(path) is not None
    try:
        with _opened(path) as file:
            begin = file.read(_LOOKED_AT).splitlines()
    except _UNREADABLE:
        return False
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        return bool(begin) and '"ellipses"' in begin[0]
    words = [len(line.split()) for line in begin[:3]]
    return words == [1, 1, 6] and path.name.removesuffix(".gz").endswith(".txt")  # WIDER's have ten numbers a face


def read_truth(source: Path) -> dict[str, Faces]:
    """FDDB's annotation by picture name, all folds together, in the order of the files.

    Args:
        source: the folder with FDDB-fold-01-ellipseList.txt to 10 (those that are there are read), or with
            ellipses.jsonl(.gz); or one such file.
    Raises:
        InputError: none of these, or a line that is not of its form, named with its file.
    """
    files: list[Path | None] = [source]
    if source.is_dir():
        files = [*sorted(source.glob(FOLDS))] or [_lines_file(source)]
    pictures: dict[str, Faces] = {}
    for file in files:
        if file is None or not file.is_file():
            raise InputError(f"{source}: needs FDDB-fold-01-ellipseList.txt, ..., or {LINES_FILE}(.gz).")
        read = _from_lines(file) if file.name.removesuffix(".gz").endswith(".jsonl") else _from_folds(file)
        for name, number, faces in read:
            if name in pictures:
                raise InputError(f"{file}:{number}: {name} is annotated a second time.")
            if not ((faces.ellipses_F5[:, :2] > 0).all() and np.isfinite(faces.ellipses_F5).all()):
                raise InputError(f"{file}:{number}: {name} has a face without size, or one that is not finite.")
            pictures[name] = faces
    return pictures


def read_results(source: Path, *, boxes: bool = False) -> dict[str, Found]:
    """Detections by picture name.

    Args:
        source: an output of detect_archive.py (its ellipses; its boxes if `boxes`), or FDDB's text, rectangles or
            ellipses by the number of columns: one file, or a folder of them. Pictures with an error row have no faces.
    Raises:
        InputError: neither, a line that is not of its form, named with its file, or two pictures of one name.
    """
    if (source / "images").is_dir():
        return _from_tables(source, _BOX if boxes else _ELLIPSE)
    files = sorted(source.rglob("*.txt")) if source.is_dir() else [source]
    found: dict[str, Found] = {}
    for file in files:
        for name, number, values_KC in _blocks(file, (5, 6)):
            if name in found:
                raise InputError(f"{file}:{number}: {name} has results already.")
            regions_KR = values_KC[:, :-1]
            if (regions_KR[:, 2:] if regions_KR.shape[1] == 4 else regions_KR[:, :2]).min(initial=0) < 0:
                raise InputError(f"{file}:{number}: {name} has a region of negative size.")
            found[name] = Found(regions_KR, values_KC[:, -1])
    if not found:
        raise InputError(f"{source}: no results: needs an output of detect_archive.py, or FDDB's text in .txt files.")
    return found


def write_text(found: Mapping[str, Found], names: Sequence[str], file: Path) -> None:
    """FDDB's text of results: pictures in the order of `names`, as its code wants them, faces best first.

    Boxes become rectangles and ellipses ellipses; a picture without results has none. Nine digits: all of a float32.
    """
    lines = []
    for name in names:
        lines += result_lines(name, found.get(name, Found(np.zeros((0, 5)), np.zeros(0))))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, ""]))


def result_lines(name: str, here: Found) -> list[str]:
    """One picture of FDDB's text of results, faces best first."""
    rows_KC = np.column_stack([here.regions_KR, here.scores_K])[np.argsort(-here.scores_K, kind="stable")]
    if rows_KC.shape[1] == 6:
        rows_KC[:, 2] = (rows_KC[:, 2] + math.pi / 2) % math.pi - math.pi / 2
    return [name, str(len(rows_KC)), *(" ".join(f"{value:.9g}" for value in row) for row in rows_KC)]


def picture_name(path: str) -> str:
    """What FDDB calls a picture: its path without extension."""
    return _EXTENSION.sub("", path.strip())


def annotated_name(path: str, names: Collection[str]) -> str | None:
    """The one of `names` that a path ends in, whole folders at a time: the longest. None if there is none."""
    parts = PurePosixPath(picture_name(path)).parts
    ends = ("/".join(parts[begin:]) for begin in range(len(parts)))
    return next((end for end in ends if end in names), None)


def _opened(file: Path) -> TextIO:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def _lines_file(folder: Path) -> Path | None:
    return next((folder / name for name in (LINES_FILE, LINES_FILE + ".gz") if (folder / name).is_file()), None)


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of each line that is not empty. Raises: InputError."""
    try:
        with _opened(file) as opened:
            return [(number, text.strip()) for number, text in enumerate(opened, start=1) if text.strip()]
    except _UNREADABLE as error:
        raise InputError(f"{file}: cannot be read as text ({error}).") from error


def _blocks(file: Path, columns: Sequence[int]) -> Iterator[tuple[str, int, Floats]]:
    """(name, its line, a row a face) of each picture; all rows of a file have one of these numbers of columns."""
    lines = iter(_lines(file))
    width = 0
    for begin, name in lines:
        number, text = next(lines, (begin, "the end of the file"))
        if not text.isdecimal():
            raise InputError(f"{file}:{number}: needs the number of faces in {name!r}, is {text!r}.")
        rows = []
        for place in range(int(text)):
            number, text = next(lines, (number, "the end of the file"))
            try:
                row = [float(word) for word in text.split()]
            except ValueError:
                row = []
            if len(row) not in ((width,) if width else columns) or not all(map(math.isfinite, row)):
                needed = " or ".join(map(str, (width,) if width else columns))
                raise InputError(f"{file}:{number}: needs {needed} numbers, face {place + 1} of {name}, is {text!r}.")
            width = len(row)
            rows.append(row)
        yield picture_name(name), begin, np.array(rows, np.float64).reshape(-1, width or columns[0])


def _from_folds(file: Path) -> Iterator[tuple[str, int, Faces]]:
    """(name, line, faces) of each picture of a list of FDDB's."""
    fold = re.match(FOLDS.replace("*", "([0-9]+)"), file.name)
    for name, number, values_F6 in _blocks(file, (6,)):
        yield name, number, Faces(values_F6[:, :5], int(fold[1]) if fold else 0)


def _from_lines(file: Path) -> Iterator[tuple[str, int, Faces]]:
    """The same of an object a line: image, ellipses, and fold, width and height, which may be null."""
    for number, text in _lines(file):
        try:
            line = json.loads(text)
            ellipses_F5 = np.array(line["ellipses"], np.float64).reshape(-1, 5)
            size = (int(line["height"]), int(line["width"])) if line.get("height") and line.get("width") else None
            yield picture_name(line["image"]), number, Faces(ellipses_F5, int(line.get("fold") or 0), size)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}:{number}: not an annotation ({type(error).__name__}: {error}).") from error


def _from_tables(output: Path, columns: Sequence[str]) -> dict[str, Found]:
    """Columns of the detections by the whole path of their picture, or its name in the archive."""
    if not any((output / "images").glob("**/*.parquet")):
        raise InputError(f"{output}: no output of detect_archive.py: nothing in images/.")
    images, detections = (sql_glob(str(output), table) for table in ("images", "detections"))
    with duckdb.connect() as connection:
        check_tables(connection, images)
        query = f"SELECT image_id, coalesce(member, uri), height, width FROM {images}"
        pictures = connection.execute(query).fetchall()
        faces: pa.Table = connection.sql(
            f"SELECT image_id, score, {', '.join(f'{column} AS c{place}' for place, column in enumerate(columns))} "
            f"FROM {detections} d JOIN {images} i USING (image_id, commit) ORDER BY image_id"
        ).to_arrow_table()
    values_KR = np.column_stack([faces[f"c{place}"].to_numpy() for place in range(len(columns))]).astype(np.float64)
    scores_K = faces["score"].to_numpy().astype(np.float64)
    ids_I, begins_I = np.unique(faces["image_id"].to_numpy().astype(str), return_index=True)
    spans = dict(zip(ids_I.tolist(), pairwise([*begins_I.tolist(), len(scores_K)]), strict=True))
    found: dict[str, Found] = {}
    for image_id, path, height, width in pictures:
        name, span = picture_name(path), slice(*spans.get(image_id, (0, 0)))
        if name in found:
            raise InputError(f"{output}: two pictures are called {name}: annotations could not tell them apart.")
        found[name] = Found(values_KR[span], scores_K[span], (height, width) if height and width else None)
    return found
