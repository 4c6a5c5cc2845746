"""A fair sample of a listing, the steps timed as the job does them, and hours that follow from them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.picture_samples import colour_files
from tests.unit.archives import tar_bytes
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import list_sources
from tinyface_core.archive.record import Kind, Source
from tinyface_core.forecast.forecast import Workers, forecast
from tinyface_core.forecast.sample import ARCHIVES, EACH, PICTURES, InputSample
from tinyface_core.forecast.timing import PictureTimes, time_pictures
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.storage import Storage


def picture(number: int, size_bytes: int = 100) -> Source:
    return Source(f"file:///in/{number}.jpg", Kind.PICTURE, size_bytes)


def tar(number: int, size_bytes: int = 10_000) -> Source:
    return Source(f"file:///in/{number}.tar", Kind.TAR, size_bytes)


def loose(read_s: float, decode_s: float, detect_s: float) -> PictureTimes:
    return PictureTimes(False, 100, 1000, read_s, decode_s, detect_s)


def test_each_source_has_the_same_chance_to_be_timed() -> None:
    """2,000 listings of 96 pictures: each picture is in half of the samples, give or take."""
    met = Counter[str]()
    for seed in range(2000):
        sample = InputSample()
        sample._random.seed(seed)
        for number in range(2 * PICTURES):
            sample.add(picture(number))
        met.update(unit.sources[0].uri for unit in sample.units())
    assert len(met) == 2 * PICTURES
    assert 900 < min(met.values()) <= max(met.values()) < 1100


def test_a_listing_of_any_length_is_counted_and_little_of_it_kept() -> None:
    sample = InputSample.of([*map(picture, range(3000)), *map(tar, range(40))])
    assert (sample.pictures, sample.archives, sample.archive_bytes) == (3000, 40, 400_000)
    kinds = Counter(unit.sources[0].kind for unit in sample.units())
    assert kinds == {Kind.PICTURE: PICTURES, Kind.TAR: ARCHIVES}
    assert all(unit.is_loose == (unit.sources[0].kind is Kind.PICTURE) for unit in sample.units())


def test_steps_are_timed_one_by_one_and_the_detector_is_warm(tmp_path: Path) -> None:
    good = colour_files()["jpeg"]
    (tmp_path / "a.jpg").write_bytes(good)
    (tmp_path / "b.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "c.tar").write_bytes(tar_bytes([(f"{number}.jpg", good) for number in range(EACH + 5)]))
    seen: list[float] = []

    def detect(_: Picture) -> None:
        seen.append(0.2 if not seen else 0.02)
        time.sleep(seen[-1])

    storage, candidates = Storage(), CandidateFilter()
    sample = InputSample.of(list_sources([str(tmp_path)], storage, candidates))
    times = time_pictures(sample.units(), storage, candidates, (), Limits(), detect)
    assert len(times) == 2 + EACH  # no more of the tar
    assert len(seen) == 1 + 1 + EACH  # once for nothing; never for the broken one
    assert [one.in_archive for one in times] == [False, False] + [True] * EACH
    broken = [one for one in times if not one.pixels]
    assert [(one.detect_s, one.size_bytes) for one in broken] == [(0.0, len(good) // 2)]
    whole = [one for one in times if one.pixels]
    assert all(0.02 <= one.detect_s < 0.2 and one.decode_s > 0 and one.read_s > 0 for one in whole)


@pytest.mark.parametrize(
    ("times", "workers", "rate", "bottleneck"),
    [
        ((0.1, 0.1, 0.4), Workers(2, 1, 2, shared=True), 4.0, "model"),  # 2 / (0.1 + 0.4)
        ((0.1, 0.1, 0.4), Workers(2, 1, 2, shared=False), 5.0, "model"),  # 2 / 0.4
        ((0.1, 0.4, 0.1), Workers(2, 3, 2, shared=False), 15.0, "decode"),  # 2 x 3 / 0.4
        ((1.0, 0.1, 0.1), Workers(8, 1, 8, shared=True), 8.0, "read"),
        ((0.1, 0.1, 0.1), Workers(9000, 1, 9000, shared=False, block_bytes=100), 1 / 0.0062, "driver"),  # one a block
        ((0.1, 0.1, 0.1), Workers(9000, 1, 9000, shared=True, block_bytes=1000), 1 / 0.0008, "driver"),  # ten
    ],
)
def test_a_chain_is_as_fast_as_its_slowest_step(
    times: tuple[float, float, float], workers: Workers, rate: float, bottleneck: str
) -> None:
    found = forecast(InputSample.of(map(picture, range(7200))), [loose(*times)] * 5, workers)
    assert found is not None
    assert found.rate == pytest.approx(rate)
    assert found.hours == pytest.approx(7200 / rate / 3600)
    assert found.hours_low == pytest.approx(found.hours) == pytest.approx(found.hours_high)
    assert (found.pictures, found.bottleneck) == (7200, bottleneck)


def test_archives_hold_what_their_size_says() -> None:
    """Members of 232 bytes in the mean, and 768 for each: 40 archives of 50,000 bytes hold 2,000 pictures."""
    member = [PictureTimes(True, size, 1000, 0.0, 0.0, 1.0) for size in (132, 332)]
    sample = InputSample.of([*map(picture, range(500)), *(tar(number, 50_000) for number in range(40))])
    found = forecast(sample, member, Workers(1, 1, 2, shared=True))
    assert found is not None
    assert found.pictures == 2500
    assert found.hours_low < 2500 / 3600 < found.hours_high


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    """Pictures of very different cost, mean 1 s, sampled 100 times."""
    rng = np.random.default_rng(1)
    sample, workers, inside = InputSample.of(map(picture, range(3600))), Workers(1, 1, 2, shared=True), 0
    for _ in range(100):
        found = forecast(sample, [loose(0.0, 0.0, s) for s in rng.gamma(2.0, 0.5, PICTURES)], workers)
        assert found is not None
        inside += found.hours_low <= 1.0 <= found.hours_high
    assert 87 <= inside <= 99


def test_nothing_timed_is_no_forecast() -> None:
    assert forecast(InputSample(), [], Workers(1, 1, 2, shared=True)) is None
