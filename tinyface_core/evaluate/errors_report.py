"""The error analysis of one detector as files and as text: kinds of false positives, contact sheet, sensitivity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tinyface_core.evaluate.errors import believed, errors_json, errors_table, false_positives
from tinyface_core.evaluate.errors_attributes import (
    plot_sensitivity,
    sensitivity,
    sensitivity_json,
    sensitivity_table,
)
from tinyface_core.evaluate.errors_sheet import contact_sheet
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.truth import Truth


def write_errors(
    truth: Truth,
    found: Mapping[str, Found],
    folder: Path,
    *,
    pictures: Mapping[str, Path] | None = None,
    second: tuple[str, Mapping[str, Found]] | None = None,
) -> str:
    """Writes `errors.md`, `errors.json`, `sensitivity.png` and, with pictures, `false_positives.png`; gives the text.

    Args:
        found: detections by picture name. pictures: name -> file, for the contact sheet.
        second: name and detections of an independent detector on the same pictures, which can tell what is likely a
            face without a label.
    """
    matches = match(truth, found)
    witness = believed(truth, *second, match(truth, second[1])) if second else None
    alarms = false_positives(truth, matches, found, witness)
    by_attribute = sensitivity(truth, matches)
    text = f"{errors_table(alarms, int(truth.valid_F.sum()))}\n\n{sensitivity_table(by_attribute)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "errors.md").write_text(text + "\n")
    numbers = {"false_positives": errors_json(alarms, truth), "sensitivity": sensitivity_json(by_attribute)}
    (folder / "errors.json").write_text(json.dumps(numbers, indent=1) + "\n")
    plot_sensitivity(by_attribute, folder / "sensitivity.png")
    if pictures:
        contact_sheet(alarms, truth, pictures, folder / "false_positives.png")
    return text
