"""One path for each picture, made of the object that it lies in and its name inside an archive.

An archive is shown as a folder: the member `beach/1.jpg` of `s3://bucket/day1.tar` is `s3://bucket/day1.tar/beach/1.jpg`,
as it would lie if it were unpacked there; so is `./beach/1.jpg`, as `tar -c .` names it. `file://` is left off.
Knows names; does not look whether anything lies there.
"""

from __future__ import annotations

import hashlib
import re

from tinyface_core.errors import InputError
from tinyface_core.export.pictures import Picture

# What str.splitlines takes for the end of a line, and what no file name may hold.
_BREAKS = re.compile("[\x00\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")


class Names:
    """Paths below a folder, and which were given already.

    Args:
        below: canonical uri of a folder or an archive that paths begin at; others keep their whole path.
    """

    def __init__(self, below: str | None = None) -> None:
        self._below = below.rstrip("/") + "/" if below else None
        self._given: set[bytes] = set()

    def path(self, picture: Picture) -> str:
        """Not percent-encoded; on disk from the root, unless `below` shortens it."""
        whole = picture.uri if picture.member is None else f"{picture.uri}/{_unpacked(picture.member)}"
        if self._below is not None and whole.startswith(self._below):
            return whole.removeprefix(self._below).lstrip("/")
        return whole.removeprefix("file://")

    def once(self, name: str, picture: Picture, form: str) -> str:
        """The name, where no other picture has it; costs some 100 bytes of memory.

        Raises: InputError.
        """
        mark = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        if mark in self._given:
            raise InputError(
                f"{self.path(picture)}: another picture comes to have the same name, {name}, and {form} could not "
                "tell them apart. Nothing was written: take --to coco, which has ids."
            )
        self._given.add(mark)
        return name


def _unpacked(member: str) -> str:
    """`..` stays: what it leads to is for the form to judge."""
    return "/".join(part for part in member.split("/") if part not in ("", ".")) or member


def one_line(name: str) -> str:
    """For forms of lines: line breaks and NUL become escapes, as `\\x0a`."""
    return _BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
