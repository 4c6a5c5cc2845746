"""The study of pyramid levels as Markdown and as JSON."""

from __future__ import annotations

import math

from tinyface_core.studies.level_choices import told
from tinyface_core.studies.level_heights import served_table
from tinyface_core.studies.levels import Levels, LevelStudy


def levels_table(found: Levels) -> str:
    """One line a choice of levels and regression, a column a group of faces; then each level alone, by height."""
    head = [f"{name} ({count:,})" for name, count in found.faces.items()]
    lines = ["| levels | regression | " + " | ".join(head) + " |", "|---|---|" + "---:|" * len(head)]
    for row in found.rows:
        values = " | ".join(f"{row.precision[name]:.3f}" for name in found.faces)
        lines.append(f"| {row.choice.name} | {'with' if row.choice.regression else 'without'} | {values} |")
    return "\n".join([*lines, "", served_table(found.served), "", f"Limits that judge best: {told(found.limits)}."])


def levels_json(found: Levels, study: LevelStudy) -> dict[str, object]:
    """All figures, with what was studied."""
    return {
        "model": study.model,
        "min_score": study.min_score,
        "pictures": found.pictures,
        "faces": dict(found.faces),
        "rows": [
            {
                "levels": row.choice.name,
                "heights_px": {f"{zoom:g}": _limits(*limits) for zoom, limits in row.choice.levels.items()},
                "regression": row.choice.regression,
                "vote": row.choice.vote and row.choice.regression,
                "average_precision": {name: round(value, 4) for name, value in row.precision.items()},
            }
            for row in found.rows
        ],
        "alone": {
            f"{zoom:g}": [
                {"heights_px": list(heights), "faces": int(faces), "average_precision": round(float(value), 4)}
                for heights, faces, value in zip(found.served.heights, found.served.faces_H, precision_H, strict=True)
                if faces
            ]
            for zoom, precision_H in found.served.precision.items()
        },
        "limits_px": {f"{zoom:g}": _limits(*limits) for zoom, limits in found.limits.items()},
    }


def _limits(least: float, below: float) -> list[float | None]:
    return [round(least, 1), None if below == math.inf else round(below, 1)]
