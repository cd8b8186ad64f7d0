"""Derived spaces: another space's vectors, truncated, projected or whitened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders import Encoder
from retrieval.encoders.transformed import TransformedEncoder, transformed
from retrieval.errors import CollectionError, SpaceMismatch
from retrieval.query.axes import Moments
from retrieval.store import Store
from retrieval.store.opening import told
from retrieval.store.transforms import KINDS, Kind, Transform
from retrieval.types import Embeddings, Space

Watch = Callable[[int, int], None]

FITTED_ROWS = 100_000
_BLOCK_ROWS = 8192
_SHORT = {"truncate": "first", "pca": "pca", "whiten": "white"}


def derive(
    store: Store, base: str, kind: Kind, dim: int, name: str | None, watch: Watch | None
) -> Space:
    """Make a derived space, or go on with one; see :meth:`Collection.derive`."""
    source = store.space(base)
    _check(source, kind, dim)
    name = name or f"{base}-{_SHORT[kind]}{dim}"
    pooling = f"{source.pooling}|{kind}-{dim}"
    there = store.spaces.get(name)
    if there is None:
        transform = fit(store, source, kind, dim)
        made = Space(
            name=name,
            encoder=source.encoder,
            weights_hash=transform.digest(source.weights_hash),
            preprocess_hash=source.preprocess_hash,
            pooling=pooling,
            dim=dim,
            modalities=source.modalities,
            dtype=source.dtype,
            runtime=source.runtime,
            base=base,
        )
        store.derived.remember(made, transform)
        store.add_space(made)
    elif (there.base, there.pooling) != (base, pooling):
        raise SpaceMismatch(
            f"the name {name!r} belongs to a space made by {told(there)}; choose another one"
        )
    if store.derived.fill(store.space(name), watch):
        store.optimize()
    return store.space(name)


def fit(store: Store, base: Space, kind: Kind, dim: int) -> Transform:
    """The transform of a kind that suits the vectors of ``base`` that are stored now.

    Raises:
        CollectionError: if they are too few, or too much alike.
    """
    if kind == "truncate":
        return Transform.truncate(dim)
    count = store.embedded(base.name)
    if count < 2 * dim:
        raise CollectionError(
            f"space {base.name!r} has {count} vectors, too few to find {dim} axes that will suit "
            f"later images: it takes {2 * dim}, or a dim of at most {count // 2}"
        )
    moments = Moments(base.dim)
    for block in _sample(store, base.name, count):
        moments.add(block)
    mean, axes, deviations = moments.axes()
    if dim > len(deviations):
        raise CollectionError(
            f"the vectors of space {base.name!r} differ in {len(deviations)} directions only; "
            "choose a dim that is not larger"
        )
    matrix = axes[:, :dim] / deviations[:dim] if kind == "whiten" else axes[:, :dim]
    return Transform(kind, dim, mean.astype(np.float32), matrix.astype(np.float32))


def encoder_of_derived(store: Store, space: Space, base: Encoder) -> TransformedEncoder:
    """The encoder of a derived space, on the encoder of its base.

    It maps embeddings as they would be stored, so that what is encoded and what is made of stored
    vectors are the same.

    Raises:
        SchemaError: if the transform is missing or damaged.
    """
    transform = store.derived.transform(space)
    stored = np.dtype(space.dtype)

    def project(vectors: Embeddings) -> Embeddings:
        return transform(vectors.astype(stored))

    return transformed(base, space, project)


def _check(base: Space, kind: str, dim: int) -> None:
    if kind not in KINDS:
        raise CollectionError(f"a space is derived by one of {', '.join(KINDS)}, not {kind!r}")
    if base.base is not None:
        raise CollectionError(
            f"space {base.name!r} is itself derived; derive from {base.base!r} instead"
        )
    if not 1 <= dim <= base.dim:
        raise CollectionError(
            f"dim is from 1 to {base.dim}, that of space {base.name!r}, not {dim}"
        )


def _sample(store: Store, space: str, count: int) -> Iterator[NDArray[Any]]:
    """Blocks of up to ``FITTED_ROWS`` of a space's ``count`` vectors, spread evenly over them."""
    wanted = np.arange(min(count, FITTED_ROWS)) * count // min(count, FITTED_ROWS)
    start = 0
    for _, block in store.vectors(space, block_rows=_BLOCK_ROWS):
        first, last = np.searchsorted(wanted, (start, start + len(block)))
        yield block[wanted[first:last] - start]
        start += len(block)
