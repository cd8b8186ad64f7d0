"""Which images an export has, and their rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.query.collection import Collection
from retrieval.store import Store
from retrieval.vectors.tiles import Tell

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_ROWS = 8192
_RECORD = (
    "image_id", "uri", "content_hash", "width", "height", "format", "size_bytes",
    "captured_at", "label", "split", "tags", "metadata",
)  # fmt: skip


class Selection:
    """The images of one export, all of one version of the collection, by ascending id.

    Attributes:
        store: a handle of its own.
        ids: int64 ``[n]``.
        facts: where they come from, as text: ``collection``, ``collection_id``, ``version`` and
            ``where``.
    """

    def __init__(self, collection: Collection, where: str | None, ids: ArrayLike | None) -> None:
        """Choose those for which ``where`` holds, those of ``ids``, or those of both.

        Raises:
            FilterError: if ``where`` does not parse or fit the columns.
            QueryError: naming an unknown id.
        """
        self.store: Store = collection.store.again()
        self.ids: NDArray[np.int64] = self.store.ids(where)
        if ids is not None:
            wanted = np.unique(np.asarray(ids, dtype=np.int64))
            self.store.rows(np.setdiff1d(wanted, self.store.ids()), ["image_id"])
            self.ids = np.intersect1d(wanted, self.ids)
        self.facts = {
            "collection": self.store.uri,
            "collection_id": self.store.collection_id,
            "version": str(self.store.version),
            "where": where or "",
        }

    def columns(self) -> list[str]:
        """Names of all that a record shows: the system's columns, then a person's."""
        there = self.store.columns().names
        added = [name for name in there if name not in (*_RECORD, "mtime_ns", "ingested_at")]
        return [*_RECORD, *added]

    def blocks(self, columns: Sequence[str], tell: Tell | None = None) -> Iterator[pa.Table]:
        """The columns, JSON as text, in blocks; ``tell`` hears of the rows that are used up."""
        import pyarrow as pa

        total = len(self.ids)
        for at in range(0, max(total, 1), _BLOCK_ROWS):  # an empty export has columns too
            rows = self.store.rows(self.ids[at : at + _BLOCK_ROWS], columns)
            texts = {f.name: pa.string() for f in rows.schema if isinstance(f.type, pa.JsonType)}
            kinds = [f.with_type(texts.get(f.name, f.type)) for f in rows.schema]
            yield rows.cast(pa.schema(kinds))
            if tell is not None:
                tell(min(at + _BLOCK_ROWS, total), total)
