"""Derived spaces: what makes their vectors, and the vectors made of those that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import CollectionError, SchemaError
from retrieval.store import schema
from retrieval.store.opening import Tables
from retrieval.store.transforms import Transform
from retrieval.types import Space

if TYPE_CHECKING:
    import pyarrow as pa

Watch = Callable[[int, int], None]
_BLOCK_BYTES = 1 << 27


class DerivedSpaces:
    """The part of a store that knows of derived spaces."""

    def __init__(self, tables: Tables) -> None:
        """Stand on the store's own tables, at the version that it reads."""
        self._tables = tables

    def remember(self, space: Space, transform: Transform) -> None:
        """Keep what makes ``space``, by the hash in its identity; before the space is added."""
        self._tables.manifest.add_transform(space.weights_hash, transform.to_json())

    def transform(self, space: Space) -> Transform:
        """What makes the vectors of a derived space from those of its base.

        Raises:
            CollectionError: if the space is not derived.
            SchemaError: if it is missing or damaged.
        """
        spaces = self._tables.manifest.spaces()
        if space.base not in spaces:
            raise CollectionError(f"space {space.name!r} is not derived from one that is there")
        try:
            found = Transform.from_json(self._tables.manifest.transform(space.weights_hash))
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(
                f"the transform of space {space.name!r} is damaged: {error}"
            ) from None
        if found.digest(spaces[space.base].weights_hash) != space.weights_hash:
            raise SchemaError(
                f"the transform of space {space.name!r} is damaged: its hash differs; derive the "
                "space again under another name"
            )
        return found

    def fill(
        self, space: Space, watch: Watch | None = None, *, block_rows: int | None = None
    ) -> int:
        """Make the vectors that a derived space lacks from those of its base, a commit a block.

        A row whose content another process replaces meanwhile is passed over: that process, or the
        next call, gives it its vector. Killed anywhere and called again, it goes on.

        Args:
            space: a derived one.
            watch: called with the number of rows done and the number of all to do.
            block_rows: most rows of a commit.

        Returns:
            How many rows got a vector.
        """
        images, base = self._tables.images, str(space.base)
        where = (
            f"{schema.embedded_column(base)} = true and "
            f"{schema.embedded_column(space.name)} is not true"
        )
        with images.reading() as dataset:
            total = int(dataset.count_rows(where))
        if total == 0:
            return 0
        transform = self.transform(space)
        filled = done = 0
        for rows in self._blocks(base, where, block_rows or _block_rows(transform, space)):
            filled += self._write(rows, base, space, transform)
            done += len(rows)
            if watch:
                watch(done, total)
        return filled

    def _blocks(self, base: str, where: str, block_rows: int) -> Iterator[pa.Table]:
        """Rows of one version with their base vectors, gathered over small fragments."""
        import pyarrow as pa

        columns = ["image_id", "content_hash", schema.vector_column(base)]
        waiting: list[pa.RecordBatch] = []
        for batch in self._tables.images.batches(columns, block_rows, where):
            if waiting and sum(map(len, waiting)) + len(batch) > block_rows:
                yield pa.Table.from_batches(waiting)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _write(self, rows: pa.Table, base: str, space: Space, transform: Transform) -> int:
        import pyarrow as pa

        images = self._tables.images
        given = rows.column(schema.vector_column(base)).combine_chunks().flatten()
        made = transform(given.to_numpy(zero_copy_only=False).reshape(len(rows), -1))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(made.ravel()), space.dim)
        new = rows.select(["image_id", "content_hash"]).append_column(
            schema.vector_column(space.name), vectors
        )
        whole = schema.conform(new, images.snapshot.schema, [space], whole=False)
        same = "source.content_hash is not distinct from target.content_hash"
        return images.update(whole, "image_id", where=same)


def _block_rows(transform: Transform, space: Space) -> int:
    width = max(len(transform.mean), space.dim)
    return max(1024, _BLOCK_BYTES // (np.dtype(np.float32).itemsize * width))
