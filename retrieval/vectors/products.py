"""Products of blocks of rows, in float32 or in half the bytes, with a proven bound of their error.

A low-precision product may decide what is *not* looked at, if it is known how far it can be off.
For unit rows x, y, rounded to x', y', the Cauchy-Schwarz inequality gives

    |x·y - x'·y'| = |(x - x')·y + x'·(y - y')| <= |x - x'| |y| + |x'| |y - y'|

in which the lengths of the residuals are measured, not assumed: a float format with p significant
bits (bfloat16: 8, float16: 11) allows up to 2^-p, and rows reach about 0.4 of that. To this comes
what the machine does with x' and y', whose products are exact in float32: at most dim rounded
additions and one rounding, each off by at most 2^-22 of the sum of magnitudes (four times what
rounding to nearest does, since matrix units may cut off; Higham, Accuracy and Stability of
Numerical Algorithms, §3.1), and the rounding of a 16-bit result, by 2^-p.

A cosine is the product divided by the lengths of x and y, which rounding moved off 1, so that

    |cos(x, y) - x·y| = |cos(x, y)| |1 - |x| |y|| <= a + b + a b,  a = ||x| - 1|,  b = ||y| - 1|

in which a and b are measured in float32, where they are off by as much as a product is.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions

_Floats: TypeAlias = NDArray[np.float32]

_LENGTH = 1.001
"""No unit row is longer, after the rounding that made it float32 or float16."""
_ADDITION = 2.0**-22
_WORTH_TORCH = 200_000_000_000
"""Multiplications that take numpy about as long as it takes to import torch."""


@dataclass(frozen=True, slots=True)
class Held:
    """Rows ready for products.

    Attributes:
        matrix: ``[n, dim]``.
        residual: by how much each of its rows is off at most.
        stretch: by how much the length of a row, as it was given, is off 1 at most; 0 where their
            products are wanted and not their cosines.
    """

    matrix: Any
    residual: float
    stretch: float = 0.0


class Products(Protocol):
    """Cosines of two blocks of unit rows, tile by tile."""

    @property
    def score_bytes(self) -> int:
        """Bytes of one score."""

    def hold(self, block: _Floats) -> Held:
        """Unit rows ``[n, dim]`` in the form that products need."""

    def margin(self, left: Held, right: Held) -> float:
        """How far a score can be from the true cosine, or product, of the rows as given."""

    def scores(self, left: Held, right: Held) -> Any:
        """All cosines of two blocks ``[l, r]``; valid until the next call."""

    def maxima(self, scores: Any, groups: int) -> _Floats:
        """``[l, groups]``: the highest score of each group; one takes every ``groups``-th column.

        Neighbours in storage, which are often alike, so fall into different groups.
        """

    def look(
        self, scores: Any, rows: Positions, groups: Positions, count: int, bounds: _Floats
    ) -> tuple[Positions, Positions]:
        """Places ``(row, column)`` of the scores that reach a bound.

        Args:
            scores: of :meth:`scores`.
            rows: ``[p]``, into which to look.
            groups: ``[p]``, in which group of that row's columns.
            count: how many groups there are.
            bounds: ``[p]``, what must be reached there.

        Returns:
            int64 rows and columns, in the order of the entries.
        """


class Full:
    """Products in float32 by numpy."""

    score_bytes = 4

    def __init__(self) -> None:
        """Start with no buffer."""
        self._buffer = np.empty(0, dtype=np.float32)

    def hold(self, block: _Floats) -> Held:
        """The rows as they are."""
        squares = np.einsum("ij,ij->i", block, block)
        return Held(block, 0.0, float(np.abs(np.sqrt(squares) - 1).max(initial=0.0)))

    def margin(self, left: Held, right: Held) -> float:
        """Of float32 additions."""
        return _margin(left, right, 0.0)

    def scores(self, left: Held, right: Held) -> _Floats:
        """float32 ``[l, r]``."""
        shape = len(left.matrix), len(right.matrix)
        if self._buffer.size < shape[0] * shape[1]:
            self._buffer = np.empty(shape[0] * shape[1], dtype=np.float32)
        out = self._buffer[: shape[0] * shape[1]].reshape(shape)
        return np.matmul(left.matrix, right.matrix.T, out=out)

    def maxima(self, scores: _Floats, groups: int) -> _Floats:
        """Of each group of columns."""
        rows, columns = scores.shape
        whole = columns - columns % groups
        best: _Floats = scores[:, :whole].reshape(rows, -1, groups).max(axis=1)
        rest = columns - whole
        np.maximum(best[:, :rest], scores[:, whole:], out=best[:, :rest])
        return best

    def look(
        self, scores: _Floats, rows: Positions, groups: Positions, count: int, bounds: _Floats
    ) -> tuple[Positions, Positions]:
        """By numpy."""
        columns, real = _columns(groups, count, scores.shape[1])
        entry, at = np.nonzero((scores[rows[:, None], columns] >= bounds[:, None]) & real)
        return rows[entry], columns[entry, at]


class Half:
    """Products in a 16-bit format by torch, summed in float32.

    The result is float32 on CUDA, where torch may otherwise sum parts of it in 16 bits, and of the
    16-bit format on the CPU, where it can be nothing else.
    """

    def __init__(self, kind: str = "bfloat16", device: str = "cpu") -> None:
        """Round to ``kind``, ``bfloat16`` or ``float16``, and compute on ``device``."""
        import torch

        self._torch, self.device = torch, device
        self._dtype = torch.bfloat16 if kind == "bfloat16" else torch.float16
        self._wide = device.startswith("cuda")
        self._rounding = 0.0 if self._wide else float(torch.finfo(self._dtype).eps) / 2
        self.score_bytes = 4 if self._wide else 2

    def hold(self, block: _Floats) -> Held:
        """Rounded rows on the device, the longest residual, and the length that is most off 1."""
        torch = self._torch
        # A copy, since torch wants to be able to write into what it wraps.
        exact = torch.from_numpy(np.array(block, dtype=np.float32)).to(self.device)
        rounded = exact.to(self._dtype)
        if not len(block):
            return Held(rounded, 0.0)
        stretch = (torch.linalg.vector_norm(exact, dim=1) - 1).abs().max()
        longest = torch.linalg.vector_norm(exact.sub_(rounded), dim=1).max()
        return Held(rounded, float(longest) * _LENGTH, float(stretch))

    def empty(self, shape: tuple[int, int]) -> Any:
        """Room on the device for rows of that shape."""
        return self._torch.empty(shape, dtype=self._dtype, device=self.device)

    def margin(self, left: Held, right: Held) -> float:
        """Of the residuals, of float32 additions, and of rounding the result."""
        return _margin(left, right, self._rounding)

    def scores(self, left: Held, right: Held) -> Any:
        """A tensor ``[l, r]`` on the device."""
        if self._wide:
            wide = self._torch.float32
            return self._torch.mm(left.matrix, right.matrix.T, out_dtype=wide)
        return self._torch.mm(left.matrix, right.matrix.T)

    def maxima(self, scores: Any, groups: int) -> _Floats:
        """Of each group of columns."""
        rows, columns = scores.shape
        whole = columns - columns % groups
        best = scores[:, :whole].reshape(rows, -1, groups).amax(1)
        rest = columns - whole
        self._torch.maximum(best[:, :rest], scores[:, whole:], out=best[:, :rest])
        found: _Floats = best.float().cpu().numpy()
        return found

    def look(
        self, scores: Any, rows: Positions, groups: Positions, count: int, bounds: _Floats
    ) -> tuple[Positions, Positions]:
        """On the device; the few scores that are looked at leave it."""
        columns, real = _columns(groups, count, scores.shape[1])
        places = self._torch.from_numpy(rows[:, None] * scores.shape[1] + columns)
        # Compared as float32: torch would round the bounds to the 16-bit format, maybe up.
        values = self._torch.take(scores, places.to(self.device)).float().cpu().numpy()
        entry, at = np.nonzero((values >= bounds[:, None]) & real)
        return rows[entry], columns[entry, at]


def groups_of(columns: int, k: int) -> int:
    """How many groups of columns tell where the k best of a row are."""
    return min(columns, max(8 * k, 256, min(columns // 64, 16_384)))


def kth(maxima: _Floats, k: int) -> _Floats:
    """For each row a score that at least k of its columns have, near the k-th best."""
    rows, groups = maxima.shape
    if groups < k:
        return np.full(rows, -np.inf, dtype=np.float32)
    edge: _Floats = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    return edge


def _columns(groups: Positions, count: int, columns: int) -> tuple[Positions, NDArray[np.bool_]]:
    """Columns of each group ``[p, depth]``, and which of them there are."""
    places = groups[:, None] + np.arange(0, columns, count)
    return np.minimum(places, columns - 1), places < columns


def products_of(left: _Floats, right: _Floats) -> NDArray[np.float64]:
    """float64 ``[m]``: of each row with the row beside it."""
    found: NDArray[np.float64] = np.einsum("ij,ij->i", left, right, dtype=np.float64)
    return found


def cosines(left: _Floats, right: _Floats) -> _Floats:
    """float32 ``[m]``: of each row with the row beside it, computed in float64.

    Divided by the lengths of the rows, which rounding moved off 1, so that equal rows have 1.
    """
    squares = products_of(left, left) * products_of(right, right)
    found = products_of(left, right) / np.maximum(np.sqrt(squares), 1e-30)
    return found.clip(-1.0, 1.0).astype(np.float32)


def fastest(work: int) -> Products:
    """Half precision where torch is here and finds it faster, on CUDA if it can; else float32.

    Args:
        work: multiplications to come; for few of them torch is not imported.
    """
    if not find_spec("torch") or ("torch" not in sys.modules and work < _WORTH_TORCH):
        return Full()
    import torch

    if torch.cuda.is_available():
        return Half(device="cuda")
    return Half() if half_pays() else Full()


def _margin(left: Held, right: Held, rounding: float) -> float:
    a, b = left.residual, right.residual
    dim = int(left.matrix.shape[1])
    size = (_LENGTH + a) * (_LENGTH + b)
    off = left.stretch + right.stretch + left.stretch * right.stretch
    adding = 2 * (dim + 1) * _ADDITION  # of the product, and of the two lengths
    return _LENGTH * a + (_LENGTH + a) * b + (adding + rounding) * size + off


@cache
def half_pays() -> bool:
    """Whether bfloat16 products take at most two thirds of numpy's time, tried once."""
    rows = np.full((2048, 256), 1 / 16, dtype=np.float32)
    taken = []
    for products in (Full(), Half()):
        held = products.hold(rows)
        products.scores(held, held)
        tries = []
        for _ in range(3):
            begin = time.perf_counter()
            products.scores(held, held)
            tries.append(time.perf_counter() - begin)
        taken.append(min(tries))
    return taken[1] * 1.5 < taken[0]
