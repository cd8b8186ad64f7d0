"""The kinds of index by name, each made in a file of its own."""

from __future__ import annotations

from retrieval.errors import VectorIndexError
from retrieval.vectors.base import Backend

_FAISS = ("hnsw", "ivf-flat", "ivf-sq8", "ivf-pq", "rabitq", "ivf-rabitq")
_FAISS_GPU = ("gpu-flat", "gpu-ivf-flat", "gpu-ivf-pq", "gpu-cagra")
_LANCE = ("lance-ivf-pq", "lance-ivf-rq", "lance-ivf-hnsw-sq")
KINDS = ("exact", "torch", *_FAISS, *_FAISS_GPU, *_LANCE)
"""Every kind there is; :meth:`Backend.missing` says which can be used here."""


def backend(kind: str) -> Backend:
    """How indexes of ``kind`` are built and opened; imports nothing heavy yet.

    Raises:
        VectorIndexError: if there is no such kind; names those there are.
    """
    if kind == "exact":
        from retrieval.vectors.scan import Scan

        return Scan()
    if kind == "torch":
        from retrieval.vectors.torch_scan import TorchScan

        return TorchScan()
    if kind in _FAISS:
        from retrieval.vectors.faiss_cpu import FaissCpu

        return FaissCpu(kind)
    if kind in _FAISS_GPU:
        from retrieval.vectors.faiss_gpu import FaissGpu

        return FaissGpu(kind)
    if kind in _LANCE:
        from retrieval.vectors.lance_native import LanceNative

        return LanceNative(kind)
    raise VectorIndexError(f"there is no kind of index {kind!r}; there are {', '.join(KINDS)}")
