"""The format of the tables: which one is written, which ones are read, and what is said of the others.

Its number stands in the footer of each file and in `_run/settings.json`. There has been one format so far. Who raises
the number either goes on reading the older one (OLDEST_READ stays), or names the command that migrates it (MIGRATIONS).

Knows numbers and sentences; reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinyface_core import __version__
from tinyface_core.errors import FormatError

if TYPE_CHECKING:
    import duckdb

FORMAT_VERSION = 1
OLDEST_READ = 1
# A format that is not read any more -> the command that brings its tables to today's.
MIGRATIONS: Mapping[int, str] = {}
_ANEW = "python jobs/detect_archive.py --input INPUT --output ANOTHER_FOLDER"
_KEY = "tinyface.format_version"


def check_format(version: object, where: str) -> None:
    """Nothing, for a format that is read.

    Args:
        version: as a footer or the settings have it.
        where: the file or folder, for the message.
    Raises:
        FormatError: with what to do.
    """
    if isinstance(version, int) and OLDEST_READ <= version <= FORMAT_VERSION:
        return
    here = f"this version of tinyface ({__version__}) reads " + (
        f"format {FORMAT_VERSION}" if OLDEST_READ == FORMAT_VERSION else f"formats {OLDEST_READ} to {FORMAT_VERSION}"
    )
    if not isinstance(version, int):
        raise FormatError(f"{where}: its format is {version!r}, no number; {here}. Look with jobs/validate.py.")
    if version > FORMAT_VERSION:
        raise FormatError(f"{where}: was written in format {version} by a later version; {here}. Update tinyface.")
    command = MIGRATIONS.get(version)
    mend = f"Migrate it: {command}" if command else f"No command migrates it; write it anew: {_ANEW}"
    raise FormatError(f"{where}: was written in format {version}; {here}. {mend}")


def check_footer(metadata: Mapping[bytes, bytes] | None, where: str) -> None:
    """As `check_format`, of a Parquet file's key-value metadata. A file that tells no format is not judged."""
    told = (metadata or {}).get(_KEY.encode(), b"").decode("utf-8", "replace")
    if told:
        check_format(int(told) if told.isdecimal() else told, where)


def check_tables(connection: duckdb.DuckDBPyConnection, tables: str) -> None:
    """As `check_footer`, of all files of a table. tables: as `sql_glob` gives them."""
    told = connection.execute(
        f"SELECT decode(value), min(file_name) FROM parquet_kv_metadata({tables}) WHERE decode(key) = ? GROUP BY ALL",
        [_KEY],
    ).fetchall()
    for version, file in told:
        check_footer({_KEY.encode(): version.encode()}, file)
