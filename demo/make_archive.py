"""Makes the sample archive `demo/archive/` from a folder that holds the pictures named in CREDITS.md.

    python demo/make_archive.py PICTURES demo/archive

Each picture is stored once: loose in a folder by its source, or in `crowds.tar`. One JPEG is cut short on purpose,
so that the demo shows an error row. The same pictures give the same bytes: the tar carries no times and no owners.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
from pathlib import Path

LOOSE = {
    "office": ("all_hands_2016.jpg", "industry_day_audience_2015.jpg", "office_team_2015.jpg"),
    "fellows": (
        "fellows_group_bw.jpg",
        "fellows_hangar.jpg",
        "fellows_steps_2019.jpg",
        "fellows_white_house_2015.jpg",
    ),
    "history": ("earthrise_no_faces.jpg", "treaty_signing_1949.jpg"),
    "portraits": ("astronaut_portrait.png", "navy_portrait.jpg"),
}
IN_TAR = (
    "atrium_team_2015.jpg",
    "auditorium_2016.jpg",
    "berlin_wall_1989.jpg",
    "mourning_march_1911.jpg",
    "wall_street_1929.jpg",
    "workshop_california_2016.jpg",
)
CUT_SHORT = ("navy_portrait.jpg", 20_000)  # bytes kept of the 61,306: the header is whole, the picture is not


def tar_of(pictures: dict[str, bytes]) -> bytes:
    """A plain tar of the pictures, in order of name, without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(pictures.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make_archive(pictures: Path, archive: Path) -> None:
    """Writes the archive; `pictures` is one flat folder with every picture and CREDITS.md."""
    archive.mkdir(parents=True, exist_ok=True)
    for folder, names in LOOSE.items():
        (archive / folder).mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(pictures / name, archive / folder / name)
    (archive / "crowds.tar").write_bytes(tar_of({name: (pictures / name).read_bytes() for name in IN_TAR}))
    name, kept = CUT_SHORT
    (archive / "broken").mkdir(exist_ok=True)
    (archive / "broken" / "cut_short.jpg").write_bytes((pictures / name).read_bytes()[:kept])
    shutil.copyfile(pictures / "CREDITS.md", archive / "CREDITS.md")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the sample archive from a folder of pictures.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("archive", type=Path)
    options = parser.parse_args()
    make_archive(options.pictures, options.archive)
