"""Whether two pictures agree, pixel by pixel, where one is laid on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates.alignment import Placement
from retrieval.query.duplicates.looks import Look

_CELL = 8
_TEXTURE = 12.0
"""Deviation of gray values at which a cell is as telling as any."""
_CORRELATED = 0.8
_NEAR = 8.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was seen where two pictures lie on each other.

    Attributes:
        placement: of the second on the first.
        share: how much of what is to be seen there agrees, 0 to 1; flat areas count for little.
        weight: how much is to be seen there, in cells of 8 × 8 pixels that are full of detail.
        differing: share of the overlap, by area, that does not agree.
        gain, offset: brightness of the first as a function of that of the second.
        cover_a, cover_b: share of either picture that the overlap takes.
    """

    placement: Placement
    share: float
    weight: float
    differing: float
    gain: float
    offset: float
    cover_a: float
    cover_b: float
    residual: float


def agree(a: Look, b: Look, placement: Placement) -> Agreement | None:
    """Lay ``b`` on ``a``, compare cell by cell; None where too little of them overlaps."""
    import cv2

    matrix = placement.matrix
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if not 0.15 < scale < 7:
        return None
    flipped = scale > 1  # shrinking the finer one loses nothing that the coarser one has
    under, over = (b, a) if flipped else (a, b)
    onto = cv2.invertAffineTransform(matrix) if flipped else matrix
    height, width = under.gray.shape
    source = over.gray
    factor = min(scale, 1 / scale)
    if factor < 0.8:
        source = cv2.GaussianBlur(source, (0, 0), 0.45 / factor)
    laid = cv2.warpAffine(source, onto, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(
        np.full(source.shape, 255, np.uint8), onto, (width, height), flags=cv2.INTER_NEAREST
    )
    ground = cv2.GaussianBlur(under.gray, (3, 3), 0).astype(np.float32)
    laid = cv2.GaussianBlur(laid, (3, 3), 0).astype(np.float32)
    covered = float((inside > 0).mean())
    other = covered * width * height / (factor**2 * over.gray.size)
    if covered * width * height < 400:
        return None
    seen = _compare(ground, laid, (inside > 0).astype(np.float32))
    if seen is None:
        return None
    share, weight, differing, gain, offset, residual = seen
    if flipped:
        gain, offset = 1 / gain, -offset / gain
        covered, other = other, covered
    return Agreement(
        placement,
        share,
        weight,
        differing,
        gain,
        offset,
        min(1.0, covered),
        min(1.0, other),
        residual,
    )


def _cells(values: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (-(-side // _CELL) * _CELL for side in values.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    summed = padded.reshape(height // _CELL, _CELL, width // _CELL, _CELL).sum(axis=(1, 3))
    return np.asarray(summed).ravel()


def _compare(
    x: NDArray[np.float32], y: NDArray[np.float32], mask: NDArray[np.float32]
) -> tuple[float, float, float, float, float, float] | None:
    count = _cells(mask)
    used = count >= _CELL * _CELL / 2
    if not used.any():
        return None
    n = count[used]
    xm, ym = x * mask, y * mask
    mean_x, mean_y = _cells(xm)[used] / n, _cells(ym)[used] / n
    var_x = np.maximum(_cells(xm * x)[used] / n - mean_x**2, 0)
    var_y = np.maximum(_cells(ym * y)[used] / n - mean_y**2, 0)
    cov = _cells(xm * y)[used] / n - mean_x * mean_y
    correlated = cov / np.sqrt(np.maximum(var_x * var_y, 1.0)) >= _CORRELATED
    gain, offset = _tone(mean_x, mean_y, var_y, cov, correlated)
    forward = np.abs(x - np.clip(gain * y + offset, 0, 255))
    backward = np.abs(y - np.clip((x - offset) / gain, 0, 255))
    rest = np.minimum(forward, backward)
    rest = np.sqrt(_cells(rest * rest * mask)[used] / n)
    spread = np.sqrt(np.maximum(var_x, var_y))
    same = (correlated & (rest < 4 * _NEAR)) | (rest < np.maximum(_NEAR, 0.5 * spread))
    weight = np.minimum(spread / _TEXTURE, 1.0) * (n / _CELL**2)
    total = float(weight.sum())
    share = float((weight * same).sum()) / total if total > 0 else 1.0
    differing = float((n * ~same).sum() / n.sum())
    return share, total, differing, gain, offset, float(np.sqrt((rest**2 * n).sum() / n.sum()))


def _tone(
    mean_x: NDArray[np.float32],
    mean_y: NDArray[np.float32],
    var_y: NDArray[np.float32],
    cov: NDArray[np.float32],
    correlated: NDArray[np.bool_],
) -> tuple[float, float]:
    """The straight line from brightness y to brightness x, of the cells that correlate."""
    if correlated.sum() < 4:
        return 1.0, 0.0
    gain = float(np.clip(cov[correlated].sum() / max(var_y[correlated].sum(), 1e-6), 0.3, 3.0))
    return gain, float(np.median(mean_x[correlated] - gain * mean_y[correlated]))
