"""YuNet, run by our command: its boxes are in px of the picture at each zoom, and one NMS is over all zooms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate import app
from options import run_job
from tinyface_core.errors import CheckpointError
from tinyface_core.evaluate.matching import inclusive_iou
from tinyface_core.evaluate.peers import run_yunet, yunet

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT.parent / "shared" / "peers" / "yunet" / "yunet_n_dynamic.onnx"
CROWD = ROOT / "demo" / "archive" / "office" / "all_hands_2016.jpg"
needs_yunet = pytest.mark.skipif(not MODEL.is_file(), reason="YuNet's weights lie beside the repository, not in it")


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:
    """Not square."""
    return np.asarray(Image.open(CROWD).convert("RGB"))[500:940, 600:1100]


@needs_yunet
def test_boxes_are_in_px_of_the_picture_at_each_zoom(crowd: np.ndarray) -> None:
    faces_in = yunet(MODEL)
    plain, twice = faces_in(crowd, 1.0), faces_in(crowd, 2.0)
    sure = plain.boxes_K4[plain.scores_K > 0.7]
    assert len(sure) > 5
    overlaps = inclusive_iou(sure, twice.boxes_K4).max(axis=1)
    assert np.median(overlaps) > 0.6


@needs_yunet
def test_the_command_judges_it_beside_ours(
    crowd: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own surest boxes are the truth: it finds them all."""
    Image.fromarray(crowd).save(tmp_path / "p_1.png")
    found = run_yunet(MODEL, {"p_1": tmp_path / "p_1.png"})["p_1"]
    faces = found.boxes_K4[found.scores_K > 0.8].tolist()
    line = {"image": "p_1.png", "width": 500, "height": 440, "boxes": faces, "attrs": [[0] * 6] * len(faces)}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(line))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "p_1.txt").write_text("p_1\n1\n1 1 5 5 0.5\n")
    tokens = [str(tmp_path / "results"), "--truth", str(tmp_path), "--samples", "5", "--yunet", str(MODEL)]
    assert run_job(app, [*tokens, "--pictures", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"| all valid | {len(faces)} | 0.000 (0.000-0.000) | 1.000 (1.000-1.000) |" in told
    assert run_job(app, tokens) == 2
    assert "--pictures" in capsys.readouterr().err


def test_a_file_that_is_no_yunet_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"no\.onnx: OpenCV cannot load it"):
        yunet(tmp_path / "no.onnx")
