"""A graph whose names, or whose last step, are another's habit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.runtimes.graph import Graph
from retrieval.errors import EncoderError

Rows = NDArray[np.float32]


class RenamedGraph:
    """Another graph under this project's names, pooled where it gives tokens.

    Attributes:
        runtime: that of the graph.
    """

    def __init__(self, graph: Graph, names: Mapping[str, str], pooling: str | None = None) -> None:
        """Wrap ``graph``.

        Args:
            graph: what runs.
            names: the graph's name of each input, of ``embedding`` and, where it has any, of
                ``patches``.
            pooling: ``cls``, ``mean``, ``cls+mean`` or ``gem``, if ``embedding`` is the tokens
                ``[n, prefix + places, width]`` or the map ``[n, width, rows, columns]`` of the
                last layer, and ``patches`` too; None if it is ``[n, dim]``.
        """
        self._graph = graph
        self._names = names
        self._pooling = pooling
        self.runtime = graph.runtime

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Rows]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        theirs = {self._names[name]: array for name, array in feeds.items() if name in self._names}
        found = self._graph.run(theirs, [self._names[name] for name in outputs])
        if self._pooling is None:
            return found
        return [
            tokens(rows)[1] if name == "patches" else pooled(rows, self._pooling)
            for name, rows in zip(outputs, found, strict=True)
        ]


def tokens(last: Rows) -> tuple[Rows, Rows]:
    """What stands before the places, and the places, of a last layer.

    Args:
        last: tokens ``[n, prefix + places, width]``, where the places are the largest square that
            there is room for (a prefix of more than a few tokens is unknown in this field), or a
            map ``[n, width, rows, columns]``.

    Returns:
        ``[n, prefix, width]`` and ``[n, places, width]``.
    """
    if last.ndim == 4:
        flat = last.reshape(*last.shape[:2], -1).swapaxes(1, 2)
        return flat[:, :0], flat
    prefix = last.shape[1] - math.isqrt(last.shape[1]) ** 2
    return last[:, :prefix], last[:, prefix:]


def pooled(last: Rows, pooling: str) -> Rows:
    """``[n, dim]`` of a last layer; see :func:`tokens`.

    Raises:
        EncoderError: if it has no CLS token where ``pooling`` needs one.
    """
    prefix, places = tokens(last)
    if "cls" in pooling and not prefix.shape[1]:
        raise EncoderError(f"the network has no CLS token: take mean or gem in place of {pooling}")
    if pooling == "cls":
        return prefix[:, 0]
    if pooling == "gem":
        cubes: Rows = np.maximum(places, 1e-6) ** 3
        roots: Rows = np.cbrt(cubes.mean(axis=1))
        return roots
    mean: Rows = places.mean(axis=1)
    return mean if pooling == "mean" else np.concatenate([prefix[:, 0], mean], axis=1)
