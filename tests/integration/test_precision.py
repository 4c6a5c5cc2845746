"""bf16 finds the faces that fp32 finds, with each bundled model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CROWD = ROOT / "demo" / "archive" / "office" / "all_hands_2016.jpg"


@pytest.mark.slow
def test_nearly_every_box_of_one_is_in_the_other(tmp_path: Path) -> None:
    """benchmarks/precision.py on a part of a crowd; docs/performance.md has what it was before heads and first layers
    stayed in fp32. A box that is missing is mostly a near tie that NMS decides otherwise."""
    Image.open(CROWD).convert("RGB").crop((400, 250, 1200, 850)).save(tmp_path / "crowd.png")
    command = [sys.executable, "benchmarks/precision.py", "--pictures", str(tmp_path)]
    subprocess.run([*command, "--json", str(tmp_path / "found.json")], cwd=ROOT, check=True)
    rows = json.loads((tmp_path / "found.json").read_text())["results"]
    assert {row["of"] for row in rows} == {"fp32", "bf16"}
    for row in rows:
        assert row["boxes"] > 50
        assert row["same"] + row["border"] + row["score"] + row["box"] + row["gone"] == row["boxes"]
        assert row["same"] / row["boxes"] > (0.88 if row["min_score"] == 0.1 else 0.96), row
