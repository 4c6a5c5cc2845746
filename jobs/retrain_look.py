"""What a retraining is made of before its first write: current model, new pictures, frozen pictures, settings."""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import tinyface_core
from options import Texts, registry_of
from ray_train import TrainingRun
from retrain_options import RetrainJob, time_of
from tinyface_core.errors import CheckpointError, InputError, SettingsError
from tinyface_core.evaluate.truth import HEIGHT_NAMES, Truth, joined
from tinyface_core.labels.dated import Dated, Window, instant, read_dated
from tinyface_core.labels.forms import Line, read_lines
from tinyface_core.model.locate import IN_REGISTRY, ModelAddress, fetch, locate
from tinyface_core.model.spec import ModelSpec, read_spec
from tinyface_core.registry.registry import BEGUN, CURRENT, Registry, Version, tick_name
from tinyface_core.report.text import counted
from tinyface_core.storage import Storage, unsigned
from tinyface_core.tables.place import check_writable
from tinyface_core.train.data import AnnotatedPicture, annotated, decoded
from tinyface_core.train.presets import MODELS
from train_record import digest_of
from train_run import cache_folder, start_uri

log = logging.getLogger(__name__)
FEW_FACES = 50  # of a range of heights: one face more or less then moves its average precision beyond most tolerances
TRAINING = "training"


@dataclass(frozen=True)
class Frozen:
    """The pictures that judge. truth: by canonical uri. digest: of uris, versions and boxes."""

    truth: Truth
    digest: str


@dataclass(frozen=True)
class Sought:
    """One tick, once everything is known. base: what is current; its model is `teacher` too.

    manifests: by --data. learned, held_out: the new pictures, apart. run: of Ray Train. resumed: begun.json of a tick
    that was cut short.
    """

    job: RetrainJob
    storage: Storage
    tick: str
    registry: Registry
    base: Version
    teacher: ModelAddress
    window: Window
    manifests: dict[str, Dated]
    learned: tuple[AnnotatedPicture, ...]
    held_out: tuple[AnnotatedPicture, ...]
    frozen: Frozen
    run: TrainingRun
    resumed: dict[str, Any] | None

    @property
    def pictures(self) -> int:
        """New ones."""
        return len(self.learned) + len(self.held_out)

    @property
    def folder(self) -> str:
        """The uri of this tick's work."""
        return self.registry.path(f"runs/{self.tick}")

    @property
    def begun(self) -> dict[str, Any]:
        """What a tick that is cut short goes on with, whatever has become current or been asked for meanwhile."""
        since = self.window.since
        return {
            "base": self.base.name,
            "since": None if since is None else since.isoformat(),
            "until": self.window.until.isoformat(),
            "rule": self.job.rule_given(),
            "frozen": self.frozen.digest,
        }

    def training_digests(self) -> dict[str, str]:
        return {"data": digest_of(self.learned), "held_out": digest_of(self.held_out), "frozen": self.frozen.digest}


def seek(job: RetrainJob, tick: datetime, storage: Storage) -> Sought:
    """Everything that can be wrong is told here, before the first write. Raises: RefusedError."""
    registry, name = Registry(storage, registry_of(job.registry)), tick_name(tick)
    begun = begun_of(registry, name)
    base = registry.find(CURRENT if begun is None else begun["base"])
    window = _window(job, tick, base) if begun is None else _as_begun(job, begun)
    teacher = locate(f"{IN_REGISTRY}{base.name}", storage, registry.uri)
    spec = read_spec(fetch(teacher, storage))
    manifests = {each: read_dated(each, window, job.pictures, storage) for each in job.data}
    frozen_pictures, frozen = _frozen(job.frozen, job.frozen_pictures, storage)
    if begun is not None and begun["frozen"] != frozen.digest:  # mended, maybe: no reason to train once more
        was = f"it had {begun['frozen']}, and has {frozen.digest} now"
        log.warning("--frozen has changed since this tick began: %s, by which both models are judged", was)
    learned, held_out = _new_pictures(job, manifests, window, storage)
    _refuse_shared(learned + held_out, frozen_pictures, storage)
    if not job.dry_run:
        check_writable(storage, registry.uri, "--registry")
    run = _training(job, name, spec, learned, held_out, start_uri(job.start_from, storage) or base.uri, registry)
    if learned and held_out:
        run.starting_network()  # refuses a file that does not fit, before anything starts
    return Sought(job, storage, name, registry, base, teacher, window, manifests, learned, held_out, frozen, run, begun)


