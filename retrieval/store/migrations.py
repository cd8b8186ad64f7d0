"""Numbered changes that bring an older collection to the schema of this software.

A collection of schema version n gets ``MIGRATIONS[n - 1:]`` in order when it is opened.
A migration changes the ``images`` and ``failures`` tables and must be safe to run again: a process
may be killed between it and the record that it is done.
"""

from __future__ import annotations

from collections.abc import Callable

from retrieval.errors import SchemaError
from retrieval.store.manifest import Manifest
from retrieval.store.table import Table

Migration = Callable[[Table, Table], None]

MIGRATIONS: list[Migration] = []


def current_version() -> int:
    """Schema version that this software reads and writes."""
    return 1 + len(MIGRATIONS)


def migrate(manifest: Manifest, images: Table, failures: Table, uri: str) -> None:
    """Bring a collection to the current schema version.

    Raises:
        SchemaError: if a newer software wrote it.
    """
    found = manifest.schema_version()
    if found > current_version():
        raise SchemaError(
            f"{uri} has schema version {found}, this software knows {current_version()}: "
            "upgrade it with `pip install --upgrade retrieval`"
        )
    for number in range(found, current_version()):
        MIGRATIONS[number - 1](images, failures)
        manifest.set_schema_version(number + 1)
