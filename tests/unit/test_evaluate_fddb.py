"""FDDB's protocol: cases worked by hand, a slow reference for overlap and curve, and its files there and back."""

from __future__ import annotations

import gzip
import json
import math
import re
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinyface_core.errors import InputError
from tinyface_core.evaluate.fddb import SHOWN, Roc, at_each_threshold, judge_fddb, on_annotated, roc
from tinyface_core.evaluate.fddb_files import (
    Faces,
    Found,
    annotated_name,
    is_fddb,
    read_results,
    read_truth,
    write_text,
)
from tinyface_core.evaluate.fddb_overlap import iou, regions

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "fddb" / "ellipses.jsonl.gz"
needs_official = pytest.mark.skipif(not OFFICIAL.is_file(), reason="FDDB's annotation may not be given away")
Rows = list[list[float]]
FOLD = "FDDB-fold-01-ellipseList.txt"
TWO = "2002/08/11/big/img_1\n1\n20 10 1.5 60 40 1\n2002/08/12/big/img_1\n2\n20 10 -1.5 60 40  1\n9 8 0 10 90 1\n"


def circles(*rows: list[float]) -> NDArray[np.float64]:
    """x, y, radius."""
    return np.array([[radius, radius, 0, x, y] for x, y, radius in rows], float).reshape(-1, 5)


def faces(*rows: list[float]) -> Faces:
    return Faces(circles(*rows))


def found(*rows: tuple[list[float], float]) -> Found:
    return Found(circles(*(circle for circle, _ in rows)), np.array([score for _, score in rows], float))


def one_iou(detection: Rows, face: Rows, picture_hw: tuple[float, float] | None = None) -> float:
    return float(iou(regions(np.array(detection, float)), regions(np.array(face, float)), picture_hw)[0, 0])


def lens_iou(apart: float, radius: float = 20) -> float:
    """IoU of two circles of one radius."""
    lens = 2 * radius**2 * math.acos(apart / 2 / radius) - apart / 2 * math.sqrt(4 * radius**2 - apart**2)
    return lens / (2 * math.pi * radius**2 - lens)


def points(of: Roc) -> list[tuple[float, int, int, float]]:
    """(threshold, false positives, pairs over 0.5, their IoU and that of the others)."""
    columns = (of.scores_T, of.false_positives_T, *(of.rates_T[score] * of.faces for score in of.rates_T))
    return [(float(s), int(f), round(float(d)), float(c)) for s, f, d, c in zip(*columns, strict=True)]


