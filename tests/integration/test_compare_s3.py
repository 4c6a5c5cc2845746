"""jobs/compare.py on a real store: outputs, page, numbers and pointer, as on a disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compare import app
from options import run_job
from tests.unit.compare_samples import SETTINGS, Sample, SampleOutput
from tests.unit.test_compare_outputs import FACE, LARGE, SMALL
from tinyface_core.compare.pointer import Pointer
from tinyface_core.errors import TinyfaceError
from tinyface_core.storage import Storage

pytestmark = pytest.mark.integration


@pytest.fixture
def sides(bucket: str, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """The same two outputs in a store and on a disk, their units cut otherwise."""
    old = [Sample(f"{number:03}.jpg", [FACE, SMALL]) for number in range(200)]
    new = [Sample(sample.name, [FACE, LARGE] if int(sample.name[:3]) % 50 == 7 else sample.boxes) for sample in old]
    found = {}
    for where in (f"s3://{bucket}", str(tmp_path)):
        uris = (
            SampleOutput([old[:90], old[90:]]).write(f"{where}/old"),
            SampleOutput([new[:90], new[90:150], new[150:]], SETTINGS | {"min_score": 0.35}).write(f"{where}/new"),
        )
        found[where] = uris
    return found


def test_a_store_gives_what_a_disk_gives(sides: dict[str, tuple[str, str]], storage: Storage) -> None:
    numbers = []
    for where, (old, new) in sides.items():
        asked = ["--json", f"{where}/numbers.json", "--report", f"{where}/page", "--max-lost", "0.01"]
        assert run_job(app, [old, new, *asked]) == 0
        text = storage.read(storage.canonical(f"{where}/numbers.json")).decode()
        numbers.append(json.loads(text.replace(storage.canonical(where), "WHERE")))
        assert storage.read(storage.canonical(f"{where}/page/compare.html")).startswith(b"<!doctype html>")
    assert numbers[0] == numbers[1]
    assert numbers[0]["faces"]["lost"] == 4
    assert [diff["uri"][-7:] for diff in numbers[0]["most_different"]] == ["007.jpg", "057.jpg", "107.jpg", "157.jpg"]


def test_of_many_that_accept_at_once_one_after_the_other_is_served_and_none_is_written_over(
    bucket: str, storage: Storage
) -> None:
    """Each has another new output for the same old one: exactly one is accepted, all others are told."""
    uri, old = f"s3://{bucket}/current.json", f"s3://{bucket}/old"
    Pointer(storage, uri).move("s3://none", old, {})

    def accept(number: int) -> str | None:
        try:
            Pointer(Storage(), uri).move(old, f"s3://{bucket}/new{number}", {})
        except TinyfaceError:
            return None
        return f"s3://{bucket}/new{number}"

    with ThreadPoolExecutor(4) as pool:
        accepted = [named for named in pool.map(accept, range(4)) if named]
    assert len(accepted) == 1
    assert json.loads(storage.read(uri))["output"] == accepted[0]
    assert [info.uri for info in storage.list(f"s3://{bucket}/")] == [uri]
