"""What every kind of vector index can do, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
"""Places of rows, from 0, in the order the index got them; -1 where there is none."""


@dataclass(frozen=True, slots=True, order=True)
class Effort:
    """How thoroughly an index looks: the two knobs that all kinds have in common.

    Attributes:
        probes: cells that are looked into, or candidates that a walk through a graph keeps; 0 where
            a kind has no such knob.
        factor: candidates for each wanted neighbour, of which exact scores keep the best.
    """

    probes: int = 0
    factor: int = 1


class Rows(Protocol):
    """Unit vectors by position; they may lie on disk."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""

    def blocks(self, size: int, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """float32 ``[≤ size, dim]``: all rows from ``start`` on, in order."""

    def take(self, positions: Positions) -> NDArray[np.float32]:
        """float32 ``[n, dim]``: the rows at ``positions``, none of which is -1."""


class VectorIndex(Protocol):
    """Finds candidates for the nearest rows. Safe to use from several threads."""

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """Sensible efforts for an index of this size, cheapest first."""

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory, or maps, besides the rows."""

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """Rows that are likely to have the highest cosines.

        Args:
            queries: float32 ``[q, dim]``, unit rows.
            k: wanted neighbours, at least 1.
            effort: one of ``efforts``, or anything between.
            allowed: bool ``[n]``: rows that may be answered. The kind sees to it that it looks as
                thoroughly among them as it would among all.

        Returns:
            int64 ``[q, c]``, each position at most once a query, in no order; ``c`` is about
            ``k * effort.factor``; -1 where there are fewer.
        """


class Backend(Protocol):
    """One kind of index: how it is built, grown, kept and opened."""

    @property
    def incremental(self) -> bool:
        """Whether :meth:`extend` is cheaper than building anew."""

    def missing(self) -> str | None:
        """Why it cannot be used here and what would help; None if it can."""

    def build(self, rows: Rows, folder: Path) -> None:
        """Write an index of all ``rows`` into the empty ``folder``.

        The same rows give the same index, except for Lance's own kinds.

        Raises:
            VectorIndexError: if it cannot be built.
        """

    def extend(self, old: Path, rows: Rows, start: int, folder: Path) -> None:
        """Write the index of ``old``, grown by the rows from ``start`` on, into ``folder``."""

    def open(self, folder: Path, rows: Rows) -> VectorIndex:
        """The index that :meth:`build` wrote; memory-mapped where the kind allows."""
