"""Signed urls: which part names the object, and where the rest is kept meanwhile."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.archive.signed_urls import SignedUrls
from tinyface_core.stores.signed import unsigned

H = "https://h/a%20b.jpg"


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        (H, H),
        (f"{H}?", f"{H}?"),
        (f"{H}?w=100&expires=3&se=2&policy=1", f"{H}?w=100&expires=3&se=2&policy=1"),
        ("s3://b/a?X-Amz-Signature=1", "s3://b/a?X-Amz-Signature=1"),
        ("file:///a?sig=1&sv=2", "file:///a?sig=1&sv=2"),
        (
            f"{H}?X-Amz-Credential=K%2F1&X-Amz-SignedHeaders=host&X-Amz-Security-Token=T&versionId=7&X-Amz-Signature=c0",
            f"{H}?versionId=7",
        ),
        (f"{H}?X-Goog-Algorithm=G&X-Goog-Signature=c0ff", H),
        (f"{H}?GoogleAccessId=svc%40p.iam&Expires=17&Signature=c0ff", H),
        (f"{H}?AWSAccessKeyId=K&Signature=c0ff&x-amz-security-token=T&Expires=17", H),
        (f"{H}?OSSAccessKeyId=K&Signature=c0ff&security-token=T&Expires=17", H),
        (f"{H}?AccessKeyId=K&Signature=c0ff&Expires=17", H),
        (f"{H}?x-oss-process=image/resize,w_100&x-oss-signature=c0ff", f"{H}?x-oss-process=image/resize,w_100"),
        (f"{H}?q-sign-algorithm=sha1&q-signature=c0ff&x-cos-security-token=T&imageView2=1", f"{H}?imageView2=1"),
        (f"{H}?X-Amz-Signature=c0ff&x-amz-checksum-mode=1", f"{H}?x-amz-checksum-mode=1"),
        (f"{H}?AWSAccessKeyId=K&Signature=c%2B%3D&Expires=17", H),
        (f"{H}?Expires=17&Signature=c0ff&Key-Pair-Id=K", H),
        (f"{H}?Policy=eyJ&Signature=c0ff&Key-Pair-Id=K&w=1", f"{H}?w=1"),
        (f"{H}?sv=2024-11-04&se=2026-12-01&sr=b&sp=r&sig=c%2Bff&snapshot=2", f"{H}?snapshot=2"),
    ],
)
def test_a_uri_has_no_signature(url: str, uri: str) -> None:
    assert unsigned(url) == uri
    assert unsigned(uri) == uri


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "accessToken",
        "access-token",
        "sig",
        "Signature",
        "password",
        "api_key",
        "apikey",
        "Secret",
        "key",
        "access_key",
        "auth",
        "passwd",
        "code",
        "jwt",
        "sas",
    ],
)
def test_tokens_are_hashed_for_they_may_name_the_object(name: str) -> None:
    one, other = unsigned(f"{H}?{name}=one&b=2"), unsigned(f"{H}?{name}=other&b=2")
    assert one != other
    assert one == unsigned(f"{H}?{name}=one&b=2") == unsigned(one)
    assert "one" not in one
    assert one.endswith("&b=2")
    assert "~secret" not in unsigned(f"{H}?{name}=~secret")


def test_urls_are_kept_beside_the_plan() -> None:
    """Of what comes twice the first counts: with another signature it is the same source."""
    plain, first = (
        Source("https://h/a", Kind.PICTURE),
        Source("https://h/b", Kind.PICTURE, signed_url="https://h/b?sig=1"),
    )
    second = replace(first, signed_url="https://h/b?sig=2")
    odd = Source("https://h/\udcff", Kind.PICTURE, signed_url="https://h/\udcff?sig=1")
    planned = Unit((plain, Source(first.uri, Kind.PICTURE), Source(odd.uri, Kind.PICTURE)))
    assert first == second == planned.sources[1]
    assert "sig" not in repr(first)
    with SignedUrls() as urls:
        assert urls.signed_unit(planned) is planned
        assert list(urls.noted([plain, first, second, odd])) == [plain, first, second, odd]
        assert [source.url for source in urls.signed_unit(planned).sources] == [plain.uri, first.url, odd.url]


def test_many_urls_lie_in_a_file_that_nobody_else_finds() -> None:
    """Not in memory, and nothing is left when the process is killed."""
    sources = (
        Source(f"https://h/{n}", Kind.PICTURE, signed_url=f"https://h/{n}?sig={'x' * 1000}") for n in range(10_000)
    )
    before = own_files()
    with SignedUrls() as urls:
        for _ in urls.noted(sources):
            pass
        assert urls.signed(Source("https://h/77", Kind.PICTURE)).url.startswith("https://h/77?sig=x")
        (file,) = own_files().keys() - before.keys()
        assert file.endswith(" (deleted)")
    assert own_files() == before


def own_files() -> dict[str, str]:
    """Open files of this process on disk, by where they are or were."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if (target := os.readlink(path)).startswith("/") and not target.startswith(("/dev", "/proc")):
                found[target] = path.name
    return found
