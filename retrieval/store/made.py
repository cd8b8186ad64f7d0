"""Columns that the software made of the images, each with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from retrieval.errors import CollectionError, SchemaError
from retrieval.store import schema
from retrieval.store.column_files import replace_columns
from retrieval.store.opening import Tables
from retrieval.store.vectors import changed_since

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the values of a column come from.

    Attributes:
        made_by: the measure, as ``uniqueness``.
        space: whose vectors it was made of; None for pixels.
        parameters: what else decides the values; plain JSON values.
        version: of the images that the values are true for; 0 while they are being written. An
            image that was added or changed since has no value or an outdated one.
        written: version of the images that had the values first; 0 while they are being written.
        created_at: ISO 8601.
        software: with its version.
    """

    made_by: str
    space: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    written: int = 0
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    software: str = field(default_factory=lambda: f"retrieval {version('retrieval')}")


class MadeColumns:
    """The part of a store that knows of columns that were made, not given."""

    def __init__(self, tables: Tables) -> None:
        """Stand on the store's own tables, at the version that it reads."""
        self._tables = tables
        self._read: tuple[int, dict[str, Provenance]] | None = None

    def columns(self) -> dict[str, Provenance]:
        """Where each made column comes from, by name.

        Raises:
            SchemaError: if that is damaged.
        """
        manifest = self._tables.manifest
        if self._read is None or self._read[0] != manifest.version:
            try:
                found = {name: Provenance(**facts) for name, facts in manifest.columns().items()}
            except TypeError as error:
                raise SchemaError(
                    f"what the manifest says of a column is damaged: {error}"
                ) from None
            self._read = (manifest.version, found)
        return dict(self._read[1])

    def stamp(self) -> str:
        """Another text whenever a made column got other values: rows do not tell, as they stay."""
        known = sorted(self.columns().items())
        return " ".join(f"{name}:{made.created_at}:{made.written}" for name, made in known)

    def check(self, fields: pa.Schema) -> None:
        """Refuse names of columns that a person gave, or that no column can have.

        Raises:
            CollectionError: naming the column and the way out.
        """
        there = self._tables.images.snapshot.schema
        made = self.columns()
        for name in fields.names:
            if name in there.names and name not in made:
                raise CollectionError(
                    f"column {name!r} is your own, and is not written over: leave it out, or give "
                    "yours another name where it comes from and index into a new collection"
                )
        schema.check_user_fields(fields, there)

    def refuse(self, names: Sequence[str]) -> None:
        """Refuse names that belong to made columns, for values that a person gives.

        Raises:
            CollectionError: naming the column.
        """
        made = self.columns()
        for name in names:
            if name in made:
                raise CollectionError(
                    f"column {name!r} was made by {made[name].made_by!r} in this collection; give "
                    "yours another name"
                )

    def write(self, rows: pa.Table, provenance: Provenance) -> None:
        """Set whole columns; an image without a row gets null.

        No index is behind afterwards. Killed in the middle, the columns hold the old values or the
        new ones, and say by ``version`` 0 that they were not finished.

        Args:
            rows: ``image_id`` and columns of bool, int64, double or string.
            provenance: of all of them; ``version`` is that of the images they were made of.

        Raises:
            CollectionError: for a column that a person gave, or a type that does not fit; nothing
                is written then. If other writers keep coming first.
        """
        import pyarrow as pa

        names = [name for name in rows.column_names if name != "image_id"]
        fields = pa.schema([rows.schema.field(name) for name in names])
        self._tables.manifest.refresh()
        self._tables.images.refresh()
        self.check(fields)
        manifest = self._tables.manifest
        begun = asdict(replace(provenance, version=0, written=0))
        manifest.set_columns(dict.fromkeys(names, begun))
        written = replace_columns(self._tables.images, rows, "image_id")
        done = asdict(replace(provenance, written=written))
        manifest.set_columns(dict.fromkeys(names, done))

    def read(self, names: Sequence[str]) -> pa.Table:
        """``image_id`` and columns of all images, in no order."""
        with self._tables.images.reading() as dataset:
            return dataset.to_table(columns=["image_id", *names])

    def outdated(self) -> dict[str, int]:
        """How many images have no value in each column, or one from before they were changed."""
        made = self.columns()
        with self._tables.images.reading() as dataset:
            since = {p.version for p in made.values()}
            counts = {version: int(dataset.count_rows(changed_since(version))) for version in since}
            there, images = set(dataset.schema.names), int(dataset.count_rows())
        return {n: counts[p.version] if n in there else images for n, p in made.items()}
