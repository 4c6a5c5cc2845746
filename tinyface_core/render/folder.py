"""A folder of pictures: each with its faces drawn, under a name that mirrors where it lies; and a list of all.

A picture that cannot be shown is a tile that says why. Knows files on this disk; publishing them is not its affair.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinyface_core.redact.names import mirrored_name
from tinyface_core.render.caption import error_tile, with_legend
from tinyface_core.render.drawn import Style, drawn, jpeg, tiny_cuts
from tinyface_core.render.looks import Look
from tinyface_core.report.text import place_of

LIST = "pictures.csv"
SUFFIXES = (".jpg", ".csv")
_QUALITY, _LONGEST_PX = 90, 16_000  # a JPEG ends at 65,535
_HEADER = ("file", "image_id", "uri", "member", "faces", "error_class", "error_message")


def write_pictures(folder: Path, looks: Iterable[Look], style: Style) -> Iterator[Look]:
    """Writes each picture into the folder as it comes, and gives it on; then `pictures.csv`, in the choice's order.

    Raises: OSError.
    """
    folder.mkdir()
    rows: list[tuple[int, tuple[str | int | None, ...]]] = []
    for look in looks:
        chosen = look.chosen
        name = mirrored_name(chosen.uri, chosen.member, chosen.image_id, "jpeg")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_picture(look, style))
        told = (name, chosen.image_id, chosen.uri, chosen.member, len(look.marks), *(look.why or (None, None)))
        rows.append((look.place, told))
        yield look
    with (folder / LIST).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file_of_all:
        writer = csv.writer(file_of_all)
        writer.writerow(_HEADER)
        writer.writerows(row for _, row in sorted(rows))


def _picture(look: Look, style: Style) -> bytes:
    if look.picture is None:
        error_class, sentence = look.why or ("", "")
        return jpeg(error_tile(error_class, sentence, place_of(look.chosen.uri, look.chosen.member).path), _QUALITY)
    rgb_HW3 = look.picture.rgb_HW3
    cuts_HW3 = tiny_cuts(rgb_HW3, look.marks, style)
    drawn_HW3 = drawn(rgb_HW3, look.marks, style.longest_px or _LONGEST_PX, ellipses=style.ellipses)
    return jpeg(with_legend(drawn_HW3, cuts_HW3, look.facts), _QUALITY)
