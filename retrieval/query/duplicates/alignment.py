"""How one picture could lie on another: guesses, which their pixels then confirm or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates.looks import Look

_ALIKE = 0.6
_RATIO = 0.85
_REACH = 3.0
_INLIERS = 5
_SCALE = 6.0
_STRETCH = 3.0
_FLIPPED = (
    np.arange(4)[::-1, None, None] * 32 + np.arange(4)[:, None] * 8 + -np.arange(8) % 8
).ravel()
"""Where each number of a SIFT descriptor goes when the picture is mirrored: the rows of its 4 × 4
cells are exchanged, and its 8 directions run the other way."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A map from one picture onto another.

    Attributes:
        matrix: float64 ``[2, 3]``: pixels of the second picture to pixels of the first.
        support: how many keypoints say so; 0 where it was guessed from the whole picture.
    """

    matrix: NDArray[np.float64]
    support: int

    @property
    def scale(self) -> float:
        """Pixels of the first picture that a pixel of the second is as long as."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def stretch(self) -> float:
        """How many times longer one side becomes, compared with the other; at least 1."""
        sides = np.linalg.norm(self.matrix[:, :2], axis=0)
        return float(sides.max() / sides.min())


def whole(a: Look, b: Look) -> Iterator[Placement]:
    """All of ``b`` on all of ``a``: upright, turned by right angles, mirrored."""
    target = _normal(a.color.mean(axis=2))
    source = b.color.mean(axis=2)
    size_a, size_b = a.gray.shape[::-1], b.gray.shape[::-1]
    found = []
    for turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(source[:, ::-1] if mirrored else source, turns)
            likeness = float(np.vdot(target, _normal(turned)))
            if likeness >= _ALIKE or (turns == 0 and not mirrored):
                found.append((-likeness, turns, mirrored))
    for _, turns, mirrored in sorted(found)[:3]:
        placed = Placement(_turned(size_a, size_b, turns, mirrored), 0)
        if 1 / _SCALE < placed.scale < _SCALE and placed.stretch < _STRETCH:
            yield placed


def by_keypoints(a: Look, b: Look) -> Iterator[Placement]:
    """Where matching keypoints put ``b``, as it is and mirrored; the better supported first."""
    found = [_matched(a, b, mirrored=mirrored) for mirrored in (False, True)]
    yield from sorted((p for p in found if p is not None), key=lambda p: -p.support)


def _normal(small: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = small - small.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9))


def _turned(
    size_a: tuple[int, ...], size_b: tuple[int, ...], turns: int, mirrored: bool
) -> NDArray[np.float64]:
    """The map of all of b onto all of a, after mirroring and ``turns`` left turns."""
    matrix = np.diag([1 / size_b[0], 1 / size_b[1], 1.0]) @ _shift(0.5)
    if mirrored:
        matrix = np.array([[-1.0, 0, 1], [0, 1, 0], [0, 0, 1]]) @ matrix
    left = np.array([[0.0, 1, 0], [-1, 0, 1], [0, 0, 1]])
    matrix = np.linalg.matrix_power(left, turns) @ matrix
    return np.asarray(_shift(-0.5) @ np.diag([*map(float, size_a), 1.0]) @ matrix)[:2]


def _shift(by: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0, by], [0, 1, by], [0, 0, 1]])


def _matched(a: Look, b: Look, *, mirrored: bool) -> Placement | None:
    import cv2

    if min(len(a.points), len(b.points)) < _INLIERS:
        return None
    descriptors = b.descriptors[:, _FLIPPED] if mirrored else b.descriptors
    first, second = _matches(a.descriptors, descriptors)
    if len(first) < _INLIERS:
        return None
    source, target = b.points[second], a.points[first]
    if mirrored:
        source = source * np.array([-1, 1], np.float32)
    # Its source of chance is its own and begins anew at each call.
    matrix, inliers = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_REACH, maxIters=1000
    )
    if matrix is None or (support := int(inliers.sum())) < _INLIERS:
        return None
    matrix = _refined(matrix, source, target)
    if mirrored:
        matrix[:, 0] *= -1
    placed = Placement(matrix, support)
    return placed if 1 / _SCALE < placed.scale < _SCALE else None


def _refined(
    matrix: NDArray[np.float64], source: NDArray[np.float32], target: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The map fitted again, by least squares, to the keypoints that it puts within a pixel."""
    away = np.linalg.norm(source @ matrix[:, :2].T + matrix[:, 2] - target, axis=1)
    near = away < max(1.0, float(np.sort(away)[_INLIERS - 1]))
    x, y = source[near].T.astype(np.float64)
    none, one = np.zeros_like(x), np.ones_like(x)
    rows = np.stack([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)], 1)
    fitted = np.linalg.lstsq(
        rows.reshape(-1, 4), target[near].astype(np.float64).ravel(), rcond=None
    )
    p, q, right, down = fitted[0]
    return np.array([[p, -q, right], [q, p, down]])


def _matches(
    a: NDArray[np.uint8], b: NDArray[np.uint8]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of ``a`` and ``b`` nearest to each other and clearly nearer than the second nearest."""
    x, y = (
        a.astype(np.float32),
        b.astype(np.float32),
    )  # whole numbers below 2^24: exact in any order
    distances = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    rows = np.arange(len(a))
    nearest = distances.argmin(1)
    best = distances[rows, nearest]
    second = np.partition(distances, 1, axis=1)[:, 1]
    good = (best < _RATIO**2 * second) & (distances.argmin(0)[nearest] == rows)
    return rows[good], nearest[good]
