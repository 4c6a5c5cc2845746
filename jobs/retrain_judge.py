"""From a finished training to a version: what is fitted anew, both models on the frozen pictures, the verdict."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from numpy.typing import NDArray

from detect_archive import detect
from detect_options import DetectArchive
from ray_chain import await_detector
from ray_start import RaySession, choose_pool, computing_environment
from retrain_look import TRAINING, Sought
from tinyface_core.detect.options import Runtime, suited
from tinyface_core.errors import RefusedError, StopRun
from tinyface_core.evaluate.advise import advised
from tinyface_core.evaluate.disagree import disagreements, sheet
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.promotion import Difference, Verdict, as_json, differences, judge
from tinyface_core.evaluate.results import on_disk, read_output, read_settings
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.locate import IN_REGISTRY, ModelAddress, fetch, locate
from tinyface_core.model.spec import ModelSpec, read_spec
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Picture
from tinyface_core.report.text import counted
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.train.refit import Refit, refit
from train_record import BEST

log = logging.getLogger(__name__)
LEAST_SCORE = 0.05  # of detections that are judged: below it the curves hardly change, and tables grow fast
SEED = 0  # of the bootstrap


@dataclass(frozen=True)
class Judged:
    """model: the new version's file. sheet: PNG, where the models disagree."""

    model: bytes
    spec: ModelSpec
    verdict: Verdict
    found: list[Difference]
    metrics: dict[str, Any]
    sheet: bytes | None

    @property
    def model_hash(self) -> str:
        return hashlib.sha256(self.model).hexdigest()


def candidate_of(sought: Sought, storage: Storage, session: RaySession) -> ModelAddress:
    """The trained model with what has to be fitted anew. storage: guarded. Raises: StopRun."""
    uri = f"{sought.folder}/candidate.safetensors"
    if storage.stat(uri) is None:
        student = locate(f"{sought.folder}/{TRAINING}/{BEST}", sought.storage)
        fitted = _refitted(sought, student, session)
        network, spec = load_checkpoint(fetch(student, sought.storage))
        if fitted.ellipses is not None:
            # Copies: what comes out of Ray's object store is read-only.
            network.regress(torch.tensor(fitted.ellipses.weight_5C), torch.tensor(fitted.ellipses.bias_5))
        provenance = {**spec.provenance, "refitted": fitted.told}
        spec = replace(spec, ellipses=fitted.ellipses is not None, ranges=fitted.ranges, provenance=provenance)
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder) / "model", network, spec)
            storage.write(uri, (Path(folder) / "model").read_bytes())
    return locate(uri, sought.storage)


def _refitted(sought: Sought, student: ModelAddress, session: RaySession) -> Refit:
    """Where a detector would run, as it is detecting that takes the time."""
    job, pool = sought.job, choose_pool(session.cluster, sought.job, "auto")
    step = max(1, len(sought.learned) // max(1, job.refit_pictures))
    pictures = sought.learned[::step][: job.refit_pictures]
    log.info("fitting what training has moved, on %s", counted(len(pictures), "picture"))
    await_detector(pool)
    task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, runtime_env=computing_environment())(refit)
    try:
        fitted: Refit = ray.get(task.remote(student, sought.teacher, pictures, sought.storage, pool.threads))
    except ray.exceptions.RayError as error:
        why = getattr(error, "cause", None) or str(error).strip().splitlines()[-1]
        raise StopRun(f"ellipses and ranges could not be fitted: {why} The same command goes on.") from error
    for part, told in fitted.told.items():
        log.log(logging.WARNING if told.startswith("left out") else logging.INFO, "%s %s", part, told)
    return fitted


