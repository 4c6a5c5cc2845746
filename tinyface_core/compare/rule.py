"""When a new output may take an old one's place: limits that the user states, held against what was counted.

Without labels nobody can tell which output is better. What can be told is how much of the old one is gone, has come or
has moved, and whether every picture was answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyface_core.compare.counts import HEIGHT_BANDS, Comparison, Counts
from tinyface_core.errors import SettingsError

ALL = "all"  # heights
FACES = ("lost", "gained", "moved")


@dataclass(frozen=True)
class Rule:
    """Shares, 0..1, that may not be passed.

    lost, gained, moved: height band (or ALL) -> share: of the old faces, of the new faces, of the kept faces. missing:
    of the pictures with a result in the old output, those without one in the new one. changed: of the same, those of
    which the new one has other bytes: they are not compared.
    """

    lost: Mapping[str, float] = field(default_factory=lambda: {ALL: 0.01})
    gained: Mapping[str, float] = field(default_factory=dict)
    moved: Mapping[str, float] = field(default_factory=dict)
    missing: float = 0.0
    changed: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("missing", self.missing), ("changed", self.changed)):
            if not 0 <= share <= 1:
                raise SettingsError(f"--max-{name} {share:g}: needs a number from 0 to 1.")

    def broken(self, found: Comparison, *, finished: bool = True) -> list[str]:
        """What speaks against the new output, a sentence each; none: it may take the old one's place."""
        return [*_unfinished(found, finished), *self._pictures(found), *self._faces(found)]

    def _pictures(self, found: Comparison) -> Iterator[str]:
        pictures = found.pictures
        missing, changed = pictures["error in new"] + found.lost_results, pictures["other bytes"]
        of = pictures["compared"] + missing + changed
        if missing > self.missing * of:
            yield f"{missing:,} of {of:,} pictures have no result in the new one, above --max-missing {self.missing:g}"
        if changed > self.changed * of:
            yield f"{changed:,} of {of:,} pictures are other bytes, not compared, above --max-changed {self.changed:g}"

    def _faces(self, found: Comparison) -> Iterator[str]:
        faces = found.faces
        for kind, limits, part_HS, of_HS, whose in (
            ("lost", self.lost, faces.lost_HS, faces.old_HS, "old"),
            ("gained", self.gained, faces.gained_HS, faces.new_HS, "new"),
            ("moved", self.moved, faces.moved_HS, faces.kept_HS, "kept"),
        ):
            for band, share in limits.items():
                part, of = _sum(part_HS, band), _sum(of_HS, band)
                if part > share * of:
                    where = "" if band == ALL else f" of {band} px"
                    limit = f"{share:g}" if band == ALL else f"{band}={share:g}"
                    yield f"{part:,} of {of:,} {whose} faces{where} are {kind}, above --max-{kind} {limit}"


def limits_of(option: str, texts: Sequence[str]) -> dict[str, float]:
    """SHARE, of all faces, or BAND=SHARE, of one height band. Raises: SettingsError."""
    limits = {}
    for text in texts:
        band, equals, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1 or (equals and band not in HEIGHT_BANDS):
            raise SettingsError(
                f"{option} {text}: give a share from 0 to 1, as 0.01, or one of a band of heights, as 20-40=0.01; the "
                f"bands are {', '.join(HEIGHT_BANDS)} (px)."
            )
        limits[band or ALL] = value
    return limits


def _unfinished(found: Comparison, finished: bool) -> Iterator[str]:
    if not finished:
        yield "the new output is not finished (no _SUCCESS)"
    for side, torn in (("old", found.torn_old), ("new", found.torn_new)):
        if torn:
            yield f"{torn:,} units of the {side} output have lost their faces, or are being redone"
    if not found.pictures["compared"]:
        yield "no picture could be compared"


def _sum(counts_HS: Counts, band: str) -> int:
    return int(counts_HS.sum() if band == ALL else counts_HS[HEIGHT_BANDS.index(band)].sum())
