"""Annotated pictures in every form that is read: the same faces out of each, and what is left out is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.report_sample import SamplePicture, write_unit
from tinyface_core.errors import InputError
from tinyface_core.train.data import read_annotated

FACE, OTHER, UNCLEAR, FLAT, OUTSIDE = [3, 4, 10, 12], [20, 5, 9, 8], [30, 20, 8, 9], [1, 1, 0, 5], [60, 2, 5, 5]
ATTRIBUTES = [[0] * 6, [2, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6, [0] * 6]
BOXES = [FACE, OTHER, UNCLEAR, FLAT, OUTSIDE]


def jsonl(folder: Path) -> Path:
    lines = [
        {"image": "0--Parade/a.jpg", "width": 53, "height": 37, "boxes": BOXES, "attrs": ATTRIBUTES},
        {"image": "0--Parade/b.jpg", "width": 53, "height": 37, "boxes": [], "attrs": []},
        {"image": "0--Parade/gone.jpg", "width": 53, "height": 37, "boxes": [FACE], "attrs": [[0] * 6]},
    ]
    (folder / "annotations.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def wider_text(folder: Path) -> Path:
    rows = [" ".join(map(str, [*box, *attributes])) + " " for box, attributes in zip(BOXES, ATTRIBUTES, strict=True)]
    zeros = " ".join(["0"] * 10)
    lines = ["0--Parade/a.jpg", "5", *rows, "0--Parade/b.jpg", "0", zeros, "0--Parade/gone.jpg", "1", rows[0]]
    (folder / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return folder / "wider_face_train_bbx_gt.txt"


def wider_mat(folder: Path) -> Path:
    def column(values: list[object]) -> np.ndarray:
        cells = np.empty((len(values), 1), object)
        for place, value in enumerate(values):
            cells[place, 0] = value
        return cells

    names = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    labels = {
        f"{name}_label_list": column(
            [column([np.array([[row[place]] for row in ATTRIBUTES]), np.zeros((0, 1)), np.array([[0]])])]
        )
        for place, name in enumerate(names)
    }
    savemat(
        folder / "wider_face_train.mat",
        {
            "event_list": column(["0--Parade"]),
            "file_list": column([column(["a", "b", "gone"])]),
            "face_bbx_list": column([column([np.array(BOXES), np.zeros((0, 4)), np.array([FACE])])]),
            **labels,
        },
    )
    return folder / "wider_face_train.mat"


def coco(folder: Path) -> Path:
    size = {"width": 53, "height": 37}
    images = [{"id": 7 + n, "file_name": f"0--Parade/{name}.jpg", **size} for n, name in enumerate(("a", "b", "gone"))]
    faces = [{"image_id": 7, "bbox": box, "iscrowd": row[3]} for box, row in zip(BOXES, ATTRIBUTES, strict=True)]
    content = {"images": images, "annotations": [*faces, {"image_id": 9, "bbox": FACE}], "categories": []}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0--Parade").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (53, 37)).save(tmp_path / "0--Parade" / f"{name}.jpg")
    return tmp_path


@pytest.mark.parametrize("write", [jsonl, wider_text, wider_mat, coco])
def test_each_form_gives_the_same_faces(write: Callable[[Path], Path], folder: Path) -> None:
    (first, second), check = read_annotated(write(folder))
    assert first.uri == f"file://{folder}/0--Parade/a.jpg"
    assert first.picture_hw == second.picture_hw == (37, 53)
    assert first.faces_K4.tolist() == [[3, 4, 13, 16], [20, 5, 29, 13]]
    assert first.unclear_M4.tolist() == [[30, 20, 38, 29]]
    assert len(second.faces_K4) == 0
    assert (check.pictures, check.faces) == (2, 2)
    assert check.left_out == {
        "pictures that are not there, or are none": 1,
        "empty boxes": 1,
        "boxes outside the picture": 1,
        "boxes marked invalid (neither face nor background)": 1,
    }
    assert str(check).startswith("2 pictures with 2 faces; left out: boxes marked")


def test_an_output_of_the_job_is_labels_too(folder: Path) -> None:
    a, b = (f"file://{folder}/0--Parade/{name}.jpg" for name in ("a", "b"))
    boxes_K5 = np.array([[3, 4, 13, 16, 0.9]], np.float32)
    tar = SamplePicture("file:///d/x.tar", "c.jpg", boxes_K5=boxes_K5)
    write_unit(folder / "out", "a" * 32, [SamplePicture(a, boxes_K5=boxes_K5), SamplePicture(b), tar])
    (first, second), check = read_annotated(folder / "out")
    assert first.faces_K4.tolist() == [[3, 4, 13, 16]]
    assert len(second.faces_K4) == 0
    assert check.faces == 1


def test_pictures_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("labels")
    source = coco(elsewhere)
    with pytest.raises(InputError, match=r"coco\.json: no picture of it can be read .*--pictures"):
        read_annotated(source)
    found, _ = read_annotated(source, folder)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a.jpg\nmany\n", "a.txt:1"),
        ("a.txt", "a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "a.txt:1"),
        ("a.json", "[]", "not COCO's form"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}', "not COCO's form"),
        ("a.mat", "text", "not a .mat of WIDER FACE"),
        ("a.csv", "text", "needs to be a folder"),
    ],
)
def test_what_is_not_of_its_form_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotated(tmp_path / name)
