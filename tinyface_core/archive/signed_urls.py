"""The signed urls of a run's listing: in a nameless file until the run ends, never in the output.

The plan names sources by uri and outlives every signature; what a source is read with comes from today's listing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType

from tinyface_core.archive.record import Source, Unit


class SignedUrls:
    """uri -> url, of those sources that have another url than their uri. For one thread; a context."""

    def __enter__(self) -> SignedUrls:
        self._database = sqlite3.connect("", isolation_level=None)  # a file that has no name: nothing is left of it
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE urls (uri BLOB PRIMARY KEY, url BLOB) WITHOUT ROWID")
        self._any = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def noted(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources as they come; of a uri that comes twice the first url counts."""
        for source in sources:
            if source.signed_url:
                self._any = True
                self._database.execute(
                    "INSERT OR IGNORE INTO urls VALUES (?, ?)", (_bytes(source.uri), _bytes(source.url))
                )
            yield source

    def signed(self, source: Source) -> Source:
        """The source with the url that its uri was listed with."""
        if not self._any:
            return source
        found = self._database.execute("SELECT url FROM urls WHERE uri = ?", (_bytes(source.uri),)).fetchone()
        return source if found is None else replace(source, signed_url=found[0].decode("utf-8", "surrogateescape"))

    def signed_unit(self, unit: Unit) -> Unit:
        """The unit with the urls of its sources."""
        return replace(unit, sources=tuple(map(self.signed, unit.sources))) if self._any else unit


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
