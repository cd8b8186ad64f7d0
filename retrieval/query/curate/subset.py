"""A few images that stand for many."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.curate.candidates import Candidates, among, equal_shares
from retrieval.query.curate.coverage import coverage
from retrieval.query.curate.farthest import farthest
from retrieval.query.space_vectors import SpaceVectors
from retrieval.store import Store
from retrieval.vectors.tiles import Tell

Method = Literal["farthest", "coverage"]


def pick(
    store: Store,
    vectors: SpaceVectors,
    n: int,
    method: Method,
    per: str | None,
    where: str | None,
    seed: int,
    tell: Tell | None,
) -> NDArray[np.int64]:
    """Ids in the order they were picked; see :meth:`Curating.subset`."""
    if method not in get_args(Method):
        raise QueryError(f"no method {method!r}; there are {' and '.join(get_args(Method))}")
    ids, rows = among(vectors, store.ids(where))
    groups = np.zeros(len(ids), dtype=np.int64)
    if per is not None:
        groups = _groups(store, ids, per)
        ids, rows, groups = ids[groups >= 0], rows[groups >= 0], groups[groups >= 0]
    if not 1 <= n <= len(ids):
        which = "images" if where is None else "images that fit the filter"
        have = f" with a vector and a value in {per!r}" if per else " with a vector"
        raise QueryError(f"cannot pick {n} of {len(ids)} {which}{have}")
    quotas = equal_shares(np.bincount(groups), n)
    candidates = Candidates(ids, rows, groups, quotas)
    if method == "farthest":
        return ids[farthest(candidates, n, seed, tell)]
    return ids[coverage(candidates, n, tell)]


def _groups(store: Store, ids: NDArray[np.int64], column: str) -> NDArray[np.int64]:
    """Number of each image's value among the sorted values; -1 for none."""
    if column not in store.columns().names:
        raise QueryError(f"no column {column!r}; there are {', '.join(store.columns().names)}")
    values = store.rows(ids, [column])[column].to_pylist()
    numbers = {value: at for at, value in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if v is None else numbers[v] for v in values], dtype=np.int64)
