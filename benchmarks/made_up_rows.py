"""Rows of a made-up archive, as detectors send them: half of it loose pictures below many prefixes, half tars.

More than half of the pictures show no face, some a few, one in 300 hundreds; faces are 5 to 200 px high, by a
log-normal draw; some pictures are error rows, in one tar every fifth. Knows no file and no table.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tinyface_core.archive.record import Kind, Source, Unit, UnitEnd, image_id_of
from tinyface_core.detect.ellipse import inscribed
from tinyface_core.tables.rows import RowBuilder, records_table
from tinyface_core.tables.schema import row_schema

GROUP = 10  # units of a prefix, or of a tar
BAD_TAR = "s3://archive/shards/00001.tar"
ERROR_SHARE, BAD_SHARE = 0.002, 0.2
ERRORS = (("decode", "truncated"), ("decode", "corrupt"), ("read", "unreadable"), ("decode", "not_an_image"))
SIZES_WH = np.array([(640, 480), (1024, 683), (1920, 1080), (2048, 1536), (4032, 3024)])
ZOOMS = [0.25, 0.5, 1.0, 2.0]
EDGES_PX, SMALL_PX = (10, 20, 40, 140), 15
FIRST_DAY_US = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp() * 1e6)


@dataclass(frozen=True)
class MadeUp:
    """A unit, its rows as detectors send them, and what is known of them."""

    unit: Unit
    rows: pa.Table
    known: Counter[str]


def made_up(number: int, pictures: int) -> MadeUp:
    """The unit of this number, always the same."""
    random = np.random.default_rng(number)
    unit, names = _unit(number, pictures)
    failed_N = random.random(pictures) < (BAD_SHARE if unit.sources[0].uri == BAD_TAR else ERROR_SHARE)
    wh_N2 = random.choice(SIZES_WH, pictures)
    faces_N = np.where(failed_N, 0, _face_counts(random, pictures))
    faces, height_K = _faces(random, faces_N, wh_N2)
    small_N = np.bincount(np.repeat(np.arange(pictures), faces_N)[height_K < SMALL_PX], minlength=pictures)
    by_height = np.bincount(np.searchsorted(EDGES_PX, height_K, side="right"), minlength=len(EDGES_PX) + 1)
    known = Counter(pictures=pictures, errors=int(failed_N.sum()), faces=int(faces_N.sum()))
    known.update({"pictures with small faces": int((small_N > 0).sum())})
    known.update(dict(zip([*(f"under {edge}" for edge in EDGES_PX), "larger"], by_height.tolist(), strict=True)))
    columns = _picture_columns(random, unit, names, failed_N, wh_N2)
    columns |= {"num_faces": pa.array(faces_N, pa.int32()), "faces": faces}
    schema = row_schema()
    missing = {name: pa.nulls(pictures, schema.field(name).type) for name in set(schema.names) - columns.keys()}
    records = pa.table({name: (columns | missing)[name] for name in schema.names}, schema=schema)
    end = RowBuilder(records_table(unit.name, [UnitEnd(pictures)])).table()
    return MadeUp(unit, pa.concat_tables([records, end]).combine_chunks(), known)


def _unit(number: int, pictures: int) -> tuple[Unit, list[tuple[str, str | None]]]:
    """The unit, and (uri, member) of its pictures."""
    group, first = number // GROUP, number % GROUP * pictures
    if group % 2:
        uri = f"s3://archive/shards/{group:05}.tar"
        names = [(uri, f"{group:05}/{index:06}.jpg") for index in range(first, first + pictures)]
        return Unit((Source(uri, Kind.TAR),), first, first + pictures), list(names)
    loose = [f"s3://archive/photos/{group:05}/{index:06}.jpg" for index in range(first, first + pictures)]
    return Unit(tuple(Source(uri, Kind.PICTURE) for uri in loose)), [(uri, None) for uri in loose]


def _face_counts(random: np.random.Generator, pictures: int) -> NDArray[np.int64]:
    """Of each picture: mostly none, some 1 to 5, few up to 40, one in 300 a crowd."""
    draw_N, few_N = random.random(pictures), np.minimum(5, random.geometric(0.45, pictures))
    some_N, crowd_N = random.integers(6, 41, pictures), random.integers(100, 401, pictures)
    return np.select([draw_N < 0.58, draw_N < 0.967, draw_N < 0.997], [np.zeros_like(few_N), few_N, some_N], crowd_N)


def _faces(
    random: np.random.Generator, faces_N: NDArray[np.int64], wh_N2: NDArray[np.int64]
) -> tuple[pa.ListArray, NDArray[np.float32]]:
    """The faces of all pictures, best score first in each, and their heights as the table tells them."""
    count, picture_K = int(faces_N.sum()), np.repeat(np.arange(len(faces_N)), faces_N)
    height_K = np.clip(np.exp(random.normal(np.log(28), 0.8, count)), 5, 200)
    size_K2 = np.stack([height_K * random.uniform(0.65, 0.95, count), height_K], axis=1)
    corner_K2 = random.random((count, 2)) * (wh_N2[picture_K] - size_K2)
    boxes_K4 = np.concatenate([corner_K2, corner_K2 + size_K2], axis=1).astype(np.float32)
    score_K = random.beta(2, 1, count).astype(np.float32)
    ellipses = inscribed(boxes_K4)
    by_name = dict(zip(("x1", "y1", "x2", "y2"), boxes_K4.T.copy(), strict=True))
    by_name |= {"score": score_K[np.lexsort((-score_K, picture_K))], "template": random.integers(0, 25, count)}
    by_name |= {"zoom": random.choice(ZOOMS, count), "ellipse_cx": ellipses.cx_K, "ellipse_cy": ellipses.cy_K}
    by_name |= {"ellipse_major": ellipses.major_K, "ellipse_minor": ellipses.minor_K}
    by_name |= {"ellipse_angle": ellipses.angle_K, "ellipse_source": np.full(count, "inscribed", object)}
    kind = row_schema().field("faces").type
    fields = list(kind.value_type)
    flat = pa.StructArray.from_arrays([pa.array(by_name[one.name]).cast(one.type) for one in fields], fields=fields)
    offsets = pa.array(np.concatenate([[0], np.cumsum(faces_N)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, flat, type=kind), boxes_K4[:, 3] - boxes_K4[:, 1]


def _picture_columns(
    random: np.random.Generator,
    unit: Unit,
    names: list[tuple[str, str | None]],
    failed_N: NDArray[np.bool_],
    wh_N2: NDArray[np.int64],
) -> dict[str, pa.Array]:
    count, failed = len(names), failed_N.tolist()
    digests = random.bytes(32 * count).hex()
    sums = [digests[place : place + 64] for place in range(0, len(digests), 64)]
    when_us = FIRST_DAY_US + random.integers(0, 10**14, count) // 10**6 * 10**6
    error = ERRORS[int(random.integers(len(ERRORS)))]
    texts = {
        "unit": [unit.name] * count,
        "kind": ["record"] * count,
        "image_id": [image_id_of(uri, member.encode() if member else None) for uri, member in names],
        "uri": [uri for uri, _ in names],
        "member": [member for _, member in names],
        "sha256": sums,
        "source_version": [one[:32] for one in (sums if unit.is_loose else sums[:1] * count)],
        "format": ["png" if place % 20 == 7 else "jpeg" for place in range(count)],
        "status": ["error" if one else "ok" for one in failed],
        "error_stage": [error[0] if one else None for one in failed],
        "error_class": [error[1] if one else None for one in failed],
        "error_message": ["the data ends early, at byte 4096" if one else None for one in failed],
    }
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    modified_us = when_us if unit.is_loose else np.full(count, when_us[0])
    return columns | {
        "index": pa.array(np.arange(count), pa.int32()),
        "size_bytes": pa.array(np.exp(random.normal(12, 1, count)).astype(np.int64)),
        "source_modified": pa.array(modified_us, pa.timestamp("us", tz="UTC")),
        "taken_at": pa.array(when_us - 10**9, pa.timestamp("us"), mask=random.random(count) < 0.3),
        "width": pa.array(wh_N2[:, 0], pa.int32(), mask=failed_N),
        "height": pa.array(wh_N2[:, 1], pa.int32(), mask=failed_N),
        "exif_orientation": pa.array(np.ones(count), pa.int8(), mask=failed_N),
        "zooms": pa.array([None if one else ZOOMS for one in failed], pa.list_(pa.float32())),
        "min_face_px": pa.array(np.full(count, 9.5), pa.float32(), mask=failed_N),
    }
