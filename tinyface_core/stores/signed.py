"""Urls that carry their own permission, and the uri that names such an object without it.

A signature is a credential, and another one tomorrow: tables, ids, the plan and logs have the uri alone. Knows
presigned urls of S3, Google Storage and those alike, CloudFront, Azure's SAS, and the usual names of tokens.
"""

from __future__ import annotations

import hashlib
import re

# These sign a path, so the url without them names the object: by the one that tells the scheme, all of its own go.
_SCHEMES = [
    (re.compile(scheme, re.IGNORECASE), re.compile(own, re.IGNORECASE))
    for scheme, own in (
        (r"x-(amz|goog|oss|cos|obs|bce)-signature", r"x-(amz|goog|oss|cos|obs|bce)-[\w-]+"),
        (r"q-signature", r"q-[\w-]+"),
        (
            r"(aws|google|oss)accesskeyid|key-pair-id",
            r"(aws|google|oss)accesskeyid|key-pair-id|policy|signature|expires",
        ),
        (r"sv", r"sig|s[vrtepis]|spr|srt|sdd|ske|skoid|sks|skt|sktid|skv|saoid|suoid|scid|ses"),
    )
]
# A token may be all that tells one object from another: it is hashed, not dropped.
_TOKENS = re.compile(r"(?i)sig|signature|(\w*_)?token|x-amz-security-token|password|pwd|api_?key|secret|hmac")


def unsigned(url: str) -> str:
    """The uri of an http or https url: without its signature, its tokens as hashes; other urls as they are.

    `https://h/a.jpg?w=1&X-Amz-Signature=c0ff` -> `https://h/a.jpg?w=1`; `?token=c0ff` -> `?token=~5f0a1b2c`.
    """
    head, mark, query = url.partition("?")
    if not mark or not head.lower().startswith(("http://", "https://")):
        return url
    pairs = query.split("&")
    names = {pair.partition("=")[0] for pair in pairs}
    for scheme, own in _SCHEMES:
        is_signed = "sig" in names if scheme.pattern == "sv" else True
        if is_signed and any(scheme.fullmatch(name) for name in names):
            pairs = [pair for pair in pairs if not own.fullmatch(pair.partition("=")[0])]
    shown = "&".join(map(_hashed, pairs))
    return f"{head}?{shown}" if shown or not query else head


def _hashed(pair: str) -> str:
    name, mark, value = pair.partition("=")
    if not value or value.startswith("~") or not _TOKENS.fullmatch(name):
        return pair
    return f"{name}{mark}~{hashlib.blake2b(value.encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()}"
