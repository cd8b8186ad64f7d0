"""Opening and creating collections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from retrieval import settings
from retrieval.encoders import Encoder, resolve, space_of
from retrieval.errors import CollectionError, CollectionNotFound, EncoderError
from retrieval.query.collection import Collection
from retrieval.store import Store
from retrieval.types import Space, VectorType
from retrieval.vectors.faiss_install import guard


def open_collection(
    path: str | os.PathLike[str],
    create: bool = False,
    *,
    encoders: Sequence[str | Encoder] | None = None,
    dtype: VectorType = "float32",
    storage_options: Mapping[str, str] | None = None,
) -> Collection:
    """Open the collection at ``path``, or make it.

    Args:
        path: directory or object-store URI.
        create: make the collection if there is none.
        encoders: names or objects: the encoders of a *new* collection, by default those of the
            settings, which are the pocket pair. An existing collection keeps its spaces; objects
            (encoders of your own) serve the spaces of their name.
        dtype: how a *new* collection stores vectors; float16 halves their size at a cosine error
            below 1e-3.
        storage_options: credentials and endpoint of an object store.

    Raises:
        CollectionNotFound: if there is none and ``create`` is false.
        InstallError: if two distributions of FAISS overwrite each other.
        EncoderUnavailable: if a new collection's encoder cannot be loaded; nothing is written.
    """
    guard()
    uri = os.fspath(path)
    if not uri.strip():
        raise CollectionError("the path of the collection is empty")
    if isinstance(encoders, str):
        raise EncoderError(f"encoders is a list: [{encoders!r}]")
    options = dict(storage_options) if storage_options else None
    names = encoders if encoders is not None else settings.load().encoders
    given = [each if isinstance(each, str) else resolve(each) for each in names]
    try:
        collection = Collection(Store.open(uri, storage_options=options))
    except CollectionNotFound:
        if not create:
            raise
        loaded = [resolve(each) for each in given]
        given = list(loaded)
        spaces = [space_of(each, dtype) for each in loaded]
        collection = Collection(_create(uri, spaces, options))
    for each in given:
        if not isinstance(each, str) and each.spec.name in collection.spaces:
            collection.use(each)
    return collection


def _create(uri: str, spaces: Sequence[Space], options: dict[str, str] | None) -> Store:
    """Make a collection, or open the one that another process made at the same moment."""
    try:
        return Store.create(uri, spaces, storage_options=options)
    except CollectionError:
        if not Store.exists(uri, storage_options=options):
            raise
        return Store.open(uri, storage_options=options)
