"""The durable truth of a collection: its images, their vectors, its failures and its spaces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import QueryError, UnknownSpace
from retrieval.store import failures, filters, maintenance, opening, records, schema, uris
from retrieval.store.derived import DerivedSpaces
from retrieval.store.made import MadeColumns
from retrieval.store.rowids import RowIds, as_ids
from retrieval.store.vectors import VectorBlock, changed_since, matrix, scan
from retrieval.types import ImageRecord, Space

if TYPE_CHECKING:
    import pyarrow as pa


class Store:
    """One collection in a LanceDB directory.

    Every write is one atomic commit. Every read of images answers for one version, which moves only
    with :meth:`refresh` and with writes through this handle. Reading from several threads is safe.

    Attributes:
        uri: absolute path or object-store URI.
        derived: the spaces whose vectors are made of another space's.
        made: the columns that were made of the images.
    """

    def __init__(self, uri: str, tables: opening.Tables) -> None:
        """Wrap open tables; use :meth:`open` or :meth:`create`."""
        self.uri = uri
        self._tables = tables
        self._images = tables.images
        self._spaces = tables.manifest.spaces()
        self._row_ids = RowIds()
        self.derived = DerivedSpaces(tables)
        self.made = MadeColumns(tables)

    @classmethod
    def create(
        cls,
        uri: str | os.PathLike[str],
        spaces: Sequence[Space] = (),
        *,
        storage_options: Mapping[str, str] | None = None,
    ) -> Store:
        """Make an empty collection.

        Args:
            uri: local path (``~`` and relative paths are resolved) or object-store URI.
            spaces: the vector spaces it starts with; :meth:`add_space` adds more.
            storage_options: credentials and endpoint of an object store, as Lance names them.

        Raises:
            CollectionError: if there is a collection, or the place is not empty.
        """
        place = uris.normalize(uri)
        opening.create(place, spaces, storage_options)
        return cls.open(place, storage_options=storage_options)

    @classmethod
    def open(
        cls, uri: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None
    ) -> Store:
        """Open a collection at its latest version.

        Raises:
            CollectionNotFound: if there is none.
            SchemaError: if it is damaged or a newer software wrote it.
        """
        place = uris.normalize(uri)
        return cls(place, opening.open_tables(place, storage_options))

    @staticmethod
    def exists(
        uri: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None
    ) -> bool:
        """Whether there is a collection at ``uri``."""
        return opening.exists(uris.normalize(uri), storage_options)

    # -- what it is ---------------------------------------------------------------------------

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The collection's spaces by name."""
        return MappingProxyType(self._spaces)

    def again(self) -> Store:
        """Another handle of the same collection, at its latest version."""
        return Store.open(self.uri, storage_options=self._images.storage_options)

    @property
    def collection_id(self) -> str:
        """Given once, when the collection was made: one made later at the same place has another.

        What is kept outside of the tables tells by it whose it is.
        """
        return str(self._tables.manifest.values().get("id", ""))

    @property
    def version(self) -> int:
        """Version of the images that this handle reads."""
        return self._images.version

    def refresh(self) -> bool:
        """See what other processes committed; True if there was something.

        Costs two looks for a newer version where there is none.
        """
        changed = any([self._images.refresh(), self._tables.manifest.refresh()])
        if changed:
            self._spaces = opening.heal(self._tables)
        return changed

    def space(self, name: str) -> Space:
        """The space called ``name``.

        Raises:
            UnknownSpace: naming those that there are.
        """
        if name not in self._spaces:
            there = ", ".join(self._spaces) or "none yet"
            raise UnknownSpace(f"no space {name!r} in {self.uri}; it has: {there}")
        return self._spaces[name]

    def columns(self) -> pa.Schema:
        """The columns that a filter may use."""
        return filters.filterable(self._images.snapshot.schema)

    def vector_column(self, space: str) -> str:
        """Column that holds the vectors of ``space``; it takes null for "not embedded yet".

        Raises:
            UnknownSpace: if there is no such space.
        """
        return schema.vector_column(self.space(space).name)

    def add_space(self, space: Space) -> None:
        """Add a space with no vectors yet; nothing if it is there.

        Raises:
            SpaceMismatch: if the name belongs to vectors of another identity.
            CollectionError: if its column would be another space's.
        """
        others = [s for s in self._spaces.values() if s.name != space.name]
        opening.check_spaces([*others, space])
        if space.name not in self._spaces:
            self._tables.manifest.add_space(space)
            self._spaces = opening.heal(self._tables)
        opening.check_same(self._spaces[space.name], space, self.uri)

    def add_runtime(self, space: str, runtime: str) -> None:
        """Remember that ``runtime`` computes vectors of ``space``."""
        if runtime not in self.space(space).runtime.split(", "):
            self._tables.manifest.add_runtime(space, runtime)
            self._spaces = opening.heal(self._tables)

    def add_columns(self, fields: pa.Schema) -> None:
        """Add columns of user metadata, null for now; nothing for those that are there.

        Args:
            fields: of type bool, int64, double, string or timestamp[us].

        Raises:
            CollectionError: for a system column's name, a column that was made of the images, or
                one of another type.
        """
        self.made.refuse(fields.names)
        existing = self._images.snapshot.schema
        if len(new := schema.check_user_fields(fields, existing)):
            self._images.add_columns(new)
            schema.check_user_fields(fields, self._images.snapshot.schema)

    # -- writing ------------------------------------------------------------------------------

    def upsert(self, rows: pa.Table) -> None:
        """Insert whole rows, or replace those of the same ``image_id``, in one commit.

        Nullable columns that ``rows`` lacks become null, in replaced rows too; :meth:`update`
        keeps them.

        Raises:
            CollectionError: if a column or a vector does not fit; nothing is written then.
        """
        if len(rows):
            self._images.upsert(self._conform(rows, whole=True), "image_id")

    def insert(self, rows: pa.Table) -> int:
        """As :meth:`upsert`, but rows that are there stay as they are; how many were new."""
        return self._images.insert(self._conform(rows, whole=True), "image_id") if len(rows) else 0

    def update(self, rows: pa.Table) -> int:
        """Set some columns of existing rows in one commit; ids that are not there are passed over.

        Returns:
            How many rows were found.

        Raises:
            CollectionError: as :meth:`upsert`.
        """
        return self._images.update(self._conform(rows, whole=False), "image_id") if len(rows) else 0

    def delete(self, ids: ArrayLike) -> int:
        """Delete images in one commit; how many there were."""
        import pyarrow as pa

        wanted = np.unique(as_ids(ids))
        key = pa.schema([schema.images().field("image_id")])
        keys = pa.table([pa.array(wanted)], schema=key)
        return self._images.delete(keys, "image_id") if len(wanted) else 0

    # -- reading ------------------------------------------------------------------------------

    def count(self, where: str | None = None) -> int:
        """How many images there are, or how many ``where`` is true for."""
        with self._images.reading() as dataset:
            return int(dataset.count_rows(_sql(where, dataset)))

    def embedded(self, space: str) -> int:
        """How many images have a vector in ``space``."""
        column = schema.embedded_column(self.space(space).name)
        with self._images.reading() as dataset:
            return int(dataset.count_rows(f"{column} = true"))

    def known(self) -> pa.Table:
        """What an ingestion compares with: one row an image, in no order.

        Returns:
            ``image_id``, ``uri``, ``content_hash``, ``size_bytes``, ``mtime_ns``, and for each
            space a bool column ``embedded:NAME``. Vectors are not read.
        """
        with self._images.reading() as dataset:
            return records.known(dataset, self._spaces)

    def ids(self, where: str | None = None) -> NDArray[np.int64]:
        """Sorted ids of all images, or of those that the filter ``where`` is true for.

        Raises:
            FilterError: if ``where`` does not parse or fit the columns.
        """
        with self._images.reading() as dataset:
            return _matching(dataset, _sql(where, dataset))

    def changed(self, since: int) -> NDArray[np.int64]:
        """Sorted ids of the rows that were inserted or changed in any column after a version."""
        with self._images.reading() as dataset:
            return _matching(dataset, changed_since(since))

    def rows(self, ids: ArrayLike, columns: Sequence[str]) -> pa.Table:
        """The given columns for ``ids``, in the order asked.

        Raises:
            QueryError: for an unknown id or column.
        """
        with self._images.reading() as dataset:
            for name in columns:
                if name not in dataset.schema.names:
                    raise QueryError(f"no column {name!r} in {self.uri}")
            found = self._row_ids.take(dataset, as_ids(ids), list(columns))
        return found.select(list(columns))

    def records(self, ids: ArrayLike) -> list[ImageRecord]:
        """What is known of ``ids``, in the order asked.

        Raises:
            QueryError: naming an unknown id.
        """
        with self._images.reading() as dataset:
            columns = records.columns(dataset.schema)
            found = self._row_ids.take(dataset, as_ids(ids), columns)
        return records.from_rows(found)

    def all_records(self, *, block_rows: int) -> Iterator[pa.RecordBatch]:
        """The columns of all records, in blocks, in no order; all of one version."""
        columns = records.columns(self._images.snapshot.schema)
        return self._images.batches(columns, block_rows)

    def find_uri(self, uri: str) -> int | None:
        """Id of the image at ``uri``, or None."""
        found = self._find("uri", uri)
        return found[0] if found else None

    def find_hash(self, content_hash: str) -> list[int]:
        """Ids of the images with these bytes, ascending."""
        return self._find("content_hash", content_hash)

    def thumbnails(self, ids: ArrayLike) -> dict[int, bytes]:
        """Thumbnails (WebP) by id; ids without one are left out.

        Raises:
            QueryError: naming an unknown id.
        """
        with self._images.reading() as dataset:
            rows = self._row_ids.take(dataset, as_ids(ids), ["thumbnail"])
        pairs = zip(rows["image_id"].to_pylist(), rows["thumbnail"].to_pylist(), strict=True)
        return {image_id: data for image_id, data in pairs if data is not None}

    def vectors(
        self, space: str, *, block_rows: int = 65536
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """All vectors of a space, in blocks of up to ``block_rows``, in no order; of one version.

        Yields:
            ids int64 ``[m]`` and vectors ``[m, dim]`` in the space's dtype, read-only.

        Raises:
            UnknownSpace: if there is no such space.
        """
        blocks = self.scan(space, block_rows=block_rows)
        return ((b.ids[b.present], b.vectors) for b in blocks if len(b.vectors))

    def scan(self, space: str, *, since: int = 0, block_rows: int = 65536) -> Iterator[VectorBlock]:
        """The rows of this version that changed after version ``since``, with their vectors.

        Raises:
            UnknownSpace: if there is no such space.
        """
        column, dim = self.vector_column(space), self._spaces[space].dim
        return scan(self._images, column, dim, block_rows, since=since)

    def vectors_of(self, space: str, ids: ArrayLike) -> NDArray[np.float32]:
        """float32 ``[n, dim]``: the vectors of ``ids``, in the order asked.

        Raises:
            UnknownSpace: if there is no such space.
            QueryError: naming an id that is unknown or has no vector in the space.
        """
        column, wanted = self.vector_column(space), as_ids(ids)
        with self._images.reading() as dataset:
            found = self._row_ids.take(dataset, wanted, [column])[column]
        if found.null_count:
            missing = wanted[found.is_null().to_numpy()][0]
            raise QueryError(f"image {missing} has no vector in space {space!r} yet: index again")
        return matrix(found, self._spaces[space].dim)

    # -- failures -----------------------------------------------------------------------------

    def failures(self) -> pa.Table:
        """Everything that could not be brought in, one row a uri, as of now."""
        return failures.read(self._tables.failures)

    def record_failures(self, rows: pa.Table) -> None:
        """Remember failures by uri; one that is known with the same facts is not written again.

        Raises:
            CollectionError: if a column does not fit.
        """
        failures.record(self._tables.failures, rows)

    def clear_failures(self, uris: Sequence[str]) -> int:
        """Forget the failures of ``uris``; how many there were."""
        return failures.clear(self._tables.failures, uris)

    # -- upkeep -------------------------------------------------------------------------------

    def optimize(self) -> None:
        """Compact files and bring scalar indexes up to date; nothing where nothing is due."""
        maintenance.optimize(self._images)

    def purge(self) -> None:
        """Remove every trace of rows that were deleted or replaced: old versions and files too.

        Other processes must not write meanwhile: their unfinished files would go as well.
        """
        for table in (self._images, self._tables.failures):
            maintenance.purge(table)

    def stats(self) -> dict[str, Any]:
        """Rows, versions, fragments and indexes by table; ``size_bytes`` for a local collection."""
        self._tables.failures.refresh()
        tables = {"images": self._images, "failures": self._tables.failures}
        return maintenance.stats(self.uri, tables)

    def _conform(self, rows: pa.Table, *, whole: bool) -> pa.Table:
        there = self._images.snapshot.schema
        return schema.conform(rows, there, self._spaces.values(), whole=whole)

    def _find(self, column: str, value: str) -> list[int]:
        with self._images.reading() as dataset:
            found = _matching(dataset, f"{column} = {filters.quote_text(value)}")
        return [int(image_id) for image_id in found]


def _matching(dataset: Any, where: str | None) -> NDArray[np.int64]:
    """Sorted ids."""
    rows = dataset.to_table(columns=["image_id"], filter=where)
    return np.sort(rows["image_id"].to_numpy())


def _sql(where: str | None, dataset: Any) -> str | None:
    return None if where is None else filters.compile_filter(where, dataset.schema)
