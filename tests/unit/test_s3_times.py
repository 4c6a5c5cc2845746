"""Times of an S3 answer are what botocore reads, whichever way they are read."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.utils import parse_timestamp

from tinyface_core.stores.base import StorageOptions
from tinyface_core.stores.s3_client import file_system, instant


@pytest.mark.parametrize(
    "told",
    [
        "2026-11-24T05:06:07.000Z",
        "2026-11-24T05:06:07Z",
        "2026-11-24T05:06:07.123456+00:00",
        "2026-11-24T05:06:07.12+02:00",
        "Tue, 24 Nov 2026 05:06:07 GMT",
        "20261124T050607Z",
        1795496767,
        "1795496767",
    ],
)
def test_a_time_is_the_one_that_botocore_reads(told: Any) -> None:
    assert instant(told) == parse_timestamp(told)
    assert instant(told).tzinfo is not None


def test_a_time_that_is_none_is_refused_as_by_botocore() -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        instant("2026-13-24T05:06:07Z")


def test_the_client_reads_times_so() -> None:
    made = file_system(StorageOptions(anonymous=True))
    factory = made.session.get_component("response_parser_factory")
    parser = factory.create_parser("rest-xml")
    assert parser._timestamp_parser is instant
