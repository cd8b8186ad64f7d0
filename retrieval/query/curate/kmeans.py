"""Spherical k-means: clusters of unit vectors by cosine, the same on every machine for a seed.

Lloyd's iterations on cosines (I. S. Dhillon and D. S. Modha, "Concept decompositions for large
sparse text data using clustering", 2001) from k-means++ starts (D. Arthur and S. Vassilvitskii,
2007). FAISS has it too; it is an extra here, and the same clusters shall come out without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Embeddings

_STARTS = 4
_ROUNDS = 50
_LEARN = 256  # images a cluster is learnt from, on average, at most
_BLOCK = 8192
Blocks = Callable[[int], Iterator[Embeddings]]


def centres(rows: Embeddings, k: int, seed: int) -> Embeddings:
    """float32 ``[k, dim]``: unit centres of the best of some starts.

    Args:
        rows: float32 ``[n, dim]``, unit rows, n at least k; see :func:`sample`.
        k: how many.
        seed: of the starts.
    """
    rng = np.random.default_rng(seed)
    best, most = None, -np.inf
    for _ in range(_STARTS):
        found, total = _lloyd(rows, _spread(rows, k, rng))
        if total > most:
            best, most = found, total
    assert best is not None
    return best


def sample(n: int, k: int, seed: int) -> NDArray[np.int64]:
    """Positions of the rows to learn ``k`` centres from: all, or some by chance; ascending."""
    if n <= _LEARN * k:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, _LEARN * k, replace=False))


def assign(blocks: Blocks, centres: Embeddings) -> NDArray[np.int64]:
    """int64 ``[n]``: the nearest centre of every row."""
    found = [np.argmax(block @ centres.T, axis=1) for block in blocks(_BLOCK)]
    return np.concatenate([np.empty(0, np.int64), *found])


def _spread(rows: Embeddings, k: int, rng: np.random.Generator) -> Embeddings:
    """Rows far from each other by chance, in proportion to the squared distance."""
    chosen = [int(rng.integers(len(rows)))]
    nearest = rows @ rows[chosen[0]]
    while len(chosen) < k:
        far = np.maximum(1.0 - nearest.astype(np.float64), 0.0)
        far[chosen] = 0.0
        if not far.any():  # all rows are the same as a chosen one
            far = np.ones(len(rows))
            far[chosen] = 0.0
        chosen.append(int(rng.choice(len(rows), p=far / far.sum())))
        np.maximum(nearest, rows @ rows[chosen[-1]], out=nearest)
    return rows[chosen]


def _lloyd(rows: Embeddings, start: Embeddings) -> tuple[Embeddings, float]:
    """Centres that no more move, and the sum of the cosines to them."""
    found, before = start, None
    for _ in range(_ROUNDS):
        cosines = rows @ found.T
        own = np.argmax(cosines, axis=1)
        total = float(cosines[np.arange(len(rows)), own].sum(dtype=np.float64))
        if before is not None and np.array_equal(own, before):
            break
        found, before = _means(rows, own, found), own
    return found, total


def _means(rows: Embeddings, own: NDArray[np.int64], old: Embeddings) -> Embeddings:
    """Unit means of the clusters; an empty one, or one whose mean is nothing, stays."""
    order = np.argsort(own, kind="stable")
    new = old.copy()
    starts = np.searchsorted(own[order], np.arange(len(old) + 1))
    for number in range(len(old)):
        some = rows[order[starts[number] : starts[number + 1]]]
        mean = some.sum(axis=0, dtype=np.float64)
        length = np.linalg.norm(mean)
        if length > 1e-6:
            new[number] = mean / length
    return new
