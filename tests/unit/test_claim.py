"""One driver at a time, by force: real processes, killed and stopped; claims from elsewhere by files we write."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tinyface_core.errors import ClaimError, StorageError
from tinyface_core.storage import ObjectInfo, ObjectMissing, Storage
from tinyface_core.tables.claim import Claim, ClaimTimes
from tinyface_core.tables.process import ProcessId

QUICK = ClaimTimes(renew_s=0.1, lose_s=60, silent_s=90, retry_s=0.2, recheck_s=0)
ELSEWHERE = ProcessId("other-host", "other-boot", "pid:[1]", 4321, 12.5)

HOLDER = """
import sys, time
from pathlib import Path
from tinyface_core.errors import ClaimError
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim, ClaimTimes
folder, lose_s = Path(sys.argv[1]), float(sys.argv[2])
try:
    with Claim(Storage(), f"file://{folder}", times=ClaimTimes(renew_s=0.1, lose_s=lose_s, retry_s=0.3)) as claim:
        print("holds", flush=True)
        while not (folder / "release").exists():
            claim.check()
            time.sleep(0.01)
except ClaimError as error:
    print(error, flush=True)
    sys.exit(1)
"""


def claim_on(folder: Path, times: ClaimTimes = QUICK, **more: Any) -> Claim:
    return Claim(Storage(), f"file://{folder}", times=times, **more)


def claims(folder: Path) -> list[Path]:
    place = folder / "_run/claims"
    return sorted(place.iterdir()) if place.exists() else []


def put_claim(
    folder: Path, process: ProcessId, *, age_s: float = 0.0, holds: bool = True, name: str = "0" * 32
) -> Path:
    """A claim file as another driver leaves it, whose age by the store's clock is `age_s`."""
    file = folder / "_run/claims" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**asdict(process), "holds": holds, "since": "2026-11-24T10:00:00+00:00"}))
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def wait_for(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    stop = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts drivers that take the claim, say so, and hold it until the file `release` lies in the folder."""
    started: list[subprocess.Popen[str]] = []

    def run(lose_s: float = 60.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(lose_s)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_claim_is_taken_kept_and_given_back(tmp_path: Path) -> None:
    with claim_on(tmp_path) as claim:
        (file,) = claims(tmp_path)
        assert json.loads(file.read_text())["pid"] == os.getpid()
        before = file.stat().st_mtime_ns
        wait_for(lambda: file.stat().st_mtime_ns > before)
        claim.check()
    assert claims(tmp_path) == []
    with pytest.raises(ClaimError, match="not held"):
        claim.check()


def test_of_drivers_started_together_exactly_one_works_and_the_others_name_it(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    drivers = [start() for _ in range(3)]
    wait_for(lambda: sum(driver.poll() is not None for driver in drivers) == 2)
    (holder,) = [driver for driver in drivers if driver.poll() is None]
    lines = [said(driver) for driver in drivers if driver is not holder]
    assert said(holder) == "holds\n"
    assert all(f"pid {holder.pid}, since" in line and "at work" in line for line in lines)
    assert all(driver.returncode == 1 for driver in drivers if driver is not holder)
    (tmp_path / "release").touch()
    assert holder.wait(30) == 0
    assert claims(tmp_path) == []


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "zombie"])
def test_a_killed_holder_holds_nobody_up_on_the_same_host(
    collected: bool, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """At the real times: nobody waits for 90 s."""
    holder = start()
    assert said(holder) == "holds\n"
    holder.send_signal(signal.SIGKILL)
    if collected:
        holder.wait()
    else:
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert len(claims(tmp_path)) == 1
    began = time.monotonic()
    with claim_on(tmp_path, ClaimTimes(), on_wait=pytest.fail):
        assert time.monotonic() - began < 5
        assert len(claims(tmp_path)) == 1


def test_a_stopped_holder_is_refused_and_when_it_goes_on_too_late_it_stops_itself(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = start(lose_s=2.0)
    assert said(holder) == "holds\n"
    holder.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ClaimError, match=f"pid {holder.pid}"):
        claim_on(tmp_path).__enter__()
    wait_for(lambda: time.monotonic() > began + 2.1)
    holder.send_signal(signal.SIGCONT)
    assert "could not be renewed for" in said(holder)
    assert holder.wait(30) == 1


def test_a_second_claim_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with claim_on(tmp_path), pytest.raises(ClaimError, match=f"pid {os.getpid()}"):
        claim_on(tmp_path).__enter__()
    assert claims(tmp_path) == []


@pytest.mark.parametrize("holds", [True, False])
def test_a_pid_that_was_given_to_another_process_is_no_holder(holds: bool, tmp_path: Path) -> None:
    own = ProcessId.own()
    old = put_claim(tmp_path, replace(own, start_s=own.start_s - 100), holds=holds)
    with claim_on(tmp_path, ClaimTimes(), on_wait=pytest.fail):
        assert not old.exists()


@pytest.mark.parametrize(
    "holder",
    [
        ELSEWHERE,
        replace(ProcessId.own(), pid_space="pid:[1]", pid=1 << 22),
        replace(ProcessId.own(), boot_id="before"),
    ],
    ids=["other host", "other container", "before a restart"],
)
@pytest.mark.parametrize("holds", [True, False])
def test_a_silent_claim_from_elsewhere_is_waited_for_and_then_deleted(
    holder: ProcessId, holds: bool, tmp_path: Path
) -> None:
    """A process of a host with our name may be gone, or not be ours to see: only silence tells."""
    told: list[str] = []
    began = time.time()
    silent = put_claim(tmp_path, holder, age_s=89.3, holds=holds)
    with claim_on(tmp_path, on_wait=told.append) as claim:
        assert time.time() - began > 0.6
        assert not silent.exists()
        claim.check()
    assert len(told) == 1
    assert f"pid {holder.pid}" in told[0]


def test_a_claim_from_elsewhere_that_is_long_silent_is_deleted_at_once(tmp_path: Path) -> None:
    put_claim(tmp_path, ELSEWHERE, age_s=91)
    with claim_on(tmp_path, on_wait=pytest.fail):
        assert len(claims(tmp_path)) == 1


def test_the_local_clock_plays_no_part_in_the_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock is two hours ahead of ours: its claims are neither from the future nor for ever young."""
    ahead_s = 7200

    class Ahead(Storage):
        def write(self, uri: str, data: bytes) -> None:
            super().write(uri, data)
            os.utime(uri.removeprefix("file://"), (time.time() + ahead_s,) * 2)

    dead = put_claim(tmp_path, ELSEWHERE, age_s=95 - ahead_s)
    with Claim(Ahead(), f"file://{tmp_path}", times=QUICK, on_wait=pytest.fail):
        assert not dead.exists()
    put_claim(tmp_path, ELSEWHERE, age_s=0)  # by our clock just written, by the store's two hours old
    with Claim(Ahead(), f"file://{tmp_path}", times=QUICK, on_wait=pytest.fail):
        pass


def test_a_renewing_claim_from_elsewhere_is_refused_by_name(tmp_path: Path) -> None:
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.02):
            Storage().write(f"file://{file}", content)

    file = put_claim(tmp_path, ELSEWHERE)
    content = file.read_bytes()
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(ClaimError, match=r"at work on it.*other-host, pid 4321, since 2026-11-24T10:00:00"):
            claim_on(tmp_path).__enter__()
    finally:
        ended.set()
        thread.join()
    assert claims(tmp_path) == [file]


