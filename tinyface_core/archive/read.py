"""Reads a unit of work: a record for each candidate, then the unit's end.

Whatever goes wrong with a picture or an archive becomes a record with an error; only what stops the whole run is
raised. Knows which reader takes which kind, and nothing of formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.loose import read_loose
from tinyface_core.archive.members import ArchiveBroken, Numbering
from tinyface_core.archive.parquet import read_parquet
from tinyface_core.archive.record import CHANGED, DENIED, Kind, Record, Unit, UnitEnd, image_id_of
from tinyface_core.archive.tar import read_tar
from tinyface_core.archive.zip import read_zip
from tinyface_core.errors import ErrorClass, PictureError, Stage, StorageError
from tinyface_core.storage import ObjectChanged, ObjectDamaged, ObjectDenied, ObjectError, Storage


def read_unit(
    unit: Unit,
    storage: Storage,
    candidates: CandidateFilter,
    *,
    carry: Sequence[str] = (),
    only: AbstractSet[int] | None = None,
) -> Iterator[Record | UnitEnd]:
    """The unit's records in order, streamed, then one UnitEnd with its whole count; of a part the part's.

    An archive that breaks gives its rows so far and one error record with member None.

    Args:
        carry: columns of a Parquet file that travel with its rows (those of a manifest are in the sources).
        only: record indexes that are wanted; the others are counted, and not read where the container allows that.
    Raises:
        StorageError: the store cannot be reached, or refuses the credentials.
    """
    numbering = Numbering(only, unit.part)
    try:
        yield from _records(unit, storage, candidates, numbering, carry)
    except StorageError:
        raise
    except Exception as error:
        if numbering.wants_next():
            yield broken(unit, numbering.count, _explained(error))
        numbering.pass_over()
    yield numbering.end()


def _records(
    unit: Unit, storage: Storage, candidates: CandidateFilter, numbering: Numbering, carry: Sequence[str]
) -> Iterator[Record]:
    if unit.is_loose:
        return read_loose(unit, storage, numbering)
    match unit.sources[0].kind:
        case Kind.TAR | Kind.TAR_GZ:
            return read_tar(unit, storage, candidates, numbering)
        case Kind.ZIP:
            return read_zip(unit, storage, candidates, numbering)
        case Kind.PARQUET:
            return read_parquet(unit, storage, candidates, numbering, carry)
        case kind:
            raise AssertionError(f"a {kind} has no members")


def _explained(error: Exception) -> PictureError:
    match error:
        case ArchiveBroken():
            return error.error
        case ObjectDamaged():
            return PictureError(Stage.READ, ErrorClass.UNREADABLE, str(error))
        case ObjectDenied():
            return PictureError(Stage.READ, ErrorClass.UNREADABLE, f"{DENIED}{error}")
        case ObjectChanged():
            return PictureError(Stage.READ, ErrorClass.UNREADABLE, f"{CHANGED}{error}")
        case ObjectError():
            return PictureError(Stage.READ, ErrorClass.UNREADABLE, str(error))
        case MemoryError():
            return PictureError(Stage.ARCHIVE, ErrorClass.OUT_OF_MEMORY, "the archive does not fit in memory")
        case _:
            return PictureError(Stage.ARCHIVE, ErrorClass.INTERNAL, f"{type(error).__name__}: {error}")


def broken(unit: Unit, index: int, error: PictureError) -> Record:
    """The one error record of an archive that cannot be read on; a later range of a split one has an id of its own."""
    source = unit.sources[0]
    return Record(
        index=index,
        uri=source.uri,
        member=None,
        image_id=image_id_of(source.uri, None, unit.start or 0),
        data=None,
        source_version=source.version,
        source_modified=source.modified,
        carried=source.carried,
        error=error,
    )
