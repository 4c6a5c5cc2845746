"""The stages of the detection job as Ray Data calls them: callables around the core, and nothing else.

No exception and no crash may leave them for one picture's sake: Ray would retry it without end or drop its block
in silence. What concerns one picture is a value in its row; what must end the run is a row of kind "stop".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from ray_metrics import KeptGauges, StageSeconds, count_retries
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Part, Record, Unit, UnitEnd
from tinyface_core.detect.options import DetectOptions, Runtime
from tinyface_core.errors import InputError, PictureError, StorageError
from tinyface_core.forecast.timing import PictureTimes, time_pictures
from tinyface_core.logs import Logs, about, current
from tinyface_core.model.locate import ModelAddress, fetch
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits
from tinyface_core.storage import Storage
from tinyface_core.tables.plan_rows import unit_rows, units_from
from tinyface_core.tables.rows import RowBuilder, records_table, stop_table
from tinyface_core.tables.schema import record_schema

if TYPE_CHECKING:
    from tinyface_core.detect.guarded import GuardedDetector

BLOCK_BYTES = 1 << 20  # encoded bytes that go to a detector at once: some seconds of a CPU, and even shares for all


@dataclass(frozen=True)
class Reading:
    """What readers need to know. carried: the --carry columns. block_bytes: what goes to a detector at once."""

    storage: Storage
    candidates: CandidateFilter
    carried: tuple[pa.Field, ...] = ()
    block_bytes: int = BLOCK_BYTES
    logs: Logs = field(default_factory=current)

    @property
    def carry(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.carried)


@dataclass(frozen=True)
class Detecting:
    """What detectors need to know. model_copies: where else the model lies; decoders: child processes of each."""

    model: ModelAddress
    model_copies: tuple[str, ...]
    storage: Storage
    runtime: Runtime
    options: DetectOptions
    limits: Limits
    carried: tuple[pa.Field, ...] = ()
    threads: int = 1
    decoders: int = 1
    logs: Logs = field(default_factory=current)


def work_item(unit: Unit, carried: tuple[pa.Field, ...], only: frozenset[int] | None = None) -> dict[str, bytes]:
    """One item of work: a unit, or some of its records (`only`: their indexes). Packed: from_items keeps no types."""
    narrowed = {"only": only, "part": None if unit.part is None else unit.part.indexes}
    row = pa.table(unit_rows([unit], carried))
    for name, indexes in narrowed.items():
        row = row.append_column(name, pa.array([None if indexes is None else sorted(indexes)], pa.list_(pa.int32())))
    # No plan holds these.
    signed = [source.signed_url for source in unit.sources] if any(s.signed_url for s in unit.sources) else None
    row = row.append_column("signed_urls", pa.array([signed], pa.list_(pa.string())))
    row = row.append_column("onward", pa.array([None if unit.part is None else unit.part.onward], pa.int32()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as stream:
        stream.write_table(row)
    return {"work": sink.getvalue().to_pybytes()}


def read_units(work: pa.Table, reading: Reading) -> Iterator[pa.Table]:
    """Items of work -> records, in tables of about block_bytes; each unit ends with its marker."""
    seconds = begin_stage(reading.logs)
    for packed in work["work"].to_pylist():
        unit, wanted = unpacked(packed)
        held: list[Record | UnitEnd] = []
        held_bytes = 0
        records = read_unit(unit, reading.storage, reading.candidates, carry=reading.carry, only=wanted)
        try:
            for record in seconds.timed("read", records):
                held.append(record)
                held_bytes += len(record.data or b"") if isinstance(record, Record) else 0
                if held_bytes >= reading.block_bytes:
                    seconds.tell()
                    yield records_table(unit.name, held, reading.carried)
                    held, held_bytes = [], 0
            seconds.tell()
            yield records_table(unit.name, held, reading.carried)
        except StorageError as error:
            yield stop_table(unit.name, error.told(), record_schema(reading.carried))
        except InputError as error:
            yield stop_table(unit.name, str(error), record_schema(reading.carried))


def begin_stage(logs: Logs) -> StageSeconds:
    """In the process of a stage: it logs as its run does, and counts what its stores try again."""
    logs.take_over("ray")
    count_retries()
    return StageSeconds()


def unpacked(work: bytes) -> tuple[Unit, frozenset[int] | None]:
    """The unit, and which of its records are wanted, of a `work_item`."""
    row = pa.ipc.open_stream(work).read_all()
    (unit,) = units_from(row)
    only, part, onward, signed = (row[name][0].as_py() for name in ("only", "part", "onward", "signed_urls"))
    if signed is not None:
        sources = (replace(source, signed_url=url) for source, url in zip(unit.sources, signed, strict=True))
        unit = replace(unit, sources=tuple(sources))
    if part is not None:
        unit = replace(unit, part=Part(frozenset(part), onward))
    return unit, None if only is None else frozenset(only)


class DetectFaces:
    """The actor: holds one detector and decodes ahead of it. Records -> rows, one a picture."""

    def __init__(self, detecting: Detecting) -> None:
        self.seconds = begin_stage(detecting.logs)
        self.detect = _detector(detecting)
        self.carried = detecting.carried
        self.decoders = DecodePool(detecting.decoders, detecting.limits).__enter__()
        self.gauges = KeptGauges()
        self.gauges.set("tinyface_detectors", 1)

    def __call__(self, records: pa.Table) -> pa.Table:
        rows, decoded_s = RowBuilder(records, self.carried), self.decoders.decode_s
        units, indexes = (records[name].to_pylist() for name in ("unit", "index"))
        for row, picture in self.decoders.decode_ahead(rows.encoded()):
            if isinstance(picture, PictureError):
                rows.add(row, picture)
                continue
            began = time.perf_counter()
            with about(unit=units[row], index=indexes[row]):
                found = self.detect(picture)
            detect_s = time.perf_counter() - began
            rows.add(row, picture, found, detect_s)
            self.seconds.add("detect", detect_s)
        self.seconds.add("decode", self.decoders.decode_s - decoded_s)
        self.seconds.tell()
        return rows.table()


def _detector(detecting: Detecting) -> GuardedDetector:
    # Here alone, as torch takes a second and more, and 120 MB: readers and the driver do without.
    from tinyface_core.detect.guarded import GuardedDetector

    path = fetch(detecting.model, detecting.storage, detecting.model_copies)
    return GuardedDetector(path, detecting.options, detecting.runtime, detecting.threads)


def time_sample(units: Sequence[Unit], reading: Reading, detecting: Detecting) -> list[PictureTimes]:
    """How long each step takes on these units' pictures, here."""
    detect, limits = _detector(detecting), detecting.limits
    return time_pictures(units, reading.storage, reading.candidates, reading.carry, limits, detect)


def read_alone(unit: Unit, only: frozenset[int], reading: Reading) -> pa.Table:
    """The records of one unit at these indexes, and its end."""
    work = pa.Table.from_pylist([work_item(unit, reading.carried, only)])
    return pa.concat_tables(read_units(work, reading))


def detect_alone(records: pa.Table, detecting: Detecting) -> pa.Table:
    """Their rows."""
    return DetectFaces(detecting)(records)
