"""Pictures that are taken out of an output on request: which they are, by id and by name, as rows and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.archive.record import image_id_of
from tinyface_core.tables.rows import shown_text


@dataclass(frozen=True)
class Removed:
    """image_ids, as in the tables. uris: all that is in such an object. members: of an archive (uri, member).

    Names as the tables show them: what comes later under such a name is meant too, whatever its occurrence.
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
            archives = pa.array(sorted({uri for uri, _ in self.members}), pa.string())
            few = rows.filter(pc.is_in(rows["uri"], value_set=archives)).select(["image_id", "uri", "member"])
            found |= {row["image_id"] for row in few.to_pylist() if (row["uri"], row["member"]) in self.members}
        return frozenset(found)

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


@dataclass(frozen=True)
class Removal:
    """One request. done: the tables are without them. finished: `_SUCCESS` was there when it was made."""

    pictures: Removed
    done: bool
    finished: bool
