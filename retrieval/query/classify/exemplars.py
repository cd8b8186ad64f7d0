"""The labelled images of a collection as exemplars: their classes and their vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.classify.search import search
from retrieval.query.classify.votes import Codes
from retrieval.query.space_vectors import SpaceVectors
from retrieval.store import Store
from retrieval.types import Embeddings
from retrieval.vectors.base import Positions

Label: TypeAlias = str | int | bool

MOST_CLASSES = 5000
_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Labelled images, in the order of their ids. Their vectors can be read as blocks of rows.

    Attributes:
        ids: int64 ``[n]``, ascending.
        codes: int64 ``[n]``: number of the class of each.
        classes: the labels that there are, sorted.
        unlabelled: images that take no part since they have no label.
        no_vector: labelled images that take no part since they have no vector in the space.
        version: of the collection.
    """

    ids: NDArray[np.int64]
    codes: Codes
    classes: tuple[Label, ...]
    unlabelled: int
    no_vector: int
    version: int
    vectors: SpaceVectors
    at: Positions
    """Where each is among ``vectors``."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of exemplars, and the dimension of their vectors."""
        return len(self.ids), self.vectors.shape[1]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 ``[classes]``: how many exemplars each class has."""
        return np.bincount(self.codes, minlength=len(self.classes))

    def take(self, positions: Positions) -> Embeddings:
        """float32 ``[m, dim]``: vectors of the exemplars at ``positions``."""
        return self.vectors.take(self.at[positions])

    def blocks(self, size: int, start: int = 0) -> Iterator[Embeddings]:
        """float32 ``[≤ size, dim]``: all vectors from ``start`` on, in order."""
        for at in range(start, len(self.ids), size):
            yield self.vectors.take(self.at[at : at + size])

    def search(
        self, queries: Embeddings, k: int, without: Positions | None = None
    ) -> tuple[Positions, NDArray[np.float32]]:
        """The k nearest exemplars of each query; see :func:`~.search.search`.

        Args:
            queries: float32 ``[q, dim]``, unit rows.
            k: at least 1.
            without: int64 ``[q]``: an exemplar that is not a neighbour of the query, as the query
                itself; -1 for none.

        Returns:
            Positions int64 ``[q, k]`` and float32 cosines ``[q, k]``, best first, equal ones in
            the order of their ids; -1 and -inf where there are fewer.
        """
        return search(_named(self.blocks(_BLOCK_ROWS)), self.take, queries, k, without)

    def codes_of(self, positions: Positions) -> Codes:
        """The class of each neighbour; -1 where there is none."""
        return np.where(positions >= 0, self.codes[positions], -1)


def gather(store: Store, vectors: SpaceVectors, column: str, where: str | None) -> Exemplars:
    """Find the labelled images for which ``where`` holds.

    Args:
        store: to read the labels from.
        vectors: of the space that is compared in.
        column: of text, whole numbers, or true and false; null means unlabelled.
        where: filter expression; None for all images.

    Raises:
        QueryError: if there is no such column, it is not one of labels, or fewer than two classes
            have an exemplar.
        FilterError: if ``where`` does not parse or fit the columns.
    """
    _check_column(store, column)
    ids = store.ids(where)
    told = store.rows(ids, [column])[column]
    labelled = told.is_valid().to_numpy()
    ids, labels = ids[labelled], told.drop_null().to_pylist()
    at = vectors.positions(ids)
    kept = at >= 0
    classes = tuple(sorted({label for label, k in zip(labels, kept.tolist(), strict=True) if k}))
    no_vector = int(len(ids) - np.count_nonzero(kept))
    unlabelled = int(len(labelled) - np.count_nonzero(labelled))
    _check_classes(classes, column, len(labelled), unlabelled, no_vector)
    numbers = {label: number for number, label in enumerate(classes)}
    codes = np.array([numbers.get(label, -1) for label in labels], dtype=np.int64)
    return Exemplars(
        ids[kept],
        codes[kept],
        classes,
        unlabelled,
        no_vector,
        vectors.version,
        vectors,
        at[kept],
    )


def _named(blocks: Iterator[Embeddings]) -> Iterator[tuple[Positions, Embeddings]]:
    """Blocks with the positions of their rows."""
    at = 0
    for block in blocks:
        yield np.arange(at, at + len(block)), block
        at += len(block)


def _check_column(store: Store, column: str) -> None:
    import pyarrow as pa

    schema = store.columns()
    tests = pa.types.is_string, pa.types.is_integer, pa.types.is_boolean
    fits = [field.name for field in schema if any(test(field.type) for test in tests)]
    if column not in schema.names:
        raise QueryError(f"no column {column!r} in {store.uri}; there are {', '.join(fits)}")
    if column not in fits:
        raise QueryError(
            f"column {column!r} holds {schema.field(column).type}: labels are text, whole numbers, "
            f"or true and false, as in {', '.join(fits)}"
        )


def _check_classes(
    classes: tuple[Any, ...], column: str, images: int, unlabelled: int, no_vector: int
) -> None:
    if len(classes) > MOST_CLASSES:
        raise QueryError(
            f"column {column!r} has {len(classes)} different values, more than {MOST_CLASSES}: "
            "choose one that names kinds of images"
        )
    if len(classes) >= 2:
        return
    if not images:
        raise QueryError("there is no image to learn from: index some first, or ask for more")
    parts = [f"{unlabelled} of {images} images have no label"] if unlabelled else []
    parts += [f"{no_vector} have no vector in the space"] if no_vector else []
    has = f"only the class {classes[0]!r}" if classes else "no class"
    why = f" ({' and '.join(parts)})" if parts else ""
    raise QueryError(
        f"column {column!r} has {has} with exemplars{why}: at least two classes are needed. "
        "`retrieval index --labels FILE.csv:COLUMN` or `--labels folder` brings labels in"
    )
