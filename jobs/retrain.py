"""Retrains the current model on new labelled pictures, judges it on frozen ones, and promotes it only if it is better.

    python jobs/registry.py add hr-mobilenetv2 --registry s3://b/registry

    python jobs/retrain.py --registry s3://b/registry --data s3://b/labels.csv --frozen s3://b/frozen --hours 2

Once a tick of its schedule: a tick that was decided stays so, one that was cut short goes on. Exit codes: 0 decided,
promoted or not (ticks/TICK.json in the registry tells which), 2 refused before the first write, 1 stopped later, 130
interrupted, 143 SIGTERM. More: docs/retraining.md.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from options import before_first_write, job_app, registry_of, run_job
from prepare import versions
from ray_start import RaySession
from retrain_card import card, show_decision, show_plan
from retrain_judge import Judged, candidate_of, judged
from retrain_look import TRAINING, Sought, begun_of, lineage_of, seek
from retrain_options import RetrainJob
from tinyface_core.registry.registry import BEGUN, CURRENT, LINEAGE, MODEL, Registry, tick_name, version_name
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from train_record import go_on
from train_run import train_to_the_end

log = logging.getLogger(__name__)
app = job_app("retrain.py", __doc__ or "")
PROMOTED, KEPT, TOO_FEW = "promoted", "kept the current model", "too few new pictures"


@app.default
def main(job: RetrainJob) -> int:
    """Look, train, fit anew, judge, decide."""
    storage, tick = Storage(job.storage.options()), job.tick_time()
    registry, name = Registry(storage, registry_of(job.registry)), tick_name(tick)
    with before_first_write():
        decision = registry.decision(name)
        sought = seek(job, tick, storage) if decision is None else None
    if sought is not None and job.dry_run:
        show_plan(sought)
        return 0
    if sought is not None:
        with ExitStack() as stack:
            # Apart from the claim on the registry itself, which a rollback takes at any time.
            claim = stack.enter_context(Claim(storage, registry.path("runs"), option="--registry"))
            decision = registry.decision(name)  # of a driver that was waited for
            if decision is None:
                if _is_stale(sought, registry):
                    sought = seek(job, tick, storage)
                decision = _decided(sought, claim, RaySession(job.ray_address, stack, dashboard=True))
    assert decision is not None
    show_decision(decision, registry.uri)
    return 0


def _is_stale(sought: Sought, registry: Registry) -> bool:
    """Whether a driver that was waited for, or a person, has begun this tick or changed what is current since."""
    begun = begun_of(registry, sought.tick)
    return begun != sought.resumed or (begun is None and registry.find(CURRENT).name != sought.base.name)


def _tell_of_ticks(sought: Sought, registry: Registry) -> None:
    """By which name one goes on that no schedule named, and which ones nobody went on with: their checkpoints stay."""
    if sought.job.tick is None:
        log.warning("tick %s, as it is now: if this is cut short, only --tick %s goes on with it", *2 * (sought.tick,))
    for tick in registry.undecided():
        if tick != sought.tick:
            told = f"--tick {tick} goes on with it, or delete {registry.path(f'runs/{tick}')}"
            log.warning("tick %s was begun and never decided: %s", tick, told)


def _decided(sought: Sought, claim: Claim, session: RaySession) -> dict[str, Any]:
    """Each step leaves what it made before the next begins, so that a tick goes on where it was cut short."""
    guarded = claim.guarded()
    registry = Registry(guarded, sought.registry.uri)
    _tell_of_ticks(sought, registry)
    if sought.pictures < sought.job.least_pictures:
        told = f"{sought.pictures:,} new pictures, --least-pictures {sought.job.least_pictures}: they wait"
        return _recorded(sought, registry, TOO_FEW, (told,))
    registry.write_json(f"runs/{sought.tick}/{BEGUN}", sought.begun)
    if not go_on(sought.run, f"{sought.folder}/{TRAINING}", guarded, option="--tick", instead="another --tick"):
        train_to_the_end(replace(sought.run, storage=guarded), sought.job.training, sought.folder, TRAINING, session)
    candidate = candidate_of(sought, guarded, session)
    found = judged(sought, candidate, guarded, session)
    name = _written(sought, registry, found)
    decision, reasons = _promoted(sought, name) if found.verdict.promote else (KEPT, ())
    _clear(sought, guarded)
    return _recorded(sought, registry, decision, (*found.verdict.reasons, *reasons), name)


def _written(sought: Sought, registry: Registry, found: Judged) -> str:
    """The version, promoted or not: it can be looked at, and promoted by hand."""
    name = version_name(sought.tick, found.model_hash)
    lineage = lineage_of(sought) | {
        "version": name,
        "model_hash": found.model_hash,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": versions(),
    }
    files = {
        MODEL: found.model,
        "card.md": card(name, found.spec, lineage, found.metrics).encode(),
        "metrics.json": (json.dumps(found.metrics, indent=1) + "\n").encode(),
    }
    if found.sheet is not None:
        files["contact_sheet.png"] = found.sheet
    registry.write_version(name, files, lineage)
    log.info("version %s is whole: %s", name, registry.path(f"versions/{name}/{LINEAGE}"))
    return name


def _promoted(sought: Sought, name: str) -> tuple[str, tuple[str, ...]]:
    """Makes the version current, unless another has become so since the comparison began."""
    with Claim(sought.storage, sought.registry.uri, option="--registry") as claim:
        registry = Registry(claim.guarded(), sought.registry.uri)
        if any(entry.tick == sought.tick for entry in registry.history()):
            return PROMOTED, ()  # before this tick was cut short
        now = registry.current()
        if now is not None and now.version != sought.base.name:
            return KEPT, (f"not promoted: it was compared with {sought.base.name}, and {now.version} became current",)
        registry.promote(name, action="promoted", by=f"jobs/retrain.py on {socket.gethostname()}", tick=sought.tick)
    return PROMOTED, ()


def _recorded(
    sought: Sought, registry: Registry, decision: str, reasons: tuple[str, ...], version: str | None = None
) -> dict[str, Any]:
    """The last write of a tick: from here on it is decided."""
    found = {
        "tick": sought.tick,
        "decision": decision,
        "promoted": decision == PROMOTED,
        "version": version,
        "base": sought.base.name,
        "reasons": list(reasons),
        "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    registry.write_decision(sought.tick, found)
    return found


def _clear(sought: Sought, storage: Storage) -> None:
    """Takes away what only a training needs: checkpoints, and decoded pictures on this disk."""
    needless = (f"{sought.folder}/{TRAINING}/checkpoint_", f"{sought.folder}/cache/")
    for info in list(sought.storage.list(f"{sought.folder}/")):
        if info.uri.startswith(needless):
            storage.delete(info.uri)


def _commit() -> str | None:
    """Of the code: what TINYFACE_COMMIT says (an image has no git), else git's; None where neither tells."""
    git = shutil.which("git")
    if (told := os.environ.get("TINYFACE_COMMIT")) or git is None:
        return told or None
    head, *changed = (
        subprocess.run([git, *asked], cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout
        for asked in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    return head.strip() + (", changed since" if any(changed) else "") if head else None


if __name__ == "__main__":
    sys.exit(run_job(app))
