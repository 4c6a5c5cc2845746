"""One driver at a time on an output: a lease that needs no more of the store than list-after-write.

A driver writes `_run/claims/<uuid>`, then lists the folder. Alone there, it holds the output and renews its claim.
Of two that start together at least one sees the other; both that see a newcomer withdraw, and try again after a
random wait. How old a claim is follows from times that the store gave, to it and to our own, never from our clock.

Knows nothing of what the claim protects; `Claim.guarded()` is a storage that writes only while the claim is held.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast

from tinyface_core.errors import ClaimError, StorageError
from tinyface_core.storage import ObjectError, ObjectMissing, Storage
from tinyface_core.tables.process import ProcessId

_log = logging.getLogger(__name__)
_RELEASE_S = 2.0  # a driver that is told to end has 3 s
_TIMELESS = datetime.fromtimestamp(0, UTC)  # for stores that tell no times: there no claim ever looks dead


@dataclass(frozen=True)
class ClaimTimes:
    """Seconds. lose_s + the 20 s that one write may last must stay well below silent_s.

    renew_s: between renewals. lose_s: since the last good renewal, after which the holder no longer writes.
    silent_s: age at which a claim from elsewhere is dead. retry_s: longest wait of a newcomer between tries.
    recheck_s: how often at most `check` asks the store whether the claim is still there.
    """

    renew_s: float = 10.0
    lose_s: float = 30.0
    silent_s: float = 90.0
    retry_s: float = 3.0
    recheck_s: float = 1.0


@dataclass(frozen=True)
class _Seen:
    """Somebody's claim. lives: whether its process does; None when that cannot be told from here."""

    uri: str
    modified: datetime
    lives: bool | None
    holds: bool
    holder: str


