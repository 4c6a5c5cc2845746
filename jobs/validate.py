"""Checks an output folder against everything that docs/guarantees.md and docs/schema.md promise. One core call.

Reads every row, writes nothing. Exit codes: 0 valid, 1 something is wrong, 2 the options are.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from options import StorageFlags, job_app, run_job
from tinyface_core.errors import InputError
from tinyface_core.storage import Storage
from tinyface_core.tables.output import OutputFolder, OutputState
from tinyface_core.tables.validate import validate

app = job_app(
    "validate.py",
    """Check an output of detect_archive.py: files, schemas, footers, and every row.

    Example: python jobs/validate.py s3://bucket/faces/
    """,
)


@app.default
def validate_output(
    output: str,
    *,
    unfinished_ok: Annotated[bool, Parameter(negative=())] = False,
    storage: StorageFlags | None = None,
) -> int:
    """Prints one line for each violation, with its file and an example, and a summary last.

    Parameters
    ----------
    output
        Folder or prefix of the tables.
    unfinished_ok
        A missing _SUCCESS is no violation, nor are files that the next run's sweep removes.
    """
    store = Storage((storage or StorageFlags()).options())
    if OutputFolder(store, output).state() is OutputState.EMPTY:
        raise InputError(f"no output of detect_archive.py: {store.canonical(output)}: nothing is there.")
    report = validate(store, store.canonical(output), unfinished_ok=unfinished_ok)
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run_job(app))
