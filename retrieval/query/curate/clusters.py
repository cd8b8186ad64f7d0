"""Clusters of a collection as columns: a number, the largest first, and a name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.curate import kmeans, names
from retrieval.query.space_vectors import SpaceVectors
from retrieval.store import Store
from retrieval.types import Embeddings
from retrieval.vectors.sorted_ids import places

if TYPE_CHECKING:
    from retrieval.encoders import TextEncoder

_BLOCK = 8192
_FEWEST, _MOST = 2, 50


def usual_number(n: int) -> int:
    """How many clusters ``n`` images get by default: √n / 2, from 2 to 50."""
    return max(min(_FEWEST, n), min(_MOST, round(math.sqrt(n) / 2)))


def clustered(vectors: SpaceVectors, k: int, seed: int) -> NDArray[np.int64]:
    """int64 ``[n]``: the cluster of each row, from 0, the largest first.

    Raises:
        QueryError: if there are fewer rows than clusters.
    """
    n = vectors.shape[0]
    if not 1 <= k <= n:
        raise QueryError(f"cannot make {k} clusters of {n} images with a vector")
    order = np.argsort(vectors.ids, kind="stable")  # not the order in which they are stored
    rows = vectors.take(order[kmeans.sample(n, k, seed)])
    own = kmeans.assign(vectors.blocks, kmeans.centres(rows, k, seed))
    sizes = np.bincount(own, minlength=k)
    first = np.full(k, np.iinfo(np.int64).max)
    np.minimum.at(first, own, vectors.ids)
    rank = np.empty(k, dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(k)
    return rank[own]


def named_by_words(
    vectors: SpaceVectors,
    ids: NDArray[np.int64],
    own: NDArray[np.int64],
    encoder: TextEncoder,
    words: Path | None,
) -> list[str | None]:
    """A name for each cluster by :func:`retrieval.query.curate.names.by_words`.

    Args:
        vectors: of the space that words are in.
        ids: int64 ``[n]``, of the images that are in clusters.
        own: int64 ``[n]``, their clusters.
        encoder: of that space.
        words: file of words to choose from.
    """
    known = names.vocabulary(words)
    means, some = _means(vectors, ids, own)
    found = names.by_words(means[some], known, names.word_vectors(encoder, known))
    named: list[str | None] = [None] * len(means)
    for number, name in zip(np.flatnonzero(some).tolist(), found, strict=True):
        named[number] = name
    return named


def named_by_labels(
    store: Store, ids: NDArray[np.int64], own: NDArray[np.int64]
) -> list[str | None]:
    """The most frequent label of each cluster; None where no image has one."""
    here = np.isin(ids, store.ids())  # others may delete meanwhile
    labels = store.rows(ids[here], ["label"])["label"].to_pylist()
    return names.by_labels(own[here], labels, int(own.max()) + 1)


def _means(
    vectors: SpaceVectors, ids: NDArray[np.int64], own: NDArray[np.int64]
) -> tuple[Embeddings, NDArray[np.bool_]]:
    """Unit means of the clusters in another space, and which of them have one."""
    order = np.argsort(ids, kind="stable")
    sums = np.zeros((int(own.max()) + 1, vectors.shape[1]))
    for some, rows in vectors.named_blocks(_BLOCK):
        at = places(ids[order], some)
        which = own[order[at[at >= 0]]]
        np.add.at(sums, which, rows[at >= 0].astype(np.float64))
    lengths = np.linalg.norm(sums, axis=1)
    has = lengths > 0
    sums[has] /= lengths[has, None]
    return sums.astype(np.float32), has
