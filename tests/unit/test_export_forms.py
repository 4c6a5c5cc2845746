"""Each form of an export, read back by those who read it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.report_sample import SamplePicture, write_unit
from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.errors import InputError, SettingsError, StorageError
from tinyface_core.evaluate import fddb_files
from tinyface_core.evaluate.results import read_text
from tinyface_core.export.forms import stage
from tinyface_core.export.img2dataset import relative_boxes
from tinyface_core.export.names import Names, one_line
from tinyface_core.export.pictures import Picture, Tally, Wanted, pictures_of
from tinyface_core.labels.forms import read_lines
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.redo import UnitWork

BOXES_K5 = np.array([[10.25, 20, 40, 32.5, 0.9], [1, 2, 9, 8, 0.3]], np.float32)
BROKEN = ("decode", "corrupt", "bad")
SAMPLES = [
    SamplePicture("file:///in/a b/Zoë 1.jpg", boxes_K5=BOXES_K5),
    SamplePicture("file:///in/broken.jpg", error=BROKEN),
    SamplePicture("file:///in/day.tar", "strand/2.jpg", boxes_K5=BOXES_K5[:1]),
    SamplePicture("file:///in/day.tar", "strand/3.jpg"),
    SamplePicture("s3://b/日本/4.png", boxes_K5=BOXES_K5[:1]),
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two units: two loose pictures, one of them broken; three others."""
    write_unit(tmp_path / "out", "a", SAMPLES[:2])
    write_unit(tmp_path / "out", "b", SAMPLES[2:])
    return tmp_path / "out"


def exported(output: Path, form: str, wanted: Wanted | None = None, below: str | None = None) -> tuple[Path, Tally]:
    place = output.parent / f"as_{form}"
    return place, stage(Storage(), f"file://{output}", form, place, Names(below), wanted or Wanted())


def test_coco_is_read_back_by_our_reader_of_coco(output: Path) -> None:
    place, tally = exported(output, "coco")
    file = place.rename(place.with_suffix(".json"))
    lines = {line.uri: line for line in read_lines(file)}
    assert list(lines) == [
        "file:///in/a b/Zoë 1.jpg",
        "file:///in/day.tar/strand/2.jpg",
        "file:///in/day.tar/strand/3.jpg",
        "s3://b/日本/4.png",
    ]
    assert lines["file:///in/a b/Zoë 1.jpg"].boxes_K4.tolist() == [[10.25, 20, 29.75, 12.5], [1, 2, 8, 6]]
    assert len(lines["file:///in/day.tar/strand/3.jpg"].boxes_K4) == 0
    assert lines["s3://b/日本/4.png"].picture_hw == (37, 53)
    assert (tally.pictures, tally.faces, tally.errors) == (4, 4, {"corrupt": 1})


def test_cocos_own_tools_load_it_and_judge_it_by_itself(output: Path) -> None:
    """Each box of the file is found again by the same file: average precision 1; and none by one that has no face."""
    file = str(exported(output, "coco")[0])
    truth = COCO(file)
    assert len(truth.getImgIds()) == 4
    assert judged(truth, truth.loadRes([one | {"category_id": 1} for one in truth.dataset["annotations"]])) == 1
    moved = [one | {"bbox": [200, 200, 9, 9]} for one in truth.dataset["annotations"]]
    assert judged(truth, truth.loadRes(moved)) == 0


def judged(truth: COCO, found: COCO) -> float:
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_coco_has_all_that_its_tools_ask_for(output: Path) -> None:
    content = json.loads(exported(output, "coco")[0].read_text())
    assert content["categories"] == [{"id": 1, "name": "face", "supercategory": "person"}]
    ids = [image["id"] for image in content["images"]]
    assert len(set(ids)) == 4
    assert all(0 < number < 2**53 for number in ids)
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3, 4]
    first = content["annotations"][0]
    assert (first["score"], first["iscrowd"], first["category_id"]) == (0.9, 0, 1)
    assert first["area"] == pytest.approx(29.75 * 12.5)
    assert {one["image_id"] for one in content["annotations"]} <= set(ids)


def test_a_pictures_coco_id_is_the_same_when_the_output_has_grown(output: Path) -> None:
    def ids() -> dict[str, int]:
        content = json.loads(exported(output, "coco")[0].read_text())
        return {image["file_name"]: image["id"] for image in content["images"]}

    before = ids()
    write_unit(output, "0", [SamplePicture("file:///in/new.jpg")])
    assert before.items() <= ids().items()


