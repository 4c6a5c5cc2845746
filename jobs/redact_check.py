"""The residual check: a sample of the copies through the detection chain, as their originals went through it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import signals
from ray_chain import faces_in, rows_from
from ray_stages import Detecting, Reading, work_item
from ray_start import Pool
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.redact.pictures import Examined, examined
from tinyface_core.redact.residual import Residual, drawn, residual_of
from tinyface_core.redact.results import ResultFiles
from tinyface_core.report.text import counted
from tinyface_core.storage import Storage
from tinyface_core.tables.collect import UnitCollector
from tinyface_core.tables.footer import CommitRecord

log = logging.getLogger(__name__)
ITEMS = 256  # at most; each is read by one task
NAMED = 20  # copies that run.json names
_COLUMNS = ["image_id", "path", "size_bytes", "sha256", "faces_masked", "unit"]


@dataclass(frozen=True)
class Checking:
    """What the check needs to know."""

    storage: Storage
    results: ResultFiles
    detecting: Detecting
    pool: Pool
    min_score: float | None

    def check(self, records: Mapping[str, CommitRecord], count: int, seed: int) -> dict[str, Any]:
        """What there is to say in run.json of a sample of `count` copies with masked faces."""
        sample = {self._uri(row): row for row in drawn(self._copies(), count, seed)}
        log.info("searching for faces again, in copies of %s", counted(len(sample), "picture"))
        masked = self._masked(sample.values(), records)
        total, worst, unread = Residual(), list[tuple[int, str]](), 0
        for uri, boxes_L4 in self._found(sample):
            if boxes_L4 is None:
                unread += 1
                continue
            here = residual_of(masked[sample[uri]["image_id"]].faces.boxes_K4, boxes_L4)
            total += here
            worst += [(here.again, sample[uri]["path"])] if here.again else []
        return {
            "asked": count,
            "seed": seed,
            "copies": total.pictures,
            "not_checked": len(sample) - total.pictures,
            "unreadable": unread,
            "masked_faces": total.masked,
            "found_again": total.again,
            "found_elsewhere": total.others,
            "residual_rate": total.rate,
            "interval_95": total.interval,
            "most_found_again": [path for _, path in sorted(worst, key=lambda each: (-each[0], each[1]))[:NAMED]],
        }

    def _copies(self) -> Iterator[dict[str, Any]]:
        """Rows of copies in which something was masked: only these can show what a mask has missed."""
        for table in self.results.tables(_COLUMNS):
            yield from table.filter(pc.greater(table["faces_masked"], 0)).to_pylist()

    def _uri(self, row: Mapping[str, Any]) -> str:
        return f"{self.results.destination_uri}/{row['path']}"

    def _masked(self, rows: Collection[Mapping[str, Any]], records: Mapping[str, CommitRecord]) -> dict[str, Examined]:
        """image_id -> picture with the faces that were masked."""
        wanted = {row["image_id"]: row["unit"] for row in rows}
        found: dict[str, Examined] = {}
        for unit in sorted(set(wanted.values())):
            all_of_unit = examined(self.storage, records[unit], self.min_score)
            found |= {name: each for name, each in all_of_unit.items() if name in wanted}
        return found

    def _found(self, sample: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, np.ndarray[Any, Any] | None]]:
        """uri -> boxes that the detector gives now; None where the copy is not what its row says."""
        if not sample:
            return
        sources = [Source(uri, Kind.PICTURE, row["size_bytes"]) for uri, row in sample.items()]
        step = -(-len(sources) // ITEMS)
        units = [Unit(tuple(sources[at : at + step])) for at in range(0, len(sources), step)]
        reading = Reading(self.storage, CandidateFilter(all_files=True))
        collector = UnitCollector()
        chain = faces_in([work_item(unit, ()) for unit in units], reading, self.detecting, self.pool)
        for table in rows_from(chain, self.pool):
            signals.check()
            for _, rows in collector.add(table):
                yield from _boxes(rows, sample)


def _boxes(rows: pa.Table, sample: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, np.ndarray[Any, Any] | None]]:
    for row in rows.filter(pc.equal(rows["kind"], "record")).to_pylist():
        is_sound = row["status"] == "ok" and row["sha256"] == sample[row["uri"]]["sha256"]
        corners = [[face[name] for name in ("x1", "y1", "x2", "y2")] for face in row["faces"] or ()]
        yield row["uri"], np.array(corners, np.float32).reshape(-1, 4) if is_sound else None


def told(check: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The check as lines of the last screen."""
    if not check["masked_faces"]:
        return [("residual", "no copy with masked faces could be checked")]
    low, high = check["interval_95"]
    rate = f"{check['residual_rate']:.2%} of masked faces are found again (95 %: {low:.2%} to {high:.2%})"
    of = f"{check['found_again']:,} of {check['masked_faces']:,} in {check['copies']:,} copies"
    elsewhere = f"{counted(check['found_elsewhere'], 'face')} found beside the masks"
    lines = [("residual", f"{rate}: {of}"), ("elsewhere", elsewhere)]
    if check["not_checked"]:
        lines.append(("unchecked", f"{check['not_checked']:,} copies of the sample could not be checked"))
    return lines
