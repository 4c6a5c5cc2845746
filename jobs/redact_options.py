"""The options of jobs/redact.py, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from options import StorageFlags, actor_range, refuse_lost
from tinyface_core.errors import SettingsError
from tinyface_core.redact.faces import How, Redaction, Shape

_WRITE, _MASK = Group("Where to write", sort_key=1), Group("How to redact", sort_key=2)
_CHECK, _RUN = Group("What to check", sort_key=3), Group("How to run", sort_key=4)
CHOICES = ("how", "mask", "margin", "min_score", "quality")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RedactCopies:
    """All options of jobs/redact.py; None: as the destination has it recorded, else the default."""

    to: Annotated[str, Parameter("--output", group=_WRITE)]
    "Folder or prefix for the copies: empty, or one that this command began."
    how: Annotated[How | None, Parameter(group=_MASK)] = None
    "fill (one grey), blur or pixelate; None: fill."
    mask: Annotated[Shape | None, Parameter(group=_MASK)] = None
    "ellipse or box; None: ellipse."
    margin: Annotated[float | None, Parameter(group=_MASK)] = None
    "Share by which each face's half axes or half sides grow; None: 0.2."
    min_score: Annotated[float | None, Parameter(group=_MASK)] = None
    "Faces up to this score are not masked; None: all that are in the tables are."
    quality: Annotated[int | None, Parameter(group=_MASK)] = None
    "Of JPEG and WebP copies, 1..100; None: 92."
    check: Annotated[int, Parameter(group=_CHECK)] = 200
    "So many copies with masked faces are searched for faces again; 0: none."
    seed: Annotated[int, Parameter(group=_CHECK)] = 0
    "Which copies are drawn for that."
    max_residual: Annotated[float | None, Parameter(group=_CHECK)] = None
    "Exit code 3 where a larger share of the masked faces is found again."
    model: Annotated[str | None, Parameter(group=_CHECK)] = None
    "Where the model lies that found the faces, if it is not bundled or in the output."
    retry: Annotated[Literal["errors"] | None, Parameter(group=_RUN)] = None
    "errors: units with pictures that failed (not those that were never examined) are worked again."
    actors: Annotated[str | None, Parameter(group=_RUN)] = None
    "Processes that write copies, as 4 or 2..16; None: one a CPU."
    cpus_per_actor: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs of each, and threads of the detectors of --check."
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Ray cluster to join; None: RAY_ADDRESS or one that runs here, else a local one is started."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        checks: list[tuple[str, float | None, float, float]] = [
            ("--margin", self.margin, 0, 5),
            ("--min-score", self.min_score, 0, 1),
            ("--quality", self.quality, 1, 100),
            ("--check", self.check, 0, 1_000_000),
            ("--max-residual", self.max_residual, 0, 1),
            ("--cpus-per-actor", self.cpus_per_actor, 1, 1024),
        ]
        for name, value, low, high in checks:
            if value is not None and not low <= value <= high:
                raise SettingsError(f"{name} {value}: needs a number from {low:,} to {high:,}.")
        if self.max_residual is not None and not self.check:
            raise SettingsError("--max-residual with --check 0: it is the check that tells the residual face rate.")
        if not self.to.strip():
            raise SettingsError("--output: is empty. An unset variable? Give `.` for the current folder.")
        refuse_lost("--output", self.to)
        self.actor_range()

    @property
    def gpus_per_actor(self) -> float | None:
        """Masks need none; detectors of --check take one each where the output was made on GPUs."""
        return None

    def actor_range(self) -> tuple[int, int] | None:
        return actor_range(self.actors)

    def asked_for(self) -> dict[str, Any]:
        """The settings that the command line names, and only those."""
        return {name: getattr(self, name) for name in CHOICES if getattr(self, name) is not None}


def settings_of(asked: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """All that can change a copy: as asked for, else the default; and what nobody can choose."""
    return {name: asked.get(name, getattr(Redaction(), name)) for name in CHOICES} | facts
