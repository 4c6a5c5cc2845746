"""FDDB's text of results: name, how many, then `major minor angle cx cy score` a face; half axes, px and radians.

`evaluate/fddb_files.py` has the form. A picture with an error row stands there without faces: FDDB's own program wants
each picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tinyface_core.evaluate.fddb_files import Found, picture_name, result_lines
from tinyface_core.export.names import Names, one_line
from tinyface_core.export.pictures import Picture, Tally


def write_fddb(pictures: Iterable[Picture], file: Path, names: Names, tally: Tally) -> None:
    """The order of pictures is kept."""
    with file.open("w", encoding="utf-8") as out:
        for picture in pictures:
            name = names.once(picture_name(one_line(names.path(picture))), picture, "FDDB")
            found = Found(picture.ellipses_K5, picture.scores_K.astype(np.float64))
            out.writelines(f"{line}\n" for line in result_lines(name, found))
            tally.took(picture)
