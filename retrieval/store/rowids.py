"""From image ids to the engine's row ids, so that ten records cost a take and not a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa


class RowIds:
    """A sorted map made on first use.

    Row ids are stable: an update or a compaction keeps them, so an old map stays right for the rows
    it knows. It is made again when an id is missing from it.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._map: tuple[NDArray[np.int64], NDArray[np.uint64]] | None = None

    def take(self, dataset: Any, ids: NDArray[np.int64], columns: list[str]) -> pa.Table:
        """``columns`` and ``image_id`` of ``dataset`` for ``ids``, in the order asked.

        Raises:
            QueryError: naming the first id that is not there.
        """
        wanted = columns if "image_id" in columns else ["image_id", *columns]
        if len(ids) == 0:
            return dataset.schema.empty_table().select(wanted)
        rows = self._try(dataset, ids, wanted)
        if rows is None:
            self._map = _read(dataset)
            rows = self._try(dataset, ids, wanted)
        if rows is None:
            missing = ids[~np.isin(ids, self._map[0])] if self._map else ids
            raise QueryError(f"no image with id {missing[0] if len(missing) else ids[0]}")
        return rows

    def _try(self, dataset: Any, ids: NDArray[np.int64], columns: list[str]) -> pa.Table | None:
        """The rows, or None if the map does not know them all or knows a deleted one."""
        if self._map is None:
            return None
        known, row_ids = self._map
        if len(known) == 0:
            return None
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        if not np.array_equal(known[places], ids):
            return None
        asked, inverse = np.unique(row_ids[places], return_inverse=True)
        rows = dataset._take_rows(asked.tolist(), columns=columns)
        if len(rows) != len(asked):
            return None
        rows = rows.take(inverse)
        return rows if np.array_equal(rows["image_id"].to_numpy(), ids) else None


def as_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """``ids`` as int64 ``[n]``.

    Raises:
        QueryError: if they are not whole numbers of 64 bits.
    """
    array = np.asarray(ids).reshape(-1)
    if array.size and (array.dtype.kind not in "iu" or array.max() > np.iinfo(np.int64).max):
        raise QueryError(f"image ids are whole numbers of 64 bits, not {array[0]!r}")
    return array.astype(np.int64)


def _read(dataset: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    rows = dataset.to_table(columns=["image_id"], with_row_id=True)
    ids = rows["image_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    return ids[order], rows["_rowid"].to_numpy()[order]
