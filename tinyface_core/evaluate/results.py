"""Detections to be judged: out of our tables, or WIDER FACE's text files (`wider_text.py`), which are written too."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tinyface_core.boxes import nms
from tinyface_core.errors import InputError
from tinyface_core.evaluate.matching import Found
from tinyface_core.evaluate.truth import picture_name
from tinyface_core.evaluate.wider_text import result_text
from tinyface_core.storage import Storage
from tinyface_core.tables.footer import sql_glob
from tinyface_core.tables.format_version import check_tables
from tinyface_core.tables.output import SETTINGS

_READ = (".parquet", ".json", ".txt")


@contextmanager
def on_disk(results: str, storage: Storage) -> Iterator[Path]:
    """Results as a folder: itself, or, of those in a store, a copy of their tables, settings and text.

    Raises:
        InputError: nothing there. StorageError, ObjectError: of a store.
    """
    uri = storage.canonical(results).rstrip("/")
    if uri.startswith("file://"):
        yield Path(uri.removeprefix("file://"))
        return
    with tempfile.TemporaryDirectory(prefix="tinyface-results-") as folder:
        copy = Path(folder) / PurePosixPath(uri).name
        wanted = [one.uri for one in storage.list(f"{uri}/") if PurePosixPath(one.uri).suffix in _READ]
        storage.copy_here(wanted, uri, copy)
        if not copy.is_dir():
            raise InputError(f"{results}: no results there.")
        yield copy


def read_output(output: Path, name_of: Callable[[str], str] = picture_name) -> dict[str, Found]:
    """The faces of an output of the detection job, by picture; pictures with an error row have none.

    Args:
        name_of: what to call a picture, of its member or uri.
    Raises:
        InputError: no tables there, or two pictures of one name.
    """
    if not list((output / "images").glob("**/*.parquet")):
        raise InputError(f"{output}: no output of detect_archive.py: nothing in images/.")
    images, detections = (sql_glob(str(output), table) for table in ("images", "detections"))
    with duckdb.connect() as connection:
        check_tables(connection, images)
        pictures = connection.execute(f"SELECT image_id, coalesce(member, uri) FROM {images}").fetchall()
        faces: pa.Table = connection.sql(
            f"SELECT image_id, x1, y1, x2 - x1 AS w, y2 - y1 AS h, score FROM {detections} d "
            f"JOIN {images} i USING (image_id, commit) ORDER BY image_id"
        ).to_arrow_table()
    boxes_K4 = np.column_stack([faces[name].to_numpy() for name in ("x1", "y1", "w", "h")]).astype(np.float64)
    scores_K = faces["score"].to_numpy().astype(np.float64)
    ids = faces["image_id"].to_numpy()
    begins = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])) if len(ids) else np.zeros(0, int)
    spans = {ids[begin]: slice(begin, end) for begin, end in zip(begins, np.append(begins[1:], len(ids)), strict=True)}
    found: dict[str, Found] = {}
    for image_id, path in pictures:
        name, span = name_of(path), spans.get(image_id, slice(0, 0))
        if name in found:
            raise InputError(f"{output}: two pictures are called {name}: annotations could not tell them apart.")
        found[name] = Found(boxes_K4[span], scores_K[span])
    return found


def read_settings(output: Path) -> dict[str, Any]:
    """The settings that an output was made with. Raises: InputError where there are none."""
    file = output / SETTINGS
    try:
        return dict(json.loads(file.read_bytes())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{output}: no settings of detect_archive.py in {SETTINGS} ({error}).") from error


def read_text(folder: Path) -> dict[str, Found]:
    """WIDER's result files below a folder, one a picture. Raises: InputError naming the file and the line."""
    found: dict[str, Found] = {}
    for file in sorted(folder.rglob("*.txt")):
        lines = file.read_text().splitlines()
        try:
            rows = [[float(word) for word in line.split()] for line in lines[2:] if line.strip()]
            count = int(lines[1])
            values_K5 = np.array(rows, np.float64).reshape(-1, 5)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{file}: not a result of WIDER FACE ({error}): name, count, then x y w h score."
            ) from error
        if len(values_K5) != count:
            raise InputError(f"{file}: says {count} faces and has {len(values_K5)}.")
        found[picture_name(lines[0].strip() or file.name)] = Found(values_K5[:, :4], values_K5[:, 4])
    if not found:
        raise InputError(f"{folder}: no .txt files of results.")
    return found


def write_text(found: dict[str, Found], folder: Path, events: dict[str, str] | None = None) -> None:
    """One file a picture, best first, in a folder for each event; events: picture name -> folder."""
    for name, here in found.items():
        file = folder / (events or {}).get(name, "") / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(result_text(name, here.boxes_K4, here.scores_K))


def together(parts: list[dict[str, Found]], nms_iou: float) -> dict[str, Found]:
    """Detections of several runs as one, e.g. of a peer at two scales: all boxes, then greedy NMS."""
    boxes: defaultdict[str, list[Found]] = defaultdict(list)
    for part in parts:
        for name, found in part.items():
            boxes[name].append(found)
    return {name: _suppressed(of_picture, nms_iou) for name, of_picture in boxes.items()}


def _suppressed(found: list[Found], nms_iou: float) -> Found:
    boxes_K4: NDArray[np.float64] = np.concatenate([part.boxes_K4 for part in found])
    scores_K = np.concatenate([part.scores_K for part in found])
    corners_K4 = np.concatenate([boxes_K4[:, :2], boxes_K4[:, :2] + boxes_K4[:, 2:]], axis=1)
    kept = nms(torch.from_numpy(corners_K4), torch.from_numpy(scores_K), nms_iou).numpy()
    return Found(boxes_K4[kept], scores_K[kept])
