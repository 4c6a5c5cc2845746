"""Draws any part of an output to look at: a page that stays quick with ten thousand pictures, or a folder of pictures.

    python jobs/render.py faces/ --output looked/ --most-crowded 200

    python jobs/render.py s3://bucket/faces/ --output looked/ --as pictures --tiny 10 --sample 50 --ellipses

Pictures are read again where they lie, and shown only if their bytes are those that were examined. What cannot be shown
is a tile that says why. All cores of this machine decode; no Ray is needed. More: docs/render.md.
Exit codes: 0 done, 2 refused and nothing written, 1 stopped later, 130 interrupted, 143 SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import track

from options import StorageFlags, before_first_write, job_app, refuse_lost, run_job
from render_options import HowFlags, WhichFlags
from tinyface_core.errors import InputError, SettingsError, StorageError
from tinyface_core.export.target import Target
from tinyface_core.picture.picture import Limits
from tinyface_core.render import folder, page
from tinyface_core.render.choose import Choice, choose
from tinyface_core.render.drawn import Style
from tinyface_core.render.looks import NOT_SHOWN, Look, looks
from tinyface_core.render.marks import Marks, read_marks
from tinyface_core.report.text import counted, place_of
from tinyface_core.storage import Storage
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.place import refuse_among
from tinyface_core.tables.unit_files import images_files

MOST_CHILDREN = 16  # beyond, drawing in this process is what takes the time
NAMED = 5  # pictures that could not be shown, on the screen
app = job_app("render.py", __doc__ or "")

Form = Literal["page", "pictures"]


@app.default
def render(
    tables: str,
    /,
    *,
    out: Annotated[str, Parameter("--output")],
    form: Annotated[Form, Parameter(name="--as")] = "page",
    which: WhichFlags | None = None,
    how: HowFlags | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    storage: StorageFlags | None = None,
) -> int:
    """Draws, and tells what could not be.

    Parameters
    ----------
    tables
        Folder or prefix of the tables that detect_archive.py wrote.
    out
        Folder or prefix for the page or the pictures; not inside an input.
    form
        A page to scroll and search, or a folder of pictures.
    overwrite
        Replace what an earlier run wrote there.
    """
    store = Storage((storage or StorageFlags()).options())
    style = (how or HowFlags()).style()
    target = _target(store, out, form, overwrite=overwrite)
    with before_first_write():
        output = OutputFolder(store, tables)
        if next(images_files(store, output.uri), None) is None:
            raise InputError(f"no output of detect_archive.py: {output.uri}: nothing is there.")
        wanted = (which or WhichFlags()).wanted(store)
        inputs = (output.read_json("run.json") or {}).get("inputs", [])
        refuse_among(target.uri, map(store.canonical, inputs), "--output", "they")
        target.check(output.uri)
        choice = choose(store, output.uri, wanted)
        _refuse_too_many(choice, form)
        marks = read_marks(store, choice.pictures, wanted.min_score)
    if not choice.pictures and wanted.named.patterns and not wanted.filters_rows:
        raise InputError(f"--uri {', '.join(wanted.named.patterns)}: no picture of this output has such a name.")
    finished = store.stat(output.path("_SUCCESS")) is not None
    if not choice.pictures:
        print("no picture passes: nothing is written")
        _tell(choice, [], finished=finished)
        return 0
    recorded = output.settings() or {}
    limits = Limits(recorded.get("max_pixels", Limits.max_pixels), recorded.get("decode_timeout", Limits.timeout_s))
    seen = looks(store, choice.pictures, marks, limits, min(MOST_CHILDREN, len(os.sched_getaffinity(0))))
    with target.stage() as staging:
        place = Path(staging) / form
        unshown = _draw(place, form, seen, choice, marks, style, place_of(output.uri, None).name)
        target.publish(place, {"form": form, "pictures": len(choice.pictures), "not_shown": len(unshown)})
    where = f"{target.uri}/index.html" if form == "page" else target.uri
    print(f"{counted(len(choice.pictures), 'picture')} of {choice.passed:,} that pass: {where}")
    _tell(choice, unshown, finished=finished)
    return 0


def _target(store: Storage, out: str, form: Form, *, overwrite: bool) -> Target:
    """Raises: SettingsError."""
    if not out.strip():
        raise SettingsError("--output: is empty. An unset variable?")
    if out.lower().endswith((".html", ".htm")):
        raise SettingsError(
            f"--output {out}: a page is a folder: index.html, and the pictures that it loads. Give the folder's name."
        )
    refuse_lost("--output", out)
    return Target(store, out, suffix=page.SUFFIXES if form == "page" else folder.SUFFIXES, overwrite=overwrite)


def _refuse_too_many(choice: Choice, form: Form) -> None:
    if form == "page" and len(choice.pictures) > page.MOST_PICTURES:
        raise InputError(
            f"--as page: {len(choice.pictures):,} pictures pass, and a page holds {page.MOST_PICTURES:,}. Give "
            "--sample, --limit or --most-crowded, or --as pictures."
        )


def _draw(
    place: Path, form: Form, seen: Iterator[Look], choice: Choice, marks: dict[str, Marks], style: Style, title: str
) -> list[Look]:
    """Those that are not shown. Raises: InputError where that is every picture that has no error row; StorageError."""
    if form == "page":
        share = page.fair_share([len(each) for each in marks.values()])
        written = page.write_page(place, seen, style, share, title)
    else:
        written = folder.write_pictures(place, seen, style)
    unshown, shown = [], 0
    try:
        console = Console(stderr=True)
        for look in track(written, "drawing", total=len(choice.pictures), console=console, transient=True):
            shown += look.picture is not None
            if look.chosen.error is None and look.why is not None:
                unshown.append(look)
    except OSError as error:
        raise StorageError(f"cannot write {error.filename or place}: {error.strerror or error}.") from error
    if unshown and not shown and len(unshown) == len(choice.pictures):
        raise InputError(
            f"none of {counted(len(unshown), 'picture')} can be shown: {_why(unshown[0])}. Nothing is written: are the "
            "pictures where they were, and may they be read with these credentials?"
        )
    return unshown


def _tell(choice: Choice, unshown: list[Look], *, finished: bool) -> None:
    errors = Counter(picture.error[0] for picture in choice.pictures if picture.error is not None)
    if errors:
        classes = ", ".join(f"{count:,} {name}" for name, count in sorted(errors.items()))
        print(f"as tiles: {counted(errors.total(), 'picture')} with an error row ({classes})")
    if unshown:
        print(f"as tiles: {counted(len(unshown), 'picture')} that {NOT_SHOWN}")
        for look in sorted(unshown, key=lambda look: look.place)[:NAMED]:
            print(f"  {place_of(look.chosen.uri, look.chosen.member).path}: {_why(look)}")
    if choice.absent:
        first = ", ".join(choice.absent[:NAMED])
        print(f"not in the output: {counted(len(choice.absent), 'line')} of --list: {first}")
    if choice.torn_units:
        print(f"left out: {counted(choice.torn_units, 'unit')} whose faces are not there: run detect_archive.py again.")
    if not finished:
        print("The output is not finished (no _SUCCESS): what was committed until now is shown.")


def _why(look: Look) -> str:
    return look.why[1] if look.why is not None else ""


if __name__ == "__main__":
    sys.exit(run_job(app))