def middles(low: float, high: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x (1, count) and y (count, 1) of points in the middle of equal cells between low and high."""
    at = low + (np.arange(count) + 0.5) * (high - low) / count
    return at[None], at[:, None]


def inside(shape: list[float], x_1W: NDArray[np.float64], y_H1: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points a region holds, by its definition, y down."""
    if len(shape) == 4:
        x, y, width, height = shape
        return np.asarray((x_1W >= x) & (x_1W < x + width) & (y_H1 >= y) & (y_H1 < y + height))
    major, minor, angle, x, y = shape
    along_HW = (x_1W - x) * math.cos(angle) + (y_H1 - y) * math.sin(angle)
    across_HW = (y_H1 - y) * math.cos(angle) - (x_1W - x) * math.sin(angle)
    return np.asarray((along_HW / major) ** 2 + (across_HW / minor) ** 2 <= 1)


# ---- overlap


def test_circles_of_one_centre_overlap_by_the_ratio_of_their_areas() -> None:
    for radius in (2.0, 40.0):
        half = circles([50, 60, radius / 2]).tolist()
        assert one_iou(half, circles([50, 60, radius]).tolist()) == pytest.approx(1 / 4, abs=1e-12)


def test_a_box_and_the_ellipse_that_touches_its_sides_overlap_by_a_quarter_of_pi() -> None:
    for width, height in ((8.0, 12.5), (90.0, 61.0)):
        ellipse = [[height / 2, width / 2, math.pi / 2, 10 + width / 2, 20 + height / 2]]
        assert one_iou([[10, 20, width, height]], ellipse) == pytest.approx(math.pi / 4, abs=1e-5)


def test_circles_whose_centres_are_apart_share_a_lens() -> None:
    for apart in (0.1, 1, 6, 11, 11.9):
        assert one_iou(circles([19, 19, 6]).tolist(), circles([19, 19 + apart, 6]).tolist()) == pytest.approx(
            lens_iou(apart, 6), abs=2e-4
        )


def test_regions_that_do_not_meet_and_regions_of_no_size_overlap_by_nothing() -> None:
    face = circles([30, 30, 10]).tolist()
    for shape in ([50.1, 20, 9, 9], [21, 21, 1, 1], [30, 30, 0, 0], [30, 30, 0, 50]):
        assert one_iou([shape], face) == 0
    assert one_iou([[0, 0, 0, 30, 30]], face) == 0
    assert iou(regions(np.zeros((0, 4))), regions(np.array(face))).shape == (0, 1)


def test_only_what_lies_in_the_picture_counts() -> None:
    """The left halves of both circles lie outside: of what is left, the one still holds a quarter of the other."""
    small, large = circles([0, 50, 10]).tolist(), circles([0, 50, 20]).tolist()
    assert one_iou(small, large) == pytest.approx(1 / 4, abs=1e-12)
    box = [[-10, 30, 30, 40]]  # 20 x 40 are seen, and half a circle of radius 20
    assert one_iou(box, large) == pytest.approx(math.pi * 200 / 800, abs=1e-5)
    right = [[80, 30, 40, 40]]  # the picture is 100 wide: 20 x 40 again
    assert one_iou(right, circles([100, 50, 20]).tolist(), (100, 100)) == pytest.approx(math.pi * 200 / 800, abs=1e-5)
    assert one_iou([[101, 30, 9, 9]], circles([100, 50, 20]).tolist(), (100, 100)) == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_iou_is_the_share_of_many_points(seed: int) -> None:
    """Faces of 6 to 60 px and more, near the picture's edges too; 700 x 700 points around both regions."""
    rng = np.random.default_rng(seed)
    minor, ratio = rng.uniform(3, 30), rng.uniform(1, 2)
    face = [minor * ratio, minor, rng.uniform(-4, 4), *rng.uniform(-0.3 * minor, 3 * minor, 2)]
    near = [*(np.array(face[:3]) * rng.uniform(0.7, 1.4, 3)), *(np.array(face[3:]) + rng.normal(0, 0.4 * minor, 2))]
    box = [near[3] - minor, near[4] - minor, 2 * minor, 2.5 * minor]
    side = 4 * minor
    x_1W, y_H1 = middles(0, side, 700)
    face_HW = inside(face, x_1W, y_H1)
    for shape in (near, box):
        there_HW = inside(shape, x_1W, y_H1)
        expected = (face_HW & there_HW).sum() / max(1, (face_HW | there_HW).sum())
        assert one_iou([shape], [face], (side, side)) == pytest.approx(expected, abs=0.004)


def test_an_angle_turns_with_the_clock_in_fddb_and_in_our_tables() -> None:
    """An annotated angle of -1.2 is 1.9416 of a table. OpenCV, which turns with the clock, fills the same pixels."""
    annotated = [40.0, 20.0, -1.2, 101.0, 90.0]
    of_table = [40.0, 20.0, math.pi - 1.2, 101.0, 90.0]
    assert one_iou([of_table], [annotated]) == pytest.approx(1, abs=1e-12)
    assert one_iou([[40.0, 20.0, 1.2, 101.0, 90.0]], [annotated]) < 0.85  # mirrored
    filled_HW = np.zeros((220, 220), np.uint8)
    cv2.ellipse(filled_HW, ((100.5, 89.5), (80, 40), math.degrees(of_table[2])), 1, -1)  # pixel i has its centre at i
    defined_HW = inside(annotated, *middles(0, 220, 220))
    assert (defined_HW & (filled_HW > 0)).sum() / (defined_HW | (filled_HW > 0)).sum() > 0.96
    lower_left = [[101 - 40 * math.cos(1.2) - 3, 90 + 40 * math.sin(1.2) - 10, 6, 6]]  # where the major axis ends
    assert one_iou(lower_left, [annotated]) > 0 == one_iou([[112, 120, 6, 6]], [annotated])


# ---- matching and curve


def test_matching_is_for_the_greatest_total_not_for_the_best_pair() -> None:
    """Two faces, A and B; the better detection lies between them, nearer to A, and the second one fits A alone.

    By itself the first takes A. With the second one it goes to B, and both count; a greedy matching would leave it on A
    and the second without a face.
    """
    there = {"p": faces([50, 50, 20], [62, 50, 20])}
    curve = roc(there, {"p": found(([55, 50, 20], 0.9), ([45, 50, 20], 0.8), ([200, 50, 9], 0.7))})
    assert lens_iou(17) < 0.5 < lens_iou(7) < lens_iou(5)
    first, both = pytest.approx(lens_iou(5), abs=2e-4), pytest.approx(lens_iou(5) + lens_iou(7), abs=4e-4)
    assert points(curve) == [(0.9, 0, 1, first), (0.8, 0, 2, both), (0.7, 1, 2, both)]


def test_a_detection_more_may_cost_a_pair_that_counted() -> None:
    """As the matching is done anew: two pairs of 0.46 are more in total than one of 0.6, and both are under 0.5."""
    there = {"p": faces([50, 50, 20], [75, 50, 20])}
    curve = roc(there, {"p": found(([60, 50, 20], 0.9), ([35, 50, 20], 0.8))})
    assert 2 * lens_iou(15) > lens_iou(10) > 0.5 > lens_iou(15)
    assert points(curve) == [
        (0.9, 0, 1, pytest.approx(lens_iou(10), abs=2e-4)),
        (0.8, 2, 0, pytest.approx(2 * lens_iou(15), abs=4e-4)),
    ]


def test_a_second_detection_of_a_face_is_a_false_positive_and_so_is_one_off_the_picture() -> None:
    there = {"p": faces([50, 50, 20]), "q": faces()}
    here = {
        "p": found(([50, 50, 10], 0.9), ([50, 50, 20], 0.8), ([-40, 50, 20], 0.6)),
        "q": found(([50, 50, 20], 0.7)),
    }
    # First a pair of IoU 1/4, which is a false positive and counts in the continuous score; then the better one.
    assert points(roc(there, here)) == [
        (0.9, 1, 0, pytest.approx(0.25)), (0.8, 1, 1, 1.0), (0.7, 2, 1, 1.0), (0.6, 3, 1, 1.0)]  # fmt: skip


def test_an_overlap_of_exactly_a_half_is_no_match() -> None:
    columns = at_each_threshold(np.array([[0.5, 0], [0, 0.501]]), np.array([0.9, 0.8]))
    assert [column.tolist() for column in columns] == [[0.9, 0.8], [1, 2], [0, 1], [0.5, 1.001]]


def test_equal_scores_come_in_together_within_a_picture_and_between_pictures() -> None:
    there = {"p": faces([50, 50, 20]), "q": faces([50, 50, 20])}
    here = {
        "p": found(([50, 50, 20], 0.5), ([200, 50, 20], 0.5)),
        "q": found(([200, 50, 20], 0.5), ([50, 50, 20], 0.5)),
    }
    assert points(roc(there, here)) == [(0.5, 2, 2, 2.0)]


def test_faces_without_detections_are_missed() -> None:
    there = {"p": faces([50, 50, 20]), "missing": faces([50, 50, 20]), "none": faces([9, 9, 5], [30, 30, 5])}
    curve = roc(there, {"p": found(([50, 50, 20], 0.5)), "none": found()})
    assert (curve.faces, curve.rates_T["discrete"].tolist()) == (4, [0.25])
    nothing = roc(there, {})
    assert (len(nothing.scores_T), nothing.rate_at("discrete", 100)) == (0, 0)


def test_the_rate_at_a_count_is_the_highest_that_so_many_false_positives_reach() -> None:
    curve = Roc(np.array([3.0, 2, 1]), np.array([1, 3, 7]), {"discrete": np.array([0.2, 0.5, 0.4])}, 10)
    assert [curve.rate_at("discrete", count) for count in (0, 1, 2, 3, 9)] == [0, 0.2, 0.2, 0.5, 0.5]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_trying_all_matchings_at_every_threshold(seed: int) -> None:
    """Scores with ties; the order of detections does not matter."""
    rng = np.random.default_rng(seed)
    there = {name: Faces(circles(*rng.uniform(30, 60, (count, 3)).tolist())) for name, count in (("a", 3), ("b", 1))}
    here = {
        name: Found(circles(*rng.uniform(30, 60, (5, 3)).tolist()), rng.integers(0, 6, 5) / 6 - 0.5) for name in there
    }
    expected = []
    for threshold in sorted({score for of in here.values() for score in of.scores_K.tolist()}, reverse=True):
        kept, discrete, continuous = 0, 0, 0.0
        for name, of in here.items():
            iou_KF = iou(regions(of.regions_KR), regions(there[name].ellipses_F5))[of.scores_K >= threshold]
            kept += len(iou_KF)
            padded_KF = np.concatenate([iou_KF, np.zeros((3, iou_KF.shape[1]))])  # a face may stay without a match
            choices = permutations(range(len(padded_KF)), iou_KF.shape[1])
            matched = max((padded_KF[list(rows), range(iou_KF.shape[1])] for rows in choices), key=np.sum)
            discrete, continuous = discrete + int((matched > 0.5).sum()), continuous + matched.sum()
        expected.append((threshold, kept - discrete, discrete, pytest.approx(continuous)))
    assert points(roc(there, here)) == expected
    turned = {name: Found(of.regions_KR[::-1], of.scores_K[::-1]) for name, of in here.items()}
    assert points(roc(there, turned)) == expected


@pytest.mark.slow
@needs_official
def test_a_perfect_detector_has_rate_1_and_no_false_positives_on_the_real_annotation(tmp_path: Path) -> None:
    truth = read_truth(OFFICIAL)
    assert (len(truth), sum(len(of.ellipses_F5) for of in truth.values())) == (2845, 5171)
    assert {of.fold for of in truth.values()} == set(range(1, 11))
    perfect = {name: Found(of.ellipses_F5, np.full(len(of.ellipses_F5), 0.9)) for name, of in truth.items()}
    assert points(roc(truth, perfect)) == [(0.9, 0, 5171, 5171.0)]
    write_text(perfect, list(truth), tmp_path / "perfect.txt")
    back = read_results(tmp_path / "perfect.txt")
    assert list(back) == list(truth)
    there_F5 = np.concatenate([of.ellipses_F5 for of in truth.values()])
    back_F5 = np.concatenate([of.regions_KR for of in back.values()])
    np.testing.assert_allclose(np.delete(back_F5, 2, axis=1), np.delete(there_F5, 2, axis=1), rtol=1e-8)
    assert np.abs(np.sin(back_F5[:, 2] - there_F5[:, 2])).max() < 1e-8  # pi/2 comes back as -pi/2


# ---- files


def test_the_annotation_is_read_from_folds_and_from_lines(tmp_path: Path) -> None:
    (tmp_path / FOLD).write_text(TWO)
    (tmp_path / FOLD.replace("01", "10")).write_text("2003/01/01/big/img_7\n0\n")
    truth = read_truth(tmp_path)
    assert [(name, of.fold, len(of.ellipses_F5)) for name, of in truth.items()] == [
        ("2002/08/11/big/img_1", 1, 1), ("2002/08/12/big/img_1", 1, 2), ("2003/01/01/big/img_7", 10, 0)]  # fmt: skip
    assert truth["2002/08/11/big/img_1"].ellipses_F5.tolist() == [[20, 10, 1.5, 60, 40]]
    assert list(read_truth(tmp_path / FOLD)) == list(truth)[:2]
    lines = [
        {"image": f"{name}.jpg", "width": 37, "height": None, "fold": of.fold, "ellipses": of.ellipses_F5.tolist()}
        for name, of in truth.items()
    ]
    lines[0]["height"] = 53
    below = tmp_path / "below"
    below.mkdir()
    with gzip.open(below / "ellipses.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    again = read_truth(below)
    assert [(of.fold, of.ellipses_F5.tolist()) for of in again.values()] == [
        (of.fold, of.ellipses_F5.tolist()) for of in truth.values()
    ]
    assert [of.picture_hw for of in again.values()] == [(53, 37), None, None]
    assert is_fddb(tmp_path)
    assert is_fddb(tmp_path / FOLD)
    assert is_fddb(below)
    assert is_fddb(below / "ellipses.jsonl.gz")


def test_what_is_not_fddbs_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "annotations.jsonl").write_text('{"image": "a.jpg", "width": 1, "height": 1, "boxes": []}\n')
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text("0--Parade/a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n")
    (tmp_path / "damaged.jsonl.gz").write_bytes(b"no gzip")
    assert not any(is_fddb(path) for path in (tmp_path, tmp_path / "nowhere", *tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("p\n2\n20 10 1.5 60 40 1\n", 3),  # a face is missing
        ("p\n1\n20 10 1.5 60 40\n", 3),  # a number is missing
        ("p\n1\n20 ten 1.5 60 40 1\n", 3),
        ("p\n1\n20 10 nan 60 40 1\n", 3),
        ("p\none\n", 2),
        ("p\n", 1),
        ("p\n1\n20 10 1.5 60 40 1\n20 10 1.5 60 40 1\n", 4),  # a face more than it says
        ("p\n1\n20 0 1.5 60 40 1\n", 1),  # no size
        ("\np\n0\n\np\n0\n", 5),  # twice
    ],
)
def test_a_bad_annotation_is_named_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / FOLD).write_text(text)
    with pytest.raises(InputError, match=rf"{re.escape(FOLD)}:{line}: "):
        read_truth(tmp_path)


