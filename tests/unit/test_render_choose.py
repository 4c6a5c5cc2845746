"""Which pictures are looked at: the same ones whatever units they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report_sample import SamplePicture, write_unit
from tests.unit.render_samples import faces, failed
from tinyface_core.errors import InputError, SettingsError
from tinyface_core.render import choose as choose_module
from tinyface_core.render.choose import Chosen, Wanted, choose
from tinyface_core.render.marks import read_marks
from tinyface_core.render.named import Named
from tinyface_core.storage import Storage

STORAGE = Storage()


def made_up(count: int = 60, seed: int = 3) -> list[SamplePicture]:
    """In order of name; up to five faces of 5 to 40 px and any score, every ninth an error row."""
    rng = np.random.default_rng(seed)
    pictures = []
    for number in range(count):
        uri = f"file:///in/{number:03}.jpg"
        heights = rng.integers(5, 40, rng.integers(0, 6)).tolist()
        boxes = faces(*([1, 2, 9, 2 + height] for height in heights))
        boxes[:, 4] = rng.random(len(boxes))
        pictures.append(failed(uri) if number % 9 == 8 else SamplePicture(uri, boxes_K5=boxes))
    return pictures


@pytest.fixture(params=[7, 60])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[SamplePicture]]:
    """The same pictures in many units, and in one."""
    pictures = made_up()
    for start in range(0, len(pictures), request.param):
        write_unit(tmp_path, f"u{start:03}", pictures[start : start + request.param])
    return tmp_path, pictures


def names(folder: Path, **wanted: Any) -> list[str]:
    return [chosen.uri.rpartition("/")[2] for chosen in choose(STORAGE, str(folder), Wanted(**wanted)).pictures]


def name(picture: SamplePicture) -> str:
    return picture.uri.rpartition("/")[2]


def test_everything_comes_by_name(output: tuple[Path, list[SamplePicture]]) -> None:
    folder, pictures = output
    assert names(folder) == [name(picture) for picture in pictures]
    assert names(folder, limit=5) == ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg"]


def test_errors_come_with_class_and_sentence(output: tuple[Path, list[SamplePicture]]) -> None:
    folder, pictures = output
    choice = choose(STORAGE, str(folder), Wanted(errors=True))
    assert [chosen.uri for chosen in choice.pictures] == [picture.uri for picture in pictures if picture.error]
    assert {chosen.error for chosen in choice.pictures} == {("corrupt", "bad data")}


def test_the_most_crowded_lead_and_a_score_decides_which_faces_count(
    output: tuple[Path, list[SamplePicture]],
) -> None:
    folder, pictures = output
    for least in (None, 0.5):
        counts = {name(p): int((p.boxes_K5[:, 4] >= np.float32(least or 0)).sum()) for p in pictures if not p.error}
        expected = sorted((n for n in counts if counts[n]), key=lambda n: (-counts[n], n))
        assert names(folder, most_crowded=12, min_score=least) == expected[:12]
        chosen = choose(STORAGE, str(folder), Wanted(most_crowded=12, min_score=least)).pictures
        assert [each.faces for each in chosen] == [counts[n] for n in expected[:12]]


def test_tiny_takes_pictures_with_a_face_under_that_height(output: tuple[Path, list[SamplePicture]]) -> None:
    folder, pictures = output

    def has_tiny(picture: SamplePicture, least: float) -> bool:
        _, top, _, bottom, score = picture.boxes_K5.T
        return bool(((bottom - top < 12) & (score >= np.float32(least))).any())

    assert names(folder, tiny_px=12) == [name(p) for p in pictures if has_tiny(p, 0)]
    assert names(folder, tiny_px=12, min_score=0.6) == [name(p) for p in pictures if has_tiny(p, 0.6)]


def test_a_sample_is_drawn_by_its_seed_and_by_nothing_else(tmp_path: Path) -> None:
    pictures = made_up()
    for size in (7, 60):
        for start in range(0, len(pictures), size):
            write_unit(tmp_path / str(size), f"u{start:03}", pictures[start : start + size])
    drawn = [names(tmp_path / str(size), sample=10, seed=seed) for size in (7, 60) for seed in (0, 1)]
    assert drawn[0] == drawn[2] == sorted(drawn[0])
    assert drawn[1] == drawn[3] != drawn[0]
    assert len(set(drawn[0])) == 10
    assert names(tmp_path / "7", sample=1000) == [name(picture) for picture in pictures]


def test_how_many_pass_is_told_beside_how_many_are_taken(output: tuple[Path, list[SamplePicture]]) -> None:
    folder, pictures = output
    choice = choose(STORAGE, str(folder), Wanted(limit=3))
    assert (len(choice.pictures), choice.passed) == (3, len(pictures))


def test_names_and_lists_choose(tmp_path: Path) -> None:
    member = SamplePicture("s3://b/day.tar", "beach/1.jpg")
    pictures = [SamplePicture("file:///in/a/1.jpg"), SamplePicture("file:///in/b/[x] 2.jpg"), member]
    write_unit(tmp_path, "a", pictures)

    def found(*patterns: str, lines: list[str] | None = None) -> list[str]:
        named = Named.of(STORAGE, patterns, lines)
        return [f"{p.uri} {p.member or ''}".strip() for p in choose(STORAGE, str(tmp_path), Wanted(named)).pictures]

    assert found("*.jpg") == ["file:///in/a/1.jpg", "file:///in/b/[x] 2.jpg", "s3://b/day.tar beach/1.jpg"]
    assert found("1.*") == ["file:///in/a/1.jpg", "s3://b/day.tar beach/1.jpg"]
    assert found("/in/b/[x] 2.jpg") == ["file:///in/b/[x] 2.jpg"], "a name as it stands, whatever it looks like"
    assert found("[x] 2.jpg") == ["file:///in/b/[x] 2.jpg"], "its last part too"
    assert found("/in/a/") == ["file:///in/a/1.jpg"]
    assert found("**/beach/*") == found("s3://b/day.tar") == found("s3://b/*/beach/1.jpg")
    assert found("**/beach/*", "/in/a/**") == ["file:///in/a/1.jpg", "s3://b/day.tar beach/1.jpg"]
    lines = ["image_id", f'"{pictures[1].image_id}"', "", "s3://b/day.tar", "s3://b/gone.jpg"]
    assert found(lines=lines) == ["file:///in/b/[x] 2.jpg", "s3://b/day.tar beach/1.jpg"]
    assert found("/in/**", lines=lines) == ["file:///in/b/[x] 2.jpg"], "both must hold"
    choice = choose(STORAGE, str(tmp_path), Wanted(Named.of(STORAGE, (), lines)))
    assert choice.absent == ("s3://b/gone.jpg",)


def test_a_unit_whose_faces_are_gone_is_counted_and_left_out(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", made_up(5))
    _, detections = write_unit(tmp_path, "b", [SamplePicture("file:///in/x.jpg", boxes_K5=faces([1, 2, 9, 9]))])
    detections.unlink()
    choice = choose(STORAGE, str(tmp_path), Wanted(tiny_px=100))
    assert choice.torn_units == 1
    assert "file:///in/x.jpg" not in [chosen.uri for chosen in choice.pictures]


def test_more_than_anybody_looks_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "MOST_PICTURES", 10)
    write_unit(tmp_path, "a", made_up(11))
    with pytest.raises(InputError, match=r"more than 10 pictures are asked for.*--sample"):
        choose(STORAGE, str(tmp_path), Wanted())
    assert len(names(tmp_path, limit=10)) == 10


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"limit": 3, "sample": 4}, "--sample and --limit: each says which pictures"),
        ({"limit": 0}, "--limit 0: needs a number from 1"),
        ({"sample": 200_000}, "--sample 200000: needs a number from 1 to 100,000"),
        ({"tiny_px": 0}, "--tiny 0: needs a height"),
        ({"min_score": 1.5}, "--min-score 1.5: needs a number from 0 to 1"),
        ({"errors": True, "tiny_px": 20}, "--errors and --tiny: error rows have no faces"),
    ],
)
def test_what_makes_no_sense_is_refused(wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Wanted(**wanted)


def test_marks_are_the_faces_of_each_picture_the_most_certain_first(
    output: tuple[Path, list[SamplePicture]],
) -> None:
    folder, pictures = output
    chosen = choose(STORAGE, str(folder), Wanted(sample=25, min_score=0.3)).pictures
    found = read_marks(STORAGE, chosen, 0.3)
    by_id = {picture.image_id: picture for picture in pictures}
    assert set(found) == {each.image_id for each in chosen if each.error is None}
    for each in chosen:
        if each.error is None:
            boxes = by_id[each.image_id].boxes_K5
            boxes = boxes[boxes[:, 4] >= np.float32(0.3)]
            boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
            assert each.faces == len(boxes)
            np.testing.assert_array_equal(found[each.image_id].boxes_K4, boxes[:, :4])
            np.testing.assert_array_equal(found[each.image_id].scores_K, boxes[:, 4])


def test_faces_that_went_away_meanwhile_are_missing_not_empty(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [SamplePicture("file:///in/x.jpg", boxes_K5=faces([1, 2, 9, 9]))])
    (chosen,) = choose(STORAGE, str(tmp_path), Wanted()).pictures
    assert isinstance(chosen, Chosen)
    next((tmp_path / "detections").iterdir()).unlink()
    assert read_marks(STORAGE, [chosen], None) == {}
