"""Does every file of a corpus of broken pictures end as a row, and as the same one in every archive form?

    python benchmarks/corpus.py --files DIR --work FOLDER [--zooms 0.25] [--json FILE]

Runs jobs/detect_archive.py on the folder as it is, and on one tar, zip and Parquet file made from it. Each file must
be one row, or skipped by its name; its status, error class, stage, hash and faces must not depend on the form.
Archives among the files are opened where they lie loose, and are a row inside of another archive: they are not
compared, but each must have a row of its own, rows of what is in it, or nothing in it that is not skipped. Prints a
Markdown table, and each difference; exits 1 if there are any.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from cyclopts import App, Parameter
from figures import finish

from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Source, UnitEnd
from tinyface_core.archive.units import whole_unit
from tinyface_core.storage import Storage

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".parquet", ".pq")
FORMS = ("loose", "tar", "zip", "parquet")
Told = tuple[Any, ...]  # status, error class, stage, sha256, number of faces
app = App(help=__doc__)


def pack(files: list[Path], base: Path, form: str, target: Path) -> None:
    """One archive of all files, under their names in the folder."""
    names = [str(path.relative_to(base)) for path in files]
    if form == "tar":
        with tarfile.open(target, "w") as tar:
            for name, path in zip(names, files, strict=True):
                member = tarfile.TarInfo(name)
                member.size = path.stat().st_size
                tar.addfile(member, io.BytesIO(path.read_bytes()))
    elif form == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, path in zip(names, files, strict=True):
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
    else:
        contents = pa.array([path.read_bytes() for path in files], pa.large_binary())
        pq.write_table(pa.table({"path": names, "bytes": contents}), target, row_group_size=64)


def rows_of(output: Path, prefix: str) -> dict[str, list[Told]]:
    """File of the corpus -> what its rows say. prefix: of the uri of loose files."""
    name = f"coalesce(member, replace(uri, '{prefix}', ''))"
    told = "status, error_class, error_stage, sha256, num_faces"
    found: dict[str, list[Told]] = {}
    with duckdb.connect() as connection:
        for file, *values in connection.execute(
            f"SELECT {name}, {told} FROM '{output}/images/**/*.parquet'"
        ).fetchall():
            found.setdefault(file, []).append(tuple(values))
    return found


def holds_skipped_files_alone(archive: Path) -> bool:
    source = Source(f"file://{archive}", kind_of(archive.name), archive.stat().st_size)
    *_, end = read_unit(whole_unit(source), Storage(), CandidateFilter())
    return isinstance(end, UnitEnd) and end.count == 0 and bool(end.skipped)


def without_a_row(names: list[str], base: Path, output: Path) -> tuple[list[str], list[str]]:
    """Files that are no rows of the output: archives of skipped files alone, and others, which are lost."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT DISTINCT uri FROM '{output}/images/**/*.parquet'").fetchall()
    uris = {uri for (uri,) in found}
    missing = [name for name in sorted(names) if CandidateFilter().skipped_as(name) is None]
    missing = [name for name in missing if f"file://{base}/{name}" not in uris]
    empty = [name for name in missing if holds_skipped_files_alone(base / name)]
    return empty, [name for name in missing if name not in empty]


def run(source: Path, output: Path, zooms: list[str]) -> dict[str, Any]:
    """run.json of the job."""
    command = [sys.executable, str(ROOT / "jobs/detect_archive.py"), "--input", str(source), "--output", str(output)]
    options = ["--model", "hr-mobilenetv2", "--zooms", *zooms, "--no-report", "--unit-pictures", "200"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    if code := subprocess.run([*command, *options], check=False, env=environment).returncode:
        raise SystemExit(f"the job ended with {code} on {source}; its own words stand above.")
    facts: dict[str, Any] = json.loads((output / "run.json").read_text())
    return facts


@app.default
def main(
    *,
    files: Path,
    work: Path,
    zooms: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("0.25",),
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> int:
    """Runs the four forms and compares.

    Parameters
    ----------
    files: folder of the corpus, read recursively. work: an empty folder for archives and outputs.
    """
    base, wrong, forms = files.resolve(), list[str](), dict[str, Any]()
    paths = sorted(path for path in base.rglob("*") if path.is_file())
    if not paths:
        raise SystemExit(f"--files {files}: holds no files, or is not there.")
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise SystemExit(f"--work {work}: is not empty; what lies there would count as done.")
    comparable = {str(path.relative_to(base)) for path in paths if not path.name.lower().endswith(ARCHIVES)}
    loose: dict[str, list[Told]] = {}
    print("| form | files | rows | ok | skipped | errors |\n|---|---:|---:|---:|---:|---|")
    for form in FORMS:
        source = base if form == "loose" else work / f"corpus.{form}"
        if form != "loose":
            pack(paths, base, form, source)
        facts = run(source, work / form, list(zooms))
        counts, skipped = facts["output"], sum(facts["skipped"].values())
        errors = ", ".join(f"{name} {count}" for name, count in sorted(counts["errors_by_class"].items()))
        print(f"| {form} | {len(paths)} | {counts['pictures']} | {counts['ok']} | {skipped} | {errors} |", flush=True)
        forms[form] = {"files": len(paths), "skipped": skipped, **counts}
        rows = {name: told for name, told in rows_of(work / form, f"file://{base}/").items() if name in comparable}
        wrong += [f"{form}: {name} has {len(told)} rows" for name, told in rows.items() if len(told) > 1]
        if form != "loose" and counts["pictures"] + skipped != len(paths):
            wrong.append(f"{form}: {len(paths)} files became {counts['pictures']} rows and {skipped} skipped")
        loose = loose or rows
        for name in sorted(rows.keys() | loose.keys()):
            if rows.get(name) != loose.get(name):
                wrong.append(f"{form}: {name}: {rows.get(name)}, loose {loose.get(name)}")
    empty, lost = without_a_row([str(path.relative_to(base)) for path in paths], base, work / "loose")
    wrong += [f"loose: {name}: no row" for name in lost]
    silent = Counter(Path(name).suffix.lower() for name in comparable - loose.keys())
    print(f"\nwithout a row, by ending: {dict(silent.most_common())}")
    print(f"archives without a row, as they hold skipped files alone: {len(empty)}")
    for line in wrong:
        print(line)
    finish({"forms": forms, "wrong": wrong, "without a row": empty}, json_file)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(app())
