"""Annotated faces to judge detections by, and the groups of them that are counted apart.

WIDER FACE's own ground truth (its `.mat` files, with the levels easy, medium and hard), or any form of
`labels/forms.py`. Knows no detections.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tinyface_core.errors import InputError
from tinyface_core.labels.forms import ATTRIBUTES, read_lines, wider_cells

LEVELS = ("easy", "medium", "hard")
VALUES: Mapping[str, tuple[str, ...]] = {
    "blur": ("clear", "normal", "heavy"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
    "illumination": ("normal", "extreme"),
    "expression": ("typical", "exaggerated"),
}
HEIGHTS_PX = (0, 10, 20, 40, 140, 10**6)
ALL = "all valid"


@dataclass(frozen=True)
class Truth:
    """Faces of many pictures, those of one picture side by side.

    names: of P pictures, file name without extension. faces_F4 float64 (x, y, width, height), px. starts_P1: where
    each picture's faces begin, and F last. attributes_F6 int8, in the order of ATTRIBUTES. levels: name -> bool (F,),
    the faces that an official level counts; empty where there are none.
    """

    names: tuple[str, ...]
    faces_F4: NDArray[np.float64]
    starts_P1: NDArray[np.int64]
    attributes_F6: NDArray[np.int8]
    levels: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def attribute_F(self, name: str) -> NDArray[np.int8]:
        """One attribute of each face."""
        return self.attributes_F6[:, ATTRIBUTES.index(name)]

    @property
    def valid_F(self) -> NDArray[np.bool_]:
        """Not marked invalid, and not empty."""
        return np.asarray((self.attribute_F("invalid") == 0) & (self.faces_F4[:, 2:] > 0).all(axis=1))

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Name -> which faces count, (F,): the levels, all valid ones, those by height, and those by each attribute."""
        valid_F, height_F = self.valid_F, self.faces_F4[:, 3]
        groups = {**self.levels, ALL: valid_F}
        for name, (low, high) in zip(HEIGHT_NAMES, pairwise(HEIGHTS_PX), strict=True):
            groups[name] = valid_F & (height_F >= low) & (height_F < high)
        for attribute, values in VALUES.items():
            for value, name in enumerate(values):
                groups[f"{attribute} {name}"] = valid_F & (self.attribute_F(attribute) == value)
        return groups

    def only(self, names: Collection[str]) -> Truth:
        """The truth of these pictures alone. Raises: InputError where none of them is annotated."""
        kept = [place for place, name in enumerate(self.names) if name in names]
        if not kept:
            raise InputError(f"none of the {len(names)} pictures is annotated: do their file names agree?")
        lengths_P = np.diff(self.starts_P1)
        of_kept = [np.arange(self.starts_P1[place], self.starts_P1[place + 1]) for place in kept]
        faces = np.concatenate(of_kept) if of_kept else np.zeros(0, np.int64)
        return Truth(
            tuple(self.names[place] for place in kept),
            self.faces_F4[faces],
            np.concatenate([[0], np.cumsum(lengths_P[kept])]),
            self.attributes_F6[faces],
            {name: kept_F[faces] for name, kept_F in self.levels.items()},
        )


def height_name(low: int, high: int) -> str:
    """What the group of faces from low up to below high px is called."""
    if low == 0:
        return f"under {high} px"
    return f"{low}-{high} px" if high < HEIGHTS_PX[-1] else f"{low} px and more"


HEIGHT_NAMES = tuple(height_name(low, high) for low, high in pairwise(HEIGHTS_PX))


def picture_name(path: str) -> str:
    """What WIDER calls a picture: its file name without folders and extension."""
    return PurePosixPath(path).stem


def joined(
    pictures: Mapping[str, tuple[NDArray[np.float64], NDArray[np.int8]]],
    levels: Mapping[str, Mapping[str, NDArray[np.bool_]]] | None = None,
) -> Truth:
    """pictures: name -> (boxes (K, 4), attributes (K, 6)). levels: level -> picture -> bool (K,)."""
    lengths = [len(boxes_K4) for boxes_K4, _ in pictures.values()]
    return Truth(
        tuple(pictures),
        np.concatenate([np.zeros((0, 4)), *(boxes_K4 for boxes_K4, _ in pictures.values())]),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        np.concatenate([np.zeros((0, len(ATTRIBUTES)), np.int8), *(each for _, each in pictures.values())]),
        {
            level: np.concatenate([np.zeros(0, bool), *(kept[name] for name in pictures)])
            for level, kept in (levels or {}).items()
        },
    )


def read_truth(source: Path) -> Truth:
    """WIDER FACE's `eval_tools/ground_truth` (a folder, in either naming), or annotations in any form.

    Raises:
        InputError: neither, or a file that is not of its form.
    """
    files = {part: _ground_truth(source, part) for part in ("face", *LEVELS)}
    whole = files["face"]
    if whole is None:
        if source.is_dir() and not (source / "annotations.jsonl").is_file():
            raise InputError(
                f"{source}: needs wider_face_val.mat, of WIDER FACE's eval_tools/ground_truth, or annotations.jsonl."
            )
        return joined({line.name: (line.boxes_K4, line.attributes_K6) for line in read_lines(source)})
    truth = {line.name: (line.boxes_K4, line.attributes_K6) for line in read_lines(whole)}
    levels: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for level in LEVELS:
        if (file := files[level]) is None:
            raise InputError(f"{source}: needs wider_{level}_val.mat beside {whole.name}.")
        levels[level] = {name: np.zeros(len(boxes_K4), bool) for name, (boxes_K4, _) in truth.items()}
        for _, name, cell in wider_cells(file):
            levels[level][name][cell("gt_list").ravel().astype(int) - 1] = True  # MATLAB counts from 1
    return joined(truth, levels)


def _ground_truth(folder: Path, part: str) -> Path | None:
    names = (f"wider_{part}_val.mat", f"eval_wider_{part}_val.mat")
    return next((folder / name for name in names if (folder / name).is_file()), None)
