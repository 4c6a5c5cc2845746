"""Writes copies of all pictures of an output with their faces hidden, and tells what a detector still finds in them.

    python jobs/redact.py faces/ --output redacted/

    python jobs/redact.py s3://b/faces/ --output s3://b/redacted/ --how blur --margin 0.3 --max-residual 0.05

The faces are those of the tables: nothing is detected again but a sample of the copies. The same command resumes a run
that was cut short. Exit codes: 0 done (there may be error rows), 2 refused before the first write, 1 stopped later, 3
--max-residual, 130 interrupted, 143 SIGTERM. More: docs/redact.md.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from options import before_first_write, job_app, run_job
from prepare import versions
from ray_progress import RunProgress
from ray_stages import Reading
from ray_start import Pool, RaySession, choose_pool
from redact_check import Checking, told
from redact_options import RedactCopies
from redact_run import RedactRun, seek
from redact_stages import Redacting
from redact_work import CopyLoop
from run_metrics import RunMetrics
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.errors import StopRun, TooManyFaces
from tinyface_core.logs import current
from tinyface_core.picture.picture import Limits
from tinyface_core.redact.destination import sweep_copies
from tinyface_core.report.text import counted
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.footer import sql_glob
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals

log = logging.getLogger(__name__)
app = job_app("redact.py", __doc__ or "")


@app.default
def main(tables: str, /, *, job: RedactCopies) -> int:
    """Copy, sweep, check.

    Parameters
    ----------
    tables
        Folder or prefix of the tables that detect_archive.py wrote.
    """
    started, storage = datetime.now(UTC), Storage(job.storage.options())
    with before_first_write():
        sought = seek(tables, job, storage)
    with ExitStack() as stack:
        claim = stack.enter_context(Claim(storage, storage.canonical(job.to)))
        run = RedactRun(sought, claim)
        log.info("%d of %d units are copied under these settings: skipped", len(run.done), len(sought.records))
        if (facts := run.finished()) is not None:
            facts |= {"this_run": _counts(UnitTotals())}
        else:
            ray_session = RaySession(job.ray_address, stack)
            pool = choose_pool(ray_session.cluster, job, "cpu") if run.open_units else None
            check = run.checked()
            checking = _checking(run, ray_session) if check is None else None
            run.begin()
            worked = _work(run, pool, RunMetrics("redact", stack)) if pool else UnitTotals()
            swept = sweep_copies(claim.guarded(), run.to, run.results.tables(["path"]))
            check = checking.check(sought.records, job.check, job.seed) if checking else check
            facts = _facts(run, worked, swept, check, started)
            run.to.write_run(facts, started)
        _show(facts, run)
        _judge(run, facts["check"])
        run.to.write_success()
    return 0


def _work(run: RedactRun, pool: Pool, metrics: RunMetrics) -> UnitTotals:
    sought = run.sought
    redacting = Redacting(
        sought.storage,
        run.to.uri,
        run.claim.uri,
        sought.redaction,
        Limits(sought.detected["max_pixels"], sought.detected["decode_timeout"]),
        pool.decoders,
    )
    expected = sum(record.totals.pictures for name, record in sought.records.items() if name not in run.done)
    log.info("%s to copy, about %s", counted(run.open_units, "unit"), counted(expected, "picture"))
    metrics.start(device="cpu")
    metrics.begin(expected)

    def on_commit(unit: str, totals: UnitTotals, seconds: float) -> None:
        run.totals[unit] = totals
        metrics.copied(totals, seconds)

    with RunProgress(expected) as progress:
        loop = CopyLoop(redacting, pool, run.results, progress, on_commit, run.reads_otherwise)
        worked = loop.work(run.units())
        progress.say(now=True)
    return worked


def _checking(run: RedactRun, ray_session: RaySession) -> Checking | None:
    """The check, if one is asked for; raises ResourceError where its detectors can find no place."""
    sought = run.sought
    if sought.decided is None:
        return None
    pool = choose_pool(ray_session.cluster, sought.job, sought.decided.runtime.device)
    reading = Reading(sought.storage, CandidateFilter(all_files=True))
    detecting = sought.decided.detecting(reading, pool, sought.output)
    min_score = sought.settings["min_score"]
    return Checking(sought.storage, run.results, detecting, pool, min_score)


def _facts(
    run: RedactRun, worked: UnitTotals, swept: int, check: dict[str, Any] | None, started: datetime
) -> dict[str, Any]:
    """The content of run.json."""
    sought, now = run.sought, datetime.now(UTC)
    units = {"planned": sought.planned, "detected": len(sought.records), "copied_before": len(run.done)}
    return {
        "run": current().run,
        "finished_at": now.isoformat(timespec="seconds"),
        "started_at": started.isoformat(timespec="seconds"),
        "wall_s": round((now - started).total_seconds(), 3),
        "output": sought.output.uri,
        "units": units | {"worked": len(run.totals) - len(run.done)},
        "copies": _counts(sum_totals(run.totals.values())),
        "this_run": _counts(worked),
        "swept": swept,
        "copies_hash": run.copies_hash,
        "check": check,
        "settings": sought.settings,
        "versions": versions(),
    }


def _counts(totals: UnitTotals) -> dict[str, Any]:
    errors = sum(totals.errors.values())
    return {
        "pictures": totals.pictures,
        "written": totals.pictures - errors,
        "error": errors,
        "errors_by_class": dict(totals.errors),
        "faces_masked": totals.faces,
    }


def _judge(run: RedactRun, check: dict[str, Any] | None) -> None:
    """Raises TooManyFaces, or StopRun where it cannot be told: the copies are whole, and there is no `_SUCCESS`."""
    most = run.sought.job.max_residual
    if most is None or check is None:
        return
    if check["not_checked"]:
        run.to.delete_success()
        raise StopRun(
            f"{check['not_checked']:,} copies of the sample could not be checked, so --max-residual is not judged. See "
            "Ray's logs for why; the copies are written, and the same command checks them again."
        )
    if (rate := check["residual_rate"] or 0.0) > most:
        run.to.delete_success()
        raise TooManyFaces(
            f"{rate:.2%} of the masked faces are found again in the copies, above --max-residual {most:g}. The copies "
            "are written; most_found_again in run.json names some. Try a larger --margin or --how fill in another "
            "--output."
        )


def _show(facts: dict[str, Any], run: RedactRun) -> None:
    """The last screen."""
    copies, this_run = facts["copies"], facts["this_run"]
    errors = ", ".join(f"{name} {count:,}" for name, count in sorted(copies["errors_by_class"].items()))
    rows = [
        ("copies", f"{copies['written']:,}, {this_run['written']:,} of them written in this run"),
        ("masked", counted(copies["faces_masked"], "face")),
        ("no copy", counted(copies["error"], "picture") + (f": {errors}" if errors else "")),
        *(told(facts["check"]) if facts["check"] else [("residual", "not checked (--check 0)")]),
        ("folder", run.to.path("copies")),
    ]
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(name, text)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"query: SELECT status, error_class, count(*) FROM {sql_glob(run.to.uri, 'results')} GROUP BY ALL")


if __name__ == "__main__":
    sys.exit(run_job(app))
