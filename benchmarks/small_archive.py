"""A small archive of real photographs in every form, for benchmarks in which the pictures are not the point."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DEMO = Path(__file__).resolve().parents[1] / "demo" / "archive"
LOOSE, PACKED = 64, 12
SIDE_PX = 200


def photographs(count: int) -> Iterator[bytes]:
    """Small JPEGs, all of them different."""
    files = sorted(path for path in DEMO.rglob("*.jpg") if path.parent.name != "broken")
    for number in range(count):
        with Image.open(files[number % len(files)]) as picture:
            small = picture.convert("RGB").rotate(3 * (number // len(files)))
        small.thumbnail((SIDE_PX, SIDE_PX))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def make_archive(folder: Path, *, changed: bool = False) -> None:
    """Loose pictures, one archive of each form, and files that end as error rows.

    changed: over what lies there: every third loose picture and the archives are others, and a broken file is mended.
    """
    folder.mkdir(exist_ok=True)
    pictures = list(photographs(LOOSE + PACKED + 1))
    for number in range(LOOSE):
        if not changed:
            (folder / f"{number:03}.jpg").write_bytes(pictures[number])
        elif number % 3 == 0:
            (folder / f"{number:03}.jpg").write_bytes(pictures[number + 1])
    first = LOOSE + changed
    members = [(f"{number:02}.jpg", data) for number, data in enumerate(pictures[first : first + PACKED])]
    with tarfile.open(folder / "a.tar", "w") as tar, zipfile.ZipFile(folder / "b.zip", "w") as packed:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            packed.writestr(name, data)
    structs = [{"bytes": data, "path": name} for name, data in members]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(structs, kind)}), folder / "c.parquet")
    (folder / "cut short.jpg").write_bytes(pictures[0] if changed else pictures[0][:4000])
    (folder / "no picture.jpg").write_bytes(b"%PDF-1.4 nothing")
    (folder / "half.zip").write_bytes((folder / "b.zip").read_bytes()[:9000])