def test_a_claim_that_nobody_understands_counts_as_one_from_elsewhere(tmp_path: Path) -> None:
    file = put_claim(tmp_path, ELSEWHERE)
    file.write_text("?")
    os.utime(file, (time.time() - 89.5,) * 2)
    told: list[str] = []
    with claim_on(tmp_path, on_wait=told.append):
        assert "cannot be read" in told[0]
        assert not file.exists()


def test_what_stays_in_the_way_is_named_after_twice_the_silence(tmp_path: Path) -> None:
    """A newcomer of this host that never decides (it is stopped, say) is alive, and may not be deleted."""
    file = put_claim(tmp_path, ProcessId.own(), holds=False)
    with pytest.raises(ClaimError, match=file.name):
        claim_on(tmp_path, replace(QUICK, silent_s=0.3)).__enter__()
    assert claims(tmp_path) == [file]


def test_a_holder_whose_claim_is_gone_writes_nothing_more_and_does_not_claim_again(tmp_path: Path) -> None:
    with claim_on(tmp_path) as claim:
        storage = claim.guarded()
        storage.write(f"file://{tmp_path}/images/a", b"1")
        claims(tmp_path)[0].unlink()
        for action in [
            lambda: storage.write(f"file://{tmp_path}/images/b", b"1"),
            lambda: storage.delete(f"file://{tmp_path}/images/a"),
        ]:
            with pytest.raises(ClaimError, match="taken or deleted"):
                action()
        wait_for(lambda: not claim._thread.is_alive())
        assert claims(tmp_path) == []
        assert storage.read(f"file://{tmp_path}/images/a") == b"1"
        assert storage.stat(f"file://{tmp_path}/images/b") is None


