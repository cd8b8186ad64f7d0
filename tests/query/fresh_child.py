"""A small collection for tests of freshness, and the programs that other processes run on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.store import Store
from retrieval.types import Space

SPACE, DIM = "s", 16


def new(place: Path, dtype: str = "float32") -> Store:
    """An empty collection with one space."""
    made = ("own", "w" * 32, "p" * 32, "cls")
    return Store.create(place, [Space(SPACE, *made, DIM, ("image",), dtype=dtype)])


def unit(seed: int, n: int) -> NDArray[np.float32]:
    """Unit rows that depend on the seed only."""
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def rows(ids: Sequence[int], vectors: Sequence | NDArray | None, label: str = "x") -> pa.Table:
    """Rows to upsert; a vector that is None is null, and so are all if ``vectors`` is None."""
    some = [None] * len(ids) if vectors is None else vectors
    lists = [None if v is None else np.asarray(v).tolist() for v in some]
    return pa.table(
        {
            "image_id": pa.array(list(ids), pa.int64()),
            "uri": [f"/{i}.jpg" for i in ids],
            "label": [label] * len(ids),
            "vector_s": pa.array(lists, pa.list_(pa.float32(), DIM)),
        }
    )


def vectors_only(ids: Sequence[int], vectors: Sequence | NDArray) -> pa.Table:
    """Rows to update: ids and vectors."""
    return rows(ids, vectors).select(["image_id", "vector_s"])
