"""Annotated faces to judge detections by, and the groups of them that are counted apart.

WIDER FACE's own ground truth (its `.mat` files, with the levels easy, medium and hard), or a folder with
`annotations.jsonl`. Knows no detections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from tinyface_core.errors import InputError

LEVELS = ("easy", "medium", "hard")
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
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
    each picture's faces begin, and F last. attributes: name -> int8 (F,). levels: name -> bool (F,), the faces that
    an official level counts; empty where there are none.
    """

    names: tuple[str, ...]
    faces_F4: NDArray[np.float64]
    starts_P1: NDArray[np.int64]
    attributes: Mapping[str, NDArray[np.int8]]
    levels: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def valid_F(self) -> NDArray[np.bool_]:
        """Not marked invalid, and not empty."""
        return np.asarray((self.attributes["invalid"] == 0) & (self.faces_F4[:, 2:] > 0).all(axis=1))

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Name -> which faces count, (F,): the levels, all valid ones, those by height, and those by each attribute."""
        valid_F, height_F = self.valid_F, self.faces_F4[:, 3]
        groups = {**self.levels, ALL: valid_F}
        for low, high in pairwise(HEIGHTS_PX):
            groups[_height_name(low, high)] = valid_F & (height_F >= low) & (height_F < high)
        for attribute, values in VALUES.items():
            for value, name in enumerate(values):
                groups[f"{attribute} {name}"] = valid_F & (self.attributes[attribute] == value)
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
            {name: values_F[faces] for name, values_F in self.attributes.items()},
            {name: kept_F[faces] for name, kept_F in self.levels.items()},
        )


def _height_name(low: int, high: int) -> str:
    if low == 0:
        return f"under {high} px"
    return f"{low}-{high} px" if high < HEIGHTS_PX[-1] else f"{low} px and more"


def picture_name(path: str) -> str:
    """What WIDER calls a picture: its file name without folders and extension."""
    return PurePosixPath(path).stem


def joined(pictures: Mapping[str, tuple[NDArray[Any], Mapping[str, Any]]], levels: Mapping[str, Any]) -> Truth:
    """pictures: name -> (boxes (K, 4), attribute -> (K,)). levels: level -> picture -> bool (K,)."""
    names = tuple(pictures)
    lengths = [len(pictures[name][0]) for name in names]
    return Truth(
        names,
        np.concatenate([np.zeros((0, 4)), *(pictures[name][0] for name in names)]).astype(np.float64),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        {
            attribute: np.concatenate([[], *(pictures[name][1][attribute] for name in names)]).astype(np.int8)
            for attribute in ATTRIBUTES
        },
        {level: np.concatenate([[], *(of[name] for name in names)]).astype(bool) for level, of in levels.items()},
    )


def read_wider(folder: Path) -> Truth:
    """WIDER FACE's `eval_tools/ground_truth`: `wider_face_val.mat` and one file a level, in either naming.

    Raises:
        InputError: a file is not there, or not of that form.
    """
    whole = _mat(folder, "face")
    pictures: dict[str, tuple[NDArray[Any], Mapping[str, Any]]] = {}
    for name, cell in _each_picture(whole):
        attributes = {attribute: cell(f"{attribute}_label_list").ravel() for attribute in ATTRIBUTES}
        pictures[name] = (cell("face_bbx_list").reshape(-1, 4), attributes)
    levels: dict[str, dict[str, NDArray[np.bool_]]] = {level: {} for level in LEVELS}
    for level, of in levels.items():
        for name, cell in _each_picture(_mat(folder, level)):
            of[name] = np.zeros(len(pictures[name][0]), bool)
            of[name][cell("gt_list").ravel().astype(int) - 1] = True  # MATLAB counts from 1
    return joined(pictures, levels)


def _mat(folder: Path, part: str) -> dict[str, Any]:
    names = [f"wider_{part}_val.mat", f"eval_wider_{part}_val.mat"]
    for name in names:
        if (folder / name).is_file():
            try:
                return dict(loadmat(folder / name))
            except Exception as error:  # scipy raises many kinds for a damaged file
                raise InputError(f"{folder / name}: not a MATLAB file ({error}).") from error
    raise InputError(f"{folder}: needs {names[0]}, of WIDER FACE's eval_tools/ground_truth.")


def _each_picture(mat: dict[str, Any]) -> list[tuple[str, Callable[[str], NDArray[Any]]]]:
    """(name, the picture's part of a list by its name)."""
    found: list[tuple[str, Callable[[str], NDArray[Any]]]] = []
    for event, files in enumerate(mat["file_list"][:, 0]):
        for number, name in enumerate(files[:, 0]):

            def cell(key: str, event: int = event, number: int = number) -> NDArray[Any]:
                return np.asarray(mat[key][event, 0][number, 0])

            found.append((str(name[0]), cell))
    return found


def read_annotated(folder: Path) -> Truth:
    """A folder's `annotations.jsonl`: boxes [[x, y, w, h]], attrs in the order of ATTRIBUTES; no levels.

    Raises: InputError naming the line.
    """
    pictures = {}
    for number, text in enumerate((folder / "annotations.jsonl").read_text().splitlines(), start=1):
        try:
            line = json.loads(text)
            attributes = np.asarray(line["attrs"], int).reshape(-1, len(ATTRIBUTES)).T
            boxes_K4 = np.asarray(line["boxes"], float).reshape(-1, 4)
            pictures[picture_name(line["image"])] = (boxes_K4, dict(zip(ATTRIBUTES, attributes, strict=True)))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}/annotations.jsonl:{number}: not an annotation ({type(error).__name__}: {error})."
            ) from error
    return joined(pictures, {})
