"""Does every archive form give the same detections? Loose files, tar, zip and Parquet, on disk and on S3.

    python benchmarks/archive_forms.py --pictures DIR --work FOLDER [--zooms 0.5 1] [--json FILE]

Makes the four forms from a folder of pictures, runs jobs/detect_archive.py on each, on disk and through a SeaweedFS
server that it starts, and compares the tables by the pictures' sha256. Prints a Markdown table; exits 1 if any
picture is missing, doubled, or detected differently.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
from cyclopts import App, Parameter
from figures import finish

ROOT = Path(__file__).resolve().parents[1]
SHARDS = 3
app = App(help=__doc__)


@dataclass(frozen=True)
class Row:
    """One run of the job. differing: pictures whose faces are not those of the first run."""

    form: str
    place: str
    objects: int
    pictures: int
    errors: int
    faces: int
    differing: int
    wall_s: float
    work_s: float


def loose(pictures: list[Path], base: Path, target: Path) -> None:
    for path in pictures:
        copy = target / path.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def tars(pictures: list[Path], base: Path, target: Path) -> None:
    for number in range(SHARDS):
        with tarfile.open(target / f"{number:05}.tar", "w") as tar:
            for path in pictures[number::SHARDS]:
                member = tarfile.TarInfo(str(path.relative_to(base)))
                member.size = path.stat().st_size
                tar.addfile(member, io.BytesIO(path.read_bytes()))


def zips(pictures: list[Path], base: Path, target: Path) -> None:
    for number in range(SHARDS):
        with zipfile.ZipFile(target / f"{number:05}.zip", "w") as archive:
            for path in pictures[number::SHARDS]:
                archive.write(path, path.relative_to(base))


def parquet(pictures: list[Path], base: Path, target: Path) -> None:
    for number in range(SHARDS):
        some = pictures[number::SHARDS]
        names = [str(path.relative_to(base)) for path in some]
        table = pa.table({"path": names, "bytes": pa.array([path.read_bytes() for path in some], pa.large_binary())})
        pq.write_table(table, target / f"{number:05}.parquet", row_group_size=64)


FORMS: dict[str, Callable[[list[Path], Path, Path], None]] = {
    "loose files": loose,
    "tar": tars,
    "zip": zips,
    "Parquet": parquet,
}


def run_job(source: str, output: str, options: list[str], environment: dict[str, str]) -> float:
    """Seconds of the whole command."""
    began = time.monotonic()
    command = [
        sys.executable,
        str(ROOT / "jobs/detect_archive.py"),
        "--input",
        source,
        "--output",
        output,
        "--no-report",
    ]
    subprocess.run([*command, *options], check=True, env=os.environ | environment)
    return time.monotonic() - began


def detections(output: str, filesystem: Any = None) -> dict[str, list[tuple[float, ...]]]:
    """sha256 of a picture -> its faces, as analysts would query them."""
    with duckdb.connect() as connection:
        if filesystem is not None:
            connection.register_filesystem(filesystem)
        rows = connection.execute(
            f"""
            SELECT sha256, list([x1, y1, x2, y2, score, template, zoom] ORDER BY score DESC, x1, y1)
                FILTER (WHERE score IS NOT NULL)
            FROM '{output}/images/*.parquet' LEFT JOIN '{output}/detections/*.parquet' USING (image_id, commit)
            GROUP BY image_id, sha256
            """
        ).fetchall()
    found = {sha256: faces or [] for sha256, faces in rows}
    if len(found) != len(rows):
        raise SystemExit(f"{output}: {len(rows) - len(found)} pictures are doubled")
    return found


def measure(
    folder: Path, options: list[str], places: list[tuple[str, str, Any, dict[str, str]]], forms: list[str]
) -> Iterator[Row]:
    first: dict[str, list[tuple[float, ...]]] | None = None
    for place, base, filesystem, environment in places:
        for form in forms:
            name = form.split()[0].lower()
            source, output = f"{base}/{name}/", f"{base}/faces-{name}"
            if filesystem is not None:
                filesystem.put(str(folder / name) + "/", source, recursive=True)
            wall_s = run_job(source, output, options, environment)
            found = detections(output, filesystem)
            opened = filesystem.open if filesystem is not None else open
            with opened(f"{output}/run.json") as file:
                facts = json.load(file)
            first = first or found
            yield Row(
                form,
                place,
                sum(path.is_file() for path in (folder / name).rglob("*")),
                facts["output"]["pictures"],
                facts["output"]["error"],
                facts["output"]["faces"],
                sum(first.get(sha256) != faces for sha256, faces in found.items()) + len(first.keys() - found.keys()),
                round(wall_s, 1),
                facts["work_s"],
            )


@app.default
def main(
    *,
    pictures: Path,
    work: Path,
    zooms: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> int:
    """Compare the forms.

    Parameters
    ----------
    pictures: folder of pictures, read recursively. work: an empty folder for archives and outputs.
    zooms: given to the job. json_file: where the rows go as JSON.
    """
    sys.path.insert(0, str(ROOT))
    from tests.integration.s3_server import S3Server

    files = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    for form, make in FORMS.items():
        target = work / form.split()[0].lower()
        target.mkdir(parents=True)
        make(files, pictures, target)
    options = ["--zooms", *zooms] if zooms else []
    with S3Server(work / "seaweedfs") as server:
        os.environ.update(server.environment())
        bucket = server.new_bucket()
        places = [
            ("disk", str(work), None, {}),
            ("S3", f"s3://{bucket}", s3fs.S3FileSystem(), server.environment()),
        ]
        rows = list(measure(work, options, places, list(FORMS)))
    names = list(Row.__dataclass_fields__)
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(value) for value in asdict(row).values()) + " |")
    finish([asdict(row) for row in rows], json_file)
    good = all(row.pictures == len(files) and row.differing == 0 for row in rows)
    print(f"{len(files)} pictures: " + ("the same detections from every form" if good else "THE FORMS DIFFER"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(app())