def test_a_bad_line_of_our_own_annotation_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ellipses.jsonl"
    for text in ("{", '{"image": "p"}', '{"image": "p", "ellipses": [[1, 2]]}', "[]"):
        file.write_text('{"image": "o", "ellipses": []}\n' + text + "\n")
        with pytest.raises(InputError, match=r"ellipses\.jsonl:2: "):
            read_truth(tmp_path)
    with pytest.raises(InputError, match="needs FDDB-fold"):
        read_truth(tmp_path / "nowhere")


def test_results_come_back_as_they_were_in_both_forms(tmp_path: Path) -> None:
    boxes = {"a/b": Found(np.array([[1.5, -2, 3, 4], [5, 6, 7, 8]]), np.array([-0.25, 1e6])), "a/c": found()}
    write_text(boxes, ["a/c", "a/b", "a/d"], tmp_path / "boxes" / "fddb.txt")
    assert (
        tmp_path / "boxes" / "fddb.txt"
    ).read_text() == "a/c\n0\na/b\n2\n5 6 7 8 1000000\n1.5 -2 3 4 -0.25\na/d\n0\n"
    back = read_results(tmp_path / "boxes")
    assert {name: len(of.scores_K) for name, of in back.items()} == {"a/c": 0, "a/b": 2, "a/d": 0}
    assert back["a/b"].regions_KR.tolist() == [[5, 6, 7, 8], [1.5, -2, 3, 4]]

    score = float(np.float32(0.9999998))  # nine digits keep it apart from its neighbours
    ellipses = {"a/b": Found(np.array([[9, 5, math.pi - 0.5, 30, 40]]), np.array([score]))}
    write_text(ellipses, ["a/b"], tmp_path / "ellipses.txt")
    again = read_results(tmp_path / "ellipses.txt")["a/b"]
    assert again.regions_KR[0] == pytest.approx([9, 5, -0.5, 30, 40], abs=1e-8)  # as FDDB has angles
    assert np.float32(again.scores_K[0]) == np.float32(score)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("p\n1\n1 2 3 4\n", 3),
        ("p\n2\n1 2 3 4 0.5\n9 8 1.5 60 40 0.5\n", 4),  # rectangles and ellipses in one file
        ("p\n1\n1 2 -3 4 0.5\n", 1),
        ("p\n1\n1 2 3 4 inf\n", 3),
        ("p\n0\np\n0\n", 3),
    ],
)
def test_bad_results_are_named_with_their_line(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "results.txt").write_text(text)
    with pytest.raises(InputError, match=rf"results\.txt:{line}: "):
        read_results(tmp_path)


