"""Output folder, plan and claim on a real S3 server: no rename, no folders, times in whole seconds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice

import pytest

from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import ClaimError, OutputError
from tinyface_core.storage import Storage, StorageOptions
from tinyface_core.tables.claim import Claim, ClaimTimes
from tinyface_core.tables.output import OutputFolder, OutputState
from tinyface_core.tables.plan import Plan
from tinyface_core.tables.process import ProcessId

pytestmark = pytest.mark.integration

TIMES = ClaimTimes(renew_s=0.3, lose_s=10, silent_s=20, retry_s=0.5, recheck_s=0)
ELSEWHERE = ProcessId("other-host", "other-boot", "pid:[1]", 4321, 12.5)


@pytest.fixture
def output(bucket: str) -> str:
    return f"s3://{bucket}/faces, all"


def keys(output: str) -> list[str]:
    return [info.uri.removeprefix(f"{output}/") for info in Storage().list(output)]


def put_claim(output: str, process: ProcessId) -> str:
    uri = f"{output}/_run/claims/{'0' * 32}"
    about = {**asdict(process), "holds": True, "since": "2026-11-24T10:00:00+00:00"}
    Storage().write(uri, json.dumps(about).encode())
    return uri


def test_looking_at_an_output_leaves_nothing_and_finds_whose_it_is(output: str) -> None:
    folder = OutputFolder(Storage(), output)
    assert folder.check() is OutputState.EMPTY
    assert keys(output) == []
    folder.write_settings({"min_score": 0.5})
    assert folder.check() is OutputState.OURS
    assert keys(output) == ["_run/settings.json"]
    Storage().write(f"{output} 2/a.jpg", b"x")
    assert keys(output) == ["_run/settings.json"], "a neighbour whose name begins alike is not ours"
    with pytest.raises(OutputError, match=r"a\.jpg"):
        OutputFolder(Storage(), f"{output} 2").check()
    with pytest.raises(OutputError, match="cannot be looked into"):
        OutputFolder(Storage(StorageOptions(anonymous=True)), output).check()


def test_a_plan_is_kept_and_extended(output: str) -> None:
    def cut(sources: Iterable[Source]) -> Iterator[Unit]:
        iterator = iter(sources)
        while batch := tuple(islice(iterator, 100)):
            yield Unit(batch)

    def listing(count: int, version: str) -> list[Source]:
        return [Source(f"s3://in/{number:04d}.jpg", Kind.PICTURE, 5, version) for number in range(count)]

    Plan(Storage(), output).update(listing(250, "1"), cut)
    assert keys(output) == ["_run/plan/000001-0.parquet", "_run/plan/000001.complete"]
    change = Plan(Storage(), output).update([*listing(100, "2"), *listing(260, "1")[100:]], cut)
    assert (change.sources_new, change.sources_changed, change.units_new, change.units_changed) == (10, 100, 1, 1)
    Storage().write(f"{output}/_run/plan/000003-0.parquet", b"of a killed run")
    units = list(Plan(Storage(), output).units())
    assert sorted(source.uri for unit in units for source in unit.sources) == [s.uri for s in listing(260, "")]
    assert sum(source.version == "2" for unit in units for source in unit.sources) == 100


def test_a_claim_is_renewed_refused_to_others_and_given_back(output: str) -> None:
    with Claim(Storage(), output, times=TIMES) as claim:
        with pytest.raises(ClaimError, match="at work"):
            Claim(Storage(), output, times=TIMES).__enter__()
        claim.guarded().write(f"{output}/images/a", b"x")
        (key,) = [key for key in keys(output) if key.startswith("_run/claims/")]
        Storage().delete(f"{output}/{key}")
        with pytest.raises(ClaimError, match="taken or deleted"):
            claim.guarded().delete(f"{output}/images/a")
    assert keys(output) == ["images/a"]


def test_the_claim_of_a_dead_process_of_this_host_holds_nobody_up(output: str) -> None:
    own = ProcessId.own()
    put_claim(output, replace(own, start_s=own.start_s - 100))
    began = time.monotonic()
    with Claim(Storage(), output, times=ClaimTimes(), on_wait=pytest.fail):
        assert time.monotonic() - began < 10


def test_a_claim_from_elsewhere_is_refused_while_renewed_and_taken_when_silent(output: str) -> None:
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.3):
            put_claim(output, ELSEWHERE)

    put_claim(output, ELSEWHERE)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(ClaimError, match=r"at work on it.*other-host, pid 4321"):
            Claim(Storage(), output, times=TIMES).__enter__()
    finally:
        ended.set()
        thread.join()
    told: list[str] = []
    began = time.monotonic()
    with Claim(Storage(), output, times=replace(TIMES, silent_s=5), on_wait=told.append):
        assert 3 < time.monotonic() - began < 15
    assert len(told) == 1
    assert keys(output) == []


def test_never_two_newcomers_hold_at_once(output: str) -> None:
    inside: list[int] = []
    wrong: list[list[int]] = []
    turns: list[int] = []
    stop = time.monotonic() + 8

    def drive(host: int) -> None:
        while time.monotonic() < stop:
            claim = Claim(Storage(), output, times=TIMES, on_wait=lambda _: None)
            claim._process = ProcessId(f"host-{host}", "elsewhere", "", host, 0.0)
            try:
                with claim:
                    inside.append(host)
                    wrong.extend([list(inside)] if len(inside) > 1 else [])
                    time.sleep(0.1)
                    claim.check()
                    inside.remove(host)
                    turns.append(host)
            except ClaimError:
                continue

    threads = [threading.Thread(target=drive, args=(host,)) for host in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert turns
    assert keys(output) == []
