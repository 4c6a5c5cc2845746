"""What a run decides before its first write: model, device, thresholds, levels; new, or as the output recorded them.

Results of different settings never mix in one output: what can change a row is in the settings, and their hash in
every footer. What the user leaves open is decided once; later runs take the recorded value.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from detect_options import DetectArchive
from ray_stages import Detecting, Reading
from ray_start import Pool
from run_metrics import RunMetrics
from start_up import StartUp
from tinyface_core.archive.signed_urls import SignedUrls
from tinyface_core.detect.options import TILE_PX, DetectOptions, Runtime, suited
from tinyface_core.detect.pyramid import Zooms, adaptive_zooms, most_reduced
from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.advice import Advice
from tinyface_core.model.locate import REGISTRY_CURRENT, ModelAddress, fetch, locate
from tinyface_core.model.spec import NO_RANGES, ModelSpec, bundled_names, read_spec
from tinyface_core.picture.picture import DECODER_VERSION, Limits
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.format_version import FORMAT_VERSION
from tinyface_core.tables.output import OutputFolder, settings_hash
from tinyface_core.tables.partition import PartitionBy
from tinyface_core.tables.removed import Removed

log = logging.getLogger(__name__)

ACCURATE, LIGHT = "hr-resnet50", "hr-mobilenetv2"
CHOICES = (
    *("model", "model_hash", "device", "precision", "zooms", "focus", "min_score", "nms_iou"),
    *("carry", "max_pixels", "decode_timeout", "partition_by"),
)
OF_THE_MODEL = ("ellipses",)
FACTS = {"tile_px": TILE_PX, "decoder": DECODER_VERSION, "format_version": FORMAT_VERSION}


@dataclass(frozen=True)
class Decided:
    """settings: everything that can change a row, as JSON values, in `_run/settings.json` and hashed."""

    settings: dict[str, Any]
    model: ModelAddress
    runtime: Runtime

    @property
    def hash(self) -> str:
        return settings_hash(self.settings)

    @property
    def partition(self) -> PartitionBy | None:
        text = self.settings["partition_by"]
        return PartitionBy.parse(text) if text is not None else None

    def detecting(self, reading: Reading, pool: Pool, output: OutputFolder) -> Detecting:
        """What the detectors of this pool need to know."""
        chosen = self.settings
        zooms: Zooms = "adaptive" if chosen["zooms"] == "adaptive" else tuple(chosen["zooms"])
        return Detecting(
            model=self.model,
            model_copies=(model_copy_uri(output, self.model.sha256),),
            storage=reading.storage,
            runtime=self.runtime,
            options=DetectOptions(
                chosen["min_score"], chosen["nms_iou"], zooms, tile_px=chosen["tile_px"], focus=chosen["focus"]
            ),
            limits=Limits(chosen["max_pixels"], chosen["decode_timeout"], reduced=most_reduced(zooms)),
            carried=reading.carried,
            threads=pool.threads,
            decoders=pool.decoders,
        )


@dataclass(frozen=True)
class Run:
    """One run on one output, once everything is decided and the output is claimed."""

    job: DetectArchive
    output: OutputFolder
    reading: Reading
    decided: Decided
    claim: Claim
    urls: SignedUrls
    start_up: StartUp
    metrics: RunMetrics

    @cached_property
    def committer(self) -> Committer:
        hashes = self.decided.hash, self.decided.model.sha256
        where = self.reading.storage, self.output.uri
        return Committer(
            *where,
            *hashes,
            self.reading.carried,
            removed=self.removed,
            partition=self.decided.partition,
            check=self.claim.check,
        )

    @cached_property
    def removed(self) -> Removed:
        """Pictures that were taken out on request, and stay out."""
        return Removed.all_of(removal.pictures for removal in self.output.removals())


def asked_for(job: DetectArchive, storage: Storage, *, recorded: bool = False) -> dict[str, Any]:
    """The settings that the command line names, and only those. Raises SettingsError, CheckpointError.

    recorded: whether the output has settings already. `registry:current` then leaves the model open, like no --model:
    an output keeps the model that was current when it was begun.
    """
    asked: dict[str, Any] = {"carry": list(job.carry)} if job.carry else {}
    if job.model is not None and not (recorded and job.model == REGISTRY_CURRENT):
        model = locate(job.model, storage, job.registry)
        asked |= {"model": model.name, "model_hash": model.sha256}
    for name in ("device", "precision"):
        if getattr(job, name) != "auto":
            asked[name] = getattr(job, name)
    for name in ("focus", "min_score", "nms_iou", "max_pixels", "decode_timeout", "partition_by"):
        if getattr(job, name) is not None:
            asked[name] = getattr(job, name)
    levels = job.levels()
    if levels is not None:
        asked["zooms"] = levels if levels == "adaptive" else list(levels)
    return asked


def decide_anew(job: DetectArchive, asked: dict[str, Any], runtime: Runtime, storage: Storage) -> Decided:
    """Settings of a new output: as asked for, the rest from the checkpoint and the machine."""
    model = locate(job.model or _default_model(runtime), storage, job.registry)
    path = fetch(model, storage)
    spec = read_spec(path)
    if not model.bundled:
        from tinyface_core.model.checkpoint import refuse_unusable  # with torch, for such models alone

        refuse_unusable(path, f"--model {model.name}")
    if asked.get("precision") == "int8" and not spec.ranges:
        raise CheckpointError(f"--precision int8: {NO_RANGES.format(model.name)}")
    runtime = suited(runtime, spec)
    limits = Limits()
    settings: dict[str, Any] = {
        "ellipses": "regressed_features" if spec.ellipses else "inscribed",
        "model": model.name,
        "model_hash": model.sha256,
        "device": runtime.device,
        "precision": runtime.precision,
        "zooms": list(spec.defaults.zooms),
        "focus": None,
        "min_score": spec.defaults.score,
        "nms_iou": spec.defaults.nms_iou,
        "carry": [],
        "max_pixels": limits.max_pixels,
        "decode_timeout": limits.timeout_s,
        "partition_by": None,
    }
    settings |= FACTS | asked
    _check_levels(settings["zooms"], spec)
    if settings["focus"] is not None and not (settings["zooms"] == "adaptive" or 1.0 in settings["zooms"]):
        raise SettingsError("--focus: what is computed above 1x is decided by the 1x level. Add 1 to --zooms.")
    if spec.advice is not None:
        log.info("what to expect of --min-score %g, %s", settings["min_score"], _advice(spec.advice, settings))
    return Decided(settings, model, runtime)


def _advice(advice: Advice, settings: Mapping[str, Any]) -> str:
    """The table of a checkpoint's advice, and what it was measured on."""
    zooms = settings["zooms"]
    asked = zooms if isinstance(zooms, str) else " ".join(f"{zoom:g}" for zoom in zooms)
    other = "" if asked == advice.zooms else f" (this run: zooms {asked})"
    return (
        f"by {advice.pictures} labelled pictures at zooms {advice.zooms}{other}; your pictures may differ:\n"
        f"{advice.table(settings['min_score'])}"
    )


