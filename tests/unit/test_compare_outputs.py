"""Two outputs beside each other: what is compared, what is counted, and that it does not matter how units were cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.compare_samples import SETTINGS, Box, Sample, SampleOutput
from tests.unit.row_samples import CORRUPT
from tinyface_core.compare import counts, outputs, spill
from tinyface_core.compare.counts import HEIGHT_BANDS, Comparison
from tinyface_core.compare.outputs import compare, differing_settings, find_output
from tinyface_core.compare.rows import ROWS, faces_of, unit_rows
from tinyface_core.errors import InputError, StorageError
from tinyface_core.storage import Storage

FACE: Box = (100, 100, 130, 130, 0.9)
SMALL: Box = (300, 50, 312, 65, 0.5)
LARGE: Box = (500, 100, 700, 300, 0.95)


def shifted(box: Box, px: float, score: float | None = None) -> Box:
    return (box[0] + px, box[1], box[2] + px, box[3], box[4] if score is None else score)


def compared(folder: Path, old: list[list[Sample]], new: list[list[Sample]], min_score: float = 0.3) -> Comparison:
    storage = Storage()
    SampleOutput(old).write(folder / "old")
    SampleOutput(new).write(folder / "new")
    return compare(storage, *(find_output(storage, str(folder / side)) for side in ("old", "new")), min_score)


def numbers(found: Comparison) -> dict[str, int]:
    names = ("old", "new", "lost", "gained", "kept", "moved")
    return {name: int(getattr(found.faces, f"{name}_HS").sum()) for name in names}


def everything(found: Comparison) -> list[object]:
    """All that a comparison holds, to be compared with another one."""
    faces = [array.tolist() for array in vars(found.faces).values()]
    listed = [replace(diff, boxes_K5=np.sort(diff.boxes_K5, axis=0).tolist()) for diff in found.most_different]
    return [found.pictures, found.lost_results, found.new_errors, faces, listed, found.torn_old, found.torn_new]


def test_faces_are_lost_gained_moved_and_kept(tmp_path: Path) -> None:
    old = [[Sample("a.jpg", [FACE, SMALL]), Sample("b.jpg", [LARGE])]]
    new = [[Sample("a.jpg", [shifted(FACE, 1), LARGE]), Sample("b.jpg", [shifted(LARGE, 30)])]]
    found = compared(tmp_path, old, new)
    assert found.pictures == {"compared": 2}
    assert numbers(found) == {"old": 3, "new": 3, "lost": 1, "gained": 1, "kept": 2, "moved": 1}
    by_height = {name: getattr(found.faces, f"{name}_HS").sum(axis=1).tolist() for name in ("lost", "gained", "moved")}
    assert by_height == {"lost": [0, 1, 0, 0, 0], "gained": [0, 0, 0, 0, 1], "moved": [0, 0, 0, 0, 1]}
    assert np.flatnonzero(found.faces.lost_HS.sum(axis=0)).tolist() == [5]  # a score of 0.5
    first, second = found.most_different
    assert (first.uri, first.lost, first.gained, first.moved) == ("file:///archive/a.jpg", 1, 1, 0)
    assert sorted(first.kinds_K) == ["gained", "kept", "lost"]
    assert first.boxes_K5[first.kinds_K.index("lost"), :4].tolist() == list(SMALL[:4])
    assert (second.moved, second.kinds_K) == (1, ("moved",))


def test_a_face_below_the_score_counts_nowhere_but_may_be_a_counterpart(tmp_path: Path) -> None:
    old = [[Sample("a.jpg", [shifted(FACE, 0, 0.61), shifted(LARGE, 0, 0.4)])]]
    new = [[Sample("a.jpg", [shifted(FACE, 0, 0.59), shifted(SMALL, 0, 0.5)])]]
    found = compared(tmp_path, old, new, min_score=0.6)
    assert numbers(found) == {"old": 1, "new": 0, "lost": 0, "gained": 0, "kept": 1, "moved": 0}
    assert found.most_different == ()


def test_pictures_are_compared_only_with_the_same_bytes_and_a_result_in_both(tmp_path: Path) -> None:
    failed = Sample("x", error=CORRUPT)
    old = [Sample(name, [FACE]) for name in ("same", "other", "breaks", "gone")] + [replace(failed, name="gone, error")]
    new = [Sample("same", [FACE]), Sample("other", [FACE], "other bytes"), replace(failed, name="breaks")]
    old += [replace(failed, name="mended"), replace(failed, name="both")]
    new += [Sample("mended", [FACE]), replace(failed, name="both"), Sample("fresh", [FACE])]
    found = compared(tmp_path, [old], [new])
    assert found.pictures == {
        "compared": 1, "other bytes": 1, "error in new": 1, "error in old": 1, "error in both": 1, "only in old": 2,
        "only in new": 1,
    }  # fmt: skip
    assert (found.lost_results, found.new_errors) == (1, {"corrupt": 1})
    assert numbers(found)["old"] == 1


@pytest.fixture
def many() -> tuple[list[Sample], list[Sample]]:
    """60 pictures of random faces, one in ten of them only in one output, other bytes, or an error."""
    random = np.random.default_rng(5)

    def boxes() -> list[Box]:
        low_K2 = random.uniform(0, 500, (random.integers(0, 6), 2))
        sides_K2 = random.uniform(5, 60, low_K2.shape)
        return [(*low, *(low + side), random.uniform(0.2, 1)) for low, side in zip(low_K2, sides_K2, strict=True)]

    old = [Sample(f"{number:02}", boxes(), error=CORRUPT if number % 10 == 3 else None) for number in range(60)]
    new = [
        replace(
            sample,
            boxes=[shifted(box, random.uniform(0, 4)) for box in sample.boxes if random.random() < 0.8] + boxes()[:1],
            content="new" if number % 10 == 4 else "as it was",
            error=CORRUPT if number % 10 == 5 else None,
        )
        for number, sample in enumerate(old)
        if number % 10 != 7
    ]
    return old[1:], new


def test_how_the_units_are_cut_changes_nothing(
    tmp_path: Path, many: tuple[list[Sample], list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same units, other ones, some of them the same: what waits on disk is joined to the same numbers."""
    old, new = many
    monkeypatch.setattr(spill, "_WAITING_BYTES", 1000)  # many inserts
    monkeypatch.setattr(spill, "_BATCH_ROWS", 16)
    monkeypatch.setattr(counts, "LISTED", 10)
    monkeypatch.setattr("tinyface_core.compare.pictures.LISTED", 10)
    whole = everything(compared(tmp_path / "whole", [old], [new]))
    assert whole[0] == Counter({
        "compared": 35, "other bytes": 6, "error in new": 6, "error in old": 6, "only in old": 6, "only in new": 1,
    })  # fmt: skip
    cuts = [([old], [new[:20], new[20:]]), ([old[i::7] for i in range(7)], [new[i::5] for i in range(5)])]
    cuts.append(([old[:9], old[9:]], [[by_name for by_name in new if by_name.name < "10"][1:], new[9:], new[:1]]))
    for number, (of_old, of_new) in enumerate(cuts):
        assert everything(compared(tmp_path / str(number), of_old, of_new)) == whole


