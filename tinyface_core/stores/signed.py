"""Urls that carry their own permission, and the uri that names such an object without it.

A signature is a credential, and another one tomorrow: tables, ids, the plan and logs have the uri alone. Knows
presigned urls of S3, Google Storage and those alike, CloudFront, Azure's SAS, and the usual names of tokens.
"""

from __future__ import annotations

import hashlib
import re


def _names(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_V4 = "algorithm|credential|date|expires|signedheaders|signature(-version)?|security-token|additional-headers"
_V2 = "(aws|oss)?accesskeyid|googleaccessid|key-pair-id"
# (what tells the scheme: all of these are there; what it adds to a url). Each signs a path: the rest is the object's.
_SCHEMES = [
    ([_names("x-(amz|goog|oss|cos|obs)-signature")], _names(f"x-(amz|goog|oss|cos|obs)-({_V4}|content-sha256)")),
    ([_names("q-signature")], _names(r"q-[\w-]+|x-cos-security-token")),
    ([_names(_V2), _names("signature")], _names(f"{_V2}|signature|expires|policy|(x-(amz|oss|obs)-)?security-token")),
    (
        [_names("sig"), _names("sv")],
        _names("sig|s[vrtepis]|spr|srt|sdd|ske|skoid|sks|skt|sktid|skv|saoid|suoid|scid|ses"),
    ),
]
# A token may be all that tells one object from another: it is hashed, not dropped.
HASHED_NAMES = (
    r"sig|signature|[\w-]*token|[\w-]*passw(?:or)?d|pass|pwd|[\w-]*key|[\w-]*auth|authorization|[\w-]*secret|hmac|code|"
    "jwt|sas"
)
_TOKENS = _names(HASHED_NAMES)
_HASHED = re.compile(r"~[0-9a-f]{16}")


def unsigned(url: str) -> str:
    """The uri of an http or https url: without its signature, its tokens as hashes; other urls as they are.

    `https://h/a.jpg?w=1&X-Amz-Signature=c0ff` -> `https://h/a.jpg?w=1`; `?token=c0ff` -> `?token=~5f0a1b2c...`.
    """
    head, mark, query = url.partition("?")
    if not mark or not head.lower().startswith(("http://", "https://")):
        return url
    pairs = query.split("&")
    names = [pair.partition("=")[0] for pair in pairs]
    for told_by, own in _SCHEMES:
        if all(any(pattern.fullmatch(name) for name in names) for pattern in told_by):
            pairs = [pair for pair in pairs if not own.fullmatch(pair.partition("=")[0])]
    shown = "&".join(map(_hashed, pairs))
    return f"{head}?{shown}" if shown or not query else head


def _hashed(pair: str) -> str:
    name, mark, value = pair.partition("=")
    if not value or _HASHED.fullmatch(value) or not _TOKENS.fullmatch(name):
        return pair
    return f"{name}{mark}~{hashlib.blake2b(value.encode('utf-8', 'surrogateescape'), digest_size=8).hexdigest()}"
