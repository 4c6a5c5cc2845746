"""Which names are pictures to try, which are archives, and what the others are counted under.

Judges by names alone. Everything is a candidate except hidden names, sidecars and what the user leaves out: a file
that turns out to be no picture gets an error row, a sidecar would only get a useless one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from fsspec.utils import glob_translate

from tinyface_core.archive.record import Kind
from tinyface_core.errors import SettingsError

SIDECARS = frozenset({
    ".json", ".jsonl", ".txt", ".cls", ".xml", ".csv", ".tsv", ".npy", ".npz", ".yaml", ".yml", ".md", ".html",
    ".pickle", ".pkl", ".pth", ".idx", ".log",
})  # fmt: skip
_HIDDEN = frozenset({"__macosx", "thumbs.db", "desktop.ini", "_success"})
_KINDS = {".tar.gz": Kind.TAR_GZ, ".tgz": Kind.TAR_GZ, ".tar": Kind.TAR, ".zip": Kind.ZIP, ".parquet": Kind.PARQUET}
_QUERY = re.compile("[?#]")


@dataclass(frozen=True)
class CandidateFilter:
    """Which names become rows.

    all_files: hidden names and sidecars too. include, exclude: globs; one with a `/` is matched with the whole name
    (below the input, or inside the archive), one without with its last part. `include` is asked about pictures and
    about whatever archives hold, not about the archives of the input; `exclude` about all.
    """

    all_files: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def member_skipped_as(self, name: str) -> str | None:
        """As `skipped_as`, for what archives hold: one in another is never opened, so `include` is asked about all."""
        skipped = self.skipped_as(name)
        return skipped or ("excluded" if self._included and not _any(self._included, name) else None)

    def row_skipped_as(self, name: str) -> str | None:
        """As `skipped_as`, for rows of a table: a path may begin anywhere there, so hidden folders say nothing."""
        last = without_query(name).rsplit("/", 1)[-1]
        hidden = not self.all_files and (_is_hidden(last) or extension_of(last) in SIDECARS)
        return self.skipped_as(last) if hidden else self.left_out(name)

    def skipped_as(self, name: str) -> str | None:
        """None for a candidate; else what to count it under: `hidden`, `excluded`, or a sidecar's `.json`.

        name: relative to the input, with `/` between its parts.
        """
        if not self.all_files:
            if _is_hidden(name):
                return "hidden"
            if (extension := extension_of(name)) in SIDECARS:
                return extension
        return self.left_out(name)

    def left_out(self, name: str) -> str | None:
        """As `skipped_as`, by `include` and `exclude` alone: for names that the user gave one by one."""
        if self._included and kind_of(name) is Kind.PICTURE and not _any(self._included, name):
            return "excluded"
        return "excluded" if _any(self._excluded, name) else None

    def may_enter(self, folder: str) -> bool:
        """False where all that lies below is left out, as `exclude` does with `folder/**`; folder: as a name."""
        return not all(_any(self._excluded, f"{folder}/{below}") for below in ("\0", "\0/\0"))

    @cached_property
    def _included(self) -> list[tuple[bool, re.Pattern[str]]]:
        return [_pattern(glob) for glob in self.include]

    @cached_property
    def _excluded(self) -> list[tuple[bool, re.Pattern[str]]]:
        return [_pattern(glob) for glob in self.exclude]


def without_query(name: str) -> str:
    """The name; of an http or https url the part that names a file, before `?` and `#`."""
    return _QUERY.split(name, 1)[0] if name.lower().startswith(("http://", "https://")) else name


def kind_of(name: str) -> Kind:
    """What a source is by its extension, in any case; PICTURE for all that is no archive."""
    lower = without_query(name).lower()
    lower = lower if "." in lower.rsplit("/", 1)[-1] else name.lower()  # `https://host/get?file=a.zip`
    return next((kind for ending, kind in _KINDS.items() if lower.endswith(ending)), Kind.PICTURE)


def extension_of(name: str) -> str:
    """Lower case with its dot, as `.json`; empty where there is none."""
    last = without_query(name).rsplit("/", 1)[-1].lower()
    stem, dot, extension = last.rpartition(".")
    return dot + extension if stem else ""


def _is_hidden(name: str) -> bool:
    """`.` and `..` are ways to write a path (`tar -c .` does), not names."""
    return any(
        part.lower() in _HIDDEN or (part.startswith(".") and part not in (".", "..")) for part in name.split("/")
    )


@lru_cache(maxsize=1000)
def _pattern(glob: str) -> tuple[bool, re.Pattern[str]]:
    try:
        return "/" in glob, re.compile(glob_translate(glob))
    except (ValueError, re.error) as error:
        raise SettingsError(f"--include/--exclude {glob!r}: not a pattern: {error}") from error


def _any(patterns: Iterable[tuple[bool, re.Pattern[str]]], name: str) -> bool:
    """A url may be meant with its query or without."""
    shown = {name, without_query(name)}
    return any(pattern.match(one if whole else one.rsplit("/", 1)[-1]) for whole, pattern in patterns for one in shown)