def begun_of(registry: Registry, tick: str) -> dict[str, Any] | None:
    """What a tick was begun with; None: it was not."""
    begun: dict[str, Any] | None = registry.read_json(f"runs/{tick}/{BEGUN}")
    return begun


def _window(job: RetrainJob, tick: datetime, base: Version) -> Window:
    """As asked for; from where the data of the current version ended."""
    ended = (base.lineage.get("window") or {}).get("until")
    until = tick if job.until is None else time_of("--until", job.until)
    since = time_of("--since", job.since) if job.since else instant(ended) if ended else None
    if since is not None and since >= until:
        raise SettingsError(
            f"--until: the window ends at {until:%Y-%m-%dT%H:%MZ}, and the data of {base.name} went up to "
            f"{since:%Y-%m-%dT%H:%MZ}: give --since, or a later --tick."
        )
    return Window(since, until)


def _as_begun(job: RetrainJob, begun: dict[str, Any]) -> Window:
    """Raises: SettingsError where another window or rule is asked for than this tick was begun with."""
    window = Window(instant(begun["since"]) if begun["since"] else None, instant(begun["until"]))
    for option, given, had in (("--since", job.since, window.since), ("--until", job.until, window.until)):
        if given is not None and time_of(option, given) != had:
            raise SettingsError(f"{option} {given}: this tick was begun with {had or 'all rows'}. Give another --tick.")
    for option, value in job.rule_given().items():
        if (stated := begun["rule"][option]) != value:
            raise SettingsError(
                f"{option} {value:g}: this tick was begun with {stated:g}, and a rule is stated before. Give what it "
                "had, or another --tick."
            )
    return window


def _new_pictures(
    job: RetrainJob, manifests: dict[str, Dated], window: Window, storage: Storage
) -> tuple[tuple[AnnotatedPicture, ...], tuple[AnnotatedPicture, ...]]:
    """(learned from, held out), and says what each manifest holds."""
    lines: dict[str, Line] = {}
    for name, dated in manifests.items():
        rows = f"{dated.within:,} rows {window}, {dated.before:,} before and {dated.after:,} after"
        log.info("--data %s: %s", name, rows)
        lines |= {line.uri: line for line in dated.lines}
    pictures, check = annotated(lines.values(), storage)
    log.info("new: %s", check)
    held_out = tuple(picture for picture in pictures if is_held_out(picture.uri, job.hold_out))
    learned = tuple(picture for picture in pictures if not is_held_out(picture.uri, job.hold_out))
    if learned and not held_out:  # few pictures: the best epoch is chosen by one of them
        learned, held_out = learned[:-1], learned[-1:]
    enough = len(pictures) >= job.least_pictures
    for what, part in (("to learn from", learned), ("held out (--hold-out)", held_out)):
        if enough and not any(len(picture.faces_K4) for picture in part):
            raise InputError(f"--data: no face is annotated in the {counted(len(part), 'picture')} {what}. Add some.")
    return learned, held_out


