"""Some images of two spaces, row by row the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.space_vectors import SpaceVectors
from retrieval.types import Embeddings
from retrieval.vectors.base import Positions


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a space, in the order of their ids.

    Attributes:
        ids: int64 ``[n]``, ascending.
        vectors: of the space.
        at: where each is among them.
    """

    ids: NDArray[np.int64]
    vectors: SpaceVectors
    at: Positions

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""
        return len(self.ids), self.vectors.shape[1]

    def take(self, positions: Positions) -> Embeddings:
        """float32 ``[m, dim]``: the rows at ``positions``."""
        return self.vectors.take(self.at[positions])

    def blocks(self, size: int, start: int = 0) -> Iterator[Embeddings]:
        """float32 ``[≤ size, dim]``: all rows from ``start`` on, in order.

        Raises:
            QueryError: naming an image whose vector is not finite.
        """
        for at in range(start, len(self.ids), size):
            block = self.vectors.take(self.at[at : at + size])
            wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(wrong):
                raise QueryError(
                    f"the vector of image {self.ids[at + wrong[0]]} is not finite: delete that "
                    "image and index it again"
                )
            yield block


def common(ids: NDArray[np.int64], one: SpaceVectors, other: SpaceVectors) -> tuple[Part, Part]:
    """The rows of those ``ids`` that have a vector in both spaces."""
    kept = np.intersect1d(np.intersect1d(ids, one.ids), other.ids)
    return Part(kept, one, one.positions(kept)), Part(kept, other, other.positions(kept))
