"""Checks an output of detect_archive.py against all that docs/guarantees.md and docs/schema.md promise: files, schemas,
footers, and every row.

Example: python jobs/validate.py s3://bucket/faces/

Nothing is written. Exit codes: 0 valid, 1 something is wrong, 2 refused.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from options import StorageFlags, job_app, run_job
from tinyface_core.errors import InputError
from tinyface_core.report.text import shown
from tinyface_core.storage import Storage
from tinyface_core.tables.output import OutputFolder, OutputState
from tinyface_core.tables.validate import validate

app = job_app("validate.py", __doc__ or "")


@app.default
def validate_output(
    tables: str,
    /,
    *,
    unfinished_ok: Annotated[bool, Parameter(negative=())] = False,
    storage: StorageFlags | None = None,
) -> int:
    """Prints one line for each violation, with its file and an example, and a summary last.

    Parameters
    ----------
    tables
        Folder or prefix of the tables that detect_archive.py wrote.
    unfinished_ok
        A missing _SUCCESS is no violation, nor are files that the next run's sweep removes.
    """
    store = Storage((storage or StorageFlags()).options())
    folder = OutputFolder(store, tables)
    if folder.state() is OutputState.EMPTY:
        raise InputError(f"no output of detect_archive.py: {store.canonical(tables)}: nothing is there.")
    folder.check_format()
    report = validate(store, store.canonical(tables), unfinished_ok=unfinished_ok)
    print("\n".join(map(shown, report.lines())))  # a line a violation, whatever a name holds
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run_job(app))