class Claim:
    """The right to write to one output, as a context manager.

    Args:
        option: that names the output, for messages.
        on_wait: told once in a sentence why the start is delayed; by default it is logged.
    """

    def __init__(
        self,
        storage: Storage,
        output_uri: str,
        *,
        times: ClaimTimes | None = None,
        option: str = "--output",
        on_wait: Callable[[str], None] = _log.warning,
    ) -> None:
        self._storage = storage
        self._output = output_uri.rstrip("/")
        self._times = times or ClaimTimes()
        self._option, self._named = option, f"{option} {self._output}"
        self._on_wait = on_wait
        self._process = ProcessId.own()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")  # for people only
        self._uri = ""
        self._held = False
        self._lost: str | None = None
        self._fault: Exception | None = None
        self._renewed_s = 0.0
        self._checked_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tinyface-claim", daemon=True)

    def __enter__(self) -> Claim:
        self._acquire()
        self._held = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        self._stop.set()
        self._thread.join(_RELEASE_S)  # it may sit in a slow write, and deletes after it itself
        try:
            self._storage.delete(self._uri)
        except StorageError as fault:  # not worth losing `error` for: a claim without a driver passes away
            _log.warning("%s was not deleted: %s", self._uri, fault)

    def check(self) -> None:
        """Before every write or delete that the claim protects; from any thread.

        Raises:
            ClaimError: the claim is not held, was taken, or could not be renewed for `lose_s`.
        """
        if not self._held and self._lost is None:
            raise ClaimError(f"{self._named}: the claim on it is not held: a bug, nothing was written.")
        now_s = _now_s()
        if self._lost is None and now_s - self._renewed_s > self._times.lose_s:
            self._lost = f"could not be renewed for {now_s - self._renewed_s:.0f} s"
        if self._lost is None and now_s - self._checked_s > self._times.recheck_s:
            if self._storage.stat(self._uri) is None:
                self._lost = "was taken or deleted"
            self._checked_s = now_s
        if self._lost is not None:
            raise ClaimError(
                f"{self._named}: our claim on it ({self._uri}) {self._lost}, so another driver may be at "
                "work there, and nothing more is written. What is committed stays; the same command goes on from here."
            ) from self._fault

    @property
    def uri(self) -> str:
        """The claim's own file: while it is there, nobody else works on the output."""
        return self._uri

    def guarded(self) -> Storage:
        """The same storage, whose every write and delete first checks this claim."""
        return cast(Storage, _GuardedStorage(self._storage, self.check))

    def _acquire(self) -> None:
        started_s = _now_s()
        first_seen: dict[str, datetime] = {}
        told = False
        while (blocking := self._try(first_seen)) is not None:
            if _now_s() - started_s > 2 * self._times.silent_s:
                names = ", ".join(f"{other.uri} of {other.holder}" for other in blocking)
                raise ClaimError(
                    f"{self._named}: could not be claimed within {2 * self._times.silent_s:.0f} s. In the "
                    f"way: {names or 'a store that does not list what was just written'}. If no driver runs any "
                    "more, delete what is in _run/claims/."
                )
            if not told and (unknown := [other for other in blocking if other.lives is None]):
                self._on_wait(
                    f"{self._named} was claimed by {unknown[0].holder}: waiting until that driver gives a "
                    f"sign of life, or was silent for {self._times.silent_s:.0f} s."
                )
                told = True
            time.sleep(random.uniform(0.1, 1) * self._times.retry_s)  # noqa: S311 - a wait, no secret

    def _try(self, first_seen: dict[str, datetime]) -> list[_Seen] | None:
        """Takes the claim (None), or withdraws and tells what is in the way.

        first_seen: claims of earlier tries with their times, to see whether they are renewed.
        """
        self._uri = f"{self._output}/_run/claims/{uuid.uuid4().hex}"
        try:
            blocking = self._try_once(first_seen)
            if blocking is not None:
                self._storage.delete(self._uri)
            return blocking
        except BaseException as error:
            with suppress(StorageError):  # `error` tells more
                self._storage.delete(self._uri)
            if isinstance(error, ObjectError | StorageError):
                text = str(error) if isinstance(error, StorageError) else f"{error}. Check the permissions"
                raise StorageError(f"{self._named}: cannot be claimed: {text.rstrip('.')}.") from error
            raise

    def _try_once(self, first_seen: dict[str, datetime]) -> list[_Seen] | None:
        began_s = _now_s()
        self._write(holds=False)
        own, others = self._look()
        blocking = [other for other in others if not self._is_over(other, own, first_seen)]
        if own is None or blocking or _now_s() - began_s >= self._times.lose_s:
            return blocking
        self._renewed_s = self._checked_s = _now_s()
        self._write(holds=True)
        return None if _now_s() - began_s < self._times.lose_s else blocking  # else we slept, perhaps taken for dead

    def _look(self) -> tuple[datetime | None, list[_Seen]]:
        """The store's time of our own claim, just written (None: not listed), and all other claims."""
        own: datetime | None = None
        others = []
        for info in list(self._storage.list(f"{self._output}/_run/claims/")):
            modified = info.modified or _TIMELESS
            if info.uri == self._uri:
                own = modified
            elif not info.uri.endswith(".tmp"):
                try:
                    others.append(_understood(info.uri, modified, self._storage.read(info.uri)))
                except ObjectMissing:
                    continue  # withdrawn since the listing, so its driver does not hold
                except ObjectError:  # written at this moment, or not for us to read
                    others.append(_understood(info.uri, modified, b""))
        return own, others

    def _is_over(self, other: _Seen, own: datetime | None, first_seen: dict[str, datetime]) -> bool:
        """Whether the other claim is dead, in which case it is deleted. own: the store's time, as of now.

        Raises:
            ClaimError: its driver holds the output and lives.
        """
        renewed = first_seen.setdefault(other.uri, other.modified) != other.modified
        if other.holds and (other.lives or renewed):
            raise ClaimError(
                f"{self._named}: another driver is at work on it ({other.holder}). Wait until it ends, stop "
                f"it, or write to another {self._option}."
            )
        age_s = (own - other.modified).total_seconds() if own is not None else 0.0
        over = age_s >= self._times.silent_s if other.lives is None else not other.lives
        if over:
            self._storage.delete(other.uri)
        return over

    def _write(self, *, holds: bool) -> None:
        about = {**asdict(self._process), "holds": holds, "since": self._since}
        self._storage.write(self._uri, json.dumps(about, indent=1).encode())

    def _keep(self) -> None:
        """Renews the claim until it is released or lost."""
        wait_s = self._times.renew_s
        while not self._stop.wait(wait_s):
            began_s = _now_s()
            try:
                if self._lost is None and self._storage.stat(self._uri) is None:
                    self._lost = "was taken or deleted"
                if self._lost is not None or began_s - self._renewed_s > self._times.lose_s:
                    return  # `check` tells; a claim that is lost is never written again
                self._write(holds=True)
            except Exception as error:  # whatever it is, `check` stops the run if it lasts
                self._fault = error
                wait_s = self._times.renew_s / 5
                continue
            if self._stop.is_set() or _now_s() - self._renewed_s > self._times.lose_s:
                # Released, or slept through: another driver may be at work, and must not find this file.
                with suppress(StorageError):
                    self._storage.delete(self._uri)
                return
            self._renewed_s, self._fault, wait_s = began_s, None, self._times.renew_s


class _GuardedStorage:
    """All of a storage; pickled, it is that storage: the claim stays with the driver."""

    def __init__(self, storage: Storage, check: Callable[[], None]) -> None:
        self._storage = storage
        self._check = check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def __reduce__(self) -> Any:
        return self._storage.__reduce__()

    def write(self, uri: str, data: bytes) -> None:
        self._check()
        self._storage.write(uri, data)

    def delete(self, uri: str) -> None:
        self._check()
        self._storage.delete(uri)


def _understood(uri: str, modified: datetime, data: bytes) -> _Seen:
    """A file that makes no sense is taken for a claim from elsewhere."""
    try:
        about = json.loads(data)
        holds, since = bool(about.pop("holds")), about.pop("since")
        process = ProcessId(**about)
        return _Seen(uri, modified, process.lives(), holds, f"{process}, since {since}")
    except (ValueError, TypeError, KeyError, AttributeError):
        return _Seen(uri, modified, None, True, f"somebody whose claim {uri} cannot be read")


def _now_s() -> float:
    """Seconds that pass also while the machine sleeps, where the system tells them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