def test_a_claim_that_was_taken_is_not_renewed(tmp_path: Path) -> None:
    """Also while nobody calls `check`: the other driver must not find our claim again."""
    with claim_on(tmp_path, replace(QUICK, recheck_s=60)) as claim:
        claims(tmp_path)[0].unlink()
        wait_for(lambda: not claim._thread.is_alive())
        assert claims(tmp_path) == []
        with pytest.raises(ClaimError, match="taken or deleted"):
            claim.check()


class FailingStorage(Storage):
    """A store that one can no longer write to."""

    fails = False

    def write(self, uri: str, data: bytes) -> None:
        if self.fails:
            raise StorageError("the store is away")
        super().write(uri, data)


def test_a_holder_that_cannot_renew_stops_and_one_that_can_again_goes_on(tmp_path: Path) -> None:
    storage = FailingStorage()
    times = replace(QUICK, lose_s=2.0, renew_s=0.05)
    with Claim(storage, f"file://{tmp_path}", times=times) as claim:
        storage.fails = True
        wait_for(lambda: claim._fault is not None)
        claim.check()
        storage.fails = False
        wait_for(lambda: claim._fault is None)
        claim.check()
        storage.fails = True
        wait_for(lambda: _refuses(claim))
        with pytest.raises(ClaimError, match="could not be renewed for 2 s") as caught:
            claim.check()
        assert isinstance(caught.value.__cause__, StorageError)
        storage.fails = False
        wait_for(lambda: not claim._thread.is_alive())
        with pytest.raises(ClaimError):
            claim.check()


def _refuses(claim: Claim) -> bool:
    try:
        claim.check()
    except ClaimError:
        return True
    return False


@pytest.mark.parametrize("moment", ["after its look", "while it writes its decision"])
def test_a_newcomer_that_slept_before_it_decided_does_not_hold(moment: str, tmp_path: Path) -> None:
    """Its claim may have been taken for dead meanwhile; it looks again."""

    class Sleepy(Storage):
        writes = 0

        def list(self, *arguments: Any, **more: Any) -> Iterator[ObjectInfo]:
            found = list(super().list(*arguments, **more))
            if moment == "after its look":
                self._sleep()
            return iter(found)

        def write(self, uri: str, data: bytes) -> None:
            self.writes += 1
            if self.writes == 2:
                self._sleep()
            super().write(uri, data)

        def _sleep(self) -> None:
            if not claims(tmp_path)[1:]:
                time.sleep(0.5)
                put_claim(tmp_path, ProcessId.own())  # another driver came meanwhile, and holds

    with pytest.raises(ClaimError, match="at work"):
        Claim(Sleepy(), f"file://{tmp_path}", times=replace(QUICK, lose_s=0.4)).__enter__()
    assert len(claims(tmp_path)) == 1


