"""Patterns in input urls: braces, and globs with `*`, `?`, `[]` inside a name and `**` across folders.

Matches names; lists nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from braceexpand import braceexpand
from fsspec.utils import glob_translate

from tinyface_core.errors import InputError
from tinyface_core.storage import unsigned

_MAGIC = re.compile(r"[*?\[]")
_MAX_BRACES = 1_000_000


def expand_braces(url: str) -> Iterator[str]:
    """`a{0..2}` -> a0, a1, a2; `{00..10}` keeps its zeros. Raises: InputError where braces do not pair."""
    try:
        for count, one in enumerate(braceexpand(url, escape=False)):
            if count >= _MAX_BRACES:
                raise InputError(f"{unsigned(url)}: names more than {_MAX_BRACES} inputs: use a glob or a manifest")
            yield one
    except ValueError as error:
        raise InputError(
            f"{unsigned(url)}: the braces do not pair: close each {{, or name the file's folder"
        ) from error


def has_magic(url: str) -> bool:
    return _MAGIC.search(url) is not None


class Glob:
    """A canonical uri with wildcards.

    base: the folder (its uri) above the first wildcard. starts_with: how the next name starts. A pattern matches
    objects, and all that is below a folder that it matches: `s3://b/2024-*` takes the folder `2024-01` whole.
    """

    def __init__(self, uri: str) -> None:
        scheme, separator, path = uri.partition("://")
        parts = path.split("/")
        first = next(place for place, part in enumerate(parts) if _MAGIC.search(part))
        self.base = scheme + separator + "/".join(parts[:first])
        self.starts_with = "".join(itertools.takewhile(lambda letter: letter not in "*?[", parts[first]))
        self._parts = [part for part in parts[first:] if part]
        try:
            self._each = [re.compile(glob_translate(part)) for part in self._parts]
            self._whole = re.compile(glob_translate("/".join(self._parts)))
        except (ValueError, re.error) as error:
            raise InputError(f"{uri}: not a pattern: {error}") from error

    def matches(self, name: str) -> bool:
        """name: below the base, with `/` between its parts."""
        parts = name.split("/")
        return any(self._whole.match("/".join(parts[:count])) for count in range(1, len(parts) + 1))

    def may_hold(self, folder: str) -> bool:
        """Whether a match can lie in the folder (its name below the base)."""
        for part, wanted, regex in zip(folder.split("/"), self._parts, self._each, strict=False):
            if wanted == "**":
                return True
            if not regex.match(part):
                return False
        return True
