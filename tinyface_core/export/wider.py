"""WIDER FACE's text of results: a folder for each event, a file a picture.

`evaluate/wider_text.py` has the form. WIDER knows a picture by its name without extension; its event is the folder that
the picture lies in, or its archive. A picture with an error row has a file without faces: WIDER's own program wants
each picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from tinyface_core.evaluate.wider_text import result_text
from tinyface_core.export.names import Names, one_line
from tinyface_core.export.pictures import Picture, Tally

FORM = "WIDER FACE's text"
_NOWHERE = "_"  # the event of a picture without a folder, or of one that would lead out of ours


def write_wider(pictures: Iterable[Picture], folder: Path, names: Names, tally: Tally) -> None:
    """Files below an empty folder."""
    for picture in pictures:
        path = one_line(names.path(picture))
        place = PurePosixPath(path.partition("://")[2] or path)
        event = place.parent.name if place.parent.name not in ("", "..") else _NOWHERE
        file = folder / f"{names.once(f'{event}/{place.stem}', picture, FORM)}.txt"
        corners_K4 = picture.boxes_K4
        boxes_K4 = np.hstack([corners_K4[:, :2], corners_K4[:, 2:] - corners_K4[:, :2]])
        file.parent.mkdir(exist_ok=True)
        file.write_text(result_text(place.name, boxes_K4, picture.scores_K), encoding="utf-8")
        tally.took(picture)
