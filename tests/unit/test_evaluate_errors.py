"""False positives fall into the right kinds, and AP_N is what Hoiem's formula gives; both worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyface_core.evaluate.errors import (
    Kind,
    Witness,
    believed,
    errors_table,
    false_positives,
    ranked_boxes,
    tops,
)
from tinyface_core.evaluate.errors_attributes import sensitivity, sensitivity_table
from tinyface_core.evaluate.errors_report import write_errors
from tinyface_core.evaluate.errors_sheet import window_around
from tinyface_core.evaluate.matching import Found, inclusive_iou, match
from tinyface_core.evaluate.truth import Truth, joined
from tinyface_core.labels.forms import ATTRIBUTES

BLUR, INVALID = ATTRIBUTES.index("blur"), ATTRIBUTES.index("invalid")
Face = tuple[list[float], dict[int, int]]


def truth_of(**pictures: list[Face]) -> Truth:
    def attributes(faces: list[Face]) -> np.ndarray:
        rows_K6 = np.zeros((len(faces), 6), np.int8)
        for row_6, (_, given) in zip(rows_K6, faces, strict=True):
            row_6[list(given)] = list(given.values())
        return rows_K6

    return joined(
        {
            name: (np.array([box for box, _ in faces], float).reshape(-1, 4), attributes(faces))
            for name, faces in pictures.items()
        }
    )


def found(*boxes: tuple[list[float], float]) -> Found:
    return Found(np.array([box for box, _ in boxes], float).reshape(-1, 4), np.array([score for _, score in boxes]))


@pytest.fixture
def truth() -> Truth:
    """a: two valid faces and between them one marked invalid; b: ten valid faces."""
    in_a: list[Face] = [([0, 0, 20, 20], {}), ([100, 0, 20, 20], {INVALID: 1}), ([200, 0, 20, 20], {})]
    return truth_of(a=in_a, b=[([40.0 * place, 0, 20, 20], {}) for place in range(10)])


DETECTIONS = {
    "a": found(
        ([100, 0, 20, 20], 0.99),  # on the invalid one
        ([212, 0, 20, 20], 0.95),  # IoU 189 / 693 with the second face
        ([0, 0, 20, 20], 0.9),  # hit
        ([1, 0, 20, 20], 0.8),  # the same face again
        ([0, 200, 20, 20], 0.7),
        ([112, 0, 20, 20], 0.6),  # IoU 0.27 with the invalid one
        ([60, 200, 20, 20], 0.5),
        ([218, 0, 20, 20], 0.4),  # IoU 63 / 819 with the second face: under 0.1
    ),
    "b": found(([0, 300, 20, 20], 0.65)),
}
WITNESS = {
    "a": found(([200, 0, 20, 20], 0.9), ([60, 201, 20, 20], 0.8), ([0, 200, 20, 20], 0.1)),
    "b": found(*(([40.0 * place, 0, 20, 20], 0.9) for place in range(10))),
}


def kinds(truth: Truth, witness: Witness | None = None) -> list[tuple[float, str]]:
    alarms = false_positives(truth, match(truth, DETECTIONS), DETECTIONS, witness)
    return list(zip(alarms.scores_A.tolist(), map(str, alarms.kind_A), strict=True))


def test_each_kind_best_first_and_boxes_marked_invalid_count_as_neither(truth: Truth) -> None:
    assert kinds(truth) == [
        (0.95, "localisation"),
        (0.8, "duplicate"),
        (0.7, "background"),
        (0.65, "background"),
        (0.5, "background"),
        (0.4, "background"),
    ]
    alarms = false_positives(truth, match(truth, DETECTIONS), DETECTIONS)
    assert alarms.on_invalid == 2
    assert alarms.boxes_A4[:2].tolist() == [[212, 0, 20, 20], [1, 0, 20, 20]]
    assert alarms.iou_A[[0, -1]] == pytest.approx([189 / 693, 63 / 819])
    assert alarms.picture_A.tolist() == [0, 0, 0, 1, 0, 0]


def test_background_where_a_second_detector_is_sure_of_a_face_is_likely_unlabelled(truth: Truth) -> None:
    """11 of its first 12 are annotated, so the one at .8 counts; 11 of 13 would not do, so the one at .1 does not."""
    witness = believed(truth, "other", WITNESS, match(truth, WITNESS))
    assert witness is not None
    assert 0.1 < witness.least_score <= 0.8
    assert [score for score, kind in kinds(truth, witness) if kind == Kind.UNLABELLED] == [0.5]


def test_a_detector_that_is_never_sure_tells_nothing_and_the_table_says_so(truth: Truth) -> None:
    wild = {"a": found(([0, 400, 9, 9], 0.9), ([0, 0, 20, 20], 0.5)), "b": found()}
    assert believed(truth, "wild", wild, match(truth, wild)) is None
    alarms = false_positives(truth, match(truth, DETECTIONS), DETECTIONS)
    text = errors_table(alarms, 5)
    assert "| top 5 (as many as faces) | 3 (60%) | not told | 1 (20%) | 1 (20%) |" in text
    assert "| all 6 | 4 (67%) | not told | 1 (17%) | 1 (17%) |" in text
    assert "Left out, on boxes marked invalid: 2. Likely unlabelled cannot be told" in text
    assert "top 20" not in text


def test_no_false_positives_and_no_detections(truth: Truth) -> None:
    for detections in ({}, {"a": found(([0, 0, 20, 20], 0.9))}):
        alarms = false_positives(truth, match(truth, detections), detections)
        assert len(alarms) == 0
        assert tops(alarms, 12) == {"all 0": dict.fromkeys(Kind, 0)}
        assert "| all 0 | 0 (0%)" in errors_table(alarms, 12)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_rules_applied_box_by_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = truth_of(
        **{
            name: [
                (
                    (rng.integers(0, 70, 4) + np.array([0, 0, 12, 12])).astype(float).tolist(),
                    {INVALID: int(rng.random() < 0.3)},
                )
                for _ in range(count)
            ]
            for name, count in (("a", 7), ("b", 0), ("c", 4))
        }
    )
    detections, others = (
        {
            name: Found(
                (rng.integers(0, 70, (30, 4)) + np.array([0, 0, 9, 9])).astype(float), rng.integers(1, 15, 30) / 15
            )
            for name in ("a", "b", "c")
        }
        for _ in range(2)
    )
    expected, left_out = [], 0
    for place, name in enumerate(truth.names):
        span = slice(*truth.starts_P1[place : place + 2])
        taken: set[int] = set()
        sure_K4 = others[name].boxes_K4[others[name].scores_K >= 0.5]
        for k in np.argsort(-detections[name].scores_K, kind="stable"):
            box_14 = detections[name].boxes_K4[k : k + 1]
            overlap_F = inclusive_iou(box_14, truth.faces_F4[span])[0]
            best = int(overlap_F.argmax()) if len(overlap_F) else -1
            most = overlap_F[best] if best >= 0 else 0.0
            if most >= 0.1 and not truth.valid_F[span][best]:
                left_out += 1
                continue
            if most >= 0.5 and best not in taken:
                taken.add(best)
                continue
            kind = Kind.DUPLICATE if most >= 0.5 else Kind.LOCALISATION if most >= 0.1 else Kind.BACKGROUND
            if kind is Kind.BACKGROUND and (inclusive_iou(box_14, sure_K4) >= 0.5).any():
                kind = Kind.UNLABELLED
            expected.append((float(detections[name].scores_K[k]), place, kind))
    expected.sort(key=lambda row: -row[0])
    alarms = false_positives(truth, match(truth, detections), detections, Witness("other", others, 0.5))
    assert list(zip(alarms.scores_A.tolist(), alarms.picture_A.tolist(), alarms.kind_A, strict=True)) == expected
    assert alarms.on_invalid == left_out
    assert {kind for *_, kind in expected} >= {Kind.BACKGROUND, Kind.LOCALISATION}


def test_boxes_come_in_the_order_of_the_matches(truth: Truth) -> None:
    turned = {name: Found(one.boxes_K4[::-1], one.scores_K[::-1]) for name, one in reversed(DETECTIONS.items())}
    matches = match(truth, turned)
    boxes_D4 = ranked_boxes(truth, turned)
    assert boxes_D4[:, 3].tolist() == matches.height_D.tolist()
    assert boxes_D4.tolist() == [*DETECTIONS["a"].boxes_K4.tolist(), *DETECTIONS["b"].boxes_K4.tolist()]


def test_normalised_precision_by_hand() -> None:
    """Three clear faces, one heavily blurred; a hit on a clear one, an alarm, a hit on the blurred one.

    The faces have one value in each other attribute: N = (3 + 1 + 5 x 4) / 7.
    """
    truth = truth_of(a=[([40.0 * place, 0, 15, 15], {BLUR: 2 * (place == 3)}) for place in range(4)])
    detections = {"a": found(([0, 0, 15, 15], 0.9), ([0, 200, 15, 15], 0.8), ([120, 0, 15, 15], 0.7))}
    told = sensitivity(truth, match(truth, detections))
    by_value = {(value.attribute, value.name): value for value in told.values}
    assert told.positives == pytest.approx(24 / 7)
    assert by_value["blur", "clear"].ap_n == pytest.approx(1 / 3)
    assert by_value["blur", "heavy"].ap_n == pytest.approx((24 / 7) / (24 / 7 + 1))
    assert told.overall == pytest.approx(1 / 4 + 1 / 4 * (12 / 7) / (12 / 7 + 1))
    assert by_value["height", "10-20 px"].ap_n == told.overall
    assert ("blur", "normal") not in by_value
    assert told.ranges() == {}
    assert "blur clear (3), blur heavy (1)" in sensitivity_table(told)


def test_groups_of_different_sizes_with_equal_recall_have_equal_ap_n() -> None:
    """Half of each value is found, with the same score; there are three alarms with a better one."""
    faces: list[Face] = [([40.0 * place, 0, 15, 15], {BLUR: 2 * (place >= 80)}) for place in range(100)]
    truth = truth_of(a=faces)
    hits = [(box, 0.5) for number, (box, _) in enumerate(faces) if number % 2]
    alarms: list[tuple[list[float], float]] = [([40.0 * place, 300, 15, 15], 0.9) for place in range(3)]
    told = sensitivity(truth, match(truth, {"a": found(*hits, *alarms)}))
    clear, heavy = (value for value in told.values if value.attribute == "blur")
    assert (clear.faces, heavy.faces) == (80, 20)
    assert clear.ap_n == pytest.approx(heavy.ap_n)
    assert 0 < clear.ap_n < 0.5
    assert told.ranges().keys() == {"blur"}
    assert "| blur | 0." in sensitivity_table(told)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ([100, 100, 30, 40], (35, 40, 195, 200)),  # 4 x 40 px around (115, 120)
        ([0, 0, 4, 4], (0, 0, 80, 80)),  # at the corner, moved inside; at least 80 px
        ([290, 190, 4, 4], (220, 120, 300, 200)),
        ([100, 50, 90, 90], (0, 0, 300, 200)),  # larger than the picture: all of it
    ],
)
def test_the_window_around_a_box(box: list[float], window: tuple[int, int, int, int]) -> None:
    assert window_around(np.array(box, float), (200, 300)) == window


def test_files_and_text(truth: Truth, tmp_path: Path) -> None:
    """Picture b is not at hand: its place on the sheet says so."""
    Image.fromarray(np.full((260, 310, 3), 90, np.uint8)).save(tmp_path / "a.png")
    folder = tmp_path / "errors" / "ours"
    pictures = {"a": tmp_path / "a.png"}
    text = write_errors(truth, DETECTIONS, folder, pictures=pictures, second=("other", WITNESS))
    assert (folder / "errors.md").read_text() == text + "\n"
    assert "| all 6 | 3 (50%) | 1 (17%) | 1 (17%) | 1 (17%) |" in text
    assert "other sees a face there too" in text
    numbers = json.loads((folder / "errors.json").read_text())
    assert numbers["false_positives"]["first"][0] == {
        "picture": "a", "score": 0.95, "kind": "localisation", "iou": 0.273, "box": [212, 0, 20, 20]
    }  # fmt: skip
    assert numbers["false_positives"]["counts"]["all 6"]["likely unlabelled"] == 1
    assert numbers["sensitivity"]["positives"] == 12
    for name in ("false_positives.png", "sensitivity.png"):
        with Image.open(folder / name) as picture:
            assert picture.size > (500, 300)
    write_errors(truth, {}, tmp_path / "none")
    assert not (tmp_path / "none" / "false_positives.png").exists()
