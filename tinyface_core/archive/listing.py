"""From the user's inputs to sources, streamed: never all in memory, however many there are.

Decides what is a candidate and counts the rest; opens no archive but for the footer of a Parquet file, which tells
pictures from tables. A uri that two inputs name comes twice: the plan, which sorts on disk, makes it one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.globs import Glob
from tinyface_core.archive.inputs import Form, Input, is_empty, parquet_columns, resolve, source_of
from tinyface_core.archive.manifest import carried_types, check_carried, manifest_sources
from tinyface_core.archive.members import ArchiveBroken
from tinyface_core.archive.parquet import opened
from tinyface_core.archive.record import Kind, Source
from tinyface_core.errors import InputError
from tinyface_core.storage import ObjectDenied, ObjectError, ObjectInfo, Storage

OnSkip = Callable[[str], None]


def list_sources(
    inputs: Sequence[str],
    storage: Storage,
    candidates: CandidateFilter,
    *,
    carry: Sequence[str] = (),
    on_skip: OnSkip = lambda key: None,
    leave_out: Sequence[str] = (),
) -> Iterator[Source]:
    """Every candidate of the inputs, in no order that may be relied on.

    Inputs that are not there are told before this returns; those that hold no candidate, at the end of the listing.

    Args:
        carry: columns of manifests that travel with their entries (those of Parquet inputs are read later).
        on_skip: called with `hidden`, `excluded` or an extension for each file that is no candidate, and with `no url`
            for each entry of a manifest that names nothing.
        leave_out: folders (canonical uris), such as the output, whose files are not even counted.
    Raises:
        InputError: no such input, empty, no permission, a manifest without urls or without a carried column.
        StorageError: the store cannot be reached, or refuses the credentials.
    """
    resolved = resolve(inputs, storage, candidates)
    if carry:
        _carried_types(resolved, storage, carry)
    return _stream(resolved, storage, candidates, carry, on_skip, tuple(uri.rstrip("/") + "/" for uri in leave_out))


def carried_fields(inputs: Sequence[str], storage: Storage, carry: Sequence[str]) -> list[pa.Field]:
    """Fields of the `--carry` columns, in the order of `carry`; those of a CSV are strings.

    Each manifest and each Parquet file that is named directly must have them all; of Parquet files below a folder the
    first that holds pictures is asked. Raises: InputError, StorageError.
    """
    if not carry:
        return []
    types = _carried_types(resolve(inputs, storage, CandidateFilter()), storage, carry)
    return [pa.field(name, types[name]) for name in carry]


def _carried_types(resolved: Sequence[Input], storage: Storage, carry: Sequence[str]) -> dict[str, pa.DataType]:
    types: dict[str, pa.DataType] = {}
    asked = False
    for one in resolved:
        found = _types_of(one, storage, carry)
        asked = asked or found is not None
        for name, kind in (found or {}).items():
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if types.setdefault(name, kind) != kind:
                raise InputError(f"--carry {name}: {kind} in {one.uri}, but {types[name]} in another input")
    if not asked:
        raise InputError(f"--carry {carry[0]}: no input is a manifest with columns, or Parquet: drop the option")
    return types


def _types_of(one: Input, storage: Storage, carry: Sequence[str]) -> dict[str, pa.DataType] | None:
    """Types in one input; None where it has no columns."""
    try:
        if one.form is Form.MANIFEST:
            assert one.info is not None
            return carried_types(one.info, storage, carry)
        info = one.info if one.form is Form.OBJECT else _first_parquet(one, storage)
        if info is None or kind_of(info.uri) is not Kind.PARQUET:
            return None
        with opened(source_of(info, Kind.PARQUET), storage) as file:
            check_carried(info.uri, file.schema_arrow.names, carry)
            return {name: file.schema_arrow.field(name).type for name in carry}
    except (ObjectError, ArchiveBroken) as error:
        raise InputError(f"--carry {', '.join(carry)}: {one.uri} cannot be read: {error}") from error


def _first_parquet(one: Input, storage: Storage) -> ObjectInfo | None:
    for info, _ in _below(one, storage, CandidateFilter()):
        if kind_of(info.uri) is Kind.PARQUET and (columns := parquet_columns(info, storage)) and columns.has_pictures:
            return info
    return None


def _stream(
    resolved: Sequence[Input],
    storage: Storage,
    candidates: CandidateFilter,
    carry: Sequence[str],
    on_skip: OnSkip,
    leave_out: tuple[str, ...],
) -> Iterator[Source]:
    for one in resolved:
        count = skipped = 0
        for source in _sources(one, storage, candidates, carry, leave_out):
            if isinstance(source, Source):
                count += 1
                yield source
            else:
                skipped += 1
                on_skip(source)
        if not count:
            raise InputError(_why_empty(one, skipped, storage))


def _sources(
    one: Input, storage: Storage, candidates: CandidateFilter, carry: Sequence[str], leave_out: tuple[str, ...]
) -> Iterator[Source | str]:
    """Sources of one input, and what the other files are counted under."""
    try:
        match one.form:
            case Form.MANIFEST:
                assert one.info is not None
                for source in manifest_sources(one.info, storage, carry):
                    yield source if isinstance(source, str) else candidates.left_out(source.uri) or source
            case Form.OBJECT:
                assert one.info is not None
                yield candidates.left_out(one.uri) or source_of(one.info)
            case _:
                for info, name in _below(one, storage, candidates):
                    if not info.uri.startswith(leave_out):
                        yield candidates.skipped_as(name) or _found(info, storage, candidates)
    except ObjectDenied as error:
        raise InputError(
            f"no permission below {one.uri}: {error}: ask for the right to list, or leave the folder out, as in "
            "--exclude 'folder/**'"
        ) from error
    except ObjectError as error:
        raise InputError(f"{one.uri} cannot be listed: {error}: start again") from error


def _below(one: Input, storage: Storage, candidates: CandidateFilter) -> Iterator[tuple[ObjectInfo, str]]:
    """Objects of a folder or glob, with their names below it."""
    if one.form is Form.FOLDER:
        below = len(one.uri.rstrip("/")) + 1
        for info in storage.list(one.uri, enter=lambda folder: candidates.may_enter(folder[below:])):
            yield info, info.uri[below:]
        return
    glob = Glob(one.uri)
    below = len(glob.base) + 1

    def enter(folder: str) -> bool:
        return glob.may_hold(folder[below:]) and candidates.may_enter(folder[below:])

    for info in storage.list(glob.base, starts_with=glob.starts_with, enter=enter):
        if glob.matches(info.uri[below:]):
            yield info, info.uri[below:]


def _found(info: ObjectInfo, storage: Storage, candidates: CandidateFilter) -> Source | str:
    """An object below a folder: a Parquet file without pictures is no source."""
    if kind_of(info.uri) is Kind.PARQUET:
        columns = parquet_columns(info, storage)
        if columns is not None and not columns.has_pictures:
            return source_of(info, Kind.PICTURE) if candidates.all_files else ".parquet"
    return source_of(info)


def _why_empty(one: Input, skipped: int, storage: Storage) -> str:
    if skipped and one.form is Form.MANIFEST:
        why = "have no url, or are left out by --include or --exclude"
        return f"{one.uri} names no inputs: its entries ({skipped:,}) {why}"
    if skipped:
        return (
            f"{one.uri} holds no pictures or archives: the files that were looked at ({skipped:,}) were skipped by "
            "their names: see --include and --exclude, or give --all-files"
        )
    if one.form is Form.MANIFEST:
        return f"{one.uri} is an empty manifest: it names no inputs"
    if one.form is Form.FOLDER and not is_empty(one.uri, storage):
        return f"{one.uri} holds nothing but the output of this job: name the folder of the pictures"
    what = "is empty" if one.form is Form.FOLDER else "matches nothing"
    return f"empty input: {one.uri} {what}: check the spelling"
