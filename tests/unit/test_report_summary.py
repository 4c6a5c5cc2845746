from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.report_sample import SamplePicture, write_unit
from tinyface_core.errors import StorageError
from tinyface_core.report.summary import ERROR_ROWS, HEIGHT_EDGES_PX, Summary, read_boxes, summarise
from tinyface_core.storage import ObjectInfo, Storage


def boxes_of(heights: list[float], score: float = 0.9) -> np.ndarray:
    return np.array([[1, 2, 1 + 0.8 * h, 2 + h, score] for h in heights], np.float32).reshape(-1, 5)


def picture(name: str, heights: list[float], **more: object) -> SamplePicture:
    return SamplePicture(f"file:///in/{name}", boxes_K5=boxes_of(heights), **more)  # type: ignore[arg-type]


def failed(name: str, error: tuple[str, str, str] = ("decode", "corrupt", "bad")) -> SamplePicture:
    return SamplePicture(f"file:///in/{name}", error=error)


def summary_of(folder: Path, **more: int) -> Summary:
    return summarise(Storage(), str(folder), **more)


def test_an_empty_output_gives_zeros(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "not there")
    assert (summary.pictures, summary.faces, summary.units, summary.median_height_px) == (0, 0, 0, None)
    assert {count for _, count in summary.faces_by_height()} == {0}


def test_pictures_and_errors_are_counted_over_units(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("1.jpg", [12, 30]), failed("2.jpg"), picture("3.jpg", [])])
    write_unit(tmp_path, "b", [failed("4.jpg"), failed("5.pdf", ("decode", "not_an_image", "a PDF"))])
    write_unit(tmp_path, "c", [])
    summary = summary_of(tmp_path)
    assert summary.by_status == {"ok": 2, "error": 3}
    assert summary.errors == {("decode", "corrupt"): 2, ("decode", "not_an_image"): 1}
    assert summary.by_format == {"jpeg": 2}
    assert (summary.pictures, summary.faces, summary.units) == (5, 2, 3)
    assert [row.uri for row in summary.error_rows] == [f"file:///in/{n}" for n in ("2.jpg", "4.jpg", "5.pdf")]


def test_a_height_on_an_edge_belongs_to_the_taller_bin(tmp_path: Path) -> None:
    edges = [float(edge) for edge in HEIGHT_EDGES_PX]
    write_unit(tmp_path, "a", [picture("1.jpg", [*edges, 9.96875, 9000.0])])
    assert summary_of(tmp_path).faces_by_height() == [
        ("<10", 1),
        ("10-20", 1),
        ("20-40", 1),
        ("40-80", 1),
        ("80-140", 1),
        ("140-300", 1),
        ("300+", 2),
    ]


def test_scores_fall_into_equal_bins_and_1_into_the_last(tmp_path: Path) -> None:
    sample = picture("1.jpg", [20, 20, 20])
    sample.boxes_K5[:, 4] = [0.0, 0.26, 1.0]
    write_unit(tmp_path, "a", [sample])
    assert np.flatnonzero(summary_of(tmp_path).score_B).tolist() == [0, 5, 19]


def test_pictures_by_faces_leaves_errors_out(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("1", []), picture("2", [9]), picture("3", [9] * 4), picture("4", [9] * 250)])
    write_unit(tmp_path, "b", [failed("5")])
    counts = dict(summary_of(tmp_path).pictures_by_faces())
    assert {label: n for label, n in counts.items() if n} == {"0": 1, "1": 1, "2-4": 1, "100+": 1}


@pytest.mark.parametrize(("heights", "median"), [([5.5], 5), ([10, 20, 30], 20), ([10, 20, 30, 40], 20)])
def test_the_median_height_of_all_faces(tmp_path: Path, heights: list[float], median: int) -> None:
    write_unit(tmp_path, "a", [picture("1", heights[::2]), picture("2", heights[1::2])])
    assert summary_of(tmp_path).median_height_px == median


def test_extremes_agree_with_a_slow_count(tmp_path: Path) -> None:
    """Random units with ties, more pictures than are kept."""
    rng = np.random.default_rng(3)
    pictures = [picture(f"{n:03}", [float(h) for h in rng.integers(5, 9, rng.integers(0, 6))]) for n in range(120)]
    for start in range(0, 120, 17):
        write_unit(tmp_path, f"u{start:03}", pictures[start : start + 17])
    facts = {p.uri: [float(h) for h in p.boxes_K5[:, 3] - p.boxes_K5[:, 1]] for p in pictures}
    facts = {uri: heights for uri, heights in facts.items() if heights}

    def crowded(uri: str) -> tuple[float, float, str]:
        return (-len(facts[uri]), float(np.median(facts[uri])), uri)

    def tiniest(uri: str) -> tuple[bool, float, int, str]:
        return (len(facts[uri]) < 3, float(np.median(facts[uri])), -len(facts[uri]), uri)

    for top in (1, 4, 10, 200):
        summary = summary_of(tmp_path, top=top)
        assert [p.uri for p in summary.crowded] == sorted(facts, key=crowded)[:top]
        assert [p.uri for p in summary.tiniest] == sorted(facts, key=tiniest)[:top]
        assert [p.smallest_px for p in summary.tiniest] == [min(facts[p.uri]) for p in summary.tiniest]
        assert [p.num_faces for p in summary.crowded] == [len(facts[p.uri]) for p in summary.crowded]


