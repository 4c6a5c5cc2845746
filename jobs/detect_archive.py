"""Finds every face in an archive of pictures and writes them as two Parquet tables.

    python jobs/detect_archive.py --input photos/ --output faces/

    ray job submit --working-dir . -- python jobs/detect_archive.py --input s3://b/archive/ --output s3://b/faces/

The same command resumes a run that was cut short, and picks up new pictures. Exit codes: 0 done (there may be error
rows), 2 refused before the first write, 1 stopped later, 3 --max-error-share, 130 interrupted, 143 SIGTERM. More:
docs/job.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain

from changed import work_all
from detect_options import DetectArchive
from finish import finish, show_dry_run
from forecast import show_forecast
from options import before_first_write, job_app, run_job
from prepare import Run, asked_for, decide_anew, decide_as_recorded
from ray_stages import Reading
from ray_start import RaySession, choose_pool
from run_metrics import RunMetrics
from start_up import StartUp
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import carried_fields, list_sources
from tinyface_core.archive.signed_urls import SignedUrls
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.output import OutputFolder, OutputState
from tinyface_core.tables.schema import images_schema

app = job_app("detect_archive.py", __doc__ or "")


@app.default
def main(job: DetectArchive) -> int:
    """Finds the faces, and says so."""
    return detect(job)


def detect(job: DetectArchive, ray_session: RaySession | None = None) -> int:
    """List, plan, work, commit, settle. ray_session: that of a job of which this run is a part."""
    started, start_up, skipped = datetime.now(UTC), StartUp(part=ray_session is not None), Counter[str]()
    storage, candidates = Storage(job.storage.options()), CandidateFilter(job.all_files, job.include, job.exclude)
    with before_first_write():
        output = OutputFolder(storage, job.output)
        state = output.look() if job.dry_run or job.forecast else output.check()
        recorded = output.settings() if state is OutputState.OURS else None
        carry = job.carry or tuple(recorded["carry"] if recorded else ())
        listed = list_sources(
            job.input,
            storage,
            candidates,
            carry=carry,
            on_skip=lambda kind: skipped.update([kind]),
            leave_out=[output.uri],
        )
        if job.dry_run:
            show_dry_run(listed, skipped)
            return 0

        asked = asked_for(job, storage, recorded=bool(recorded))
        reading = Reading(storage, candidates, tuple(carried_fields(job.input, storage, carry)))
        images_schema(reading.carried)  # refuses a carried column that has the name of ours
        sources = chain([next(listed)], listed)  # an empty input is told here, before anything starts
        start_up.passed("listing")

    with ExitStack() as stack:
        ray_session = ray_session or RaySession(job.ray_address, stack, start_up.passed)
        if recorded:
            decided = decide_as_recorded(job.model, asked, output, storage)
        else:
            pool = choose_pool(ray_session.cluster, job, job.device)
            decided = decide_anew(job, asked, ray_session.runtime(pool, job.device, job.precision), storage)
        if job.forecast:
            pool = choose_pool(ray_session.cluster, job, decided.runtime.device)
            detecting = decided.detecting(reading, pool, output)
            show_forecast(sources, skipped, reading, detecting, pool, price=job.price_per_hour)
            return 0
        claim = stack.enter_context(Claim(storage, output.uri))
        urls = stack.enter_context(SignedUrls())
        output, metrics = OutputFolder(claim.guarded(), job.output), RunMetrics("detect_archive", stack)
        run = Run(job, output, reading, decided, claim, urls, start_up, metrics)
        to_do, worked = work_all(
            run, urls.noted(sources), lambda: choose_pool(ray_session.cluster, job, decided.runtime.device)
        )
        finish(run, to_do, worked, started, skipped)
    return 0


if __name__ == "__main__":
    sys.exit(run_job(app))
