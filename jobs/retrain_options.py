"""The options of jobs/retrain.py, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Group, Parameter

from options import StorageFlags, Texts, actor_range, many, registry_of
from tinyface_core.errors import SettingsError
from tinyface_core.evaluate.promotion import Rule
from tinyface_core.labels.dated import instant
from train_options import TrainingFlags

_WHAT, _HOW, _RUN = Group("What to train", sort_key=1), Group("How long", sort_key=2), Group("How to run", sort_key=3)
_JUDGE = Group("How to judge", sort_key=4)

CLOCKS_APART = timedelta(minutes=5)  # of who ticks and of this machine


def time_of(option: str, given: str) -> datetime:
    """Raises: SettingsError."""
    try:
        return instant(given)
    except ValueError as error:
        raise SettingsError(f"{option} {given}: needs a time of ISO 8601, as 2026-11-29T03:00Z.") from error


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RetrainJob:
    """All options of jobs/retrain.py."""

    data: Annotated[Texts, many(_WHAT)]
    "Manifest of labelled pictures or sources with dates: .csv, .parquet, .jsonl, or a folder; may be repeated."
    frozen: Annotated[Texts, many(_JUDGE)]
    "Labelled pictures that judge both models, never learned from, in any form of jobs/train.py; may be repeated."
    pictures: Annotated[str | None, Parameter(group=_WHAT)] = None
    "Folder or url that the paths of --data's pictures begin at; None: that of the manifest, or of each source."
    frozen_pictures: Annotated[str | None, Parameter(group=_JUDGE)] = None
    "The same for --frozen; None: that of the annotations."
    registry: Annotated[str | None, Parameter(group=_RUN)] = None
    "Folder or url of the versions; None: TINYFACE_REGISTRY. jobs/registry.py lists and changes it."
    tick: Annotated[str | None, Parameter(group=_RUN)] = None
    "The schedule's time that this run is for, as 2026-11-29T03:00Z; once decided it stays so. None: this minute."
    since: Annotated[str | None, Parameter(group=_WHAT)] = None
    "Rows from this time on; None: from where the data of the current version ended."
    until: Annotated[str | None, Parameter(group=_WHAT)] = None
    "Rows up to this time, and without it; None: the tick."
    least_pictures: Annotated[int, Parameter(group=_WHAT)] = 50
    "Fewer new pictures than this: nothing is trained, and they wait for the next tick."
    hold_out: Annotated[float, Parameter(group=_WHAT)] = 0.1
    "Share of the new pictures that the best epoch is chosen by, and that nothing is learned from."
    start_from: Annotated[str | None, Parameter(group=_WHAT)] = None
    "A bundled model, or path or url, to begin with; None: the current version."
    refit_pictures: Annotated[int, Parameter(group=_HOW)] = 100
    "Training pictures that ellipses and int8 ranges are fitted on anew; 0: the new model has neither."
    margin: Annotated[float, Parameter(group=_JUDGE)] = 0.005
    "The new model is promoted only if its average precision over all faces is higher by this, 0..1."
    tolerance: Annotated[float, Parameter(group=_JUDGE)] = 0.01
    "And if at no range of face heights it is lower by more than this."
    samples: Annotated[int, Parameter(group=_JUDGE)] = 1000
    "Of the bootstrap over pictures."
    contact_sheet: Annotated[bool, Parameter(group=_JUDGE)] = True
    "Keep a sheet of frozen pictures where the two disagree most, with the version: it shows pictures."
    actors: Annotated[str | None, Parameter(group=_RUN)] = None
    "Detectors for the frozen pictures, as 4 or 2..16; None: one a GPU, or one a CPU."
    cpus_per_actor: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs, and so threads, of each detector."
    gpus_per_actor: Annotated[float | None, Parameter(group=_RUN)] = None
    "GPUs of each detector; 0.5 puts two on one."
    dry_run: Annotated[bool, Parameter(group=_RUN, negative=())] = False
    "Tell what would be done; write nothing."
    training: TrainingFlags = TrainingFlags()
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Cluster to join (else RAY_ADDRESS, else one that runs here); `local` always starts one."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        registry_of(self.registry)
        checks: list[tuple[str, float, float, float]] = [
            ("--least-pictures", self.least_pictures, 2, math.inf),
            ("--hold-out", self.hold_out, 0.01, 0.5),
            ("--refit-pictures", self.refit_pictures, 0, math.inf),
            ("--margin", self.margin, 0, 1),
            ("--tolerance", self.tolerance, 0, 1),
            ("--samples", self.samples, 100, 100_000),
            ("--cpus-per-actor", self.cpus_per_actor, 1, 1024),
        ]
        for name, value, low, high in checks:
            if not low <= value <= high:
                needed = f"from {low:g} on" if high == math.inf else f"from {low:g} to {high:g}"
                raise SettingsError(f"{name} {value}: needs a number {needed}.")
        if not (self.training.hours or self.training.crops or self.training.epochs):
            raise SettingsError("--hours, --crops or --epochs: how long may a training take? Give one of them.")
        self.training.budget(1000)  # refuses what is no budget
        self.actor_range()
        now, times = datetime.now(UTC), {"--tick": self.tick, "--since": self.since, "--until": self.until}
        found = {option: time_of(option, given) for option, given in times.items() if given is not None}
        if "--tick" in found and found["--tick"] > now + CLOCKS_APART:
            raise SettingsError(f"--tick {self.tick}: lies in the future; it is now {now:%Y-%m-%dT%H:%MZ}.")
        if "--since" in found and found["--since"] >= found.get("--until", found.get("--tick", now)):
            raise SettingsError(f"--since {self.since}: nothing lies between it and the end of the window.")

    @property
    def rule(self) -> Rule:
        return Rule(self.margin, self.tolerance)

    def rule_given(self) -> dict[str, float]:
        """Option -> value of all that a verdict depends on."""
        return {"--margin": self.margin, "--tolerance": self.tolerance, "--samples": self.samples}

    def actor_range(self) -> tuple[int, int] | None:
        return actor_range(self.actors)

    def tick_time(self) -> datetime:
        """The schedule's time; asked once a run, as without --tick it is now."""
        given = datetime.now(UTC) if self.tick is None else time_of("--tick", self.tick)
        return given.replace(second=0, microsecond=0)
