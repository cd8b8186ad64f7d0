"""The recipe of every FAISS kind: its structure, its cells, and what it is trained on."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Rows
from retrieval.vectors.faiss_install import load_faiss, threads

BLOCK = 65_536
_GPU_SUBVECTORS = (64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
_PER_CELL = 64
_LEAST_PER_CELL = 39
_FEW = 1_000
_LINKS = 32
_KMEANS_ROUNDS = 8


def cells(n: int) -> int:
    """Cells of an inverted file over ``n`` rows: 4·√n, but 39 rows for each to be trained on."""
    return max(1, min(int(4 * n**0.5), n // _LEAST_PER_CELL))


def describe(kind: str, dim: int, n: int) -> str:
    """The structure of ``kind`` in the words of FAISS's index factory.

    RaBitQ keeps one bit a dimension and is blind to a dimension that holds much of the variance,
    as after PCA; a random rotation, which costs some 10 µs a query, spreads it (Gao and Long, 2024,
    arXiv 2405.12497). Measured with FAISS 1.15 at equal recall: in cells RaBitQ without fast-scan
    answers faster than with it, over one big list it is the other way round. One cell instead of
    ``RaBitQfs`` alone, because only inverted files take a selector. HNSW keeps its vectors in 8
    bits, a third of the bytes of float32 and quicker, since exact scores are taken elsewhere.
    GPUs want product codes of 8 bits and at most 64 bytes, so that their tables fit on the chip.
    """
    nlist = cells(n)
    halves = dim // 2 if dim % 2 == 0 else dim
    coarse = next(parts for parts in _GPU_SUBVECTORS if dim % parts == 0)
    return {
        "hnsw": f"HNSW{_LINKS}_SQ8",
        "ivf-flat": f"IVF{nlist},Flat",
        "ivf-sq8": f"IVF{nlist},SQ8",
        "ivf-pq": f"IVF{nlist},PQ{halves}x4fs",
        "rabitq": f"RR{dim},IVF1,RaBitQfs",
        "ivf-rabitq": f"RR{dim},IVF{nlist},RaBitQ",
        "gpu-flat": "Flat",
        "gpu-ivf-flat": f"IVF{nlist},Flat",
        "gpu-ivf-pq": f"IVF{nlist},PQ{coarse}",
    }[kind]


def trained(kind: str, rows: Rows, clustering: Any = None) -> Any:
    """An empty index of ``kind``, trained on a sample that is spread over all ``rows``.

    Args:
        kind: one that :func:`describe` knows.
        rows: what will be added.
        clustering: an empty flat index, on GPUs say, that finds the nearest centres in k-means.
    """
    faiss = load_faiss()
    n, dim = rows.shape
    index = faiss.index_factory(dim, describe(kind, dim, n), faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = 100
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        inverted.cp.niter = _KMEANS_ROUNDS
        inverted.cp.max_points_per_centroid = _PER_CELL
        # The centre of a single cell is the mean itself: moved to the sphere it would be far off.
        inverted.cp.spherical = inverted.nlist > 1
        if clustering is not None:
            inverted.clustering_index = clustering
    if not index.is_trained:
        chosen = sample(rows, _PER_CELL * cells(n))
        if kind == "ivf-pq":
            # Its many small k-means lose more by waiting for each other's threads than they win.
            inverted.train_q1(len(chosen), faiss.swig_ptr(chosen), False, index.metric_type)
        with threads(faiss, 1) if kind == "ivf-pq" else nullcontext():
            index.train(chosen)
    if inverted is not None:
        inverted.clustering_index = None
    return index


def sample(rows: Rows, wanted: int) -> NDArray[np.float32]:
    """Rows to train on, the same at every call; random directions fill up what few rows lack."""
    n, dim = rows.shape
    rng = np.random.default_rng(0)
    wanted = min(n, max(wanted, 16 * _FEW))
    chosen = rows.take(np.sort(rng.choice(n, wanted, replace=False)).astype(np.int64))
    if wanted >= _FEW:
        return np.ascontiguousarray(chosen, dtype=np.float32)
    more = rng.standard_normal((_FEW - wanted, dim), dtype=np.float32)
    more /= np.linalg.norm(more, axis=1, keepdims=True)
    return np.concatenate([chosen, more], dtype=np.float32)
