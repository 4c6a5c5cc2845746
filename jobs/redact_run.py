"""What a redaction is made of before its first write: the detections, the destination, settings, and what is open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from prepare import Decided, decide_as_recorded
from redact_options import RedactCopies, settings_of
from redact_work import Committed
from tinyface_core.errors import InputError, SettingsError
from tinyface_core.redact.destination import Destination
from tinyface_core.redact.encode import ENCODER_VERSION
from tinyface_core.redact.faces import Redaction
from tinyface_core.redact.results import NOT_EXAMINED, ResultFiles
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.footer import CommitRecord, Footer, committed
from tinyface_core.tables.output import OutputFolder, settings_hash
from tinyface_core.tables.plan import Plan
from tinyface_core.tables.unit_tables import UnitTotals
from to_do import any_is_read

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sought:
    """The output of detect_archive.py, and what is to be made of it. detected: its settings; decided: for the check.

    records: unit -> what is committed of it. planned: units of its plan, committed or not.
    """

    job: RedactCopies
    storage: Storage
    output: OutputFolder
    settings: dict[str, Any]
    detected: dict[str, Any]
    decided: Decided | None
    records: dict[str, CommitRecord]
    planned: int

    @property
    def redaction(self) -> Redaction:
        return Redaction.of_settings(self.settings)


def seek(output_uri: str, job: RedactCopies, storage: Storage) -> Sought:
    """Everything that can be wrong is told here, before the first write. Raises: RefusedError."""
    output, to = OutputFolder(storage, output_uri), Destination(storage, job.to)
    output.refuse_none()
    output.look()
    if storage.stat(output.path("_SUCCESS")) is None:
        raise InputError(
            f"{output.uri}: is not whole (no _SUCCESS): a run of detect_archive.py is at work or was cut short. Its "
            "same command makes it whole; then redact."
        )
    detected = output.settings() or {}
    to.check()
    run_facts = output.read_json("run.json") or {}
    to.refuse_among(map(storage.canonical, run_facts.get("inputs", [])))
    facts = {"output": output.uri, "detected_with": settings_hash(detected), "encoder": ENCODER_VERSION}
    asked = job.asked_for()
    settings = to.resolve(settings_of(asked, facts), asked.keys(), facts=facts.keys())
    if settings["min_score"] is not None and settings["min_score"] < detected.get("min_score", 0):
        raise SettingsError(
            f"--min-score {settings['min_score']:g}: the tables hold no face up to {detected['min_score']:g}. Leave it "
            "out, or detect anew with a lower --min-score."
        )
    decided = decide_as_recorded(job.model, {}, output, storage) if job.check else None
    planned, records = Plan(storage, output.uri).names(), committed(storage, output.uri)
    known = {name: record for name, record in records.items() if name in planned}
    if len(known) < len(planned):
        log.warning("%d units are planned but not worked by detect_archive.py: no copies", len(planned) - len(known))
    return Sought(job, storage, output, settings, detected, decided, known, len(planned))


@dataclass
class RedactRun:
    """One run on one destination, which is claimed.

    found: unit -> what its file of results says. done: units whose results stand; totals: their counts, and those of
    what this run commits.
    """

    sought: Sought
    claim: Claim
    found: dict[str, Footer] = field(init=False)
    done: frozenset[str] = field(init=False)
    totals: dict[str, UnitTotals] = field(init=False)

    def __post_init__(self) -> None:
        sought, guarded = self.sought, self.claim.guarded()
        self.to = Destination(guarded, sought.job.to)
        hashes = settings_hash(sought.settings), sought.detected["model_hash"]
        self.results = ResultFiles(guarded, self.to.uri, *hashes)
        self.found = self.results.found()
        self.done = frozenset(name for name, record in sought.records.items() if self._is_done(name, record))
        self.totals = {name: self.found[name].totals or UnitTotals() for name in self.done}

    def _is_done(self, name: str, record: CommitRecord) -> bool:
        footer = self.found.get(name)
        if footer is None or not self.results.is_done(footer, record.commit):
            return False
        failed = (footer.totals or UnitTotals()).errors.keys() - {NOT_EXAMINED}
        return not (self.sought.job.retry is not None and failed)

    @property
    def open_units(self) -> int:
        return len(self.sought.records) - len(self.done)

    def units(self) -> Iterator[Committed]:
        """Those to work, streamed from the plan of the output."""
        for unit in Plan(self.sought.storage, self.sought.output.uri).units(any_carried=True):
            record = self.sought.records.get(unit.name)
            if record is not None and unit.name not in self.done:
                yield Committed(unit, record)

    def reads_otherwise(self) -> bool:
        """Whether something of what is copied can be read today; a few are tried."""
        plan = Plan(self.sought.storage, self.sought.output.uri)
        done = (unit for unit in plan.units(any_carried=True) if unit.name in self.done)
        return any_is_read(self.sought.storage, (unit.present[0].url for unit in done if unit.present))

    def begin(self) -> None:
        """The first writes: settings, and what tells of copies that are to be made anew goes."""
        self.to.write_settings(self.sought.settings)
        self.to.delete_success()
        for name in self.found.keys() - self.done:
            self.results.delete(name)

    def finished(self) -> dict[str, Any] | None:
        """What run.json says, where there is nothing to work, sweep or check any more."""
        facts: dict[str, Any] | None = self.to.read_json("run.json")
        if facts is None or self.open_units or self.found.keys() - self.done:
            return None
        stands = self.sought.storage.stat(self.to.path("_SUCCESS")) is not None
        return facts if stands and (self.checked() is not None or not self.sought.job.check) else None

    def checked(self) -> dict[str, Any] | None:
        """The check that is recorded, if it is the one that is asked for, and of these very copies."""
        facts = self.to.read_json("run.json") or {}
        check: dict[str, Any] | None = facts.get("check")
        asked = (self.sought.job.check, self.sought.job.seed)
        if check is None or self.open_units or facts["copies_hash"] != self.copies_hash:
            return None
        return check if (check["asked"], check["seed"]) == asked and not check["not_checked"] else None

    @property
    def copies_hash(self) -> str:
        """The same as long as no unit is copied anew."""
        units = {name: (self.sought.records[name].commit, asdict(totals)) for name, totals in self.totals.items()}
        return settings_hash(units)
