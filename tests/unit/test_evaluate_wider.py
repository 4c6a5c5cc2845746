"""WIDER FACE's protocol: figures that are known, cases worked by hand, and a slow reference in the official order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import savemat

from tinyface_core.errors import InputError
from tinyface_core.evaluate.curves import average_precision, counts, curve, interval
from tinyface_core.evaluate.matching import Found, inclusive_iou, match
from tinyface_core.evaluate.results import read_text, together, write_text
from tinyface_core.evaluate.truth import ALL, LEVELS, Truth, joined, picture_name, read_truth

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "wider_face" / "eval_gt"
needs_official = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="WIDER's ground truth may not be given away")
Boxes = list[list[float]]


def truth_of(**pictures: Boxes) -> Truth:
    """Faces without attributes, by picture; the level `few` counts each picture's first face."""
    level = {name: np.arange(len(faces)) == 0 for name, faces in pictures.items()}
    boxes = {
        name: (np.reshape(faces, (-1, 4)).astype(float), np.zeros((len(faces), 6), np.int8))
        for name, faces in pictures.items()
    }
    return joined(boxes, {"few": level})


def found(*boxes: tuple[list[float], float]) -> Found:
    return Found(np.array([box for box, _ in boxes], float).reshape(-1, 4), np.array([score for _, score in boxes]))


def ap(truth: Truth, detections: dict[str, Found], group: str = ALL) -> float:
    return curve(truth, match(truth, detections), truth.groups()[group]).average_precision


@needs_official
def test_the_official_levels_keep_as_many_faces_as_is_known_and_a_perfect_detector_scores_1() -> None:
    truth = read_truth(OFFICIAL)
    assert len(truth.names) == 3226
    assert [int(truth.levels[level].sum()) for level in LEVELS] == [7211, 13319, 31958]
    perfect = {
        name: Found(truth.faces_F4[begin:end], np.full(end - begin, 0.9))
        for name, begin, end in zip(truth.names, truth.starts_P1, truth.starts_P1[1:], strict=False)
    }
    matches = match(truth, perfect)
    for level in LEVELS:  # a few faces are annotated twice, so not quite 1
        assert curve(truth, matches, truth.levels[level]).average_precision == pytest.approx(1, abs=2e-4)


