"""The input of the run that docs/analytics.md is asked about, and what may become of its output.

27 candidates, with days, copies, errors and faces of all heights: the pictures of the demo, made small, so that many
faces are small. Two columns that are carried along are called as columns of the faces are.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from tests.integration.job_pictures import DEMO
from tests.picture_samples import saved
from tests.unit.archives import tar_bytes, zip_bytes
from tinyface_core.tables.partition import NO_VALUE

TAKEN = ["2016:05:03 23:59:58", "2016:05:04 00:00:01", None]  # in turn
ABSENT = "absent.jpg"
CARRIED_TWINS = ("score", "X1")  # of columns of detections

LONGEST = {"treaty_signing_1949.jpg": 960, "astronaut_portrait.png": 800}  # px; others 640: faces of all heights
CROPS = {"strip.jpg": (0, 124, 640, 184), "narrow.jpg": (200, 100, 340, 400)}  # x1, y1, x2, y2 in all_hands_2016.jpg


def resized(name: str, picture: Image.Image) -> Image.Image:
    longest = LONGEST.get(name, 640)
    return ImageOps.contain(picture.convert("RGB"), (longest, longest))


def jpeg(picture: Image.Image, taken: str | None = None) -> bytes:
    exif = Image.Exif()
    if taken is not None:
        exif[306] = taken
    return saved(picture, "JPEG", quality=90, exif=exif)


def photographs() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Loose ones (11, and 2 crops whose edges cut faces) and those of the tar (6): name -> content."""
    loose = sorted(path for path in DEMO.rglob("*") if path.suffix in (".jpg", ".png") and path.parent.name != "broken")
    pictures = {path.name: resized(path.name, Image.open(path)) for path in loose}
    with tarfile.open(DEMO / "crowds.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file
            pictures[member.name] = resized(member.name, Image.open(io.BytesIO(file.read())))
    crops = {name: jpeg(pictures["all_hands_2016.jpg"].crop(box)) for name, box in CROPS.items()}
    data = {name: jpeg(picture, TAKEN[number % 3]) for number, (name, picture) in enumerate(pictures.items())}
    return {path.name: data.pop(path.name) for path in loose} | crops, data


def write_input(folder: Path) -> None:
    """`in/`, and `list.parquet`, which gives most of it an album."""
    loose, crowds = photographs()
    one, two, *_ = crowds.values()
    members = [(f"1989-11-10/{name}", data) for name, data in crowds.items()]
    letter = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"
    files = {f"in/2015/staff 2015-12-31 to 2016-05-04/{name}": data for name, data in loose.items()}
    files |= {
        "in/Crowds.TAR": tar_bytes([*members, ("1989-11-10/cut.jpg", one[: len(one) // 2])]),
        "in/letters.tar.gz": tar_bytes([("letter.pdf", letter)], "w:gz"),
        "in/half.zip": zip_bytes([("a.jpg", one), ("b.jpg", two)])[:-40],
        "in/copies 2017-02-29/one.jpg": one,  # no day of that year
        "in/copies 2017-02-29/one again.jpg": one,
        "in/copies 2017-02-29/two.jpg": two,
        "in/copies 2017-02-29/letter.pdf": letter,
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    names = [name for name in files if "copies" not in name]
    albums = [None if "portrait" in name else "staff" if name.endswith(("jpg", "png")) else "crowds" for name in names]
    columns = {"uri": [*names, ABSENT], "album": [*albums, "staff"]}
    columns |= {name: [-1.0] * len(columns["uri"]) for name in CARRIED_TWINS}
    pq.write_table(pa.table(columns), folder / "list.parquet")


def as_left_by_a_killed_redo(output: Path, folder: Path) -> None:
    """A copy with another writing's faces beside those that count, in every unit."""
    shutil.copytree(output, folder)
    (folder / "_SUCCESS").unlink()
    for path in sorted((folder / "detections").glob("*.parquet")):
        table = pq.read_table(path)
        table = table.set_column(1, table.schema.field("commit"), pa.array(["0" * 32] * len(table), pa.string()))
        pq.write_table(table, path.with_name(f"{path.name.rsplit('-', 1)[0]}-{'0' * 32}.parquet"))


def as_partitioned(output: Path, folder: Path) -> None:
    """A copy whose files lie in folders `roll=...`, as --partition-by has it."""
    for table in ("images", "detections"):
        for path in sorted((output / table).glob("*.parquet")):
            value = roll_of(path.stem.split("-")[1])
            place = folder / table / f"roll={quote(value) if value else NO_VALUE}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def roll_of(unit: str) -> str | None:
    return "a b" if int(unit[0], 16) % 2 else None
