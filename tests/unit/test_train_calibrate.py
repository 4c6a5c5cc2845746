"""Judging detections by hand-made examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyface_core.detect.detections import Detections
from tinyface_core.train.calibrate import average_precision, default_score, judge, summary
from tinyface_core.train.data import AnnotatedPicture

FACES = [[0, 0, 10, 10], [20, 0, 30, 12], [40, 0, 90, 50]]
UNCLEAR = [[0, 20, 8, 28]]


def picture(faces: list[list[int]], unclear: list[list[int]]) -> AnnotatedPicture:
    faces_K4, unclear_M4 = (np.array(boxes, np.float32).reshape(-1, 4) for boxes in (faces, unclear))
    return AnnotatedPicture(Path("none"), (37, 93), faces_K4, unclear_M4)


def detections(*scored: tuple[float, list[float]]) -> Detections:
    scores_K = np.array([score for score, _ in scored], np.float32)
    boxes_K4 = np.array([box for _, box in scored], np.float32).reshape(-1, 4)
    kinds_K = np.zeros(len(scored))
    return Detections(boxes_K4, scores_K, kinds_K.astype(np.int8), kinds_K.astype(np.float32), (1.0,), 12.0)


FOUND = detections(
    (0.9, [0, 0, 10, 10]),
    (0.8, [1, 20, 8, 28]),  # on the unclear face
    (0.7, [0, 0, 10, 9]),  # the first face again
    (0.6, [60, 20, 70, 30]),  # a false alarm inside a large face
    (0.5, [20, 0, 30, 10]),
    (0.4, [20, 20, 30, 30]),  # a false alarm
)


def test_each_detection_is_what_it_is() -> None:
    judged = judge(FOUND, picture(FACES, UNCLEAR))
    assert judged.hit_K.tolist() == [True, False, False, False, True, False]
    assert judged.unclear_K.tolist() == [False, True, False, False, False, False]
    assert judged.alarm_K.tolist() == [False, False, False, True, False, True]
    assert judged.found_F.tolist() == pytest.approx([0.9, 0.5, 0.0])


def test_the_default_score_leaves_one_alarm_a_picture() -> None:
    judged = judge(FOUND, picture(FACES, UNCLEAR))
    assert default_score([judged]) == pytest.approx(0.4)
    assert default_score([judged], 0.0) == pytest.approx(0.6)
    assert default_score([judged], 2.0) == 0.0
    assert default_score([judge(detections(), picture(FACES, UNCLEAR))]) == 0.0


def test_average_precision_by_hand() -> None:
    # Without the unclear one: hit, repeat, alarm, hit, alarm; 3 faces -> 1/3 at precision 1, 1/3 at 2/4.
    judged = judge(FOUND, picture(FACES, UNCLEAR))
    assert average_precision([judged]) == pytest.approx(1 / 3 + 1 / 3 * 0.5)
    assert average_precision([judge(detections(), picture(FACES, []))]) == 0.0
    assert average_precision([judge(FOUND, picture([], []))]) == 0.0


def test_the_summary_counts_by_height() -> None:
    said = summary([judge(FOUND, picture(FACES, UNCLEAR))], 0.5)
    assert said["recall"] == pytest.approx(1 / 3, abs=1e-3)
    assert said["alarms_a_picture"] == 1.0
    assert said["recall_by_height"] == {"10..20 px": "0.500 of 2", "40..140 px": "0.000 of 1"}
