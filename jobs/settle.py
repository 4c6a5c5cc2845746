"""What the chain did not bring, tried again: finer each time, down to one picture in a process of its own.

A detector that dies takes its block with it, and Ray drops that in silence. The collector knows what is missing.
First the missing pictures go through the chain again, each in a block of its own, so that a deadly one takes no
neighbour along. What still fails runs alone, bounded in time; what fails there becomes an error row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from ray_chain import STALLED_S, await_detector, faces_in, rows_from
from ray_stages import Detecting, Reading, detect_alone, read_alone, work_item
from ray_start import Pool
from tinyface_core.archive.read import broken
from tinyface_core.archive.record import Record, Unit, UnitEnd, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, Stage, StopRun
from tinyface_core.tables.collect import UnitCollector
from tinyface_core.tables.rows import RowBuilder, records_table

log = logging.getLogger(__name__)

ALONE_MOST = 1000  # pictures; each costs a process and a model load
PARTS = 32  # a unit of 1,000 pictures comes down to single ones in two rounds

Indexes = Mapping[str, frozenset[int]]  # unit -> missing indexes
Wanted = Mapping[str, frozenset[int] | None]  # the same; None: nobody knows how many there are
Whole = tuple[str, pa.Table]


@dataclass(frozen=True)
class Settling:
    """The stages to run again, and with what. remember: told of pictures that go into a process of their own."""

    reading: Reading
    detecting: Detecting
    pool: Pool
    remember: Callable[[Indexes], None]

    def settle(self, units: Mapping[str, Unit], collector: UnitCollector, suspects: Indexes) -> Iterator[Whole]:
        """Makes every one of `units` whole that the collector has not given yet.

        suspects: what an earlier run has seen failing in the chain: straight to processes of their own.
        """
        for name in suspects.keys() & units.keys():
            yield from self._alone(units[name], suspects[name], collector)
        before, parts = -1, 1
        while (missing := missing_in(units, collector)) and _size(missing) != before:
            before = _size(missing)
            log.warning("%d units are not whole: what they lack is tried again, one picture a block", len(missing))
            yield from self._through_chain(units, missing, parts, collector)
            for name in [name for name, indexes in missing_in(units, collector).items() if indexes is None]:
                yield from self._end_of(units[name], collector)
            parts = PARTS
        left = {name: indexes for name, indexes in missing.items() if indexes is not None}
        if left:
            self._check_cluster(sum(map(len, left.values())))
        self.remember(left)
        for name, indexes in left.items():
            yield from self._alone(units[name], indexes, collector)

    def _check_cluster(self, pictures: int) -> None:
        """Raises StopRun where it is the cluster that fails, or good pictures would end as error rows."""
        if pictures > ALONE_MOST:
            raise StopRun(
                f"{pictures:,} pictures got no result though tried again: so many are not at fault themselves. "
                "See Ray's logs for why its workers die; what is committed stays, the same command resumes."
            )
        await_detector(self.pool)

    def _through_chain(
        self, units: Mapping[str, Unit], wanted: Wanted, parts: int, collector: UnitCollector
    ) -> Iterator[Whole]:
        """parts: how many tasks share the reading of one unit, so that a reader that dies takes fewer along."""
        carried = self.reading.carried
        work = [
            work_item(units[name], carried, part) for name, indexes in wanted.items() for part in split(indexes, parts)
        ]
        one_a_block = replace(self.reading, block_bytes=1)
        for table in rows_from(faces_in(work, one_a_block, self.detecting, self.pool), self.pool):
            yield from collector.add(table)

    def _end_of(self, unit: Unit, collector: UnitCollector) -> Iterator[Whole]:
        """How many pictures a unit has of which no reader saw the end; where none can, its archive counts as broken."""
        if unit.is_loose:
            end = records_table(unit.name, [UnitEnd(len(unit.present))], self.reading.carried)
            yield from collector.add(RowBuilder(end, self.reading.carried).table())
            return
        end = _within_limits(self._process_for(read_alone), unit, frozenset(), self.reading)
        if isinstance(end, PictureError):
            missing = collector.missing().get(unit.name)
            index = missing.known if missing else 0
            rows = self._rows_of(broken(unit, index, replace(end, stage=Stage.READ)), unit, end=index + 1)
        else:
            rows = RowBuilder(end, self.reading.carried).table()
        yield from collector.add(rows)

    def _process_for(self, function: Callable[..., Any]) -> ray.remote_function.RemoteFunction:
        pool = self.pool
        return ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_retries=0, max_calls=1)(function)

    def _alone(self, unit: Unit, indexes: frozenset[int], collector: UnitCollector) -> Iterator[Whole]:
        """These pictures of a unit, one after the other, each in its own processes."""
        if unit.is_loose:  # an earlier run may have seen more of them
            indexes = frozenset(index for index in indexes if index < len(unit.present))
        read, detect = self._process_for(read_alone), self._process_for(detect_alone)
        for index in sorted(indexes):
            told = {"unit": unit.name, "index": index}
            log.warning("unit %s, picture %d: tried in a process of its own", unit.name, index, extra=told)
            records = _within_limits(read, unit, frozenset([index]), self.reading)
            if isinstance(records, PictureError):
                yield from collector.add(self._rows_of(_unreadable(unit, index, records), unit))
                continue
            rows = _within_limits(detect, records, self.detecting)
            if isinstance(rows, PictureError):
                builder = RowBuilder(records, self.reading.carried)
                for row, _ in builder.encoded():
                    builder.add(row, rows)
                rows = builder.table()
            yield from collector.add(rows)

    def _rows_of(self, record: Record, unit: Unit, end: int | None = None) -> pa.Table:
        values: list[Record | UnitEnd] = [record] if end is None else [record, UnitEnd(end)]
        return RowBuilder(records_table(unit.name, values, self.reading.carried), self.reading.carried).table()


def split(indexes: frozenset[int] | None, parts: int) -> list[frozenset[int] | None]:
    """Neighbours stay together: they are read together."""
    if indexes is None:
        return [None]
    ordered = sorted(indexes)
    size = max(1, -(-len(ordered) // parts))
    return [frozenset(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def missing_in(units: Mapping[str, Unit], collector: UnitCollector) -> dict[str, frozenset[int] | None]:
    """What is missing of the units that are not whole."""
    held = collector.missing()
    result: dict[str, frozenset[int] | None] = {}
    for name in units:
        if name in held:
            known = held[name].count is not None
            result[name] = frozenset(held[name].indexes_K.tolist()) if known else None
        elif not collector.is_whole(name):
            result[name] = None
    return result


def _within_limits(task: ray.remote_function.RemoteFunction, *args: object) -> pa.Table | PictureError:
    """The task's table, or why its process gave none. Raises StopRun when its own code failed: a bug, or a bad node."""
    reference = task.remote(*args)
    try:
        table: pa.Table = ray.get(reference, timeout=STALLED_S)
        return table
    except GetTimeoutError:
        ray.cancel(reference, force=True)
        return PictureError(Stage.DETECT, ErrorClass.TIMED_OUT, f"no result within {STALLED_S} s, alone in a process")
    except OutOfMemoryError as error:
        return PictureError(Stage.DETECT, ErrorClass.OUT_OF_MEMORY, f"alone in a process: {_first_line(error)}")
    except (WorkerCrashedError, NodeDiedError) as error:
        return PictureError(Stage.DETECT, ErrorClass.INTERNAL, f"its process died, alone: {_first_line(error)}")
    except RayTaskError as error:
        raise StopRun(f"a worker failed, and not for a picture's sake: {_first_line(error.cause or error)}") from error
    except RayError as error:
        raise StopRun(f"Ray failed: {_first_line(error)}") from error


def _unreadable(unit: Unit, index: int, error: PictureError) -> Record:
    """The record of a picture whose very reading takes a process down: named by place, since its name is not known."""
    error = replace(error, stage=Stage.READ)
    loose = unit.is_loose
    source = unit.present[index if loose else 0]
    place = index if unit.part is None else unit.part.first(index + 1)[index]
    member = None if loose else f"[{(unit.start or 0) + place}]"
    image_id = image_id_of(source.uri, member.encode() if member else None)
    return Record(
        index,
        source.uri,
        member,
        image_id,
        data=None,
        size_bytes=source.size_bytes if loose else None,
        source_version=source.version,
        source_modified=source.modified,
        carried=source.carried,
        error=error,
    )


def _size(missing: Wanted) -> int:
    return sum(1 << 30 if indexes is None else len(indexes) for indexes in missing.values())


def _first_line(error: object) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