def test_an_output_beside_its_copy_differs_in_nothing(tmp_path: Path, many: tuple[list[Sample], list[Sample]]) -> None:
    found = compared(tmp_path, [many[0]], [many[0][:30], many[0][30:]], min_score=0.0)
    assert numbers(found) | {"lost": 0, "gained": 0, "moved": 0} == numbers(found)
    assert found.most_different == ()
    assert found.faces.iou_above(1.0) == 0.99


def test_a_unit_that_lost_its_faces_is_told(tmp_path: Path) -> None:
    storage = Storage()
    old, new = (SampleOutput([[Sample("a", [FACE])]]).write(tmp_path / side) for side in ("old", "new"))
    next((tmp_path / "new" / "detections").iterdir()).unlink()
    found = compare(storage, find_output(storage, old), find_output(storage, new), 0.3)
    assert (found.torn_old, found.torn_new, found.pictures) == (0, 1, {"only in old": 1})


def test_a_table_that_is_damaged_stops_the_comparison_and_is_named(tmp_path: Path) -> None:
    storage = Storage()
    old, new = (SampleOutput([[Sample("a", [FACE])]]).write(tmp_path / side) for side in ("old", "new"))
    file = next((tmp_path / "new" / "images").iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StorageError, match=file.name):
        compare(storage, find_output(storage, old), find_output(storage, new), 0.3)