def is_held_out(uri: str, share: float) -> bool:
    """By the uri alone: a picture is on the same side at every tick."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest()) < share * 2**64


def _frozen(sources: Texts, pictures: str | None, storage: Storage) -> tuple[tuple[AnnotatedPicture, ...], Frozen]:
    """Raises: InputError: a picture is not there, no picture, or of another size; or nothing is annotated."""
    lines: dict[str, Line] = {}
    for source in sources:
        lines |= {storage.canonical(line.uri): line for line in read_lines(source, pictures, storage)}
    found, check = annotated(lines.values(), storage)
    log.info("--frozen: %s", check)
    if len(found) < len(lines):
        there = {storage.canonical(picture.uri) for picture in found}
        missing = next(uri for uri in lines if uri not in there)
        raise InputError(
            f"--frozen: {len(lines) - len(found)} of {counted(len(lines), 'picture')} are not there, as {missing}. "
            "Both models are judged by the same ones at every tick: put them back, or take them out of the annotations."
        )
    try:
        for _ in decoded(found, storage):  # what cannot be judged by is found now, not after hours of training
            pass
    except InputError as error:
        raise InputError(f"--frozen: {error}") from error
    truth = joined({uri: (line.boxes_K4, line.attributes_K6) for uri, line in lines.items()})
    if not truth.valid_F.any():
        raise InputError("--frozen: no face is annotated there, so nothing can be judged.")
    groups = truth.groups()
    counts = {name: int(groups[name].sum()) for name in HEIGHT_NAMES}
    if few := [f"{name} {count}" for name, count in counts.items() if count < FEW_FACES]:
        log.warning("--frozen has few faces of these heights, where chance may decide: %s", ", ".join(few))
    return tuple(found), Frozen(truth, digest_of(found))


def _refuse_shared(new: Sequence[AnnotatedPicture], frozen: Sequence[AnnotatedPicture], storage: Storage) -> None:
    """Raises: InputError: a frozen picture is among those to learn from, also as a copy of the same name and size."""
    by_uri = {storage.canonical(picture.uri) for picture in frozen}
    by_name = {(picture.name, picture.picture_hw): picture for picture in frozen}
    for picture in new:
        same = storage.canonical(picture.uri) in by_uri
        like = by_name.get((picture.name, picture.picture_hw))
        if same or (like is not None and storage.read(like.uri) == storage.read(picture.uri)):
            raise InputError(
                f"--data: {picture.uri} is one of --frozen's pictures{'' if same else ', or a copy of one'}: what "
                "judges is never learned from. Take it out of the manifest."
            )


def _training(
    job: RetrainJob,
    tick: str,
    base: ModelSpec,
    learned: tuple[AnnotatedPicture, ...],
    held_out: tuple[AnnotatedPicture, ...],
    start: str,
    registry: Registry,
) -> TrainingRun:
    """The run: the current model's network and templates; what training does not touch of it stays as it is."""
    if base.name not in MODELS:
        raise CheckpointError(
            f"--registry {registry.uri}: the current model is a {base.name}, which cannot be trained on; known are "
            f"{', '.join(MODELS)}. Promote a version of one of these."
        )
    settings = job.training.settings_for(base.name, base.templates)
    spec = replace(settings.spec, version=tick, decoding=base.decoding, defaults=base.defaults)
    return TrainingRun(
        settings=replace(settings, spec=spec),
        budget=job.training.budget(len(learned) or 1000),
        pictures=learned,
        validation=held_out,
        start_from=start,
        cache=cache_folder(job.training.cache, registry.path(f"runs/{tick}")),
        storage=Storage(job.storage.options()),
        threads=job.training.cpus_per_worker,
        validation_crops=job.training.validation_crops,
        provenance=(
            ("command", shlex.join(["python", "jobs/retrain.py", *sys.argv[1:]])),
            ("tick", tick),
            ("pictures", str(len(learned))),
            ("tinyface", tinyface_core.__version__),
        ),
    )


def lineage_of(sought: Sought) -> dict[str, Any]:
    """Where a new version comes from, but for what is known at its end only."""
    job, run = sought.job, sought.run
    settings = {name: value for name, value in asdict(run.settings).items() if name != "spec"}
    return {
        "tick": sought.tick,
        "made_by": "jobs/retrain.py",
        "base": {"version": sought.base.name, "model_hash": sought.base.model_hash},
        "start_from": run.start_from,
        "window": {"since": sought.begun["since"], "until": sought.begun["until"]},
        "manifests": {
            unsigned(name): {"sha256": dated.sha256, "rows": dated.within} for name, dated in sought.manifests.items()
        },
        "pictures": {"learned": len(sought.learned), "held_out": len(sought.held_out)},
        "faces": {
            "learned": sum(len(picture.faces_K4) for picture in sought.learned),
            "held_out": sum(len(picture.faces_K4) for picture in sought.held_out),
        },
        "digests": sought.training_digests(),
        "budget": asdict(run.budget),
        "preset": job.training.preset,
        "training": settings,
    }