def test_results_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read"):
        read_results(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="no results"):
        read_results(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="nothing in images"):
        read_results(tmp_path)


def output_of(folder: Path, pictures: list[tuple[str, str | None]], faces: Rows) -> Path:
    """An output of the job with the columns that are read. faces: the picture's number, ellipse, score."""
    ids = [f"id{number}" for number in range(len(pictures))]
    images = {
        "image_id": ids,
        "commit": ["c"] * len(ids),
        "uri": [uri for uri, _ in pictures],
        "member": pa.array([member for _, member in pictures], pa.string()),
        "width": pa.array([137] + [None] * (len(ids) - 1), pa.int32()),
        "height": pa.array([153] + [None] * (len(ids) - 1), pa.int32()),
    }
    columns = ("ellipse_major", "ellipse_minor", "ellipse_angle", "ellipse_cx", "ellipse_cy", "score")
    values = {name: pa.array([face[place] for face in faces], pa.float32()) for place, name in enumerate(columns, 1)}
    boxes = {name: pa.array([float(place)] * len(faces), pa.float32()) for place, name in enumerate(("x1", "y1"))}
    boxes |= {name: pa.array([9.0 + place] * len(faces), pa.float32()) for place, name in enumerate(("x2", "y2"))}
    # A row of a commit that the images table does not have: left by a killed run.
    detections = {"image_id": [ids[int(face[0])] for face in faces], "commit": ["c"] * len(faces), **values, **boxes}
    orphan = {name: [column[0] if len(faces) else None] for name, column in detections.items()} | {"commit": ["old"]}
    for table, content in (("images", [images]), ("detections", [detections, orphan] if faces else [detections])):
        (folder / table).mkdir(parents=True)
        for number, part in enumerate(content):
            pq.write_table(pa.table(part), folder / table / f"part-{number}.parquet")
    return folder