def test_two_pictures_whose_coco_ids_would_be_one_get_two(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.export.coco._ID_DIGITS", 0 + 1)
    write_unit(output, "c", [SamplePicture(f"file:///in/{n}.jpg") for n in range(40)])
    content = json.loads(exported(output, "coco")[0].read_text())
    assert len({image["id"] for image in content["images"]}) == 44


@pytest.mark.parametrize("form", ["coco", "fddb", "fiftyone", "img2dataset"])
def test_the_same_output_gives_the_same_bytes(output: Path, form: str) -> None:
    assert exported(output, form)[0].read_bytes() == exported(output, form)[0].read_bytes()


def test_a_partitioned_output_gives_the_same_bytes(output: Path) -> None:
    whole = exported(output, "coco")[0].read_bytes()
    for table in ("images", "detections"):
        for file in sorted((output / table).iterdir()):
            place = file.parent / ("day=2" if file.name.startswith("part-a") else "day=1")
            place.mkdir(exist_ok=True)
            file.rename(place / file.name)
    assert exported(output, "coco")[0].read_bytes() == whole


def test_wider_is_read_back_with_errors_as_pictures_without_faces(output: Path) -> None:
    place, tally = exported(output, "wider")
    found = read_text(place)
    assert found["Zoë 1"].boxes_K4.tolist() == [[10.25, 20, 29.75, 12.5], [1, 2, 8, 6]]
    assert found["Zoë 1"].scores_K.tolist() == pytest.approx([0.9, 0.3])
    assert {name: len(here.scores_K) for name, here in found.items()} == {
        "Zoë 1": 2,
        "broken": 0,
        "2": 1,
        "3": 0,
        "4": 1,
    }
    files = sorted(file.relative_to(place).as_posix() for file in place.rglob("*.txt"))
    assert files == ["a b/Zoë 1.txt", "in/broken.txt", "strand/2.txt", "strand/3.txt", "日本/4.txt"]
    assert tally.pictures == 5


@pytest.mark.parametrize("form", ["wider", "fddb", "fiftyone"])
def test_two_pictures_that_a_form_cannot_tell_apart_are_refused(output: Path, form: str) -> None:
    write_unit(output, "c", [SamplePicture("file:///in/day.tar", "strand/2.png")])
    with pytest.raises(InputError, match=r"strand/2.png: another picture .* strand/2|day.tar/strand/2"):
        exported(output, form)


def test_a_member_cannot_lead_out_of_the_folder(output: Path) -> None:
    hostile = ["../../etc/x.jpg", "..", "/abs/y.jpg", "../z.jpg", "a\nb/c\nd.jpg"]
    write_unit(output, "c", [SamplePicture("file:///in/evil.tar", name) for name in hostile])
    place, _ = exported(output, "wider")
    assert all(place in file.resolve().parents for file in output.parent.rglob("*.txt"))
    assert r"c\nd" in read_text(place)


def test_fddb_is_read_back_with_its_ellipses(tmp_path: Path) -> None:
    unit = make_unit(4)
    Committer(Storage(), f"file://{tmp_path / 'out'}", "settings", "model").write(
        UnitWork.whole(unit), "sources", make_rows(unit, faces=3, failing={2: CORRUPT})
    )
    place, tally = exported(tmp_path / "out", "fddb")
    ours = fddb_files.read_results(tmp_path / "out")
    theirs = fddb_files.read_results(place.rename(place.with_suffix(".txt")))
    assert list(theirs) == [f"/archive/a/{n:05d}" for n in range(4)]
    for name, found in theirs.items():
        mine = ours[f"file://{name}"]
        assert found.scores_K == pytest.approx(mine.scores_K)
        np.testing.assert_allclose(found.regions_KR[:, [0, 1, 3, 4]], mine.regions_KR[:, [0, 1, 3, 4]], rtol=1e-6)
        turned = (found.regions_KR[:, 2] - mine.regions_KR[:, 2]) / math.pi
        np.testing.assert_allclose(turned, np.round(turned), atol=1e-6)
    assert (tally.pictures, tally.faces, tally.errors) == (4, 9, {"corrupt": 1})


def test_names_with_spaces_and_other_scripts_are_read_back_from_fddb(output: Path) -> None:
    place, _ = exported(output, "fddb")
    names = list(fddb_files.read_results(place.rename(place.with_suffix(".txt"))))
    assert names == ["/in/a b/Zoë 1", "/in/broken", "/in/day.tar/strand/2", "/in/day.tar/strand/3", "s3://b/日本/4"]


def test_members_are_named_as_they_would_lie_if_unpacked(output: Path) -> None:
    write_unit(
        output, "c", [SamplePicture("file:///in/all.tar", name) for name in ("./beach/1.jpg", "/abs//2.jpg", ".")]
    )
    content = json.loads(exported(output, "coco", below="file:///in/all.tar")[0].read_text())
    assert [image["file_name"] for image in content["images"]][-3:] == ["beach/1.jpg", "abs/2.jpg", "."]


def test_names_may_begin_below_a_folder_or_an_archive(output: Path) -> None:
    content = json.loads(exported(output, "fiftyone", below="file:///in/")[0].read_text())
    assert list(content["labels"]) == ["a b/Zoë 1", "day.tar/strand/2", "day.tar/strand/3", "b/日本/4"]
    content = json.loads(exported(output, "coco", below="file:///in/day.tar")[0].read_text())
    assert [image["file_name"] for image in content["images"]] == [
        "/in/a b/Zoë 1.jpg",
        "strand/2.jpg",
        "strand/3.jpg",
        "s3://b/日本/4.png",
    ]


def test_img2dataset_gets_urls_and_relative_boxes(output: Path) -> None:
    write_unit(output, "c", [SamplePicture("https://h/p%20q.jpg?x=1", boxes_K5=BOXES_K5)])
    place, tally = exported(output, "img2dataset")
    table = pq.read_table(place)
    assert table["url"].to_pylist() == [
        "file:///in/a%20b/Zo%C3%AB%201.jpg",
        "s3://b/日本/4.png",
        "https://h/p%20q.jpg?x=1",
    ]
    boxes = table["bbox"].to_pylist()
    assert np.array(boxes[0][0]) == pytest.approx(np.array([10.25 / 53, 20 / 37, 40 / 53, 32.5 / 37]))
    assert [len(each) for each in boxes] == [2, 1, 2]
    assert (tally.pictures, tally.faces, tally.left_out.total()) == (3, 5, 2)
    assert any("s3://" in sentence for sentence in tally.notes)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_where_img2datasets_decoder_leaves_the_face(form: str, orientation: int) -> None:
    """It decodes by IMREAD_UNCHANGED, which does not turn; our boxes are of the picture turned upright."""
    stored_HW = np.zeros((40, 64), np.uint8)
    stored_HW[8:16, 16:48] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    more: dict[str, Any] = {} if form == "PNG" else {"quality": 100}
    Image.fromarray(np.stack([stored_HW] * 3, axis=2)).save(file, form, exif=exif, **more)
    data = np.frombuffer(file.getvalue(), np.uint8)
    upright_HW = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, 0] > 127
    decoded_HW = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, 0] > 127
    assert np.array_equal(decoded_HW, stored_HW > 0)
    y_K, x_K = np.nonzero(upright_HW)
    box = [x_K.min(), y_K.min(), x_K.max() + 1, y_K.max() + 1]
    height, width = upright_HW.shape
    picture = Picture(
        "0" * 32, "file:///p", None, form.lower(), width, height, orientation, None,
        np.array([box], float), np.zeros((1, 5)), np.ones(1, np.float32),
    )  # fmt: skip
    assert relative_boxes(picture)[0] == pytest.approx([16 / 64, 8 / 40, 48 / 64, 16 / 40])


