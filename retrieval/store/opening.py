"""Making, finding and healing a collection's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.errors import CollectionError, CollectionNotFound, SchemaError, SpaceMismatch
from retrieval.store import migrations, schema, uris
from retrieval.store.manifest import Manifest
from retrieval.store.table import Table
from retrieval.types import Space

Options = Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Tables:
    """The open tables of one collection."""

    images: Table
    failures: Table
    manifest: Manifest


def exists(uri: str, options: Options) -> bool:
    """Whether there is a collection at the normal ``uri``: it has a manifest."""
    return Table.open(uris.table_uri(uri, "manifest"), options) is not None


def create(uri: str, spaces: Sequence[Space], options: Options) -> None:
    """Make an empty collection at the normal ``uri``.

    The manifest is written last: a creation that was killed is no collection yet and can be made
    again.

    Raises:
        CollectionError: if there is one, or the place holds something else.
    """
    check_spaces(spaces)
    there = CollectionError(f"there is a collection at {uri} already; open it instead")
    try:
        found = uris.entries(uri, options)
    except OSError as error:
        raise CollectionError(f"{uri} cannot hold a collection: {error}") from error
    if "manifest.lance" in found and exists(uri, options):
        raise there
    strange = sorted(found - {"images.lance", "failures.lance", "manifest.lance", "indexes"})
    if strange:
        raise CollectionError(
            f"{uri} is not empty and no collection (it holds {strange[0]!r}); choose a new place"
        )
    for name, columns in (("images", schema.images()), ("failures", schema.failures())):
        place = uris.table_uri(uri, name)
        table = Table.create(place, columns.empty_table(), options) or Table.open(place, options)
        if table is None or table.snapshot.count_rows():
            raise CollectionError(
                f"{uri} holds a table {name!r} but no manifest; choose a new place"
            )
    place = uris.table_uri(uri, "manifest")
    if Manifest.create(place, spaces, migrations.current_version(), options) is None:
        raise there


def open_tables(uri: str, options: Options) -> Tables:
    """Open the collection at the normal ``uri``, migrate it, and add columns it lacks.

    Raises:
        CollectionNotFound: if there is none.
        SchemaError: if it is damaged or from a newer version.
    """
    found = Table.open(uris.table_uri(uri, "manifest"), options)
    if found is None:
        raise CollectionNotFound(
            f"there is no collection at {uri}; make one with `retrieval index FOLDER -c {uri}`"
        )
    manifest = Manifest(found)
    images, failures = (_open(uri, name, options) for name in ("images", "failures"))
    migrations.migrate(manifest, images, failures, uri)
    tables = Tables(images, failures, manifest)
    heal(tables)
    return tables


def heal(tables: Tables) -> dict[str, Space]:
    """Add the columns of spaces whose creation was cut short; all spaces by name."""
    spaces = tables.manifest.spaces()
    present = set(tables.images.snapshot.schema.names)
    for space in spaces.values():
        fields = schema.space_fields(space)
        if not present.issuperset(fields.names):
            tables.images.add_columns(fields)
    return spaces


def check_spaces(spaces: Iterable[Space]) -> None:
    """Refuse spaces that cannot live together.

    Raises:
        CollectionError: for one without a dimension, or two whose columns would be the same.
    """
    owners: dict[str, str] = {}
    for space in spaces:
        if space.dim < 1:
            raise CollectionError(
                f"space {space.name!r} has dim {space.dim}; it must be at least 1"
            )
        column = schema.vector_column(space.name)
        if column in owners:
            raise CollectionError(
                f"spaces {owners[column]!r} and {space.name!r} would share the column {column!r}; "
                "rename one"
            )
        owners[column] = space.name


def check_same(there: Space, given: Space, uri: str) -> None:
    """Refuse a space whose name belongs to another one in the collection at ``uri``.

    Raises:
        SpaceMismatch: naming both sides and the way out.
    """
    if there.identity != given.identity or there.dtype != given.dtype:
        raise SpaceMismatch(
            f"space {given.name!r} of {uri} was made by {told(there)}, not by {told(given)}; use "
            "that encoder, or a new collection for this one"
        )


def told(space: Space) -> str:
    """What made ``space``, for a message."""
    return (
        f"{space.encoder} (weights {space.weights_hash[:12]}, preprocessing "
        f"{space.preprocess_hash[:12]}, pooling {space.pooling}, {space.dim} × {space.dtype})"
    )


def _open(uri: str, name: str, options: Options) -> Table:
    table = Table.open(uris.table_uri(uri, name), options)
    if table is None:
        raise SchemaError(f"{uri} is damaged: its table {name!r} is missing")
    return table