def test_rows_hold_the_faces_of_each_picture(tmp_path: Path) -> None:
    samples = [Sample("a", [FACE, SMALL]), Sample("b"), Sample("c", [LARGE]), Sample("d", error=CORRUPT)]
    uri = SampleOutput([samples]).write(tmp_path)
    storage = Storage()
    rows = unit_rows(storage, uri, next(storage.list(f"{uri}/images/")).uri)
    assert rows is not None
    assert rows.schema == ROWS
    assert rows["error"].to_pylist() == [None, None, None, "corrupt"]
    for chosen in (rows, rows.slice(1), rows.take([2, 0]), pa.concat_tables([rows, rows]), rows.slice(0, 0)):
        faces = faces_of(chosen)
        names = [uri.rpartition("/")[2] for uri in chosen["uri"].to_pylist()]
        assert np.diff(faces.starts_P1).tolist() == [{"a": 2, "b": 0, "c": 1, "d": 0}[name] for name in names]
        expected = [box for name in names for box in {"a": [FACE, SMALL], "c": [LARGE]}.get(name, [])]
        assert faces.boxes_D5 == pytest.approx(np.array(expected, np.float32).reshape(-1, 5))


def test_settings_that_differ_are_named_and_the_hash_of_a_model_only_beside_its_own_name(tmp_path: Path) -> None:
    storage = Storage()
    changes = [{}, {"model": "other", "model_hash": "2", "zooms": [1, 2]}, {"model_hash": "2"}]
    found = []
    for number, change in enumerate(changes):
        SampleOutput([[Sample("a")]], SETTINGS | change, finished=False).write(tmp_path / str(number))
        found.append(find_output(storage, str(tmp_path / str(number))))
    assert differing_settings(found[0], found[0]) == []
    assert differing_settings(found[0], found[1]) == [("model", "light", "other"), ("zooms", None, [1, 2])]
    assert differing_settings(found[0], found[2]) == [("model_hash", "1", "2")]
    assert [side.min_score for side in found] == [0.3] * 3
    assert not found[0].finished


def test_where_there_is_no_output_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is there"):
        find_output(Storage(), str(tmp_path / "elsewhere"))


def test_heights_at_an_edge_belong_to_the_band_above_it(tmp_path: Path) -> None:
    heights = (9.5, 10, 20, 40, 140)
    boxes = [(100.0 * i, 0, 100.0 * i + 50, height, 0.5) for i, height in enumerate(heights)]
    found = compared(tmp_path, [[Sample("a", boxes)]], [[Sample("a")]])
    assert found.faces.lost_HS.sum(axis=1).tolist() == [1] * len(HEIGHT_BANDS)


def test_the_overlap_that_a_share_of_the_faces_reaches() -> None:
    bins_HB = np.zeros((5, 50), np.int64)
    bins_HB[2, [49, 20, 0]] = 90, 9, 1
    faces = replace(counts.FaceCounts(), iou_HB=bins_HB)
    assert [faces.iou_above(share) for share in (0.5, 0.9, 0.99, 1.0)] == pytest.approx([0.99, 0.99, 0.7, 0.5])
    assert counts.FaceCounts().iou_above(0.5) is None


def test_the_spill_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with outputs.Spill() as waiting:
        waiting.add("old", ROWS.empty_table())
        assert list(tmp_path.iterdir())
        assert list(waiting.joined()) == []
    assert list(tmp_path.iterdir()) == []
