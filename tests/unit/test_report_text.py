from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tinyface_core.report import text


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        ("a\nb\x00\x1b[31m", "a\\nb\\u0000\\u001b[31m"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("lone \udcff surrogate", "lone \\udcff surrogate"),
        ("Ünïcode 写真.jpg", "Ünïcode 写真.jpg"),
    ],
)
def test_nothing_hides_in_shown_text(hostile: str, seen: str) -> None:
    assert text.shown(hostile) == seen
    text.shown(hostile).encode()


def test_a_loose_file_is_named_and_linked() -> None:
    place = text.place_of("file:///in/a b#1?.jpg", None)
    assert place == text.Place("a b#1?.jpg", "/in/a b#1?.jpg", "file:///in/a%20b%231%3F.jpg")


def test_a_member_shows_its_archive_and_is_not_linked() -> None:
    assert text.place_of("file:///in/x.zip", "d/1.jpg") == text.Place("1.jpg", "/in/x.zip \u203a d/1.jpg", None)


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "data:text/html,x", "s3://b/k.jpg", "vbscript://x"])
def test_only_schemes_that_a_browser_opens_harmlessly_are_linked(uri: str) -> None:
    assert text.place_of(uri, None).href is None


@pytest.mark.parametrize(("uri", "member"), [("s3://b/", None), ("", None), ("s3://b/x.tar", ""), ("s3://b/x", "/")])
def test_odd_names_still_have_a_place(uri: str, member: str | None) -> None:
    assert uri in text.place_of(uri, member).path


def test_credentials_are_left_out_of_settings() -> None:
    settings = {
        "model": "hr",
        "partition_key": "year",
        "model_hash": "abc",
        "storage": {"secret": "s1", "key": "s2", "client_kwargs": {"aws_session_token": "s3"}},
        "endpoint_url": "http://user:s4@host:1",
        "accounts": {"account_key": "s5"},
        "passwords": {"a": "s6"},
    }
    rows = dict(text.flat(settings))
    assert rows["model"] == "hr"
    assert rows["partition_key"] == "year"
    assert rows["endpoint_url"] == "http://***@host:1"
    assert not [value for value in rows.values() if value.startswith("s") and len(value) == 2]


def test_settings_of_any_shape_are_shown() -> None:
    when = datetime(2026, 1, 2)
    rows = list(text.flat({"zooms": [0.5, 1], "none": None, "on": True, "when": when, "empty": {}, 3: "three"}))
    assert rows == [
        ("zooms", "[0.5, 1]"),
        ("none", "null"),
        ("on", "true"),
        ("when", '"2026-01-02 00:00:00"'),
        ("empty", "{}"),
        ("3", "three"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-24T14:03:10+00:00", "24 Nov 2026, 14:03 UTC"),
        ("2026-11-24T14:03:10Z", "24 Nov 2026, 14:03 UTC"),
        ("2026-11-24T14:03:10", "24 Nov 2026, 14:03"),
        (datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))), "31 Dec 2025, 23:30 UTC"),
        (datetime(2026, 1, 1, tzinfo=UTC), "1 Jan 2026, 00:00 UTC"),
        ("yesterday", "yesterday"),
        (None, ""),
        (12, ""),
    ],
)
def test_date(value: object, expected: str) -> None:
    assert text.date(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500.2, "2 h 5 min"), ("x", "")],
)
def test_duration(seconds: object, expected: str) -> None:
    assert text.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.031, "0.031"), (2.9096, "2.9"), (12.34, "12.3"), (1234.5, "1,234"), (0, ""), (None, ""), (True, "")],
)
def test_rate(value: object, expected: str) -> None:
    assert text.rate(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "3", None, False])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert text.number(value) is None


def test_shares_never_round_something_to_nothing_or_to_all() -> None:
    assert [text.share(n, 1000) for n in (0, 1, 500, 999, 1000)] == ["0 %", "under 1 %", "50 %", "99 %", "100 %"]
    assert text.share(0, 0) == "0 %"
