"""Judges detections by annotated faces: WIDER FACE's protocol, by level, height and attribute; or FDDB's.

Example: python jobs/evaluate.py faces/ --truth wider_face_split/ground_truth --report evaluation/

Several outputs side by side are judged on the pictures that all of them have. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from options import StorageFlags, job_app, refuse_unwritable, run_job
from tinyface_core.errors import InputError, OutputError, SettingsError
from tinyface_core.evaluate.advise import write_advised
from tinyface_core.evaluate.errors_report import write_errors
from tinyface_core.evaluate.fddb import judge_fddb
from tinyface_core.evaluate.fddb_files import is_fddb
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.peers import run_yunet
from tinyface_core.evaluate.report import as_json, judge, table, write_curves
from tinyface_core.evaluate.results import on_disk, read_output, read_settings, read_text, write_text
from tinyface_core.evaluate.truth import Truth, read_truth
from tinyface_core.storage import Storage

YUNET = "YuNet at 1x and 2x"
app = job_app("evaluate.py", __doc__ or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """How results are judged, and what is left of it."""

    truth: Path
    "WIDER's ground truth (folder with wider_face_val.mat, ...), other annotations (no levels), or FDDB's folds."
    report: Path | None = None
    "Folder for the curves, CSV and PNG, and, in errors/, the error analysis of each result."
    text: Path | None = None
    "Folder for the (first) results in WIDER's, or FDDB's, text form."
    yunet: Path | None = None
    "YuNet's ONNX file: run here, on the same pictures, at 1x and 2x, and judged beside the results."
    pictures: Path | None = None
    "Folder of the pictures, for --yunet and for the contact sheet of false positives."
    samples: int = 1000
    "Of the bootstrap over pictures, for the intervals; 1 or more."
    advise: Annotated[tuple[Path, Path] | None, Parameter(negative=())] = None
    "MODEL NEW: writes MODEL, which made the (first) results, as NEW with what to expect at each score and height."
    json_file: Annotated[Path | None, Parameter("--json")] = None
    "File for the numbers."
    overwrite: Annotated[bool, Parameter(negative=())] = False
    "Replace the NEW of --advise that is there."
    storage: StorageFlags = StorageFlags()


@app.default
def evaluate(*results: str, options: Options) -> None:
    """Prints average precision with 95 % intervals for each group of faces.

    Parameters
    ----------
    results
        Outputs of detect_archive.py, or folders of WIDER's or FDDB's text results, on disk or by url; NAME=FOLDER names
        one in the table.
    """
    if not results:
        raise InputError("no results: name one or more outputs of detect_archive.py.")
    if options.samples < 1:
        raise SettingsError(f"--samples {options.samples}: intervals need 1 or more, 1000 are usual.")
    refuse_unwritable("--json", options.json_file)
    refuse_unwritable("--advise", options.advise[1] if options.advise else None, overwrite=options.overwrite)
    if options.text is not None and options.text.is_dir() and any(options.text.iterdir()):
        raise OutputError(f"--text {options.text}: is not empty: results of two runs would mix. Give another folder.")
    places = dict(map(_named, results))
    if len(places) < len(results):
        raise InputError("two results have one name: give each its own, as NAME=FOLDER.")
    storage = Storage(options.storage.options())
    with ExitStack() as stack:
        folders = {name: stack.enter_context(on_disk(place, storage)) for name, place in places.items()}
        text, numbers = _fddb(folders, options) if is_fddb(options.truth) else _wider(folders, options)
    print(text)
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(numbers, indent=1) + "\n")


def _fddb(results: dict[str, Path], options: Options) -> tuple[str, Any]:
    """What to print, and the numbers. Raises: InputError."""
    if options.yunet is not None or options.advise is not None:
        raise InputError("--yunet and --advise need annotated boxes, not FDDB's ellipses.")
    judged = judge_fddb(options.truth, results, report=options.report, text=options.text)
    return judged.text, judged.numbers


def _wider(results: dict[str, Path], options: Options) -> tuple[str, Any]:
    """What to print, and the numbers. Raises: InputError."""
    found = {name: _read(folder) for name, folder in results.items()}
    first, annotated = next(iter(results)), read_truth(options.truth)
    if options.yunet is not None:
        found[YUNET] = _yunet(options.yunet, options.pictures, annotated, set(found[first]))
    truth = annotated.only(set.intersection(*(set(of) for of in found.values())))
    by_detector = {name: judge(truth, match(truth, of), samples=options.samples) for name, of in found.items()}
    sampled = f"average precision (95 % of {options.samples} bootstrap samples over pictures)"
    told = [f"{len(truth.names)} pictures; {sampled}\n", table(by_detector)]
    if options.report is not None:
        write_curves(by_detector, options.report)
        told.append(_errors(truth, found, options.report / "errors", _files(options.pictures)))
    if options.text is not None:
        write_text(found[first], options.text)
    if options.advise is not None:
        settings = read_settings(results[first])
        told.append(f"\n{write_advised(*options.advise, truth, match(truth, found[first]), settings)}")
    return "\n".join(told), as_json(by_detector)


def _named(given: str) -> tuple[str, str]:
    name, equals, folder = given.partition("=")
    return (name, folder) if equals and "/" not in name and not Path(given).exists() else (Path(given).name, given)


def _read(folder: Path) -> dict[str, Found]:
    """Of either form. Raises: InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    return read_output(folder) if (folder / "images").is_dir() else read_text(folder)


def _yunet(model: Path, folder: Path | None, annotated: Truth, names: set[str]) -> dict[str, Found]:
    """On the pictures of the first results. Raises: InputError."""
    files = _files(folder)
    wanted = {name: files[name] for name in annotated.only(names).names if name in files}
    if not wanted:
        raise InputError(f"--pictures {folder or ''}: none of the pictures lies there; --yunet needs them.")
    return run_yunet(model, wanted)


def _files(folder: Path | None) -> dict[str, Path]:
    """Pictures below a folder, by name."""
    below = sorted(folder.rglob("*")) if folder else []
    return {path.stem: path for path in below if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")}


def _errors(truth: Truth, found: dict[str, dict[str, Found]], folder: Path, pictures: dict[str, Path]) -> str:
    """Writes the error analysis of each detector, YuNet being the second opinion on the others; gives its tables."""
    told = []
    for name, of in found.items():
        second = (YUNET, found[YUNET]) if YUNET in found and name != YUNET else None
        place = folder / name.replace("/", "_")
        told.append(f"\n{name}\n\n{write_errors(truth, of, place, pictures=pictures or None, second=second)}")
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(run_job(app))