def test_one_lone_small_box_does_not_lead_over_a_crowd_of_small_faces(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("false alarm", [4]), picture("crowd", [8, 9, 10])])
    assert [p.uri.rpartition("/")[2] for p in summary_of(tmp_path).tiniest] == ["crowd", "false alarm"]


def test_boxes_are_read_for_the_pictures_asked_for(tmp_path: Path) -> None:
    pictures = [picture("1", [12, 30]), picture("2", [5]), picture("3", [7, 8, 9])]
    write_unit(tmp_path, "a", pictures[:2])
    write_unit(tmp_path, "b", pictures[2:])
    wanted = [p for p in summary_of(tmp_path).crowded if p.num_faces > 1]
    found = read_boxes(Storage(), wanted)
    assert set(found) == {pictures[0].image_id, pictures[2].image_id}
    assert np.array_equal(found[pictures[2].image_id], pictures[2].boxes_K5)


def test_faces_that_no_commit_names_are_not_counted(tmp_path: Path) -> None:
    """A killed run leaves a detections file behind; the sweep comes later."""
    write_unit(tmp_path, "a", [picture("1", [10])])
    _, orphan = write_unit(tmp_path / "other", "b", [picture("2", [10] * 9)])
    (tmp_path / "detections" / orphan.name).write_bytes(orphan.read_bytes())
    assert summary_of(tmp_path).faces == 1


def test_a_unit_whose_faces_are_missing_is_left_out_and_said(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("1", [10])])
    _, faces = write_unit(tmp_path, "b", [picture("2", [10])])
    faces.unlink()
    summary = summary_of(tmp_path)
    assert (summary.pictures, summary.units, summary.incomplete_units) == (1, 1, 1)


def test_partition_folders_pair_with_their_own(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("1", [10])], below="year=1911")
    write_unit(tmp_path, "a", [picture("2", [10, 11])], below="year=1929")
    summary = summary_of(tmp_path)
    assert (summary.pictures, summary.faces, summary.incomplete_units) == (2, 3, 0)


def test_files_that_are_no_tables_are_passed_over(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [picture("1", [10])])
    (tmp_path / "images" / ".part-b.parquet.123.tmp").write_bytes(b"half")
    assert summary_of(tmp_path).pictures == 1


@pytest.mark.parametrize("damage", [b"", b"PAR1 no table PAR1"])
def test_a_damaged_table_is_named(tmp_path: Path, damage: bytes) -> None:
    images, _ = write_unit(tmp_path, "a", [picture("1", [10])])
    images.write_bytes(damage)
    with pytest.raises(StorageError, match=r"part-a\.parquet: not a table of tinyface"):
        summary_of(tmp_path)


def test_a_foreign_table_is_named(tmp_path: Path) -> None:
    images, _ = write_unit(tmp_path, "a", [picture("1", [10])])
    pq.write_table(pa.table({"colour": ["red"]}), images)
    with pytest.raises(StorageError, match=r"part-a\.parquet: not a table of tinyface"):
        summary_of(tmp_path)


def test_error_rows_are_the_first_by_name_whatever_unit_they_lie_in(tmp_path: Path) -> None:
    names = [f"{n:04}" for n in range(ERROR_ROWS + 100)]
    for part in range(3):
        write_unit(tmp_path, f"u{part}", [failed(name) for name in names[part::3]])
    summary = summary_of(tmp_path)
    assert [row.uri.rpartition("/")[2] for row in summary.error_rows] == names[:ERROR_ROWS]
    assert summary.by_status["error"] == len(names)


class Repeating(Storage):
    """An output of very many units: lists the same images file again and again, and notes how far it was asked."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.listed, self.read_images, self.most_ahead = times, 0, 0, 0

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        (info,) = super().list(prefix)
        for _ in range(self.times):
            self.listed += 1
            self.most_ahead = max(self.most_ahead, self.listed - self.read_images)
            yield info

    def read(self, uri: str, version: str | None = None) -> bytes:
        self.read_images += "/images/" in uri
        return super().read(uri, version)


@pytest.mark.slow
def test_very_many_units_are_neither_listed_nor_kept_at_once(tmp_path: Path) -> None:
    """500 units' counts and futures would be 16 MB; what Python collects late is allowed for."""
    write_unit(tmp_path, "a", [picture(str(n), [9, 12]) for n in range(5)])
    storage = Repeating(500)
    summarise(Repeating(5), str(tmp_path))  # imports
    tracemalloc.start()
    assert summarise(storage, str(tmp_path)).pictures == 5 * 500
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert storage.most_ahead <= 32
    assert peak_bytes < 10_000_000