def judged(sought: Sought, candidate: ModelAddress, storage: Storage, session: RaySession) -> Judged:
    """Both models on the frozen pictures, at the same settings. storage: guarded. Raises: StopRun."""
    truth, specs = sought.frozen.truth, [read_spec(fetch(each, sought.storage)) for each in (candidate, sought.teacher)]
    runtime = _runtime(sought, specs, storage, session)
    uris = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": list(truth.names)}), uris)
    storage.write(f"{sought.folder}/frozen.parquet", uris.getvalue().to_pybytes())
    new, settings = _detected(sought, candidate, candidate.uri, runtime, session)
    teacher = f"{IN_REGISTRY}{sought.base.name}"
    current, _ = _detected(sought, sought.teacher, teacher, runtime, session)
    found = differences(truth, current, new, samples=sought.job.samples, seed=SEED)
    verdict = judge(found, sought.job.rule)
    network, spec = load_checkpoint(fetch(candidate, sought.storage))
    spec = advised(spec, truth, match(truth, new), settings)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "model", network, spec)
        model = (Path(folder) / "model").read_bytes()
    apart = disagreements(current, new, specs[1].defaults.score, spec.defaults.score)
    metrics = {
        "promote": verdict.promote,
        "reasons": list(verdict.reasons),
        "rule": {"margin": sought.job.margin, "tolerance": sought.job.tolerance},
        "groups": as_json(found),
        "bootstrap": {"samples": sought.job.samples, "seed": SEED},
        "frozen": {"pictures": len(truth.names), "faces": int(truth.valid_F.sum()), "digest": sought.frozen.digest},
        "compared_with": sought.base.name,
        "detected_with": {name: settings[name] for name in ("device", "precision", "zooms", "min_score", "nms_iou")},
        "default_scores": {"current": specs[1].defaults.score, "new": spec.defaults.score},
        "disagree": {"pictures": len(apart), "faces": sum(one.faces for one in apart)},
    }
    drawn = sheet(apart, truth, _pixels_of(sought.storage)) if sought.job.contact_sheet else None
    return Judged(model, spec, verdict, found, metrics, drawn)


def _runtime(sought: Sought, specs: list[ModelSpec], storage: Storage, session: RaySession) -> Runtime:
    """Device and precision that suit both models; a tick that was cut short keeps those that it began with."""
    uri = f"{sought.folder}/runtime.json"
    if storage.stat(uri) is not None:
        begun = json.loads(storage.read(uri))
        return Runtime(begun["device"], begun["precision"], "as this tick began")
    runtime = session.runtime(choose_pool(session.cluster, sought.job, "auto"), "auto", "auto")
    for spec in specs:
        runtime = suited(runtime, spec)
    storage.write(uri, json.dumps({"device": runtime.device, "precision": runtime.precision}).encode())
    return runtime


def _detected(
    sought: Sought, model: ModelAddress, asked: str, runtime: Runtime, session: RaySession
) -> tuple[dict[str, Found], dict[str, Any]]:
    """Faces by picture, and the settings, by a run of detect_archive.py, which goes on where it was cut short.

    asked: what --model is given. Raises: StopRun.
    """
    job, output = sought.job, f"{sought.folder}/faces-{model.sha256[:12]}"
    log.info("detecting faces of %s with %s", counted(len(sought.frozen.truth.names), "frozen picture"), asked)
    run = DetectArchive(
        input=(f"{sought.folder}/frozen.parquet",),
        output=output,
        model=asked,
        registry=sought.registry.uri,
        zooms=tuple(f"{zoom:g}" for zoom in sought.run.settings.spec.defaults.zooms),
        min_score=LEAST_SCORE,
        device=runtime.device,
        precision=runtime.precision,
        actors=job.actors,
        cpus_per_actor=job.cpus_per_actor,
        gpus_per_actor=job.gpus_per_actor,
        retry="errors",
        report=False,
        storage=job.storage,
    )
    try:
        detect(run, session)
        with on_disk(output, sought.storage) as folder:
            errors = json.loads((folder / "run.json").read_text())["output"]["error"]
            if errors:
                raise StopRun(
                    f"--frozen: {counted(errors, 'picture')} could not be read by the detectors: see error_class in "
                    f"{output}/images. Mend them, or take them out of the annotations; the same command goes on."
                )
            return read_output(folder, sought.storage.canonical), read_settings(folder)
    except RefusedError as error:  # of what is refused here, work has been done already
        raise StopRun(f"the frozen pictures could not be detected: {error}") from error


def _pixels_of(storage: Storage) -> Callable[[str], NDArray[np.uint8] | None]:
    """What gives the pixels of a picture by uri, None for one that cannot be read."""

    def pixels(uri: str) -> NDArray[np.uint8] | None:
        try:
            picture = decode(storage.read(uri))
        except ObjectError:
            return None
        return picture.rgb_HW3 if isinstance(picture, Picture) else None

    return pixels
