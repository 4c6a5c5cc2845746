"""Where a model is: by name, path, url or registry -> an address with a hash, and from that a file on this node.

Workers get the address, never the weights: each node fetches a file once and checks its hash.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tinyface_core.errors import CheckpointError, OutputError, StorageError
from tinyface_core.model.spec import bundled_names, file_hash, find_bundled, read_spec
from tinyface_core.registry.registry import CURRENT, Registry
from tinyface_core.storage import ObjectError, Storage, unsigned

IN_REGISTRY = "registry:"
REGISTRY_CURRENT = f"{IN_REGISTRY}{CURRENT}"
REGISTRY_VARIABLE = "TINYFACE_REGISTRY"


@dataclass(frozen=True)
class ModelAddress:
    """uri: canonical. sha256: of the file. bundled: a name that every node's own package can resolve.

    name: of a model in a registry `registry:<version>`, whatever it was asked for by.
    """

    name: str
    uri: str
    sha256: str
    bundled: bool


def locate(model: str, storage: Storage, registry: str | None = None) -> ModelAddress:
    """The address of a model given by bundled name, path, url or registry:...; its metadata is read and checked.

    Args:
        registry: where that is; None: as the environment says (TINYFACE_REGISTRY).
    Raises:
        CheckpointError: no such model, or not a checkpoint.
    """
    if model.startswith(IN_REGISTRY):
        return _registered(model, registry or os.environ.get(REGISTRY_VARIABLE), storage)
    bundled = find_bundled(model)
    if bundled is not None:
        return ModelAddress(model, storage.canonical(str(bundled)), file_hash(bundled), True)
    uri = storage.canonical(model)
    if uri.startswith("file://"):
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            known = ", ".join(bundled_names()) or "none is bundled"
            raise CheckpointError(f"--model {model}: no bundled model of this name ({known}), and no such file.")
        return ModelAddress(read_spec(path).name, uri, file_hash(path), False)
    try:
        path = _download(uri, storage)
    except (ObjectError, StorageError) as error:
        raise CheckpointError(f"--model {unsigned(model)}: cannot be read: {error}") from error
    return ModelAddress(read_spec(path).name, uri, file_hash(path), False)


def _registered(model: str, registry: str | None, storage: Storage) -> ModelAddress:
    """A version by its name, or the one that is current at this moment."""
    if not registry:
        raise CheckpointError(f"--model {model}: of which registry? Give --registry, or set {REGISTRY_VARIABLE}.")
    try:
        version = Registry(storage, registry).find(model.removeprefix(IN_REGISTRY))
        on_disk = version.uri.startswith("file://")
        path = (
            Path(version.uri.removeprefix("file://"))
            if on_disk
            else _download(version.uri, storage, version.model_hash)
        )
    except (ObjectError, StorageError, OutputError) as error:
        raise CheckpointError(f"--model {model}: cannot be read: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"--model {model}: {error}") from error
    read_spec(path)
    if file_hash(path) != version.model_hash:
        raise CheckpointError(
            f"--model {model}: {version.uri} is not the file that was written there (another sha256 than its lineage "
            "says). Take another version."
        )
    return ModelAddress(f"{IN_REGISTRY}{version.name}", version.uri, version.model_hash, False)


def fetch(address: ModelAddress, storage: Storage, copies: tuple[str, ...] = ()) -> Path:
    """The model as a file on this node.

    Args:
        copies: uris to try after the address itself, for a model that lay on the driver's disk only.
    Raises:
        CheckpointError: nowhere a file with this hash.
    """
    bundled = find_bundled(address.name) if address.bundled else None
    if bundled is not None and file_hash(bundled) == address.sha256:
        return bundled
    tried = []
    for uri in (address.uri, *copies):
        path = Path(uri.removeprefix("file://"))
        try:
            path = path if uri.startswith("file://") else _download(uri, storage, address.sha256)
            if path.is_file() and file_hash(path) == address.sha256:
                return path
            tried.append(
                f"{unsigned(uri)}: {'another file than the driver saw' if path.is_file() else 'not on this node'}"
            )
        except (ObjectError, StorageError) as error:
            tried.append(f"{unsigned(uri)}: {error}")
    raise CheckpointError(f"model {address.name} ({address.sha256[:12]}) cannot be had here. " + "; ".join(tried))


def _download(uri: str, storage: Storage, sha256: str | None = None) -> Path:
    """The object in this node's cache; fetched by one process, the others wait."""
    folder = Path(tempfile.gettempdir()) / f"tinyface-models-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    info = storage.stat(uri) if sha256 is None else None
    key = sha256 or hashlib.sha256(f"{unsigned(uri)}\0{info.version if info else ''}".encode()).hexdigest()
    path = folder / f"{key}.safetensors"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            partial = path.with_suffix(".part")
            partial.write_bytes(storage.read(uri))
            partial.rename(path)
    return path