def test_our_tables_are_judged_by_their_ellipses_and_pictures_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    (tmp_path / FOLD).write_text(TWO)
    output = output_of(
        tmp_path / "out",
        [("file:///d/pics/2002/08/11/big/img_1.jpg", None), ("file:///d/p.tar", "2002/08/12/big/img_1.JPG")],
        [[1, 20, 10, math.pi - 1.5, 60, 40, 0.9], [0, 20, 10, 1.5, 60, 40, 0.8], [1, 5, 5, 0, 200, 40, 0.7]],
    )
    results = read_results(output)
    assert [of.picture_hw for of in results.values()] == [(153, 137), None]
    named = on_annotated(read_truth(tmp_path), results, output)
    assert {name: len(of.scores_K) for name, of in named.items()} == {
        "2002/08/11/big/img_1": 1,
        "2002/08/12/big/img_1": 2,
    }
    boxes = read_results(output, boxes=True)["file:///d/pics/2002/08/11/big/img_1"]
    assert (boxes.regions_KR.tolist(), boxes.scores_K.tolist()) == ([[0, 1, 9, 9]], [pytest.approx(0.8)])
    judged = judge_fddb(tmp_path, {"ours": output}, report=tmp_path / "report", text=tmp_path / "text")
    assert points(judged.rocs["ours"]) == [
        (pytest.approx(0.9), 0, 1, pytest.approx(1, abs=1e-5)),
        (pytest.approx(0.8), 0, 2, pytest.approx(2, abs=1e-5)),
        (pytest.approx(0.7), 1, 2, pytest.approx(2, abs=1e-5)),
    ]
    assert judged.numbers["ours"]["discrete"] == {str(shown): 0.66667 for shown in SHOWN}
    assert judged.text.splitlines()[-1] == "| all that there are | | 1 |"
    assert "2 of 2 annotated pictures, 3 faces" in judged.text
    assert "pictures of unknown size: 1 " in judged.text
    assert (tmp_path / "report" / "roc.png").stat().st_size > 1000
    csv_lines = (tmp_path / "report" / "roc.csv").read_text().splitlines()
    assert csv_lines[0] == "detector,score,false_positives,discrete,continuous"
    assert len(csv_lines) == 4
    again = judge_fddb(tmp_path, {"text": tmp_path / "text"})
    assert again.numbers["text"]["discrete"] == judged.numbers["ours"]["discrete"]
    assert json.loads(json.dumps(again.numbers)) == again.numbers


