"""The forms that an output can be exported to as files, and the one way that it is done.

Iceberg tables are no files of ours: `iceberg.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyface_core.errors import StorageError
from tinyface_core.export.coco import write_coco
from tinyface_core.export.fddb import write_fddb
from tinyface_core.export.fiftyone import write_fiftyone
from tinyface_core.export.img2dataset import write_img2dataset
from tinyface_core.export.names import Names
from tinyface_core.export.pictures import Picture, Tally, Wanted, pictures_of
from tinyface_core.export.wider import write_wider
from tinyface_core.storage import Storage

Writer = Callable[[Iterator[Picture], Path, Names, Tally], None]


@dataclass(frozen=True)
class Form:
    """write: pictures -> what stands at a path. suffix: of the files of a folder; None where it is one file.

    keeps_errors: pictures with an error row stand there without faces.
    """

    write: Writer
    suffix: str | None = None
    keeps_errors: bool = False


FORMS = {
    "coco": Form(write_coco),
    "wider": Form(write_wider, suffix=".txt", keeps_errors=True),
    "fddb": Form(write_fddb, keeps_errors=True),
    "fiftyone": Form(write_fiftyone),
    "img2dataset": Form(write_img2dataset),
}


def stage(storage: Storage, output_uri: str, name: str, place: Path, names: Names, wanted: Wanted) -> Tally:
    """Makes the export on a disk, to be published.

    Args:
        name: of FORMS. place: where the file, or the files of the folder, are to be made.
    Raises:
        InputError: the form cannot hold this output. ObjectError, StorageError.
    """
    form, tally = FORMS[name], Tally()
    try:
        if form.suffix is not None:
            place.mkdir()
        form.write(pictures_of(storage, output_uri, wanted, tally), place, names, tally)
    except OSError as error:
        raise StorageError(f"cannot write {error.filename or place}: {error.strerror or error}.") from error
    return tally


def described(name: str, tally: Tally) -> dict[str, object]:
    """For the mark of a folder."""
    return {"form": name, "pictures": tally.pictures, "faces": tally.faces}
