"""A linear classifier of embeddings, and what it says of each image without having seen it.

Least squares on class indicators with a ridge (Hoerl and Kennard, "Ridge regression", 1970): all n
leave-one-out answers follow from one fit, f₋ᵢ = (f(xᵢ) - hᵢ yᵢ) / (1 - hᵢ) with the leverage hᵢ
(Allen's PRESS, 1974), so that nothing is trained n times. A softmax makes probabilities of them;
its temperature and the ridge are those under which the given labels are likeliest, left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.query.classify.votes import Codes, Floats
from retrieval.vectors.base import Rows

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
_TEMPERATURES = np.geomspace(0.01, 1.0, 41)
_BLOCK_ROWS = 8192
_FITTED_TO = 5000  # rows, evenly spread; a ridge and a temperature need no more


class LeftOut:
    """Probabilities of the classes of each row, from all other rows.

    Attributes:
        ridge: that was chosen of :data:`RIDGES`.
        temperature: of the softmax.
    """

    def __init__(self, rows: Rows, codes: Codes, classes: int) -> None:
        """Fit to all ``rows``.

        Args:
            rows: unit rows ``[n, dim]``; read twice, in blocks.
            codes: int64 ``[n]``: the class of each.
            classes: how many there are.
        """
        n, dim = rows.shape
        self._classes = classes
        products = np.zeros((dim + 1, dim + 1))
        sums = np.zeros((dim + 1, classes))
        for at, block in _extended(rows):
            products += block.T @ block
            own = codes[at : at + len(block)]
            sums += block.T @ np.eye(classes)[own]
        values, self._axes = np.linalg.eigh(products)
        self._values, self._sums = np.maximum(values, 0.0), self._axes.T @ sums
        sample = np.unique(np.linspace(0, n - 1, min(n, _FITTED_TO)).astype(np.int64))
        seen = np.concatenate([b[_within(sample, at, len(b))] for at, b in _extended(rows)])
        tried = [self._best(seen, codes[sample], ridge) for ridge in RIDGES]
        _, self.ridge, self.temperature = min(tried)

    def probabilities(self, block: NDArray[Any], codes: Codes) -> Floats:
        """float64 ``[m, classes]`` for some of the rows it was fitted to, with their codes."""
        return _softmax(self._answers(_one_more(block), codes, self.ridge), self.temperature)

    def _answers(self, block: Floats, codes: Codes, ridge: float) -> Floats:
        turned = block @ self._axes
        shrunk = turned / (self._values + ridge)
        leverage = np.einsum("ij,ij->i", turned, shrunk)[:, None]
        seen = shrunk @ self._sums - leverage * np.eye(self._classes)[codes]
        found: Floats = seen / (1.0 - leverage)
        return found

    def _best(self, block: Floats, codes: Codes, ridge: float) -> tuple[float, float, float]:
        """The least mean negative log-likelihood of a ridge, the ridge, and its temperature."""
        answers, own = self._answers(block, codes, ridge), (np.arange(len(codes)), codes)
        losses = []
        for temperature in _TEMPERATURES:
            likely = np.maximum(_softmax(answers, temperature)[own], np.finfo(float).tiny)
            losses.append((-float(np.log(likely).mean()), ridge, float(temperature)))
        return min(losses)


def _extended(rows: Rows) -> Iterator[tuple[int, Floats]]:
    """Blocks of rows with a constant column, and where each begins."""
    at = 0
    for block in rows.blocks(_BLOCK_ROWS):
        yield at, _one_more(block)
        at += len(block)


def _one_more(block: NDArray[Any]) -> Floats:
    return np.hstack([block.astype(np.float64), np.ones((len(block), 1))])


def _within(sample: NDArray[np.int64], start: int, size: int) -> NDArray[np.int64]:
    """Which rows of the block from ``start`` on are in the sample."""
    low, high = np.searchsorted(sample, [start, start + size])
    return sample[low:high] - start


def _softmax(answers: Floats, temperature: float) -> Floats:
    raised = answers / temperature
    powers = np.exp(raised - raised.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found
