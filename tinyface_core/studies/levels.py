"""The study of pyramid levels and regression: what each level brings, what regression brings, and which faces a level
should serve. METHOD, sections 4 and 7; paper: section 4, the tables "with and without regression" and of the pyramid.

The network sees each picture once at each zoom; all rows of the table are NMS over parts of the same boxes, judged by
WIDER FACE's protocol. So all rows share the score floor: what scores below it is in none of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions
from tinyface_core.errors import InputError, OutputError, SettingsError
from tinyface_core.evaluate.curves import curve
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.truth import ALL, HEIGHTS_PX, LEVELS, Truth, height_name, read_truth
from tinyface_core.labels.forms import read_lines
from tinyface_core.model.spec import Defaults, file_hash, find_bundled, read_spec
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Picture
from tinyface_core.studies.level_boxes import load, look, save
from tinyface_core.studies.level_choices import Choice, Heights, alone, both, chosen, rows
from tinyface_core.studies.level_heights import Served, best_limits, served

log = logging.getLogger(__name__)
ZOOMS = (0.25, 0.5, 1.0, 2.0, 4.0)
LIMITED = "each level up to its best height"
_SETTINGS = "settings.json"
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class LevelStudy:
    """What to study.

    model: a bundled model's name, or a checkpoint. data: annotations with pictures, every `every`-th of which is taken.
    truth: WIDER's ground truth with its levels; None: the annotations. folder: for the boxes, to go on from. zooms:
    all levels to compute. min_score: the floor, exclusive. At 0.05 hr-resnet50 gives 30,000 to 75,000 boxes a picture
    up to 2x and 130,000 to 340,000 more at 4x (15 MB a picture, 3 s an NMS); at 0.1 a quarter of that. limits: rows
    that were asked for (level_choices.limited). processes: of one thread each.
    """

    model: str
    data: Path
    folder: Path
    truth: Path | None = None
    every: int = 1
    zooms: tuple[float, ...] = ZOOMS
    min_score: float = 0.05
    limits: tuple[str, ...] = ()
    processes: int = 1

    @property
    def checkpoint(self) -> Path:
        return find_bundled(self.model) or Path(self.model)

    def boxes_of(self, picture: str) -> Path:
        """The file that keeps a picture's boxes."""
        return self.folder / f"{picture}.npz"


@dataclass(frozen=True)
class Row:
    """One choice of levels, judged: group of faces -> average precision."""

    choice: Choice
    precision: Mapping[str, float]


@dataclass(frozen=True)
class Levels:
    """The study's result. faces: in each group. served: what each level finds alone. limits: those that judge best."""

    pictures: int
    faces: Mapping[str, int]
    rows: tuple[Row, ...]
    served: Served
    limits: Mapping[float, Heights]

    @property
    def best(self) -> Choice:
        """Of the rows that run every level, with regression, the one of the highest worth."""
        most = max(len(row.choice.levels) for row in self.rows)
        whole = [row for row in self.rows if row.choice.regression and len(row.choice.levels) == most]
        return max(whole, key=lambda row: worth(row.precision)).choice


def worth(precision: Mapping[str, float]) -> float:
    """One figure of a row: the mean precision of the official levels, where there are any, and of all valid faces."""
    values = [precision[name] for name in (*LEVELS, ALL) if name in precision]
    return sum(values) / len(values)


def study_levels(study: LevelStudy) -> Levels:
    """Computes what is missing in the folder, then judges every row.

    Raises:
        InputError: no annotations, a picture that is missing or cannot be decoded. CheckpointError: no such model.
        OutputError: the folder holds boxes of another model, floor or zooms. SettingsError: limits, zooms or numbers.
    """
    if study.every < 1 or study.processes < 1 or not 0 <= study.min_score < 1:
        raise SettingsError("--every and --processes need a number from 1 on, --min-score one from 0 up to below 1.")
    spec = read_spec(study.checkpoint)
    zooms = tuple(sorted(set(study.zooms)))
    choices = rows(zooms, spec.defaults.zooms, study.limits)
    files = {line.path.stem: line.path for line in list(read_lines(study.data))[:: study.every]}
    truth = read_truth(study.truth or study.data).only(files)
    _claim(study, zooms)
    with _pool(study.processes) as pool:
        missing = [(name, files[name]) for name in truth.names if not study.boxes_of(name).is_file()]
        for place, name in enumerate(_each(pool, partial(_look_at, study), missing), start=1):
            log.info("%s: boxes kept (%d of %d)", name, place, len(missing))

        def found(choice: Choice) -> dict[str, Found]:
            work = partial(_choose, choice, spec.defaults)
            of_pictures = _each(pool, work, [study.boxes_of(name) for name in truth.names])
            return dict(zip(truth.names, of_pictures, strict=True))

        by_height = served(truth, {zoom: match(truth, found(alone(zoom))) for zoom in zooms})
        limits = best_limits(
            zooms, lambda tried: worth(_judged(truth, found(Choice(LIMITED, tried, vote=False)), (*LEVELS, ALL)))
        )
        choices += both(LIMITED, limits)
        judged = tuple(Row(choice, _judged(truth, found(choice))) for choice in choices)
    faces = {name: int(truth.groups()[name].sum()) for name in _shown(truth)}
    return Levels(len(truth.names), faces, judged, by_height, limits)


def _claim(study: LevelStudy, zooms: Sequence[float]) -> None:
    """Notes in the folder what its boxes are; refuses those of another study."""
    mine = {"model": file_hash(study.checkpoint), "zooms": list(zooms), "min_score": study.min_score}
    note = study.folder / _SETTINGS
    if note.is_file() and json.loads(note.read_text()) != mine:
        raise OutputError(f"{study.folder}: holds boxes of another model, floor or zooms: name another folder.")
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(mine) + "\n")
    except OSError as error:
        raise OutputError(f"{study.folder}: cannot be written to ({error.strerror}).") from error


@cache
def _detector(model: str, min_score: float) -> Detector:
    """One a process."""
    return Detector.load(model, DetectOptions(min_score=min_score))


def _look_at(study: LevelStudy, given: tuple[str, Path]) -> str:
    """Keeps the boxes of one picture. Raises: InputError."""
    name, path = given
    try:
        picture = decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if not isinstance(picture, Picture):
        raise InputError(f"{path}: cannot be decoded: {picture.message}.")
    detector = _detector(study.model, study.min_score)
    save(look(detector, picture.rgb_HW3, tuple(sorted(set(study.zooms)))), study.boxes_of(name))
    return name


def _choose(choice: Choice, defaults: Defaults, file: Path) -> Found:
    return chosen(load(file), choice, defaults)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of one thread each; None: this process is enough."""
    if processes == 1:
        yield None
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield pool


def _each(
    pool: ProcessPoolExecutor | None, work: Callable[[_Given], _Made], given: Iterable[_Given]
) -> Iterator[_Made]:
    """In the order given."""
    return map(work, given) if pool is None else pool.map(work, given)


def _shown(truth: Truth) -> list[str]:
    """The official levels, all valid faces, and those by height, where there are any."""
    groups = truth.groups()
    names = [*LEVELS, ALL, *(height_name(*pair) for pair in pairwise(HEIGHTS_PX))]
    return [name for name in names if name in groups and groups[name].any()]


def _judged(truth: Truth, found: Mapping[str, Found], only: Sequence[str] | None = None) -> dict[str, float]:
    matches, groups = match(truth, found), truth.groups()
    names = [name for name in _shown(truth) if only is None or name in only]
    return {name: curve(truth, matches, groups[name]).average_precision for name in names}
