"""A flat map of a space: images that are alike lie near each other."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import InstallError, QueryError
from retrieval.query.space_vectors import SpaceVectors
from retrieval.types import Embeddings, Neighbors
from retrieval.vectors.tiles import Tell

MapMethod = Literal["auto", "umap", "pca"]
NEIGHBORS = 15
_FEWEST = 2 * NEIGHBORS  # images; fewer have no neighbourhoods to keep
_BLOCK = 8192
Points = NDArray[np.float64]


def chosen(method: MapMethod, n: int) -> Literal["umap", "pca"]:
    """The method that draws ``n`` images.

    Raises:
        QueryError: if there is no such method.
        InstallError: if UMAP is asked for and is not installed.
    """
    if method not in get_args(MapMethod):
        raise QueryError(f"no method {method!r}; there are {', '.join(get_args(MapMethod))}")
    there = find_spec("umap") is not None
    if method == "umap" and not there:
        raise InstallError("UMAP is not installed: pip install 'retrieval[map]', or ask for pca")
    return "umap" if method != "pca" and there and n >= _FEWEST else "pca"


def pca(vectors: SpaceVectors) -> Points:
    """float64 ``[n, 2]``: places on the two main axes; the same for the same vectors."""
    n, dim = vectors.shape
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for block in vectors.blocks(_BLOCK):
        rows = block.astype(np.float64)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    mean = total / max(1, n)
    _, axes = np.linalg.eigh(products / max(1, n) - np.outer(mean, mean))
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(axes.shape[1])])
    found = [np.empty((0, axes.shape[1]))]
    found += [(block - mean) @ axes for block in vectors.blocks(_BLOCK)]
    flat = np.concatenate(found)
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def umap(vectors: SpaceVectors, seed: int, tell: Tell | None) -> Points:
    """float64 ``[n, 2]``: places by UMAP (McInnes, Healy and Melville 2018).

    It is given the exact neighbours and begins at the places of :func:`pca`, so that it draws the
    same map again. All vectors are held in memory. A map tells who is near whom; its distances and
    the sizes of its groups mean little.
    """
    from umap import UMAP

    graph = vectors.knn_graph(NEIGHBORS - 1, tell=tell)
    start = scaled(pca(vectors)) * 10  # about the size of a finished map
    drawing = UMAP(
        n_neighbors=NEIGHBORS,
        metric="cosine",
        init=start.astype(np.float32),
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(*_with_self(graph, vectors), None),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is asked for on purpose
        found = drawing.fit_transform(_all(vectors))
    return np.asarray(found, dtype=np.float64)


def scaled(points: Points) -> Points:
    """Into [-1, 1], the middle in the middle, with one scale for both axes."""
    if len(points) == 0:
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    half = float((high - low).max()) / 2
    flat: Points = np.clip((points - (low + high) / 2) / (half or 1.0), -1.0, 1.0)
    return flat


def _with_self(
    graph: Neighbors, vectors: SpaceVectors
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and cosine distances of each row's neighbours, itself first."""
    at = vectors.positions(graph.ids.ravel()).reshape(graph.ids.shape)
    own = np.arange(len(at))[:, None]
    distances = np.maximum(1.0 - graph.scores, 0.0)
    return (
        np.hstack([own, at]),
        np.hstack([np.zeros((len(at), 1), np.float32), distances]).astype(np.float32),
    )


def _all(vectors: SpaceVectors) -> Embeddings:
    return vectors.take(np.arange(vectors.shape[0]))
