"""Can 10^7 objects be listed and planned in bounded memory, and in how long?

    python benchmarks/listing.py [--objects 100000 1000000 10000000] [--others 5] [--latency-ms 0] \
        [--answers parsed|xml] [--mixed] [--work DIR] [--json FILE]

A made-up bucket answers the job's own S3 store with pages of 1,000 objects, none of which it keeps; listing, plan and
cut are the job's, the plan lies on this disk. Each size has a process of its own, which

- lists, and does nothing with what it finds;
- makes a plan (first run), as `find_to_do` does;
- lists again and compares with the finished plan, in which nothing changed (second run);
- asks the plan what is to do where every unit is committed, the footers of the tables left out.

Prints a Markdown table. `start MB`: the process before; `peak MB`: its largest resident memory, `own MB` what of that
it allocated (Pss_Anon, looked at every half second). `spool MB`: what it needed of the local temporary folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter
from figures import finish
from soak_watch import own_mb

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "jobs")]

from ray_stages import Reading  # noqa: E402
from tinyface_core.archive.candidates import CandidateFilter  # noqa: E402
from tinyface_core.archive.listing import list_sources  # noqa: E402
from tinyface_core.archive.record import Source, Unit  # noqa: E402
from tinyface_core.archive.signed_urls import SignedUrls  # noqa: E402
from tinyface_core.archive.units import cut_units, unit_size_for, whole_unit  # noqa: E402
from tinyface_core.storage import Storage, StorageOptions  # noqa: E402
from tinyface_core.stores.base import Store  # noqa: E402
from tinyface_core.stores.s3 import S3Store  # noqa: E402
from tinyface_core.stores.s3_client import S3Client  # noqa: E402
from tinyface_core.tables.footer import CommitRecord  # noqa: E402
from tinyface_core.tables.plan import Plan, expected_pictures, sources_hash  # noqa: E402
from tinyface_core.tables.unit_tables import UnitTotals  # noqa: E402
from to_do import ToDo  # noqa: E402

Answers = Literal["parsed", "xml"]
T = TypeVar("T")
PAGE = 1000
INPUT = "s3://made-up/archive/"
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd: no two objects have the same ETag, and none compresses
NEXT_PAGE = 7919  # prime: pages in an order that jumps
app = App(help=__doc__)


@dataclass(frozen=True)
class Bucket:
    """Stands in for the client of the S3 store: answers listings, and keeps no object.

    others: of a hundred objects so many are .txt files, no candidates. latency_s: of each page. answers: `xml` has
    the job's client parse what a server would send. mixed: pages in no order, as the folders of a disk come.
    """

    objects: int
    others: int = 5
    latency_s: float = 0.0
    answers: Answers = "parsed"
    mixed: bool = False

    def call(self, doing: str, uri: str, method: str, patience_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """As `S3Client.call`."""
        if method != "list_objects_v2":
            raise NotImplementedError(method)
        time.sleep(self.latency_s)
        number, pages = int(arguments.get("ContinuationToken", 0)), -(-self.objects // PAGE)
        place = number * NEXT_PAGE % pages if self.mixed else number
        found = list(self._found(place * PAGE, min(self.objects, (place + 1) * PAGE)))
        more = number + 1 < pages
        if self.answers == "xml":
            return self._parse(_xml(found, more, number + 1))
        contents = [
            {"Key": key, "Size": size, "ETag": f'"{etag}"', "LastModified": modified}
            for key, size, etag, modified in found
        ]
        return {"Contents": contents, "IsTruncated": more, "NextContinuationToken": str(number + 1)}

    def _found(self, first: int, stop: int) -> Iterator[tuple[str, int, str, datetime]]:
        for number in range(first, stop):
            ending = "txt" if number % 100 < self.others else "jpg"
            key = f"archive/{number // 10_000:06}/IMG_{number:010}.{ending}"
            modified = FIRST_DAY + timedelta(seconds=number % 100_000_000)
            yield key, 50_000 + number * 7919 % 400_000, f"{number * SPREAD % 2**128:032x}", modified

    @cached_property
    def _parse(self) -> Callable[[bytes], dict[str, Any]]:
        """As the job's client of S3 takes an answer apart, in its loop; it is never connected."""
        client = S3Client(StorageOptions(anonymous=True))
        parser = client.fs.session.get_component("response_parser_factory").create_parser("rest-xml")
        shape = client.fs.s3.meta.service_model.operation_model("ListObjectsV2").output_shape

        def parse(body: bytes) -> dict[str, Any]:
            return client.once(INPUT, lambda: parser.parse({"status_code": 200, "headers": {}, "body": body}, shape))

        return parse


def _xml(found: Iterable[tuple[str, int, str, datetime]], more: bool, following: int) -> bytes:
    """A page as S3 sends it."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key, size, etag, modified in found
    )
    end = f"<NextContinuationToken>{following}</NextContinuationToken><IsTruncated>{str(more).lower()}</IsTruncated>"
    whole = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{entries}{end}</ListBucketResult>'
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + whole.encode()


class MadeUpStore(S3Store):
    """The job's S3 store, but for its client."""

    def __init__(self, bucket: Bucket) -> None:
        self._client = bucket  # type: ignore[assignment]


