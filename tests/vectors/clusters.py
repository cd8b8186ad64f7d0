"""Unit vectors that lie in clusters, as embeddings do, and rows that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.exact import nearest


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array in memory."""

    matrix: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    def blocks(self, size: int, start: int = 0) -> Iterator[NDArray[np.float32]]:
        for begin in range(start, len(self.matrix), size):
            yield self.matrix[begin : begin + size]

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        assert positions.min(initial=0) >= 0, "only real rows may be asked for"
        return self.matrix[positions]


@dataclass(frozen=True)
class Clustered:
    """Rows, the cluster of each, and queries from the same clusters that are no rows."""

    rows: ArrayRows
    cluster: NDArray[np.int64]
    queries: NDArray[np.float32]


def clustered(n: int, dim: int, *, queries: int = 64, seed: int = 0) -> Clustered:
    """Clusters of very different sizes, each wide in some twenty directions of its own."""
    rng = np.random.default_rng(seed)
    count, total, latent = max(2, int(n**0.5 / 2)), n + queries, min(dim, 64)
    share = rng.pareto(1.5, count) + 0.2
    cluster = rng.choice(count, size=total, p=share / share.sum())
    centres = rng.standard_normal((count, dim), dtype=np.float32)
    widths = rng.exponential(1.0, (count, latent)).astype(np.float32) ** 1.5
    basis = rng.standard_normal((latent, dim), dtype=np.float32) / np.float32(latent**0.5)
    points = (rng.standard_normal((total, latent), dtype=np.float32) * widths[cluster]) @ basis
    points *= rng.uniform(0.3, 0.9, count).astype(np.float32)[cluster, None]
    points += centres[cluster] + 0.15 * rng.standard_normal((total, dim), dtype=np.float32)
    points += 0.5 * rng.standard_normal(dim, dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return Clustered(ArrayRows(points[:n]), cluster[:n], points[n:])


def truth(rows: ArrayRows, queries: NDArray[np.float32], k: int, allowed=None) -> NDArray[np.int64]:
    """The exact k nearest positions, -1 where there are fewer."""
    every = np.arange(len(rows.matrix))
    ids = None if allowed is None else np.flatnonzero(allowed)
    return nearest([(every, rows.matrix)], queries, k, allowed=ids).ids


def rescored(
    rows: ArrayRows, queries: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """The k best of each query's candidates by exact cosine."""
    found = np.full((len(queries), k), -1, np.int64)
    for row, some in enumerate(candidates):
        ids = np.sort(some[some >= 0])
        found[row] = nearest([(ids, rows.take(ids))], queries[row : row + 1], k).ids[0]
    return found


def recall(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    """Share of the wanted positions that were found; 1 if none was wanted."""
    if not (wanted >= 0).any():
        return 1.0
    pairs = zip(found, wanted, strict=True)
    hits = sum(len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in pairs)
    return hits / int((wanted >= 0).sum())