@pytest.mark.parametrize("form", ["coco", "wider", "fddb", "fiftyone", "img2dataset"])
def test_an_output_without_pictures_gives_an_empty_export(tmp_path: Path, form: str) -> None:
    write_unit(tmp_path / "out", "a", [])
    place, tally = exported(tmp_path / "out", form)
    assert (tally.pictures, tally.faces, tally.torn_units) == (0, 0, 0)
    match form:
        case "coco":
            assert json.loads(place.read_text())["annotations"] == []
        case "fiftyone":
            assert json.loads(place.read_text()) == {"labels": {}}
        case "img2dataset":
            assert pq.read_table(place).num_rows == 0
        case "wider":
            assert list(place.iterdir()) == []
        case _:
            assert place.read_text() == ""


def test_faces_below_a_score_or_a_height_are_left_out_and_counted(output: Path) -> None:
    place, tally = exported(output, "coco", Wanted(min_score=0.9))
    assert (tally.faces, tally.unwanted) == (3, 1)
    assert {one["score"] for one in json.loads(place.read_text())["annotations"]} == {0.9}
    assert exported(output, "coco", Wanted(min_height_px=12.5))[1].faces == 3
    assert exported(output, "coco", Wanted(min_height_px=12.6))[1].faces == 0


@pytest.mark.parametrize("wrong", [{"min_score": 1.5}, {"min_score": math.nan}, {"min_height_px": -1.0}])
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="needs a"):
        Wanted(**wrong)


def test_a_unit_without_its_detections_is_left_out_and_counted(output: Path) -> None:
    next((output / "detections").glob("part-a-*")).unlink()
    write_unit(output, "orphan", [SamplePicture("file:///in/gone.jpg", boxes_K5=BOXES_K5)])[0].unlink()
    tally = exported(output, "coco")[1]
    assert (tally.pictures, tally.faces, tally.torn_units) == (3, 2, 1)


def test_detections_that_do_not_belong_to_the_images_stop_it(output: Path) -> None:
    faces = next((output / "detections").glob("part-b-*"))
    pq.write_table(pq.read_table(faces).slice(0, 1), faces)
    with pytest.raises(StorageError, match="not those that its images file tells"):
        list(pictures_of(Storage(), str(output), Wanted(), Tally()))


def test_line_breaks_of_all_kinds_become_escapes() -> None:
    assert one_line("a\nb\r\u2028c\x00.jpg") == r"a\nb\r\u2028c\x00.jpg"
    assert len(one_line("a\x85b\x1cc").splitlines()) == 1
