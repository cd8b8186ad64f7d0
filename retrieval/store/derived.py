"""Derived spaces: what makes their vectors, and the vectors made of those that are stored."""

from __future__ import annotations

from collections.abc import Callable
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
_BLOCK_BYTES = 1 << 24


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

        A vector is made of what the base holds at the moment of the commit, whoever writes beside.
        Killed anywhere and called again, it goes on.

        Args:
            space: a derived one.
            watch: called with the number of rows done and the number of all to do.
            block_rows: most rows of a commit.

        Returns:
            How many rows got a vector.
        """
        images, base = self._tables.images, schema.vector_column(str(space.base))
        where = (
            f"{schema.embedded_column(str(space.base))} = true and "
            f"{schema.embedded_column(space.name)} is not true"
        )
        with images.reading() as dataset:
            total = int(dataset.count_rows(where))
        if total == 0:
            return 0
        transform = self.transform(space)

        def make(rows: pa.Table) -> pa.Table:
            made = _mapped(rows.column("image_id"), rows.column(base), transform, space)
            return schema.conform(made, images.snapshot.schema, [space], whole=False)

        filled, most = 0, block_rows or _block_rows(transform, space)
        while rows := images.rewrite(["image_id", base], where, most, make):
            filled += rows
            if watch:
                watch(filled, max(filled, total))
        return filled


def _mapped(
    ids: pa.ChunkedArray, vectors: pa.ChunkedArray, transform: Transform, space: Space
) -> pa.Table:
    """Ids with their vectors in a derived space."""
    import pyarrow as pa

    given = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    made = pa.array(transform(given.reshape(len(ids), -1)).ravel())
    column = pa.FixedSizeListArray.from_arrays(made, space.dim)
    return pa.table({"image_id": ids, schema.vector_column(space.name): column})


def _block_rows(transform: Transform, space: Space) -> int:
    """Rows whose vectors the engine can merge: it has 300 MB, and takes eight times their size."""
    wanted = _BLOCK_BYTES // (
        np.dtype(np.float32).itemsize * max(space.dim, len(transform.mean) // 8)
    )
    return max(256, wanted)
