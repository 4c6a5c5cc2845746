"""Values to Arrow rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.row_samples import (
    CORRUPT,
    MODIFIED,
    RGB,
    UNREADABLE,
    make_detections,
    make_record,
    make_rows,
    make_unit,
)
from tinyface_core.archive.record import Record, UnitEnd
from tinyface_core.detect.ellipse import from_targets
from tinyface_core.errors import ErrorClass, InputError, PictureError, SettingsError, Stage
from tinyface_core.picture.picture import Picture
from tinyface_core.tables.rows import MESSAGE_CHARACTERS, RowBuilder, records_table, stop_table
from tinyface_core.tables.schema import images_schema, record_schema, row_schema

UNIT = make_unit(3)
CARRIED = (pa.field("year", pa.int16()), pa.field("index", pa.string()), pa.field("data", pa.float64()))


def test_records_and_the_end_marker_become_rows_of_the_declared_schema() -> None:
    end = UnitEnd(2, {".json": 4})
    table = records_table(UNIT.name, [make_record(UNIT, 0), make_record(UNIT, 1, UNREADABLE), end])
    assert table.schema == record_schema()
    read, failed, marker = table.to_pylist()
    assert read["kind"] == failed["kind"] == "record"
    assert (read["index"], read["data"], read["size_bytes"], read["source_modified"]) == (
        0,
        b"\xff\xd8\xff encoded 0",
        1000,
        MODIFIED,
    )
    assert read["error_class"] is None
    assert (failed["data"], failed["sha256"], failed["error_stage"], failed["error_class"]) == (
        None,
        None,
        "read",
        "unreadable",
    )
    assert (marker["kind"], marker["index"], marker["count"], marker["skipped"]) == ("end", -1, 2, '{".json": 4}')
    assert set(table["unit"].to_pylist()) == {UNIT.name}


def test_no_records_give_an_empty_table_of_the_schema() -> None:
    assert records_table(UNIT.name, [], CARRIED).schema == record_schema(CARRIED)


def test_carried_columns_may_have_names_of_our_own_between_the_stages() -> None:
    rows = make_rows(UNIT, carried=CARRIED, carried_values={"year": 1929, "index": "IX", "data": 2.5})
    assert rows.schema == row_schema(CARRIED)
    assert rows["carried.year"].to_pylist() == [1929, 1929, 1929, None]
    assert rows["carried.index"].to_pylist() == ["IX", "IX", "IX", None]
    assert rows["index"].to_pylist() == [0, 1, 2, -1]


def test_carried_value_of_another_type_names_the_column_and_the_mend() -> None:
    with pytest.raises(InputError, match=r"--carry year: .*int16.*Give the column one type"):
        records_table(UNIT.name, [make_record(UNIT, 0, carried={"year": "long ago"})], CARRIED)


@pytest.mark.parametrize("name", ["uri", "URI", "commit", "num_faces"])
def test_carried_column_cannot_take_the_name_of_ours(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--carry {name}"):
        images_schema([pa.field(name, pa.string())])


def test_a_name_that_is_not_utf8_shows_its_bytes() -> None:
    odd = Record(0, "file:///a/\udcff.jpg", "in\udc80side\ud800", "0" * 32, b"x")
    row = records_table(UNIT.name, [odd]).to_pylist()[0]
    assert row["uri"] == r"file:///a/\xff.jpg"
    assert row["member"] == r"in\udc80side\ud800"  # not a mere raw byte: all that is odd is spelled out


def test_a_decoded_picture_has_every_column() -> None:
    builder = RowBuilder(records_table(UNIT.name, [make_record(UNIT, 2)]))
    assert list(builder.encoded()) == [(0, b"\xff\xd8\xff encoded 2")]
    found = make_detections(4)
    builder.add(0, Picture(RGB, "png", exif_orientation=6, taken_at=datetime(2020, 2, 29, 1, 2, 3)), found)
    table = builder.table()
    assert table.schema == row_schema()
    row = table.to_pylist()[0]
    assert (row["width"], row["height"]) == (53, 37)
    assert (row["format"], row["exif_orientation"], row["taken_at"]) == ("png", 6, datetime(2020, 2, 29, 1, 2, 3))
    assert (row["status"], row["num_faces"], row["zooms"], row["min_face_px"]) == ("ok", 4, [0.5, 1, 2], 6)
    assert row["error_message"] is None
    boxes_K4 = np.array([[face[name] for name in ("x1", "y1", "x2", "y2")] for face in row["faces"]], np.float32)
    np.testing.assert_array_equal(boxes_K4, found.boxes_K4)
    assert [face["template"] for face in row["faces"]] == found.template_K.tolist()
    np.testing.assert_array_equal(np.float32([face["score"] for face in row["faces"]]), found.scores_K)
    for face in row["faces"]:
        height, width = face["y2"] - face["y1"], face["x2"] - face["x1"]
        assert face["ellipse_source"] == "inscribed"
        assert face["ellipse_major"] == pytest.approx(max(height, width) / 2, abs=1e-5)
        assert face["ellipse_angle"] == pytest.approx(np.pi / 2 if height >= width else 0)


def test_pictures_keep_their_own_faces() -> None:
    """A picture without faces and a failed one between others do not shift the list."""
    builder = RowBuilder(records_table(UNIT.name, [make_record(UNIT, i) for i in range(3)] + [UnitEnd(3)]))
    builder.add(2, Picture(RGB, "jpeg"), make_detections(3, seed=2), 0.25)  # in any order
    builder.add(0, Picture(RGB, "jpeg"), make_detections(0))
    builder.add(1, CORRUPT)
    table = builder.table()
    assert [len(faces) if faces is not None else None for faces in table["faces"].to_pylist()] == [0, 0, 3, None]
    assert table["num_faces"].to_pylist() == [0, 0, 3, None]
    assert table["detect_s"].to_pylist() == [None, None, 0.25, None]
    assert table["faces"][2].as_py()[0]["x1"] == make_detections(3, seed=2).boxes_K4[0, 0]


def test_a_picture_without_faces_knows_its_levels() -> None:
    row = make_rows(UNIT, faces=0).to_pylist()[0]
    assert (row["status"], row["num_faces"], row["faces"]) == ("ok", 0, [])
    assert (row["zooms"], row["min_face_px"], row["width"], row["height"]) == ([0.5, 1, 2], 6, 53, 37)


def test_unknown_is_null_in_error_rows() -> None:
    """What was never read is not known; what was read but not decoded keeps what reading told, and its format."""
    rows = make_rows(UNIT, failing={0: UNREADABLE, 1: CORRUPT}).to_pylist()
    unread, undecoded = rows[0], rows[1]
    for row in (unread, undecoded):
        assert (row["status"], row["num_faces"], row["faces"]) == ("error", 0, [])
        assert all(row[name] is None for name in ("width", "height", "zooms", "min_face_px", "exif_orientation"))
        assert (row["source_version"], row["source_modified"]) == ("v1", MODIFIED)
    assert all(unread[name] is None for name in ("sha256", "size_bytes", "format"))
    assert (unread["error_stage"], unread["error_class"]) == ("read", "unreadable")
    assert (undecoded["size_bytes"], undecoded["sha256"], undecoded["format"]) == (1001, f"{1:064x}", "jpeg")
    assert (undecoded["error_stage"], undecoded["error_class"], undecoded["error_message"]) == (
        "decode",
        "corrupt",
        "bad Huffman code",
    )


def test_a_failed_detection_is_an_error_row_with_the_format() -> None:
    builder = RowBuilder(records_table(UNIT.name, [make_record(UNIT, 0)]))
    builder.add(0, Picture(RGB, "webp"), PictureError(Stage.DETECT, ErrorClass.OUT_OF_MEMORY, "GPU"))
    row = builder.table().to_pylist()[0]
    assert (row["status"], row["error_stage"], row["format"], row["width"]) == ("error", "detect", "webp", None)


def test_a_picture_without_outcome_is_left_out_and_markers_pass() -> None:
    values = [make_record(UNIT, 0), make_record(UNIT, 1), make_record(UNIT, 2, UNREADABLE), UnitEnd(3)]
    builder = RowBuilder(records_table(UNIT.name, values))
    builder.add(1, Picture(RGB, "jpeg"), make_detections(1))
    table = builder.table()
    assert table["index"].to_pylist() == [1, 2, -1]
    assert table["kind"].to_pylist() == ["record", "record", "end"]
    assert [row["x1"] for row in table["faces"][0].as_py()] == [make_detections(1).boxes_K4[0, 0]]


def test_a_picture_without_detections_is_a_bug_and_says_so() -> None:
    builder = RowBuilder(records_table(UNIT.name, [make_record(UNIT, 0)]))
    with pytest.raises(ValueError, match="needs its detections"):
        builder.add(0, Picture(RGB, "jpeg"))


def test_a_stop_row_passes_with_its_message() -> None:
    table = RowBuilder(stop_table(UNIT.name, "credentials expired", record_schema(CARRIED)), CARRIED).table()
    assert table.schema == row_schema(CARRIED)
    assert (table["kind"][0].as_py(), table["error_message"][0].as_py()) == ("stop", "credentials expired")


def test_long_messages_are_cut() -> None:
    error = PictureError(Stage.READ, ErrorClass.INTERNAL, "x" * 10_000)
    message = make_rows(UNIT, failing={0: error})["error_message"][0].as_py()
    assert len(message) == MESSAGE_CHARACTERS
    assert message.endswith("…")


def test_regressed_ellipses_are_written_as_such_beside_inscribed_ones() -> None:
    builder = RowBuilder(records_table(UNIT.name, [make_record(UNIT, i) for i in range(3)]))
    plain, none = make_detections(2, seed=1), make_detections(0)
    regressed = make_detections(3, seed=2)
    targets_K5 = np.array([[0.1, 0.2, 0.3, -0.2, 0.5], [0, 0, -0.9, 0.9, -0.5], [0, 0, 0, 0, 0]], np.float32)
    ellipses = from_targets(regressed.boxes_K4, targets_K5)
    builder.add(0, Picture(RGB, "jpeg"), plain)
    builder.add(1, Picture(RGB, "jpeg"), replace(regressed, ellipses=ellipses))
    builder.add(
        2, Picture(RGB, "jpeg"), replace(none, ellipses=from_targets(none.boxes_K4, np.empty((0, 5), np.float32)))
    )
    faces = builder.table()["faces"].to_pylist()
    assert [[face["ellipse_source"] for face in of_picture] for of_picture in faces] == [
        ["inscribed"] * 2,
        ["regressed_features"] * 3,
        [],
    ]
    for k, face in enumerate(faces[1]):
        for name in ("cx", "cy", "major", "minor", "angle"):
            assert face[f"ellipse_{name}"] == getattr(ellipses, f"{name}_K")[k]
        assert face["ellipse_major"] >= face["ellipse_minor"]
    for face in faces[0]:
        assert face["ellipse_cx"] == pytest.approx((face["x1"] + face["x2"]) / 2, abs=1e-4)