def test_two_faces_one_false_alarm() -> None:
    """Worked by hand: hit at .9, alarm at .8, hit at .7: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    truth = truth_of(a=[[0, 0, 10, 10], [50, 0, 10, 10]])
    detections = {"a": found(([0, 0, 10, 10], 0.9), ([200, 0, 10, 10], 0.8), ([51, 0, 10, 10], 0.7))}
    assert ap(truth, detections) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_second_detection_of_a_face_is_a_false_alarm() -> None:
    truth = truth_of(a=[[0, 0, 10, 10], [50, 0, 10, 10]])
    twice = {"a": found(([0, 0, 10, 10], 0.9), ([0, 1, 10, 10], 0.8), ([50, 0, 10, 10], 0.7))}
    assert ap(truth, twice) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_what_finds_a_face_of_another_group_counts_neither_way() -> None:
    truth = truth_of(a=[[0, 0, 10, 10], [50, 0, 10, 10]])
    detections = {"a": found(([50, 0, 10, 10], 0.9), ([50, 1, 10, 10], 0.8), ([0, 0, 10, 10], 0.7))}
    assert ap(truth, detections, "few") == 1


def test_a_detection_counts_for_the_face_that_it_overlaps_most_or_for_none() -> None:
    """The second is nearest to the first face, which is taken: no hit for the other face, though IoU is over 0.5."""
    truth = truth_of(a=[[0, 0, 20, 20], [0, 8, 20, 20]])
    matches = match(truth, {"a": found(([0, 0, 20, 20], 0.9), ([0, 3, 20, 20], 0.8))})
    assert (matches.face_D.tolist(), matches.first_D.tolist()) == ([0, 0], [True, False])
    assert matches.iou_D[1] == pytest.approx(18 / 24)


def test_pixels_are_inclusive() -> None:
    assert inclusive_iou(np.array([[0.0, 0, 9, 9]]), np.array([[5.0, 0, 9, 9], [10, 0, 9, 9]]))[0].tolist() == [
        pytest.approx(50 / 150), 0,
    ]  # fmt: skip


def test_pictures_without_detections_still_count_their_faces() -> None:
    truth = truth_of(a=[[0, 0, 10, 10]], b=[[0, 0, 10, 10]], c=[])
    assert ap(truth, {"a": found(([0, 0, 10, 10], 0.9))}) == 0.5
    assert ap(truth, {}) == 0
    assert ap(truth.only({"a"}), {"a": found(([0, 0, 10, 10], 0.9))}) == 1


def slow_official(truth: Truth, detections: dict[str, Found], group_F: NDArray[np.bool_]) -> tuple[list[float], ...]:
    """(precision, recall) at each threshold, box by box and threshold by threshold."""
    scores = [score for name in truth.names if name in detections for score in detections[name].scores_K]
    low, high = min(scores), max(scores)
    proposals, hits, faces = [0] * 1000, [0] * 1000, int(group_F.sum())
    for place, name in enumerate(truth.names):
        begin, end = truth.starts_P1[place : place + 2]
        taken: set[int] = set()
        ranked = sorted(zip(*(part.tolist() for part in (detections[name].scores_K, detections[name].boxes_K4)),
                            strict=True), key=lambda pair: -pair[0]) if name in detections else []  # fmt: skip
        for score, box in ranked:
            overlaps = [
                inclusive_iou(np.array([box]), truth.faces_F4[face : face + 1])[0, 0] for face in range(begin, end)
            ]
            best = int(np.argmax(overlaps)) + int(begin) if overlaps else -1
            is_hit = False
            if best >= 0 and overlaps[best - begin] >= 0.5:
                if not group_F[best]:
                    continue
                is_hit = best not in taken
                taken.add(best)
            for t in range(1000):
                if (score - low) / (high - low) >= 1 - (t + 1) / 1000:
                    proposals[t] += 1
                    hits[t] += is_hit
    return [hit / kept if kept else 0 for hit, kept in zip(hits, proposals, strict=True)], [hit / faces for hit in hits]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_the_official_order_of_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = {
        name: (rng.integers(0, 60, (count, 4)) + np.array([0, 0, 8, 8])).tolist()
        for name, count in (("a", 7), ("b", 0), ("c", 4))
    }
    truth = truth_of(**faces)
    detections = {}
    for name in ("a", "b"):
        near = np.array(faces[name] * 2, float).reshape(-1, 4)
        boxes = np.concatenate([near + rng.normal(0, 2, near.shape), rng.integers(0, 60, (6, 4)) + 5.0])
        detections[name] = Found(boxes, rng.integers(0, 12, len(boxes)) / 12)
    group_F = rng.random(11) < 0.6
    group_F[0] = True
    ours = curve(truth, match(truth, detections), group_F)
    precision, recall = slow_official(truth, detections, group_F)
    np.testing.assert_allclose(ours.precision_T, precision)
    np.testing.assert_allclose(ours.recall_T, recall)


def test_the_order_of_pictures_and_detections_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    faces = {f"{number}": (rng.integers(0, 90, (3, 4)) + np.array([0, 0, 9, 9])).tolist() for number in range(9)}
    truth = truth_of(**faces)
    detections = {
        name: Found(np.array(boxes) + rng.normal(0, 2, (3, 4)), rng.random(3)) for name, boxes in faces.items()
    }
    turned = {name: Found(part.boxes_K4[::-1], part.scores_K[::-1]) for name, part in reversed(detections.items())}
    assert ap(truth, detections) == ap(truth, turned)


def test_average_precision_is_the_area_under_the_envelope() -> None:
    precision, recall = np.array([[1.0, 0.5, 0.75]]), np.array([[0.25, 0.5, 0.75]])
    assert average_precision(precision, recall)[0] == pytest.approx(0.25 * 1 + 0.5 * 0.75)


def test_the_interval_holds_the_value_and_narrows_with_more_pictures() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for pictures in (20, 320):
        truth = truth_of(**{f"{number}": [[0, 0, 10, 10]] for number in range(pictures)})
        detections = {
            name: found(([0, 0, 10, 10] if rng.random() < 0.7 else [40, 0, 9, 9], rng.random())) for name in truth.names
        }
        matches, group_F = match(truth, detections), truth.valid_F
        low, high = interval(truth, matches, group_F, samples=300)
        assert low <= curve(truth, matches, group_F).average_precision <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_groups_by_height_share_out_all_valid_faces() -> None:
    truth = truth_of(a=[[0, 0, 5, height] for height in (3, 9, 10, 19, 20, 40, 139, 140, 5000)] + [[0, 0, 0, 5]])
    groups = truth.groups()
    counted = {name: int(kept.sum()) for name, kept in groups.items() if name.endswith(("px", "more"))}
    assert counted == {"under 10 px": 2, "10-20 px": 2, "20-40 px": 1, "40-140 px": 2, "140 px and more": 2}
    assert groups[ALL].sum() == 9


def test_counts_are_by_picture() -> None:
    truth = truth_of(a=[[0, 0, 10, 10]], b=[], c=[[0, 0, 10, 10], [30, 0, 10, 10]])
    detections = {"a": found(([0, 0, 10, 10], 0.9)), "c": found(([30, 0, 10, 10], 0.5), ([99, 0, 9, 9], 0.1))}
    by_picture = counts(truth, match(truth, detections), truth.valid_F)
    assert by_picture.faces_P.tolist() == [1, 0, 2]
    assert by_picture.hits_PT[:, -1].tolist() == [1, 0, 1]
    assert by_picture.kept_PT[:, -1].tolist() == [1, 0, 2]


def test_text_results_come_back_as_they_were(tmp_path: Path) -> None:
    given_ = {"p_1": found(([1.5, 2, 3, 4], 0.25), ([5, 6, 7, 8], 0.75)), "q": found()}
    write_text(given_, tmp_path, {"p_1": "0--Parade"})
    assert (tmp_path / "0--Parade" / "p_1.txt").read_text() == "p_1\n2\n5 6 7 8 0.75\n1.5 2 3 4 0.25\n"
    back = read_text(tmp_path)
    assert back.keys() == given_.keys()
    assert back["p_1"].boxes_K4.tolist() == [[5, 6, 7, 8], [1.5, 2, 3, 4]]
    assert len(back["q"].scores_K) == 0


def test_text_keeps_boxes_of_a_scan_of_many_thousand_px(tmp_path: Path) -> None:
    write_text({"scan": found(([123456.78, 98765.4, 7.25, 9.5], 0.5))}, tmp_path)
    assert read_text(tmp_path)["scan"].boxes_K4.tolist() == [[123456.78, 98765.4, 7.25, 9.5]]


@pytest.mark.parametrize("text", ["p\n2\n1 2 3 4 0.5\n", "p\n1\n1 2 3 4\n", "p\nx\n", ""])
def test_bad_text_results_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(InputError, match=r"p\.txt"):
        read_text(tmp_path)
    with pytest.raises(InputError, match=r"no \.txt"):
        read_text(tmp_path / "nowhere")


def test_two_runs_together_are_suppressed_as_one() -> None:
    both = together(
        [{"a": found(([0, 0, 10, 10], 0.5))}, {"a": found(([0, 1, 10, 10], 0.9), ([40, 0, 9, 9], 0.1))}], 0.45
    )
    assert both["a"].scores_K.tolist() == [0.9, 0.1]


def test_missing_and_damaged_ground_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"wider_face_val\.mat"):
        read_truth(tmp_path)
    (tmp_path / "wider_face_val.mat").write_bytes(b"no matlab")
    with pytest.raises(InputError, match=r"not a \.mat of WIDER FACE"):
        read_truth(tmp_path)


def test_ground_truth_in_the_official_names_and_form(tmp_path: Path) -> None:
    """Two events; levels count from 1, as MATLAB does."""

    def cells(values: list[list[object]]) -> NDArray[np.object_]:
        outer = np.empty((len(values), 1), object)
        for event, of_event in enumerate(values):
            inner = np.empty((len(of_event), 1), object)
            for number, value in enumerate(of_event):
                inner[number, 0] = value
            outer[event, 0] = inner
        return outer

    files = cells([["p_1", "p_2"], ["q_1"]])
    boxes = cells([[np.array([[1, 2, 3, 4]]), np.array([[5, 6, 7, 8], [9, 9, 9, 9]])], [np.array([[1, 1, 1, 1]])]])
    labels = {f"{name}_label_list": cells([[[[0]], [[0], [1]]], [[[0]]]]) for name in
              ("blur", "expression", "illumination", "invalid", "occlusion", "pose")}  # fmt: skip
    files_of = {"event_list": np.array([["0--P"], ["1--Q"]], object), "file_list": files}
    savemat(tmp_path / "wider_face_val.mat", {**files_of, "face_bbx_list": boxes, **labels})
    for level in LEVELS:
        kept = cells([[np.array([[1]]), np.array([[2]])], [np.zeros((0, 1))]])
        savemat(tmp_path / f"wider_{level}_val.mat", {**files_of, "gt_list": kept})
    truth = read_truth(tmp_path)
    assert truth.names == ("p_1", "p_2", "q_1")
    assert truth.levels["hard"].tolist() == [True, False, True, False]
    assert truth.valid_F.tolist() == [True, True, False, True]
    assert truth.only({"p_2"}).levels["easy"].tolist() == [False, True]
    with pytest.raises(InputError, match="none of the 1 pictures"):
        truth.only({"z"})


def test_a_pictures_name_is_its_file_name() -> None:
    assert picture_name("file:///d/0--Parade/0_Parade_1.5.jpg") == "0_Parade_1.5"