def test_an_output_without_faces_misses_all(tmp_path: Path) -> None:
    (tmp_path / FOLD).write_text(TWO)
    output = output_of(tmp_path / "out", [("file:///2002/08/11/big/img_1.jpg", None)], [])
    judged = judge_fddb(tmp_path, {"ours": output}, report=tmp_path / "report")
    assert judged.numbers["ours"] == {
        "pictures": 1, "faces": 1, "false_positives": 0,
        "discrete": dict.fromkeys(map(str, SHOWN), 0.0), "continuous": dict.fromkeys(map(str, SHOWN), 0.0),
    }  # fmt: skip


def test_several_detectors_are_judged_on_the_pictures_that_all_have(tmp_path: Path) -> None:
    (tmp_path / FOLD).write_text(TWO)
    (tmp_path / "boxes.txt").write_text("2002/08/12/big/img_1\n1\n40 20 40 40 0.5\n")
    (tmp_path / "ellipses.txt").write_text("2002/08/12/big/img_1\n1\n20 10 -1.5 60 40 7\n2002/08/11/big/img_1\n0\n")
    judged = judge_fddb(tmp_path, {"boxes": tmp_path / "boxes.txt", "ellipses": tmp_path / "ellipses.txt"})
    assert "1 of 2 annotated pictures, 2 faces" in judged.text
    assert "| discrete | 100 | 0.0000 | 0.5000 |" in judged.text
    (tmp_path / "other.txt").write_text("2002/08/11/big/img_1\n0\n")
    with pytest.raises(InputError, match=r"no picture of .* is in all results"):
        judge_fddb(tmp_path, {"boxes": tmp_path / "boxes.txt", "other": tmp_path / "other.txt"})


