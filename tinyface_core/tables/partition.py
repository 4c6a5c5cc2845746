"""Which folder of each table a unit's files lie in: Hive's `key=value`, from a part of its pictures' uri.

A member's uri is that of its archive, so a unit is never of two values. Knows names alone.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from urllib.parse import quote

from tinyface_core.errors import SettingsError
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # null to DuckDB, Spark and Polars
_KEY = re.compile(r"[a-z_][a-z0-9_]*")
_LONGEST_BYTES = 200  # of a value; a name may have 255 on disk


@dataclass(frozen=True)
class PartitionBy:
    """key: the column that readers see. pattern: is searched in each uri; its first group is the value."""

    key: str
    pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str, carried: AbstractSet[str] = frozenset()) -> PartitionBy:
        """Of `key=pattern`, as --partition-by has it. carried: columns whose names are taken.

        Raises: SettingsError.
        """
        key, equals, pattern = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise SettingsError(
                f"--partition-by {text}: give KEY=PATTERN, as day=/([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})/ for uris with "
                "such a folder. The key is of small letters, digits and _."
            )
        if key in {*images_schema().names, *DETECTIONS_SCHEMA.names, *carried}:
            raise SettingsError(f"--partition-by {text}: {key} is a column of the tables already. Give another key.")
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise SettingsError(f"--partition-by {text}: is no regular expression: {error}.") from error
        if compiled.groups < 1:
            raise SettingsError(f"--partition-by {text}: put what is the value into brackets, as day=/([^/]+)/.")
        return cls(key, compiled)

    def folder(self, uri: str) -> str:
        """`key=value/`, percent-encoded; without a value where the pattern is not in the uri."""
        found = self.pattern.search(uri)
        value = (found[1] or "") if found else ""
        while len(quote(value, safe="")) > _LONGEST_BYTES:
            value = value[:-1]
        return f"{self.key}={quote(value, safe='') or NO_VALUE}/"
