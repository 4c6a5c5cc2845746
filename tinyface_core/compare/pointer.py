"""The pointer: a small JSON file that names the output which readers read now. Accepting one is one write.

A store has no rename, and rows of two models never mix in one output; so outputs stay where they are, and what changes
is the name that readers look up. Knows that file; not why an output was accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tinyface_core.errors import OutputError, StopRun
from tinyface_core.storage import ObjectMissing, Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.output import SETTINGS

OPTION = "--accept"


@dataclass(frozen=True)
class Pointer:
    """uri: canonical, of the file."""

    storage: Storage
    uri: str

    @classmethod
    def at(cls, storage: Storage, url: str, outputs: tuple[str, str]) -> Pointer:
        """A pointer that may be moved from the first of `outputs` to the second. Writes nothing.

        Raises:
            OutputError: it is another file, lies in an output, or names a third one. ObjectError, StorageError.
        """
        uri = storage.canonical(url).rstrip("/")
        inside = any(uri.startswith(f"{output}/") for output in outputs)
        if inside or storage.stat(f"{uri.rpartition('/')[0]}/{SETTINGS}") is not None:
            raise OutputError(f"{OPTION} {uri}: lies in an output. Give a file beside the outputs, as current.json.")
        if storage.has_folder(uri):
            raise OutputError(f"{OPTION} {uri}: is a folder. Give the name of a file, as current.json.")
        pointer = cls(storage, uri)
        if (named := pointer.output()) not in (None, *outputs):
            raise OutputError(f"{OPTION} {uri}: names {named}, which is neither. Compare with what is read now.")
        return pointer

    def output(self) -> str | None:
        """The output that is read now; None before the first one is accepted. Raises: OutputError; ObjectError."""
        try:
            content = json.loads(self.storage.read(self.uri))
        except ObjectMissing:
            return None
        except ValueError:
            content = None
        named = content.get("output") if isinstance(content, dict) else None
        if not isinstance(named, str):
            raise OutputError(f"{OPTION} {self.uri}: is there, and is no pointer to an output. Give another name.")
        return named

    def move(self, old: str, new: str, why: Mapping[str, Any]) -> bool:
        """From old (or from nothing) to new; False where it names new already, and nothing is written.

        One writer at a time, by a claim beside it; what another one wrote meanwhile is never written over.

        Args:
            why: what the new output was accepted for, JSON values.
        Raises:
            StopRun: it names a third one by now. ClaimError, StorageError.
        """
        folder, _, name = self.uri.rpartition("/")
        with Claim(self.storage, f"{folder}/.{name}", option=OPTION) as claim:
            named = self.output()
            if named == new:
                return False
            if named not in (None, old):
                raise StopRun(f"{OPTION} {self.uri}: names {named} by now. Compare with that, then accept.")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            content = {"output": new, "before": named, "accepted_at": now, **why}
            claim.guarded().write(self.uri, json.dumps(content, indent=1, ensure_ascii=False).encode())
        return True