def decide_as_recorded(
    given_model: str | None, asked: dict[str, Any], output: OutputFolder, storage: Storage
) -> Decided:
    """Settings of an output that has them. given_model: where --model says that it lies.

    Raises SettingsError where the command line asks for other ones.
    """
    recorded = output.settings() or {}
    requested = {name: asked.get(name, recorded.get(name)) for name in CHOICES + OF_THE_MODEL} | FACTS
    settings = output.resolve(requested, asked.keys(), facts=FACTS.keys())
    log.info(
        "settings as recorded in the output: model %s, %s in %s, zooms %s, score above %g",
        settings["model"], settings["device"], settings["precision"], settings["zooms"], settings["min_score"],
    )  # fmt: skip
    model = _recorded_model(given_model, settings, output, storage)
    return Decided(settings, model, Runtime(settings["device"], settings["precision"], "recorded in the output"))


def _recorded_model(
    given_model: str | None, settings: dict[str, Any], output: OutputFolder, storage: Storage
) -> ModelAddress:
    copy = model_copy_uri(output, settings["model_hash"])
    for place in filter(None, (given_model, settings["model"], copy)):
        try:
            model = locate(place, storage)
        except CheckpointError:
            continue
        if model.sha256 == settings["model_hash"]:
            return model
    raise CheckpointError(
        f"this output was made with model {settings['model']} (sha256 {settings['model_hash'][:12]}...), which is not "
        "to be found now. Give its file with --model, or write to another --output."
    )


def model_copy_uri(output: OutputFolder, sha256: str) -> str:
    """Where a model that every node must be able to read lies in the output."""
    return f"{output.uri}/_run/models/{sha256}.safetensors"


def share_model(model: ModelAddress, output: OutputFolder, storage: Storage) -> None:
    """Puts a model that no package brings into the output: workers and later runs may not see the driver's disk."""
    copy = model_copy_uri(output, model.sha256)
    if not model.bundled and storage.stat(copy) is None:
        storage.write(copy, fetch(model, storage).read_bytes())


def _default_model(runtime: Runtime) -> str:
    """The accurate one where bf16 or fp16 is fast, the light one elsewhere; of those that are bundled."""
    wanted = (LIGHT, ACCURATE) if runtime.precision in ("fp32", "int8") else (ACCURATE, LIGHT)
    there = [name for name in wanted if name in bundled_names()]
    if not there:
        raise CheckpointError("no model is bundled with this installation: give one with --model.")
    return there[0]


def _check_levels(zooms: list[float] | str, spec: ModelSpec) -> None:
    try:
        for zoom in adaptive_zooms((480, 640), spec.templates) if zooms == "adaptive" else zooms:
            spec.templates.at_zoom(float(zoom))
    except SettingsError as error:
        raise SettingsError(f"--zooms: {error}") from error


def versions() -> dict[str, str]:
    """Versions of what computed the rows, for run.json."""
    names = ("tinyface", "ray", "torch", "pyarrow", "numpy", "opencv-python-headless", "pillow", "s3fs")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