class SlowMemory(Storage):
    """Objects in memory, each call at a random moment; all that it promises is list-after-write."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.lock = threading.Lock()

    def _pause(self) -> None:
        time.sleep(random.random() * 0.004)

    def stat(self, uri: str) -> ObjectInfo | None:
        return next((info for info in self.list(uri) if info.uri == uri), None)

    def list(self, prefix: str, **_: Any) -> Iterator[ObjectInfo]:
        self._pause()
        with self.lock:
            found = [ObjectInfo(uri, 1, None, time) for uri, (_, time) in self.objects.items() if prefix in uri]
        self._pause()
        return iter(found)

    def read(self, uri: str, version: str | None = None) -> bytes:
        self._pause()
        with self.lock:
            if uri not in self.objects:
                raise ObjectMissing(uri)
            return self.objects[uri][0]

    def write(self, uri: str, data: bytes) -> None:
        self._pause()
        with self.lock:
            self.objects[uri] = (data, datetime.now(UTC))
        self._pause()

    def delete(self, uri: str) -> None:
        self._pause()
        with self.lock:
            self.objects.pop(uri, None)
        self._pause()


def test_never_two_of_many_newcomers_from_everywhere_hold_at_once() -> None:
    """Five hosts, each wanting its turn again and again; refused ones come back."""
    storage = SlowMemory()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    random.seed(seed)
    inside: list[int] = []
    wrong: list[list[int]] = []
    turns = [0] * 5
    stop = time.monotonic() + 2

    def drive(host: int) -> None:
        while time.monotonic() < stop:
            claim = Claim(storage, "mem://o", times=replace(QUICK, renew_s=0.01, retry_s=0.02), on_wait=lambda _: None)
            claim._process = ProcessId(f"host-{host}", "elsewhere", "", host, 0.0)
            try:
                with claim:
                    inside.append(host)
                    wrong.extend([list(inside)] if len(inside) > 1 else [])
                    time.sleep(0.01)
                    claim.check()
                    inside.remove(host)
                    turns[host] += 1
            except ClaimError:
                continue

    threads = [threading.Thread(target=drive, args=(host,)) for host in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(turns) > 5
    assert storage.objects == {}


def test_a_guarded_storage_travels_to_workers_as_the_plain_one(tmp_path: Path) -> None:
    with claim_on(tmp_path) as claim:
        copy = pickle.loads(pickle.dumps(claim.guarded()))
    assert type(copy) is Storage


def test_releasing_a_claim_on_a_store_that_is_away_does_not_hide_the_error(tmp_path: Path) -> None:
    class Away(Storage):
        def delete(self, uri: str) -> None:
            raise StorageError("the store is away")

    with pytest.raises(ValueError, match="the real one"), Claim(Away(), f"file://{tmp_path}", times=QUICK):
        raise ValueError("the real one")


@pytest.mark.parametrize("writes", [0, 1])
def test_a_claim_that_cannot_be_written_tells_of_that(writes: int, tmp_path: Path) -> None:
    """And not of its deletion, which fails as well on a disk that is mounted read-only."""

    class ReadOnly(Storage):
        left = writes

        def write(self, uri: str, data: bytes) -> None:
            if not self.left:
                raise StorageError(f"cannot write {uri}")
            self.left -= 1
            super().write(uri, data)

        def delete(self, uri: str) -> None:
            raise StorageError(f"cannot delete {uri}")

    with pytest.raises(StorageError, match=r"--output file://.*: cannot be claimed: cannot write .*[0-9a-f]\.$"):
        Claim(ReadOnly(), f"file://{tmp_path}", times=QUICK).__enter__()