def test_pictures_are_known_by_whole_folders_at_the_end_of_their_path() -> None:
    names = {"2002/08/11/big/img_1": None, "big/img_1": None, "img_2": None}
    expected = {
        "s3://b/x/2002/08/11/big/img_1.jpg": "2002/08/11/big/img_1",
        "12002/08/11/big/img_1.jpg": "big/img_1",
        "2002/08/11/big/img_1.5.jpg": None,
        "img_2": "img_2",
        "img_22.png": None,
    }
    assert {path: annotated_name(path, names) for path in expected} == expected
    source = Path("out")
    with pytest.raises(InputError, match="none of its pictures is annotated: other should end in a name like img_2"):
        on_annotated({"img_2": faces()}, {"other": found()}, source)
    with pytest.raises(InputError, match="two pictures are img_2"):
        on_annotated({"img_2": faces()}, {"a/img_2": found(), "b/img_2": found()}, source)


def test_results_of_resized_pictures_are_refused(tmp_path: Path) -> None:
    line = {"image": "2002/08/11/big/img_1.jpg", "ellipses": [[9, 9, 0, 20, 20]], "width": 450, "height": 300}
    (tmp_path / "ellipses.jsonl").write_text(json.dumps(line) + "\n")
    output = output_of(tmp_path / "out", [("file:///2002/08/11/big/img_1.jpg", None)], [[0, 9, 9, 0, 20, 20, 0.5]])
    with pytest.raises(InputError, match="several sizes"):
        judge_fddb(tmp_path, {"ours": output})
