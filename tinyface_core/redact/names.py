"""Where a picture's copy lies: a name that mirrors its uri and member, and belongs to no other picture.

    file:///home/a/x.jpg                   copies/file/home/a/x.jpg
    s3://bucket/day1.tar, beach/12.jpg     copies/s3/bucket/day1.tar!/beach/12.jpg

A name that is not safe as it stands, or may belong to two, is made safe and followed by `~` and the picture's id:
`../up.jpg`, a second member of a name, `scan.tif` whose copy is a PNG. So names are unique without anybody comparing
them: a plain one mirrors one place only, and never looks like one with an id; files end in the ending of a picture,
and folders never do. Knows names alone.
"""

from __future__ import annotations

import re

from tinyface_core.archive.record import image_id_of
from tinyface_core.redact.encode import EXTENSIONS

COPIES = "copies"
_LONGEST_PART_BYTES, _LONGEST_NAME_BYTES = 180, 800  # of 255 on disk, and 1,024 of a key on S3
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]')
_LIKE_OURS = re.compile(r"~[0-9a-f]{32}")
_PICTURES = tuple(ending for endings in EXTENSIONS.values() for ending in endings)


def copy_name(uri: str, member: str | None, image_id: str, copied_as: str) -> str:
    """Relative to the destination: `mirrored_name` below `copies/`."""
    return f"{COPIES}/{mirrored_name(uri, member, image_id, copied_as)}"


def mirrored_name(uri: str, member: str | None, image_id: str, copied_as: str) -> str:
    """The name, with `/` between its parts.

    Args:
        uri, member, image_id: as the images table has them. copied_as: of `encode.copy_format`.
    """
    scheme, _, rest = uri.partition("://")
    outer = [scheme, *rest.removeprefix("/").split("/")]
    inner = [] if member is None else member.split("/")
    safe = [*map(_safe_folder, outer[:-1])]
    safe += [_safe(outer[-1])] if member is None else [f"{_safe(outer[-1])}!", *map(_safe_folder, inner[:-1])]
    safe += [] if member is None else [_safe(inner[-1])]
    plain = [*outer, *inner] if member is None else [*outer[:-1], f"{outer[-1]}!", *inner]
    is_first = image_id == image_id_of(uri, None if member is None else member.encode("utf-8", "surrogatepass"))
    has_ending = safe[-1].lower().endswith(EXTENSIONS[copied_as])
    if safe == plain and all(safe) and is_first and has_ending and _is_short(safe):
        return "/".join(safe)
    ending = f"~{image_id}{EXTENSIONS[copied_as][0]}"
    named = [*filter(None, safe[:-1]), safe[-1] + ending]
    return "/".join(named if _is_short(named) else [scheme, f"long{ending}"])


def _safe_folder(part: str) -> str:
    """As `_safe`; never ends as a file of ours does, nor as the folder of an archive. `.` and nothing are left out."""
    if part in ("", "."):
        return ""
    safe = _safe(part)
    return safe + "_" if safe.lower().endswith((*_PICTURES, "!")) else safe


def _safe(part: str) -> str:
    """The part itself, unless it leads elsewhere, hides something, is too long or looks like one with an id."""
    part = _LIKE_OURS.sub("~_", _UNSAFE.sub("_", part))
    if part.strip(".") == "" or part.endswith((".", " ")):
        part += "_"
    return part.encode("utf-8", "replace")[:_LONGEST_PART_BYTES].decode("utf-8", "ignore")


def _is_short(parts: list[str]) -> bool:
    return len("/".join(parts).encode("utf-8", "replace")) <= _LONGEST_NAME_BYTES
