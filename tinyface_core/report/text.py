"""Text for the page out of what a run and its tables say: names, numbers, times, settings.

File names, messages and settings are hostile until shown: control characters and those that turn the direction of
writing become visible escapes here, markup is escaped by the template. Credentials are left out. Knows no page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
_SECRET = re.compile(
    r"(?i)(secret|token|password|passwd|credential|signature|access_?key|account_?key|(^|\.)key$|(^|[._])sas\w*$)"
)
_LINKED = ("file://", "http://", "https://")


@dataclass(frozen=True)
class Place:
    """Where a picture lies. name: its last part. path: all of it. href: None where a browser could not open it."""

    name: str
    path: str
    href: str | None


def place_of(uri: str, member: str | None) -> Place:
    """Of a loose picture, or of a member of an archive (its archive then is not linked)."""
    name = (member or uri).rstrip("/").rpartition("/")[2] or member or uri
    path = uri.removeprefix("file://") + (f" \u203a {member}" if member is not None else "")
    href = None
    if member is None and uri.startswith(_LINKED):
        scheme, _, rest = uri.partition("://")
        href = f"{scheme}://{quote(rest, safe='/:@', errors='replace')}"
    return Place(shown(name), shown(path), href)


def shown(text: object) -> str:
    """One line of text in which nothing hides: a line break becomes `\\n`, an unseen character `\\u202e`."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], str(text))


def grouped(number: float) -> str:
    """1234567 -> 1,234,567."""
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """1 picture, 2,000 pictures."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def px(length: float) -> str:
    return f"{length:.0f}\u00a0px"


def share(part: int, whole: int) -> str:
    """A percentage that never rounds something to nothing, or not quite all to all."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 1:
        return "under 1 %"
    return f"{min(99.0, percent) if part < whole else percent:.0f} %"


def rate(pictures_per_s: object) -> str:
    """Two or three digits that matter; empty where there is no number."""
    value = number(pictures_per_s)
    if not value or value < 0:
        return ""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}" if value >= 9.95 else f"{value:.2g}"


def number(value: object) -> float | None:
    """A finite number, or None for anything else that a run's file may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < float("inf") else None


def date(value: object) -> str:
    """`24 Nov 2026, 14:03 UTC` of a datetime or ISO text; text that is no time is shown as it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return shown(value)
    if not isinstance(value, datetime):
        return ""
    zone = " UTC" if value.tzinfo else ""
    value = value.astimezone(UTC) if value.tzinfo else value
    return f"{value.day} {value:%b %Y, %H:%M}{zone}"


def seconds_of(value: object) -> float | None:
    """Seconds since 1970 of ISO text with its zone; None for anything else."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return when.timestamp() if when is not None and when.tzinfo else None


def duration(seconds: object) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`; empty where there is no number."""
    value = number(seconds)
    if value is None or value < 0:
        return ""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def listed(values: object) -> str:
    """`0.25, 0.5, 1, 2` of a list; a single value as it is."""
    if isinstance(values, (list, tuple)):
        return ", ".join(shown(f"{v:g}" if isinstance(v, float) else v) for v in values)
    return "" if values is None else shown(values)


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) in order; a value is JSON unless it is text. What looks like a credential is `***`."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value and not _SECRET.search(name):
            yield from flat(value, name)
        elif _SECRET.search(name) and value:
            yield shown(name), "***"
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            yield shown(name), shown(re.sub(r"://[^/@\s]+@", "://***@", text))
