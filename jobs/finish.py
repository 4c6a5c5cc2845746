"""What a run tells: what it would read (--dry-run), what it did (run.json), and a last screen for a person."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from forecast import against
from prepare import Run, versions
from tinyface_core.archive.candidates import extension_of
from tinyface_core.archive.record import Kind, Source
from tinyface_core.logs import current
from tinyface_core.report.html import write_report
from tinyface_core.report.text import duration
from tinyface_core.storage import unsigned
from tinyface_core.tables.footer import sql_glob
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals
from to_do import ToDo
from work import Worked

log = logging.getLogger(__name__)

TYPES = 30  # lines of a dry run
NAMED = 12  # kinds of skips and errors that the last screen names


def show_dry_run(sources: Iterable[Source], skipped: Counter[str]) -> None:
    """Prints what would be read, by type, with sizes. The listing is streamed; nothing is written.

    Types are those of the names: what a file holds is seen when it is read.
    """
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for source in sources:
        kind = extension_of(source.uri) or "no extension" if source.kind is Kind.PICTURE else str(source.kind)
        if source.size_bytes is None and source.version is None:
            kind = "not there (error rows)"
        if kind not in counts and len(counts) >= TYPES:
            kind = "others"
        counts[kind] += 1
        sizes[kind] += source.size_bytes or 0
    table = Table(title="What would be read", title_justify="left")
    for heading in ("type", "objects", "size"):
        table.add_column(heading, justify="left" if heading == "type" else "right")
    for kind, count in counts.most_common():
        table.add_row(kind, f"{count:,}", _size(sizes[kind]))
    table.add_row("all", f"{counts.total():,}", _size(sizes.total()), style="bold")
    console = Console(highlight=False)
    console.print(table)
    if skipped:
        console.print(f"skipped, no pictures: {_listed(skipped)}", markup=False)
    console.print(
        "Nothing was written, nor was it tried whether --output can be. --limit and --prune are not applied here, nor "
        "is what is done already left out; an object that two inputs name is listed twice and read once; what archives "
        "hold is counted when they are read."
    )


def finish(run: Run, to_do: ToDo, worked: Worked, started: datetime, skipped: Counter[str]) -> None:
    """Sweeps, writes run.json and the report, then `_SUCCESS`, and prints the last screen.

    skipped: by extension, of this run's listing; what archives held is in the units' totals.
    """
    changed = run.reading.storage.stat(run.output.path("_SUCCESS")) is None  # else it stood since the latest finish
    run.output.delete_success()
    run.committer.sweep(to_do.plan.names(), to_do.commits())
    facts = _facts(run, to_do, worked, started, skipped)
    run.output.write_run(facts, started)
    report = _report(run, facts, changed=changed)
    run.claim.check()
    run.output.write_success()
    show_summary(facts, run.output.uri, report)


def _report(run: Run, facts: Mapping[str, Any], *, changed: bool) -> str:
    """What there is to say of the report; one that fails must not fail a run whose tables are whole.

    changed: rows may be others than when a report was written: it is written anew or, where none is asked for, deleted,
    as it tells numbers, and may show pictures, that are gone.
    """
    uri = run.output.path("report.html")
    if not run.job.report:
        if not changed or run.reading.storage.stat(uri) is None:
            return "not asked for"
        run.output.delete_report()
        return "not asked for; the one of an earlier run is deleted, as it told of other rows"
    try:
        if changed or run.job.report_pictures > 0 or run.reading.storage.stat(uri) is None:
            write_report(
                run.claim.guarded(),
                run.output.uri,
                facts,
                input_storage=run.reading.storage,
                max_pictures=run.job.report_pictures,
            )
        return uri
    except Exception:
        log.exception("the report could not be written; the tables are whole")
        run.output.delete_report()  # one that is there tells of other rows
        return "could not be written"


def _facts(run: Run, to_do: ToDo, worked: Worked, started: datetime, skipped: Counter[str]) -> dict[str, Any]:
    """The content of run.json: counts of the whole output and of this run, settings, versions, throughput."""
    now = datetime.now(UTC)
    whole = sum_totals(to_do.totals.values())
    before = len(to_do.totals) - len(worked.units)
    return {
        "run": current().run,
        "finished_at": now.isoformat(timespec="seconds"),
        "started_at": started.isoformat(timespec="seconds"),
        "wall_s": round((now - started).total_seconds(), 3),
        "start_up_s": run.start_up.seconds,
        "work_s": round(worked.seconds, 3),
        "pictures_per_s": round(worked.totals.pictures / worked.seconds, 4) if worked.seconds else None,
        "detectors": worked.detectors,
        "duty": None if worked.duty is None else round(worked.duty, 4),
        "forecast": against(run.job.expect_hours, worked.seconds),
        "inputs": [unsigned(run.reading.storage.canonical(url)) for url in run.job.input],
        "units": {"planned": to_do.planned, "committed_before": before, "worked": len(worked.units)},
        "complete": len(to_do.totals) == to_do.planned,
        "output": _counts(whole),
        "this_run": _counts(worked.totals),
        "skipped": dict(sorted((Counter(whole.skipped) + skipped).items())),
        "settings": run.decided.settings,
        "settings_hash": run.decided.hash,
        "versions": versions(),
    }


def _counts(totals: UnitTotals) -> dict[str, Any]:
    errors = sum(totals.errors.values())
    return {
        "pictures": totals.pictures,
        "ok": totals.pictures - errors,
        "error": errors,
        "errors_by_class": dict(totals.errors),
        "faces": totals.faces,
    }


def show_summary(facts: Mapping[str, Any], output_uri: str, report: str) -> None:
    """The last screen of a run. report: its uri, or why there is none."""
    output, this_run, rate = facts["output"], facts["this_run"], facts["pictures_per_s"]
    table = Table.grid(padding=(0, 2))
    rows = [
        ("pictures", f"{output['pictures']:,} in the output, {this_run['pictures']:,} of them worked in this run"),
        ("faces", f"{output['faces']:,}"),
        ("errors", f"{output['error']:,}  {_listed(Counter(output['errors_by_class']))}"),
        ("skipped", _listed(Counter(facts["skipped"])) or "none"),
        ("time", f"{facts['wall_s']:.0f} s" + (f", {rate:.2f} pictures/s while working" if rate else "")),
        *([("detectors", _told_duty(facts))] if facts["duty"] is not None else []),
        ("model", f"{facts['settings']['model']}, {facts['settings']['device']} in {facts['settings']['precision']}"),
        *([("forecast", _told_against(forecast))] if (forecast := facts["forecast"]) else []),
        ("tables", f"{output_uri}/images, {output_uri}/detections"),
        ("report", report),
    ]
    if not facts["complete"]:
        rows.append(("open", "not all that is planned is worked (--limit): the same command without it goes on"))
    for name, text in rows:
        table.add_row(name, text)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"query: SELECT count(*), sum(num_faces) FROM {sql_glob(output_uri, 'images')}")


def _told_duty(facts: Mapping[str, Any]) -> str:
    return f"{facts['detectors']:,}, computing {facts['duty']:.0%} of the time from the first work to the last commit"


def _told_against(forecast: Mapping[str, float]) -> str:
    expected, took = forecast["hours"], forecast["took_hours"]
    return f"{duration(3600 * expected)} of work expected, {duration(3600 * took)} taken ({took / expected - 1:+.0%})"


def _listed(counts: Counter[str]) -> str:
    named = [f"{name} {count:,}" for name, count in counts.most_common(NAMED) if count]
    return ", ".join(named) + (", ..." if len(counts) > NAMED else "")


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
