"""Pictures that are taken out of an output on request: which they are, by id and by name, as rows and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.archive.record import image_id_of
from tinyface_core.tables.rows import shown_text

_BACKSLASH = re.compile(r"\\(?!x[0-9a-f]{2}|u[0-9a-f]{4})")  # not that of a byte shown as \xNN


@dataclass(frozen=True)
class Removed:
    """image_ids, as in the tables. uris: all that is in such an object. members: of an archive (uri, member).

    Names as the tables show them: what comes later under such a name is meant too, whatever its occurrence, and
    however its archive was packed then: `./a//b.jpg` and `a\\b.jpg` are `a/b.jpg`.
    """

    image_ids: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    members: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def named(
        cls, image_ids: Iterable[str] = (), uris: Iterable[str] = (), members: Iterable[tuple[str, str]] = ()
    ) -> Removed:
        """From names as they are; bytes that are no UTF-8 as surrogates, as the command line gives them."""
        uris, members = list(uris), list(members)
        loose = {image_id_of(uri) for uri in uris}
        inside = {image_id_of(uri, member.encode("utf-8", "surrogateescape")) for uri, member in members}
        return cls(
            frozenset(image_ids) | loose | inside,
            frozenset(map(shown_text, uris)),
            frozenset((shown_text(uri), shown_text(member)) for uri, member in members),
        )

    def __bool__(self) -> bool:
        return bool(self.image_ids or self.uris or self.members)

    def __or__(self, other: Removed) -> Removed:
        return Removed(self.image_ids | other.image_ids, self.uris | other.uris, self.members | other.members)

    @classmethod
    def all_of(cls, several: Iterable[Removed]) -> Removed:
        return reduce(cls.__or__, several, cls())

    def among(self, rows: pa.Table) -> frozenset[str]:
        """The image_ids of those of these rows of images (image_id, uri, member) that are meant."""
        by_id = pc.is_in(rows["image_id"], value_set=pa.array(sorted(self.image_ids), pa.string()))
        by_uri = pc.is_in(rows["uri"], value_set=pa.array(sorted(self.uris), pa.string()))
        found = set(rows.filter(pc.or_(by_id, by_uri))["image_id"].to_pylist())
        if self.members:
            wanted = {(uri, _plain(member)) for uri, member in self.members}
            few = self._alike(rows).select(["image_id", "uri", "member"]).to_pylist()
            found |= {row["image_id"] for row in few if (row["uri"], _plain(row["member"])) in wanted}
        return frozenset(found)

    def _alike(self, rows: pa.Table) -> pa.Table:
        """The rows that may be meant as members: of these archives, with the last part of such a name.

        In Arrow, as an archive may have 10^6 of them.
        """
        uris, members = zip(*self.members, strict=True)
        rows = rows.filter(pc.is_in(rows["uri"], value_set=pa.array(sorted(set(uris)), pa.string())))
        return rows.filter(pc.is_in(_last_part(rows["member"]), value_set=_last_part(pa.array(members, pa.string()))))

    def places(self, rows: pa.Table) -> tuple[frozenset[str], dict[str, int]]:
        """Which of `uris` name a row of these; and of the others, how many rows lie below each as below a folder."""
        named = self.uris.intersection(pc.unique(rows["uri"]).to_pylist())
        folders = {uri: f"{uri.rstrip('/')}/" for uri in self.uris - named}
        below = {uri: pc.sum(pc.starts_with(rows["uri"], folder)).as_py() or 0 for uri, folder in folders.items()}
        return named, below

    def as_json(self) -> dict[str, Any]:
        return {
            "image_ids": sorted(self.image_ids),
            "uris": sorted(self.uris),
            "members": [list(pair) for pair in sorted(self.members)],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Removed:
        members = frozenset((uri, member) for uri, member in value["members"])
        return cls(frozenset(value["image_ids"]), frozenset(value["uris"]), members)


def _plain(member: str) -> str:
    return "/".join(part for part in _BACKSLASH.sub("/", member).split("/") if part not in ("", "."))


def _last_part(members: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.replace_substring_regex(members, r"(?s)^.*[/\\]", "")


@dataclass(frozen=True)
class Removal:
    """One request. done: the tables are without them. finished: `_SUCCESS` was there when it was made."""

    pictures: Removed
    done: bool
    finished: bool
