"""What a run of jobs/train.py was started with, kept beside its checkpoints: only the same goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ray_train import TrainingRun
from tinyface_core.errors import SettingsError
from tinyface_core.storage import Storage
from tinyface_core.train.data import AnnotatedPicture

RECORD, BEST = "run.json", "best.safetensors"


OTHER_NAME = f"another --name (and --start-from its {BEST} to train it further)"


def go_on(run: TrainingRun, uri: str, storage: Storage, *, option: str = "--name", instead: str = OTHER_NAME) -> bool:
    """Records a new run below its uri; of one that is there, says whether it is finished.

    option: that names the run, for messages; instead: what else to give for another run.

    Raises:
        SettingsError: the run there was started with something else; names what.
    """
    place, asked = f"{uri}/{RECORD}", _facts(run)
    if storage.stat(place) is None:
        storage.write(place, json.dumps(asked, indent=1).encode())
        return False
    recorded = json.loads(storage.read(place))
    if differ := [name for name in asked if recorded.get(name) != asked[name]]:
        name = differ[0]
        raise SettingsError(
            f"{option}: {uri} was begun with {name} {recorded.get(name)}, now it is {asked[name]}: give what it had, "
            f"or {instead}."
        )
    return storage.stat(f"{uri}/{BEST}") is not None


def _facts(run: TrainingRun) -> dict[str, Any]:
    """By the names that a user knows, as JSON gives them back."""
    settings = _flat(asdict(run.settings))
    settings |= {"crops": run.budget.crops, "hours": run.budget.hours, "start_from": run.start_from}
    settings |= {"data": digest_of(run.pictures), "validate": digest_of(run.validation)}
    settings["validation_crops"] = run.validation_crops
    return dict(json.loads(json.dumps(settings)))


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


def digest_of(pictures: Sequence[AnnotatedPicture]) -> str:
    """How many pictures, and a hash of their names, versions and boxes."""
    digest = hashlib.blake2b(digest_size=8)
    for picture in pictures:
        digest.update(f"{picture.uri}\0{picture.version}\0".encode())
        digest.update(picture.faces_K4.tobytes() + b"\0" + picture.unclear_M4.tobytes())
    return f"{len(pictures)} pictures ({digest.hexdigest()})"