class MadeUpStorage(Storage):
    """Lists the made-up bucket; the disk is the real one."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self._bucket = bucket

    def _make(self, protocol: str) -> Store:
        return MadeUpStore(self._bucket) if protocol == "s3" else super()._make(protocol)


@dataclass(frozen=True)
class Took:
    """One size, in one process; the columns of the table."""

    objects: int
    candidates: int
    units: int
    list_s: float
    first_s: float
    again_s: float
    to_do_s: float
    plan_mb: float
    start_mb: float
    peak_mb: float
    own_mb: float = 0.0
    spool_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Objects a second, of the first run."""
        return self.objects / self.first_s


def peak_mb() -> float:
    """Of this program: ru_maxrss would count the process that it was forked from."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(action: Callable[[], T]) -> tuple[T, float]:
    began = time.monotonic()
    result = action()
    return result, time.monotonic() - began


def measured(bucket: Bucket, folder: Path) -> Took:
    """Lists, plans, plans again and asks what is to do, in this process; the plan goes into the folder."""
    start_mb = peak_mb()
    storage, candidates = MadeUpStorage(bucket), CandidateFilter()
    plan, skipped = Plan(storage, f"file://{folder}"), Counter[str]()

    def listed() -> Iterator[Source]:
        return list_sources([INPUT], storage, candidates, on_skip=lambda kind: skipped.update([kind]))

    with SignedUrls() as urls:

        def cut(sources: Iterable[Source]) -> Iterator[Unit]:
            size, sources = unit_size_for(sources, lambda source: expected_pictures(whole_unit(source)))
            yield from cut_units(map(urls.signed, sources), storage, candidates, unit_pictures=size)

        _, list_s = timed(lambda: deque(listed(), maxlen=0))
        wanted = bucket.objects - skipped.total()
        first, first_s = timed(lambda: plan.update(urls.noted(listed()), cut))
        again, again_s = timed(lambda: plan.update(urls.noted(listed()), cut))
        records = {unit.name: _committed(unit) for unit in plan.units()}
        reading = Reading(storage, candidates)
        to_do, to_do_s = timed(lambda: ToDo(plan, records, reading, urls, "settings", "", None))
    found = (first.sources_new, again.sources_unchanged, sum(map(len, (unit.sources for unit in plan.units()))))
    if found != (wanted,) * 3 or again.generation is not None or to_do.units:
        raise SystemExit(f"{bucket}: of {wanted} candidates {found} were planned, {to_do.units} units are to do")
    return Took(
        bucket.objects,
        wanted,
        first.units_new,
        list_s,
        first_s,
        again_s,
        to_do_s,
        _mb(folder),
        start_mb,
        peak_mb(),
    )


def _committed(unit: Unit) -> CommitRecord:
    return CommitRecord("", unit.name, "commit", "settings", "model", sources_hash(unit, ""), UnitTotals())


def _mb(folder: Path) -> float:
    """Of all files below; what goes meanwhile counts nothing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += (Path(parent) / name).stat().st_size
    return size / 1e6


@app.command
def child(objects: int, others: int, latency_s: float, answers: Answers, mixed: int, folder: Path) -> None:
    """One size in this process; prints a line of JSON."""
    print(json.dumps(asdict(measured(Bucket(objects, others, latency_s, answers, bool(mixed)), folder))))


def alone(bucket: Bucket, work: Path | None) -> Took:
    """One size in a process of its own, which is looked at meanwhile."""
    arguments = [bucket.objects, bucket.others, bucket.latency_s, bucket.answers, int(bucket.mixed)]
    with tempfile.TemporaryDirectory(prefix="listing-", dir=work) as name:
        output, spool = Path(name) / "output", Path(name) / "spool"
        spool.mkdir()
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "child", *map(str, arguments), str(output)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(spool)},
        )
        own = spooled = 0.0
        while process.poll() is None:
            with suppress(OSError):
                own, spooled = max(own, own_mb(process.pid)), max(spooled, _mb(spool))
            time.sleep(0.5)
        said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{bucket}: the process ended with {process.returncode}")
    return replace(Took(**json.loads(said)), own_mb=own, spool_mb=spooled)


@app.default
def main(
    *,
    objects: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (100_000, 1_000_000, 10_000_000),
    others: int = 5,
    latency_ms: float = 0.0,
    answers: Answers = "parsed",
    mixed: bool = False,
    work: Path | None = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """others: of a hundred objects, how many are no pictures. work: a folder on the disk that is to be used."""
    order = "pages in no order" if mixed else "by key"
    print(f"pages of {PAGE:,}, {order}, {answers}, {latency_ms:g} ms each\n")
    print("| objects | candidates | units | list s | first run s | objects/s | second run s | to do s ", end="")
    print("| start MB | peak MB | own MB | spool MB | plan MB |\n|" + "---:|" * 13, flush=True)
    results = []
    for count in objects:
        took = alone(Bucket(count, others, latency_ms / 1000, answers, mixed), work)
        results.append(asdict(took))
        seconds = f"{took.list_s:.1f} | {took.first_s:.1f} | {took.rate:,.0f} | {took.again_s:.1f} | {took.to_do_s:.1f}"
        memory = f"{took.start_mb:.0f} | {took.peak_mb:.0f} | {took.own_mb:.0f}"
        disk = f"{took.spool_mb:,.0f} | {took.plan_mb:,.1f}"
        counts = f"{took.objects:,} | {took.candidates:,} | {took.units:,}"
        print(f"| {counts} | {seconds} | {memory} | {disk} |", flush=True)
    finish(results, json_file)


if __name__ == "__main__":
    app()
