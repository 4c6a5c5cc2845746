"""Every exception of tinyface, and the closed list of what can go wrong with one picture.

Exceptions are for what stops a whole run, and for bugs. What goes wrong with one picture is a *value*,
`PictureError`, that travels to the picture's row.

    TinyfaceError                  exit code 1
    |-- RefusedError               exit code 2: found wrong before the first write
    |   |-- InputError             no such input, empty, no permission, a bad manifest
    |   |-- OutputError            not writable, foreign files, an output of other settings
    |   |-- FormatError            tables of a format that this version does not read
    |   |-- CheckpointError        a model file that does not fit; the message names the tensor
    |   |-- SettingsError          an option that makes no sense
    |   `-- ResourceError          an accelerator or CPU that the cluster can never give
    |-- StopRun                    exit code 1: after the first write
    |   |-- StorageError           network faults beyond the retries, expired credentials, disk full
    |   |-- ClaimError             another driver works on this output, or ours was taken
    |   |-- TooManyErrors          exit code 3: --max-error-share
    |   |-- TooManyFaces           exit code 3: --max-residual
    |   `-- NotAccepted            exit code 3: the limits of jobs/compare.py
    `-- GeometryError              sizes that do not belong together: a bug, never a user's input

This file knows no other file of the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TinyfaceError(Exception):
    """Base of all; `exit_code` is what a job ends with."""

    exit_code = 1


class RefusedError(TinyfaceError):
    """Found wrong before the first write: nothing was changed."""

    exit_code = 2


class InputError(RefusedError):
    pass


class OutputError(RefusedError):
    pass


class FormatError(RefusedError):
    pass


class CheckpointError(RefusedError):
    pass


class SettingsError(RefusedError):
    pass


class ResourceError(RefusedError):
    pass


class StopRun(TinyfaceError):
    """The run cannot go on; what is committed stays, and the same command resumes."""


class StorageError(StopRun):
    def told(self) -> str:
        """For the user's eyes, wherever it was met: a reader's process sends text, not the error."""
        said = str(self) if str(self).endswith("?") else f"{str(self).rstrip('.')}."
        return f"{said} The same command goes on from here."


class ClaimError(StopRun):
    pass


class TooManyErrors(StopRun):
    exit_code = 3


class TooManyFaces(StopRun):
    exit_code = 3


class NotAccepted(StopRun):
    exit_code = 3


class GeometryError(TinyfaceError):
    pass


class Stage(StrEnum):
    """Where a picture failed."""

    READ = "read"
    ARCHIVE = "archive"
    DECODE = "decode"
    DETECT = "detect"


class ErrorClass(StrEnum):
    """Why a picture has no detections: the closed list of DESIGN, section 4."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    MEMBER_CORRUPT = "member_corrupt"
    ENCRYPTED = "encrypted"
    TIMED_OUT = "timed_out"
    DECODER_CRASHED = "decoder_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"


@dataclass(frozen=True)
class PictureError:
    """Why one picture has no detections; a value, never raised."""

    stage: Stage
    error_class: ErrorClass
    message: str
