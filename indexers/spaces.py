"""Which collection a run writes to, and which encoders it uses."""

from __future__ import annotations

import os
from collections.abc import Sequence

from retrieval import settings
from retrieval.encoders import Encoder, load, space_of
from retrieval.errors import CollectionNotFound
from retrieval.query import Collection, open_collection
from retrieval.types import VectorType


def collection_for(
    collection: Collection | str | os.PathLike[str],
    encoders: Sequence[str | Encoder] | None,
    dtype: VectorType,
    *,
    dry_run: bool,
) -> Collection | None:
    """The collection to write to: opened, or made; None where a dry run would have to make it."""
    if isinstance(collection, Collection):
        return collection
    try:
        return open_collection(collection, create=not dry_run, encoders=encoders, dtype=dtype)
    except CollectionNotFound:
        if dry_run:
            return None
        raise


def encoders_for(
    collection: Collection | None, extra: Sequence[str | Encoder] | None, dtype: VectorType
) -> list[Encoder]:
    """The encoders of the collection's spaces, after adding spaces for ``extra`` ones.

    Raises:
        SpaceMismatch: if an encoder is not the one that made the collection's space.
    """
    if collection is None:
        names = extra if extra is not None else settings.load().encoders
        return [_loaded(each) for each in names]
    for encoder in map(_loaded, extra or ()):
        if encoder.spec.name not in collection.spaces:
            collection.store.add_space(space_of(encoder, dtype))
        collection.use(encoder)
    return [collection.encoder(name) for name in collection.spaces]


def _loaded(encoder: str | Encoder) -> Encoder:
    return load(encoder) if isinstance(encoder, str) else encoder
