"""What a collection remembers of itself: versions and spaces, as JSON values by key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from retrieval.errors import SchemaError
from retrieval.store import schema
from retrieval.store.table import Table
from retrieval.types import Space

SCHEMA_VERSION = "schema_version"
_SPACE = "space:"
_RAN = "ran:"
_TRANSFORM = "transform:"
_COLUMN = "column:"


class Manifest:
    """The ``manifest`` table; a key is written once and its first writer wins.

    Versions and made columns aside: of those the last one wins.
    """

    def __init__(self, table: Table) -> None:
        """Wrap the open table."""
        self._table = table

    @classmethod
    def create(
        cls,
        uri: str,
        spaces: Sequence[Space],
        schema_version: int,
        storage_options: Mapping[str, str] | None,
    ) -> Manifest | None:
        """Write a new manifest at ``uri``; None if there is one already."""
        values = {
            SCHEMA_VERSION: schema_version,
            "id": uuid4().hex,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"retrieval {version('retrieval')}",
        }
        values.update({_SPACE + space.name: asdict(space) for space in spaces})
        table = Table.create(uri, _rows(values), storage_options)
        return None if table is None else cls(table)

    @property
    def version(self) -> int:
        """Version that is read."""
        return self._table.version

    def refresh(self) -> bool:
        """See the latest commit; True if there was one."""
        return self._table.refresh()

    def values(self) -> dict[str, Any]:
        """Everything in it by key, but transforms, which are large.

        Raises:
            SchemaError: if a value is not JSON.
        """
        return self._read(f"not starts_with(key, '{_TRANSFORM}')")

    def _read(self, where: str) -> dict[str, Any]:
        rows = self._table.snapshot.to_table(columns=["key", "value"], filter=where)
        try:
            pairs = zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True)
            return {key: json.loads(value) for key, value in pairs}
        except ValueError as error:
            raise SchemaError(f"the collection's manifest is damaged: {error}") from error

    def spaces(self) -> dict[str, Space]:
        """The collection's spaces by name, in the order they were added.

        Raises:
            SchemaError: if one cannot be read.
        """
        found = {}
        values = self.values()
        for key, value in values.items():
            if key.startswith(_SPACE):
                try:
                    space = Space(**{**value, "modalities": tuple(value["modalities"])})
                except (TypeError, KeyError) as error:
                    raise SchemaError(
                        f"the manifest's entry {key!r} is damaged or from another version: {error}"
                    ) from error
                found[space.name] = space
        for key, ran in values.items():
            if key.startswith(_RAN) and ran["space"] in found:
                made = found[ran["space"]]
                runtimes = dict.fromkeys([*made.runtime.split(", "), ran["runtime"]])
                found[made.name] = replace(made, runtime=", ".join(filter(None, runtimes)))
        return found

    def schema_version(self) -> int:
        """Number of the schema that the tables follow.

        Raises:
            SchemaError: if it is missing.
        """
        found = self.values().get(SCHEMA_VERSION)
        if not isinstance(found, int):
            raise SchemaError("the collection's manifest names no schema version: it is damaged")
        return found

    def set_schema_version(self, number: int) -> None:
        """Record that the tables follow schema ``number`` now."""
        self._table.upsert(_rows({SCHEMA_VERSION: number}), "key")

    def add_space(self, space: Space) -> None:
        """Remember ``space`` unless one of its name is there."""
        self._table.insert(_rows({_SPACE + space.name: asdict(space)}), "key")

    def add_transform(self, digest: str, value: Mapping[str, Any]) -> None:
        """Remember the transform of that hash."""
        self._table.insert(_rows({_TRANSFORM + digest: value}), "key")

    def transform(self, digest: str) -> Any:
        """The transform of that hash.

        Raises:
            KeyError: if there is none.
        """
        return self._read(f"key = '{_TRANSFORM}{digest}'")[_TRANSFORM + digest]

    def add_runtime(self, space: str, runtime: str) -> None:
        """Remember that ``runtime`` computes vectors of ``space``."""
        ran = {"space": space, "runtime": runtime}
        self._table.insert(_rows({f"{_RAN}{space}:{runtime}": ran}), "key")

    def columns(self) -> dict[str, Any]:
        """What is remembered of made columns, by name."""
        found = self._read(f"starts_with(key, '{_COLUMN}')")
        return {key.removeprefix(_COLUMN): value for key, value in found.items()}

    def set_columns(self, made: Mapping[str, Any]) -> None:
        """Remember where columns come from, in one commit."""
        self._table.upsert(_rows({_COLUMN + name: facts for name, facts in made.items()}), "key")


def _rows(values: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    texts = [json.dumps(value, ensure_ascii=False) for value in values.values()]
    return pa.table([pa.array(list(values)), pa.array(texts)], schema=schema.manifest())
