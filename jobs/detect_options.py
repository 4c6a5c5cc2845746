"""The options of jobs/detect_archive.py, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from options import StorageFlags, Texts, actor_range, many, refuse_lost
from tinyface_core.errors import SettingsError
from tinyface_core.tables.partition import PartitionBy

_READ, _WRITE = Group("What to read", sort_key=1), Group("Where to write", sort_key=2)
_DETECT, _RUN = Group("How to detect", sort_key=3), Group("How to run", sort_key=4)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DetectArchive:
    """All options of jobs/detect_archive.py; None: decided by the checkpoint, the output's record, or the machine."""

    input: Annotated[Texts, many(_READ)]
    "Folder, url, glob, {a..b} braces, archive or manifest; may be repeated."
    output: Annotated[str, Parameter(group=_WRITE)]
    "Folder or prefix for the tables: empty, or an output of the same settings."
    include: Annotated[Texts, many(_READ)] = ()
    "Globs on names below the input; only these are read."
    exclude: Annotated[Texts, many(_READ)] = ()
    "Globs on names below the input that are left out."
    all_files: Annotated[bool, Parameter(group=_READ, negative=())] = False
    "Hidden names and sidecars (.json, .txt, ...) become candidates, so rows."
    carry: Annotated[Texts, many(_READ)] = ()
    "Columns of the manifest or Parquet input to carry into the images table."
    limit: Annotated[int | None, Parameter(group=_READ)] = None
    "Stop after the whole units that reach this many pictures; a later run goes on."
    partition_by: Annotated[str | None, Parameter(group=_WRITE)] = None
    "KEY=PATTERN: tables lie in folders KEY=VALUE, by the pattern's first group in each uri, as day=/([0-9-]+)/."
    dry_run: Annotated[bool, Parameter(group=_WRITE, negative=())] = False
    "Tell what would be read, by type, with sizes; write nothing."
    forecast: Annotated[bool, Parameter(group=_WRITE, negative=())] = False
    "List the input, time a sample of it where the detectors will run, tell hours and what limits; write nothing."
    price_per_hour: Annotated[float | None, Parameter(group=_WRITE)] = None
    "What one detector costs an hour (its share of a node): --forecast tells what all will cost."
    expect_hours: Annotated[float | None, Parameter(group=_WRITE)] = None
    "What --forecast said: the last screen and run.json hold what came against it."
    model: Annotated[str | None, Parameter(group=_DETECT)] = None
    "hr-resnet50, hr-mobilenetv2, path or url of a checkpoint, registry:current or registry:VERSION; None: what fits."
    registry: Annotated[str | None, Parameter(group=_DETECT)] = None
    "Folder or url of the registry that --model registry:... means; None: TINYFACE_REGISTRY."
    zooms: Annotated[Texts, many(_DETECT)] = ()
    "Pyramid levels, as 0.5 1 2, or `adaptive`; none: the checkpoint's. 4 finds faces of 8-12 px."
    focus: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Levels above 1x only where 1x gives a score above this, as 0.1: faster, loses some tiny faces; None: everywhere."
    min_score: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Faces up to this score are not written (0..1); None: the checkpoint's. The log says what to expect."
    nms_iou: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Overlap above which the weaker of two boxes goes; None: the checkpoint's."
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=_DETECT)] = "auto"
    "Where to compute; auto: a GPU where there is one."
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16", "int8"], Parameter(group=_DETECT)] = "auto"
    "Number format of the network; auto: bf16 where the hardware has it, else int8 on a CPU with VNNI, else fp32."
    max_pixels: Annotated[int | None, Parameter(group=_DETECT)] = None
    "Larger pictures (width x height) become error rows, before decoding; None: 500,000,000."
    decode_timeout: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Seconds that decoding one picture may take; None: 60."
    actors: Annotated[str | None, Parameter(group=_RUN)] = None
    "Detectors, as 4 or 2..16; None: one a GPU, or one a CPU."
    cpus_per_actor: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs, and so threads, of each detector."
    gpus_per_actor: Annotated[float | None, Parameter(group=_RUN)] = None
    "GPUs of each detector; 0.5 puts two on one."
    unit_pictures: Annotated[int | None, Parameter(group=_RUN)] = None
    "Pictures that are committed together: what a kill can lose; None: 1,000, fewer of a small input."
    retry: Annotated[Literal["errors"] | None, Parameter(group=_RUN)] = None
    "errors: pictures that are error rows in the output are tried again, and no others."
    prune: Annotated[float | None, Parameter(group=_RUN)] = None
    "Take out rows of what no --input lists any more; refused if that is more than this share of all, as 0.05."
    max_error_share: Annotated[float | None, Parameter(group=_RUN)] = None
    "Stop with exit code 3 above this share of error rows, judged from the 200th picture on."
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Cluster to join (else RAY_ADDRESS, else one that runs here); `local` always starts one."
    report: Annotated[bool, Parameter(group=_WRITE)] = True
    "Write report.html at the end; it shows no pictures but those that --report-pictures asks for."
    report_pictures: Annotated[int, Parameter(group=_WRITE)] = 0
    "Pictures that are drawn into report.html, with their faces: the most crowded, and those with the tiniest faces."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        checks: list[tuple[str, object, bool, str]] = [
            ("--limit", self.limit, self.limit is None or self.limit > 0, "from 1 on"),
            ("--focus", self.focus, self.focus is None or 0 <= self.focus < 1, "from 0 up to below 1"),
            ("--min-score", self.min_score, self.min_score is None or 0 <= self.min_score < 1, "from 0 up to below 1"),
            ("--nms-iou", self.nms_iou, self.nms_iou is None or 0 <= self.nms_iou <= 1, "from 0 to 1"),
            ("--unit-pictures", self.unit_pictures, self.unit_pictures is None or self.unit_pictures > 0, "from 1 on"),
            ("--max-pixels", self.max_pixels, self.max_pixels is None or self.max_pixels > 0, "from 1 on"),
            (
                "--decode-timeout",
                self.decode_timeout,
                self.decode_timeout is None or 0 < self.decode_timeout < math.inf,
                "above 0 and finite",
            ),
            ("--cpus-per-actor", self.cpus_per_actor, self.cpus_per_actor > 0, "from 1 on"),
            ("--gpus-per-actor", self.gpus_per_actor, 0 <= (self.gpus_per_actor or 0) < math.inf, "from 0 on, finite"),
            ("--price-per-hour", self.price_per_hour, 0 <= (self.price_per_hour or 0) < math.inf, "from 0 on, finite"),
            (
                "--expect-hours",
                self.expect_hours,
                self.expect_hours is None or 0 < self.expect_hours < math.inf,
                "above 0, finite",
            ),
            ("--report-pictures", self.report_pictures, self.report_pictures >= 0, "from 0 on"),
            ("--prune", self.prune, 0 <= (self.prune or 0) <= 1, "from 0 to 1"),
            ("--max-error-share", self.max_error_share, 0 <= (self.max_error_share or 0) <= 1, "from 0 to 1"),
        ]
        for name, value, good, needed in checks:
            if not good:
                raise SettingsError(f"{name} {value}: needs a number {needed}.")
        if self.dry_run and self.forecast:
            raise SettingsError("--dry-run with --forecast: the forecast lists the input too. Give one of them.")
        if self.price_per_hour is not None and not self.forecast:
            raise SettingsError("--price-per-hour without --forecast: it is the forecast that tells costs.")
        if self.prune is not None and self.limit is not None:
            raise SettingsError("--prune with --limit: rows in units behind the limit would stay. Give one at a time.")
        for name, texts in (("--input", self.input), ("--output", (self.output,))):
            if not all(text.strip() for text in texts):
                raise SettingsError(f"{name}: is empty. An unset variable? Give `.` for the current folder.")
        refuse_lost("--output", self.output)
        if self.partition_by is not None:
            PartitionBy.parse(self.partition_by, frozenset(self.carry))
        self.levels()
        self.actor_range()

    def levels(self) -> tuple[float, ...] | Literal["adaptive"] | None:
        """The zooms that were asked for; None: none were. Raises SettingsError for what is no zoom."""
        if not self.zooms:
            return None
        if self.zooms == ("adaptive",):
            return "adaptive"
        try:
            levels = tuple(sorted({float(zoom) for text in self.zooms for zoom in text.split(",")}))
        except ValueError:
            levels = (0.0,)
        if not all(0 < zoom <= 8 for zoom in levels):
            raise SettingsError(f"--zooms {' '.join(self.zooms)}: give numbers above 0 and up to 8, or `adaptive`.")
        return levels

    def actor_range(self) -> tuple[int, int] | None:
        """How many detectors, least and most; None: as many as there is room for. Raises SettingsError."""
        return actor_range(self.actors)
