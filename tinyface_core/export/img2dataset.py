"""One Parquet file that img2dataset reads with `--url_col url --bbox_col bbox`, to blur the faces of what it downloads.

Boxes are x_min, y_min, x_max, y_max relative to the picture, 0..1, as lists of lists. img2dataset decodes without
turning a picture upright (OpenCV's IMREAD_UNCHANGED) and gives it out so, while our boxes are of the upright picture:
they are turned back where that decoder does not turn. Members of archives have no url of their own and are left out; so
is a picture with an error row, which would go out unblurred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tinyface_core.export.names import Names
from tinyface_core.export.pictures import Picture, Tally

SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("bbox", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
    ]
)
_ROWS = 10_000  # of a row group
_OPENED = ("http://", "https://", "file://")  # by urllib, with which img2dataset downloads
_NOT_TURNED = ("jpeg", "png", "webp")  # by IMREAD_UNCHANGED; TIFF is turned all the same


def write_img2dataset(pictures: Iterable[Picture], file: Path, names: Names, tally: Tally) -> None:
    """The order of pictures is kept; names: not asked, as img2dataset takes urls."""
    rows = _rows(pictures, tally)
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while group := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))


def _rows(pictures: Iterable[Picture], tally: Tally) -> Iterator[dict[str, Any]]:
    for picture in pictures:
        if picture.error_class is not None:
            continue
        if picture.member is not None:
            tally.leaves_out("in archives, where pictures have no url of their own")
            continue
        if not picture.uri.startswith(_OPENED):
            scheme = picture.uri.partition("://")[0]
            tally.note(
                f"img2dataset opens http(s) and file urls: those that begin with {scheme}:// it cannot download."
            )
        yield {"url": _url(picture.uri), "bbox": relative_boxes(picture).tolist(), "image_id": picture.image_id}
        tally.took(picture)


def _url(uri: str) -> str:
    """A path on disk is percent-encoded; other uris are what their store is asked for as they stand."""
    path = uri.removeprefix("file://")
    return "file://" + quote(path) if path != uri else uri


def relative_boxes(picture: Picture) -> NDArray[np.float32]:
    """(K, 4), x_min, y_min, x_max, y_max in 0..1, of the picture as it is decoded without turning it upright."""
    x1, y1, x2, y2 = picture.boxes_K4.T
    width, height = picture.width or 1, picture.height or 1
    x1, y1, x2, y2 = x1 / width, y1 / height, x2 / width, y2 / height
    if picture.format in _NOT_TURNED:
        x1, y1, x2, y2 = _TURNED_BACK.get(picture.exif_orientation or 1, _as_it_is)(x1, y1, x2, y2)
    return np.clip(np.stack([x1, y1, x2, y2], axis=1), 0, 1).astype(np.float32)


def _as_it_is(*edges: Any) -> tuple[Any, ...]:
    return edges


# EXIF orientation -> the edges x1, y1, x2, y2 of the upright picture as edges of the stored one.
_TURNED_BACK: dict[int, Any] = {
    2: lambda x1, y1, x2, y2: (1 - x2, y1, 1 - x1, y2),
    3: lambda x1, y1, x2, y2: (1 - x2, 1 - y2, 1 - x1, 1 - y1),
    4: lambda x1, y1, x2, y2: (x1, 1 - y2, x2, 1 - y1),
    5: lambda x1, y1, x2, y2: (y1, x1, y2, x2),
    6: lambda x1, y1, x2, y2: (y1, 1 - x2, y2, 1 - x1),
    7: lambda x1, y1, x2, y2: (1 - y2, 1 - x2, 1 - y1, 1 - x1),
    8: lambda x1, y1, x2, y2: (1 - y2, x1, 1 - y1, x2),
}
