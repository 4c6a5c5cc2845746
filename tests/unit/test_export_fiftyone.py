"""FiftyOne's labels.json: the layout of its guide, and names under which its importer finds the pictures."""

from __future__ import annotations

import json
import os.path
from pathlib import Path

import jsonschema
import pytest

from tests.report_sample import SamplePicture, write_unit
from tests.unit.test_export_forms import SAMPLES, exported


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_unit(tmp_path / "out", "a", SAMPLES)
    return tmp_path / "out"


# FiftyOne's user guide, "FiftyOneImageDetectionDataset": classes are optional, targets then are labels.
FIFTYONE = {
    "type": "object",
    "required": ["labels"],
    "additionalProperties": False,
    "properties": {
        "classes": {"type": "array", "items": {"type": "string"}},
        "labels": {
            "type": "object",
            "additionalProperties": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["label", "bounding_box"],
                    "additionalProperties": False,
                    "properties": {
                        "label": {"type": "string"},
                        "bounding_box": {
                            "type": "array",
                            "minItems": 4,
                            "maxItems": 4,
                            "items": {"type": "number", "minimum": 0, "maximum": 1},
                        },
                        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                        "attributes": {"type": "object"},
                    },
                },
            },
        },
    },
}


def test_fiftyone_has_the_layout_of_its_guide(output: Path) -> None:
    content = json.loads(exported(output, "fiftyone")[0].read_text())
    jsonschema.validate(content, FIFTYONE)
    assert list(content["labels"]) == ["/in/a b/Zoë 1.jpg", "in/day.tar/strand/2", "in/day.tar/strand/3", "b/日本/4"]
    first = content["labels"]["/in/a b/Zoë 1.jpg"][0]
    assert first["bounding_box"] == pytest.approx([10.25 / 53, 20 / 37, 29.75 / 53, 12.5 / 37])
    assert (first["label"], first["confidence"]) == ("face", 0.9)


def test_fiftyone_finds_each_picture_of_an_unpacked_archive(output: Path, tmp_path: Path) -> None:
    """By the name that its importer (1.22, `_load_data_map`) gives a file: `normpath(splitext(path)[0])`."""
    members = [
        "./beach/1.jpg",
        "beach//2.jpg",
        "/abs/3.JPG",
        "a.b c",
        "no extension",
        ".x/v1.2.3.jpeg",
        "4.jpg.2015-06-01",
    ]
    write_unit(output, "c", [SamplePicture("file:///in/all.tar", name) for name in members])
    for name in members:
        file = tmp_path / "data" / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    place, _ = exported(output, "fiftyone", below="file:///in/all.tar")
    files = [file.relative_to(tmp_path / "data") for file in (tmp_path / "data").rglob("*") if file.is_file()]
    wanted = {os.path.normpath(os.path.splitext(file)[0]) for file in files}
    assert len(wanted) == len(members)
    assert wanted <= json.loads(place.read_text())["labels"].keys()
