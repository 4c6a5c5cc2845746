"""Judges detections by annotated faces: WIDER FACE's protocol, by level, height and attribute; or FDDB's.

Example: python jobs/evaluate.py faces/ --truth wider_face_split/ground_truth --report evaluation/

Several outputs side by side are judged on the pictures that all of them have. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from options import job_app, refuse_unwritable, run_job
from tinyface_core.errors import InputError
from tinyface_core.evaluate.advise import write_advised
from tinyface_core.evaluate.errors_report import write_errors
from tinyface_core.evaluate.fddb import judge_fddb
from tinyface_core.evaluate.fddb_files import is_fddb
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.peers import run_yunet
from tinyface_core.evaluate.report import as_json, judge, table, write_curves
from tinyface_core.evaluate.results import read_output, read_settings, read_text, write_text
from tinyface_core.evaluate.truth import Truth, read_truth

YUNET = "YuNet at 1x and 2x"
app = job_app("evaluate.py", __doc__ or "")


@app.default
def evaluate(
    *results: Path,
    truth: Path,
    report: Path | None = None,
    text: Path | None = None,
    yunet: Path | None = None,
    pictures: Path | None = None,
    samples: int = 1000,
    advise: tuple[Path, Path] | None = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Prints average precision with 95 % intervals for each group of faces.

    Parameters
    ----------
    results
        Outputs of detect_archive.py, or folders of WIDER's or FDDB's text results; NAME=FOLDER names one in the table.
    truth
        WIDER's ground truth (a folder with wider_face_val.mat, wider_easy_val.mat, ...), or annotations in another form
        (docs/training.md), which have no levels; or FDDB's folder of folds, for FDDB's protocol.
    report
        Folder for the curves, CSV and PNG, and, in errors/, the error analysis of each result.
    text
        Folder for the (first) results in WIDER's, or FDDB's, text form.
    yunet
        YuNet's ONNX file: run here, on the same pictures, at 1x and 2x, and judged beside the results.
    pictures
        Folder of the pictures, for --yunet and for the contact sheet of false positives.
    samples
        Of the bootstrap over pictures.
    advise
        MODEL NEW: writes the checkpoint MODEL, which made the (first) results, as NEW, with what to expect at each
        score and height, and the score of one false alarm a picture as its default.
    """
    if not results:
        raise InputError("no results: name one or more outputs of detect_archive.py.")
    refuse_unwritable("--json", json_file)
    refuse_unwritable("--advise", advise[1] if advise else None)
    if is_fddb(truth):
        if yunet is not None or advise is not None:
            raise InputError("--yunet and --advise need annotated boxes, not FDDB's ellipses.")
        judged = judge_fddb(truth, dict(map(_named, results)), report=report, text=text)
        print(judged.text)
        if json_file is not None:
            json_file.write_text(json.dumps(judged.numbers, indent=1) + "\n")
        return
    found = {name: _read(folder) for name, folder in map(_named, results)}
    annotated = read_truth(truth)
    if yunet is not None:
        found[YUNET] = _yunet(yunet, pictures, annotated, set(next(iter(found.values()))))
    together = set.intersection(*(set(of) for of in found.values()))
    judged_on = annotated.only(together)
    print(f"{len(judged_on.names)} pictures; average precision (95 % of {samples} bootstrap samples over pictures)\n")
    by_detector = {name: judge(judged_on, match(judged_on, of), samples=samples) for name, of in found.items()}
    print(table(by_detector))
    if report is not None:
        write_curves(by_detector, report)
        print(_errors(judged_on, found, report / "errors", _files(pictures)))
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(by_detector), indent=1) + "\n")
    if text is not None:
        write_text(next(iter(found.values())), text)
    if advise is not None:
        name, output = _named(results[0])
        print(f"\n{write_advised(*advise, judged_on, match(judged_on, found[name]), read_settings(output))}")


def _named(given: Path) -> tuple[str, Path]:
    name, equals, folder = str(given).partition("=")
    return (name, Path(folder)) if equals and not given.exists() else (given.name, given)


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
