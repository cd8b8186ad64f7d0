"""Which collection a run writes to, and which encoders it uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from PIL import Image

from indexers.labels import Labels
from retrieval import settings
from retrieval.encoders import Encoder, load, resolve, space_of
from retrieval.errors import CollectionError, CollectionNotFound, EncoderError
from retrieval.query import Collection, open_collection
from retrieval.store import check_columns, check_spaces
from retrieval.types import VectorType

Encoders = Sequence[str | Encoder] | None


class Loader:
    """Loads each encoder of a run once, in the precision that was asked for."""

    def __init__(
        self,
        precision: str = "fp32",
        sample: Callable[[], Sequence[Image.Image]] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """See :func:`retrieval.encoders.load` for ``precision``, ``sample`` and ``tell``."""
        self.precision = precision
        self._sample = sample
        self._tell = tell
        self._loaded: dict[str, Encoder] = {}

    def __call__(self, encoder: str | Encoder) -> Encoder:
        """The object itself, or the encoder of that name; raises as ``load``."""
        if not isinstance(encoder, str):
            return resolve(encoder)
        if encoder not in self._loaded:
            self._loaded[encoder] = load(
                encoder, precision=self.precision, sample=self._sample, tell=self._tell
            )
        return self._loaded[encoder]


def collection_for(
    collection: Collection | str | os.PathLike[str],
    encoders: Encoders,
    dtype: VectorType | None,
    labels: Labels | None,
    loader: Loader,
    *,
    dry_run: bool,
) -> Collection | None:
    """The collection to write to: opened, or made; None where a dry run would have to make it.

    It has the columns that ``labels`` brings, unless this is a dry run.

    Raises:
        CollectionError: if a label column cannot be one, or ``dtype`` is not what is stored;
            nothing is written.
        EncoderError: if a new collection is to have no encoder at all.
    """
    if encoders is not None and (isinstance(encoders, str) or not encoders):
        raise EncoderError(f"encoders is a list of at least one name or object, not {encoders!r}")
    columns = labels.columns if labels else {}
    check_columns(columns)
    opened = _open(collection, encoders, dtype, loader, dry_run)
    if opened is None:
        return None
    for space in opened.spaces.values():
        if dtype is not None and space.dtype != dtype:
            raise CollectionError(
                f"space {space.name!r} stores {space.dtype}, not {dtype}: make a new collection, "
                "or leave the type out"
            )
    if not dry_run:
        opened.store.add_columns(check_columns(columns, opened.store.columns()))
    return opened


def encoders_for(
    collection: Collection | None,
    extra: Encoders,
    dtype: VectorType | None,
    loader: Loader,
    *,
    dry_run: bool,
) -> list[Encoder]:
    """The encoders of the collection's spaces and, after adding spaces for them, ``extra`` ones.

    Raises:
        SpaceMismatch: if an encoder is not the one that made the collection's space.
    """
    if collection is None:
        return [loader(each) for each in extra or settings.load().encoders]
    new = []
    for encoder in map(loader, extra or ()):
        if encoder.spec.name in collection.spaces:
            collection.use(encoder)
        else:
            new.append(encoder)
    there = [
        collection.encoder(name, loader, precision=loader.precision)
        for name, space in collection.spaces.items()
        if space.base is None or not dry_run  # what is derived costs a dry run's files nothing
    ]
    if not dry_run:
        spaces = [space_of(encoder, dtype or "float32") for encoder in new]
        check_spaces([*collection.spaces.values(), *spaces])
        for space, encoder in zip(spaces, new, strict=True):
            collection.store.add_space(space)
            collection.use(encoder)
    return there + new


def fill_derived(collection: Collection | None, *, dry_run: bool) -> None:
    """Make the vectors that derived spaces lack where those of their bases are stored.

    What is left is new to both, and is encoded once for both.
    """
    if collection is None or dry_run:
        return
    for space in collection.spaces.values():
        if space.base is not None:
            collection.store.derived.fill(space)


def _open(
    collection: Collection | str | os.PathLike[str],
    encoders: Encoders,
    dtype: VectorType | None,
    loader: Loader,
    dry_run: bool,
) -> Collection | None:
    if isinstance(collection, Collection):
        return collection
    try:
        return open_collection(collection)
    except CollectionNotFound:
        if dry_run:
            return None
    names = encoders if encoders is not None else settings.load().encoders
    made = [loader(each) for each in names]
    return open_collection(collection, create=True, encoders=made, dtype=dtype or "float32")
