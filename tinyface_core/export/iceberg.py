"""The two tables of an output as two Iceberg tables, `images` and `detections`, in one namespace of a catalog.

Rows are copied: an Iceberg table that named our own files would break when a run replaces one of them. A table is
brought to what the output holds: rows of commits that it has are left as they are, others are added, and those of
commits that the output has no more (a unit worked anew, a picture taken out) are deleted. So the same export again does
nothing, and one that was killed goes on. Each table changes in one commit of its own, detections first: joined on
`image_id` and `commit`, as our own files, there is never a face twice. One output, one pair of tables: the output's uri
is noted in their properties.

Needs pyiceberg, an extra: nothing but `jobs/export.py --to iceberg` imports this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.expressions import In
from pyiceberg.table import Table, TableProperties

from tinyface_core.errors import OutputError, SettingsError, StorageError
from tinyface_core.export.iceberg_columns import iceberg_columns
from tinyface_core.storage import ObjectMissing, Storage
from tinyface_core.tables.footer import CommitRecord, committed
from tinyface_core.tables.schema import DETECTIONS_SCHEMA
from tinyface_core.tables.unit_files import in_threads, read_table

MADE_OF = "tinyface.output"
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PROPERTIES = {"write.target-file-size-bytes": str(128 << 20)}  # pyiceberg holds that much of a table in memory


@dataclass(frozen=True)
class Change:
    """What an export did: units added and deleted, with the rows of those that were added."""

    added: int
    deleted: int
    pictures: int
    faces: int


@dataclass(frozen=True)
class Place:
    """`catalog.namespace`, as --output has it."""

    catalog: str
    namespace: str

    @classmethod
    def of(cls, out: str) -> Place:
        """Raises: SettingsError."""
        catalog, _, namespace = out.partition(".")
        if not catalog or not namespace or "/" in out or not all(namespace.split(".")):
            raise SettingsError(f"--output {out}: for Iceberg give CATALOG.NAMESPACE, as lake.faces.")
        return cls(catalog, namespace)

    def table(self, name: str) -> str:
        return f"{self.namespace}.{name}"


def open_catalog(place: Place, properties: Mapping[str, str], storage: Storage) -> Catalog:
    """The catalog as pyiceberg's own configuration has it, and these properties.

    Raises: SettingsError.
    """
    options = storage.options
    reached = {"s3.endpoint": options.endpoint_url, "client.profile-name": options.profile}
    if options.endpoint_url:  # without a region pyiceberg asks AWS for that of a bucket of this name
        reached["client.region"] = next(filter(None, map(os.environ.get, _REGIONS)), "us-east-1")
    try:
        return load_catalog(place.catalog, **{**{key: text for key, text in reached.items() if text}, **properties})
    except Exception as error:  # each kind of catalog has its own
        raise SettingsError(
            f"--output {place.catalog}.{place.namespace}: the catalog cannot be opened: {_hidden(error, storage)}. "
            "Give its properties by --catalog-option, or in pyiceberg's configuration file."
        ) from error


def check_tables(catalog: Catalog, place: Place, output_uri: str, *, overwrite: bool) -> None:
    """Whether what is there is this output's, or may be replaced; changes nothing.

    Raises: OutputError.
    """
    for name in ("images", "detections"):
        table = _table(catalog, place.table(name))
        if table is None:
            continue
        made_of = table.properties.get(MADE_OF)
        if made_of is None:
            raise OutputError(
                f"--output: the table {place.table(name)} was not made by an export. Give another namespace."
            )
        if made_of != output_uri and not overwrite:
            raise OutputError(
                f"--output: the table {place.table(name)} was made of {made_of}. One output has one pair of tables: "
                "give another namespace, or --overwrite to put the rows of this output in place of those."
            )


def export_iceberg(storage: Storage, output_uri: str, catalog: Catalog, place: Place) -> Change:
    """Brings both tables to what is committed in an output.

    Raises:
        OutputError: a table has other columns, or a column is of a type that Iceberg has nothing for.
        StorageError, ObjectError.
    """
    units = sorted(committed(storage, output_uri).values(), key=lambda record: record.unit)
    if not units and _table(catalog, place.table("images")) is None:
        return Change(0, 0, 0, 0)  # without a row there is nothing that tells the columns that are carried along
    schema = iceberg_columns(read_table(storage, units[0].uri).schema) if units else None
    _refuse_other_columns(catalog, place, schema)
    tables = _Tables(storage, output_uri, catalog, place)
    with_faces = [unit for unit in units if unit.totals.faces]
    tables.bring("detections", with_faces, lambda record: record.detections_uri, iceberg_columns(DETECTIONS_SCHEMA))
    new, gone = tables.bring("images", units, lambda record: record.uri, schema)
    pictures, faces = (sum(getattr(unit.totals, name) for unit in new) for name in ("pictures", "faces"))
    return Change(len(new), len(gone), pictures, faces)


@dataclass(frozen=True)
class _Tables:
    storage: Storage
    output_uri: str
    catalog: Catalog
    place: Place

    def bring(
        self, name: str, units: list[CommitRecord], file_of: Callable[[CommitRecord], str], columns: pa.Schema | None
    ) -> tuple[list[CommitRecord], Set[str]]:
        """The units that were added to one table, and the commits that were deleted from it."""
        known = _table(self.catalog, self.place.table(name))
        have = _commits(known) if known is not None else set()
        new = [unit for unit in units if unit.commit not in have]
        gone = have - {unit.commit for unit in units}
        try:
            table = known if known is not None else self._create(name, columns or pa.schema([]))
            # pyiceberg would append again to what another writer made of the table since: rows twice. Not stored.
            table.metadata.properties[TableProperties.COMMIT_NUM_RETRIES] = "0"
            with table.transaction() as change:
                if table.properties.get(MADE_OF) != self.output_uri:
                    change.set_properties({MADE_OF: self.output_uri})
                if gone:
                    change.delete(In("commit", sorted(gone)))  # type: ignore[call-arg, arg-type]
                if new and columns is not None:
                    change.append(pa.RecordBatchReader.from_batches(columns, self._rows(new, file_of, columns)))
        except StorageError:
            raise
        except (CommitFailedException, ValidationException) as error:
            raise StorageError(
                f"writing {self.place.table(name)}: another writer changed the table meanwhile, and none of these rows "
                f"are in it: {_hidden(error, self.storage)}"
            ) from error
        except Exception as error:  # of the catalog, or of the store that it writes to
            raise StorageError(f"writing {self.place.table(name)}: {_hidden(error, self.storage)}") from error
        return new, gone

    def _create(self, name: str, columns: pa.Schema) -> Table:
        self.catalog.create_namespace_if_not_exists(self.place.namespace)
        properties = {**_PROPERTIES, MADE_OF: self.output_uri}
        return self.catalog.create_table(self.place.table(name), schema=columns, properties=properties)

    def _rows(
        self, units: Iterable[CommitRecord], file_of: Callable[[CommitRecord], str], columns: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Raises: StorageError."""
        for table in in_threads(lambda unit: self._unit_table(unit, file_of(unit)), units):
            if not table.num_rows:
                continue
            yield from table.select(columns.names).cast(columns, safe=False).to_batches()

    def _unit_table(self, unit: CommitRecord, uri: str) -> pa.Table:
        try:
            table = read_table(self.storage, uri)
        except ObjectMissing as error:
            raise StorageError(f"{uri}: went away while it was exported") from error
        if table.num_rows and table["commit"][0].as_py() != unit.commit:
            raise StorageError(f"{uri}: was committed anew while it was exported")
        return table


def _table(catalog: Catalog, identifier: str) -> Table | None:
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        return None
    except Exception as error:
        raise OutputError(
            f"--output: the table {identifier} cannot be looked into: {type(error).__name__}: {error}"
        ) from error


def _commits(table: Table) -> set[str]:
    """Of all rows; one column is read, a batch at a time."""
    found: set[str] = set()
    for batch in table.scan(selected_fields=("commit",)).to_arrow_batch_reader():
        found.update(batch.column(0).unique().to_pylist())
    return found


def _refuse_other_columns(catalog: Catalog, place: Place, columns: pa.Schema | None) -> None:
    """Before anything is changed. Raises: OutputError."""
    table = _table(catalog, place.table("images"))
    names = [] if table is None else [column.name for column in table.schema().fields]
    if table is None or columns is None or names == columns.names:
        return
    differing = sorted(set(names) ^ set(columns.names)) or ["their order"]
    raise OutputError(
        f"--output: the table {place.table('images')} has other columns than this output ({', '.join(differing)}). "
        "Give another namespace."
    )


def _hidden(error: Exception, storage: Storage) -> str:
    return storage.options.hide(f"{type(error).__name__}: {error}")
