"""Whether two pictures agree, pixel by pixel, where one is laid on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates.alignment import Placement
from retrieval.query.duplicates.looks import Look

_CELL = 8
_SMOOTH = 1.0
"""Blur, in pixels, that forgives packing and placements that are half a pixel off."""
_FULL = 12.0
"""Deviation of gray values from which on a cell counts as full of detail."""
_CORRELATED = 0.8
_NEAR = 8.0
"""Gray values that packing may change a flat cell by."""
_LEAST_PIXELS = 400
_Gray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was seen where two pictures lie on each other, in cells of 8 × 8 pixels.

    Attributes:
        placement: of the second on the first.
        typical: correlation of brightness within a cell, in the median over cells, each counted by
            its detail: near 1 for one shot, whatever was laid over a part of it, and below 0.9 for
            two things photographed alike, or two texts set alike.
        detail: how many cells full of detail there are.
        share: how much of the detail agrees, 0 to 1.
        differing: share of the overlap, by area, that does not agree.
        worst: gray values by which the most different cell differs, once brightness is matched.
        gain, offset: the first's brightness as a function of the second's.
        shift: gray values by which brightness differs where detail agrees, in the median.
        cover_a, cover_b: share of either picture that the overlap takes.
    """

    placement: Placement
    typical: float
    detail: float
    share: float
    differing: float
    worst: float
    gain: float
    offset: float
    shift: float
    cover_a: float
    cover_b: float


def agree(a: Look, b: Look, placement: Placement) -> Agreement | None:
    """Lay ``b`` on ``a`` and compare; None where too little of them overlaps."""
    import cv2

    matrix, scale = placement.matrix, placement.scale
    finer = scale > 1  # shrinking the finer one loses nothing that the coarser one has
    under, over = (b.gray, a.gray) if finer else (a.gray, b.gray)
    onto = cv2.invertAffineTransform(matrix) if finer else matrix
    shrink = min(scale, 1 / scale)
    source = over if shrink > 0.8 else cv2.GaussianBlur(over, (0, 0), 0.45 / shrink)
    size = under.shape[::-1]
    laid = cv2.warpAffine(source, onto, size, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(over), onto, size, flags=cv2.INTER_NEAREST)
    pixels = int(inside.sum())
    if pixels == 0 or (placement.support and pixels < _LEAST_PIXELS):
        return None
    ground = cv2.GaussianBlur(under, (0, 0), _SMOOTH).astype(np.float32)
    laid = cv2.GaussianBlur(laid, (0, 0), _SMOOTH).astype(np.float32)
    cover = pixels / under.size, min(1.0, pixels / (shrink**2 * over.size))
    first, second = (laid, ground) if finer else (ground, laid)
    seen = _Cells(first, second, inside.astype(np.float32))
    return seen.agreement(placement, cover[::-1] if finer else cover)


class _Cells:
    """Two pictures in one frame, cut into cells, those outside of either left out."""

    def __init__(self, x: _Gray, y: _Gray, inside: _Gray) -> None:
        self.x, self.y, self.inside = x, y, inside
        filled = _means(inside).ravel()
        self.used = filled >= min(0.5, float(filled.max()))
        self.filled = filled[self.used]
        self.mean_x, self.mean_y = self.over(x), self.over(y)
        self.var_x = np.maximum(self.over(x * x) - self.mean_x**2, 0)
        self.var_y = np.maximum(self.over(y * y) - self.mean_y**2, 0)
        self.cov = self.over(x * y) - self.mean_x * self.mean_y
        self.correlation = self.cov / np.sqrt(np.maximum(self.var_x * self.var_y, 1.0))

    def over(self, values: _Gray) -> _Gray:
        """Mean of each cell over what is inside of both pictures."""
        return np.asarray(_means(values * self.inside).ravel()[self.used] / self.filled)

    def agreement(self, placement: Placement, cover: tuple[float, float]) -> Agreement:
        correlated = self.correlation >= _CORRELATED
        gain, offset = self.tone(correlated)
        # Where one is white or black through and through, only the way towards it can be followed.
        there = np.abs(self.x - np.clip(gain * self.y + offset, 0, 255))
        back = np.abs(self.y - np.clip((self.x - offset) / gain, 0, 255))
        rest = np.sqrt(self.over(np.minimum(there, back) ** 2))
        spread = np.sqrt(np.maximum(self.var_x, self.var_y))
        same = correlated | (rest < np.maximum(_NEAR, 0.3 * spread))
        detail = np.minimum(spread / _FULL, 1.0) * self.filled
        total = float(detail.sum())
        return Agreement(
            placement,
            typical=_median(self.correlation, detail),
            detail=total,
            share=float((detail * same).sum()) / total if total else 1.0,
            differing=float((self.filled * ~same).sum() / self.filled.sum()),
            worst=float(rest.max()),
            gain=gain,
            offset=offset,
            shift=_median(np.abs(self.mean_x - self.mean_y), detail * same),
            cover_a=cover[0],
            cover_b=cover[1],
        )

    def tone(self, correlated: NDArray[np.bool_]) -> tuple[float, float]:
        """The straight line from the second's brightness to the first's."""
        if correlated.sum() < 4:
            return 1.0, 0.0
        ratio = self.cov[correlated].sum() / self.var_y[correlated].sum()
        gain = float(np.clip(ratio, 0.3, 3.0))
        return gain, float(np.median(self.mean_x[correlated] - gain * self.mean_y[correlated]))


def _means(values: _Gray) -> _Gray:
    import cv2

    height, width = values.shape
    down, right = -height % _CELL, -width % _CELL
    padded = cv2.copyMakeBorder(values, 0, down, 0, right, cv2.BORDER_CONSTANT, value=0)
    size = padded.shape[1] // _CELL, padded.shape[0] // _CELL
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA))


def _median(values: _Gray, weights: _Gray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
