"""The stages of the redaction job, called as Ray calls them, without Ray."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ray_stages import BLOCK_BYTES
from redact_stages import Redacting, RedactPictures, item_of, one_a_block, read_pictures
from tests.picture_samples import saved
from tests.unit.redact_samples import noise
from tests.unit.test_redact_pictures import STORAGE, detect, unit_of
from tinyface_core.picture.picture import Limits
from tinyface_core.redact.faces import Redaction
from tinyface_core.tables.collect import UnitCollector

PICTURES = 4


@pytest.fixture
def redacting(tmp_path: Path) -> Redacting:
    """Decodes in this process. The claim is there."""
    where = (f"file://{tmp_path / 'out'}", f"file://{tmp_path / 'to'}", f"file://{tmp_path / 'claim'}")
    STORAGE.write(where[2], b"")
    return Redacting(STORAGE, *where, Redaction(), Limits(), decoders=0)


@pytest.fixture
def work(tmp_path: Path) -> pa.Table:
    """One unit of four pictures, of which the first was never examined."""
    paths = [tmp_path / "in" / f"{number}.jpg" for number in range(PICTURES)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(saved(noise(37, 53, number), "JPEG"))
    unit = unit_of(paths)
    return pa.Table.from_pylist([item_of(unit, detect(unit, tmp_path / "out", frozenset([0])))])


@pytest.mark.parametrize("alone", [False, True])
def test_a_unit_becomes_copies_and_whole_rows(work: pa.Table, redacting: Redacting, alone: bool) -> None:
    """Alone: each picture travels in a block of its own."""
    redacting = one_a_block(redacting) if alone else redacting
    asked = list(read_pictures(work, redacting))
    assert len(asked) == (PICTURES + 1 if alone else 1)
    assert redacting.block_bytes == (1 if alone else BLOCK_BYTES)
    actor, collector = RedactPictures(redacting), UnitCollector()
    ((_, rows),) = [whole for block in asked for whole in collector.add(actor(block))]
    assert rows["status"].to_pylist() == ["error", *["written"] * (PICTURES - 1), None]
    assert rows["faces_masked"].to_pylist() == [0, 1, 2, 3, None]
    for path in rows["path"].drop_null().to_pylist():
        assert STORAGE.stat(f"{redacting.to_uri}/{path}") is not None


def test_a_worker_whose_driver_lost_the_claim_writes_no_copy(
    work: pa.Table, redacting: Redacting, tmp_path: Path
) -> None:
    """Another driver may be at work, on newer detections."""
    STORAGE.delete(redacting.claim_uri)
    (block,) = read_pictures(work, redacting)
    rows = RedactPictures(redacting)(block)
    assert rows["kind"].to_pylist() == ["stop"]
    assert "is gone" in rows["error_message"][0].as_py()
    assert not (tmp_path / "to").exists()


def test_tables_that_are_not_as_they_were_committed_stop_the_run(work: pa.Table, redacting: Redacting) -> None:
    for info in list(STORAGE.list(f"{redacting.output_uri}/detections/")):
        STORAGE.delete(info.uri)
    (block,) = read_pictures(work, redacting)
    assert block["kind"].to_pylist() == ["stop"]
