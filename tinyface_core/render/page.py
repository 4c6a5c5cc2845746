"""A page that stays quick with ten thousand pictures: index.html, and small files beside it that it loads when seen.

    index.html                  names, facts and faces of all pictures as JSON; the script that shows those in view
    small/000/000012.jpg        with faces drawn, for the grid
    large/000/000012.jpg        as it is, for a closer look; the faces are drawn over it by the browser
    cuts/000/000012.jpg         its tiniest faces, enlarged

It opens from a disk and from any server; its own Content-Security-Policy forbids other scripts and addresses. Knows
files on this disk; publishing them is not its affair.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tinyface_core.render.drawn import Style, drawn, jpeg, tiny_cuts, zoom_of
from tinyface_core.render.looks import Look
from tinyface_core.render.marks import Marks
from tinyface_core.report import text
from tinyface_core.report.draw import fit, hex_colour

MOST_PICTURES = 20_000  # 150 bytes each in the page, and its faces
MOST_FACES = 400_000  # in the page, 25 bytes each: it loads in a blink from a disk, and in seconds from far away
MOST_OF_ONE = 1500  # more in one picture are slow to hover over
SUFFIXES = (".jpg", ".html")
_SMALL_PX, _LARGE_PX = 320, 1600
_SMALL_QUALITY, _LARGE_QUALITY = 76, 85


def write_page(folder: Path, looks: Iterable[Look], style: Style, most_faces: int, title: str) -> Iterator[Look]:
    """Writes the files of each picture as it comes, and gives it on; then the page, in the order of the choice.

    Args:
        style: longest_px bounds the large pictures; else 1600. most_faces: of one picture, of `fair_share`.
        title: of the page.
    Raises: OSError.
    """
    folder.mkdir()
    entries: list[tuple[int, dict[str, Any]]] = []
    for look in looks:
        entries.append((look.place, _entry(folder, look, style, most_faces)))
        yield look
    in_order = [entry for _, entry in sorted(entries, key=lambda item: item[0])]
    (folder / "index.html").write_text(page_of(in_order, title, ellipses=style.ellipses), "utf-8")


def fair_share(counts: Sequence[int]) -> int:
    """How many faces of each picture, the most certain, the page holds: of all together at most MOST_FACES."""
    faces_P = np.asarray(counts, np.int64)
    share = MOST_OF_ONE
    while share > 1 and int(np.minimum(faces_P, share).sum()) > MOST_FACES:
        share -= 1
    return share


def page_of(entries: Sequence[Mapping[str, Any]], title: str, *, ellipses: bool) -> str:
    """The page's text.

    Args:
        entries: `name`, `path`, `link` (or None), `faces`, `smallest` (px or None); `why` [class, sentence] of one that
            is not shown, else `file`, `size` [width, height] of the large file, `zoom` of it, `cuts` (whether there are
            some), `left` (faces not held) and `marks`: of each face left, top, width, height (with ellipses cx, cy,
            half axes, degrees, height), px of the large file, and its score.
    """
    colours = [hex_colour(hundredth / 100) for hundredth in range(101)]
    data = json.dumps({"pictures": entries, "colours": colours, "ellipses": ellipses}, separators=(",", ":"))
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        title=title,
        css=_part("page.css"),
        script=script,
        script_hash=digest,
        data=data.replace("<", "\\u003c"),
        ramp=", ".join(colours[::10]),
        pictures=len(entries),
    )


def _entry(folder: Path, look: Look, style: Style, most_faces: int) -> dict[str, Any]:
    where = text.place_of(look.chosen.uri, look.chosen.member)
    smallest = float(look.marks.heights_px_K.min()) if len(look.marks) else None
    entry: dict[str, Any] = {"name": where.name, "path": where.path, "link": where.href, "faces": len(look.marks)}
    entry["smallest"] = None if smallest is None else round(smallest, 4)  # whole px are for the script
    if look.picture is None:
        error_class, sentence = look.why or ("", "")
        return entry | {"why": [text.shown(error_class), text.shown(sentence)]}
    rgb_HW3 = look.picture.rgb_HW3
    large_HW3 = fit(rgb_HW3, style.longest_px or _LARGE_PX)
    zoom_xy = zoom_of(rgb_HW3, large_HW3)
    marks = look.marks.at(zoom_xy)
    small_HW3 = drawn(large_HW3, marks, _SMALL_PX, ellipses=style.ellipses)
    cuts_HW3 = tiny_cuts(rgb_HW3, look.marks, style)
    name = f"{look.place // 1000:03}/{look.place:06}.jpg"
    _write(folder / "small" / name, jpeg(small_HW3, _SMALL_QUALITY))
    _write(folder / "large" / name, jpeg(large_HW3, _LARGE_QUALITY, thin_lines=False))
    if cuts_HW3 is not None:
        _write(folder / "cuts" / name, jpeg(cuts_HW3, _LARGE_QUALITY))
    entry |= {"file": name, "size": [large_HW3.shape[1], large_HW3.shape[0]], "zoom": round(zoom_xy[1], 5)}
    entry |= {"cuts": cuts_HW3 is not None, "left": max(0, len(look.marks) - most_faces)}
    return entry | {"marks": _numbers(marks.best(most_faces), ellipses=style.ellipses)}


def _numbers(marks: Marks, *, ellipses: bool) -> list[list[float]]:
    """Rows as the script takes them; tenths of a pixel are enough to see."""
    height_K = marks.heights_px_K
    if ellipses:
        degrees_K = np.degrees(marks.ellipses_K5[:, 4])
        columns = [*marks.ellipses_K5[:, :4].T, degrees_K, height_K]
    else:
        columns = [marks.boxes_K4[:, 0], marks.boxes_K4[:, 1], marks.boxes_K4[:, 2] - marks.boxes_K4[:, 0], height_K]
    tenths = [[round(float(value), 1) for value in column] for column in columns]
    scores = [round(float(score), 2) for score in marks.scores_K]
    return [list(row) for row in zip(*tenths, scores, strict=True)]


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(grouped=text.grouped)
    return environment.get_template("page.html.jinja")
