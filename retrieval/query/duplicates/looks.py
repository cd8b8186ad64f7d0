"""What is kept of a picture for comparing it with others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 160
"""Longest side, in pixels, at which pixels are compared."""
_DETAIL = 256
_TINY = 32
_LEAST = 16
_KEYPOINTS = 200
_local = threading.local()


@dataclass(frozen=True, slots=True)
class Look:
    """What comparing one picture needs; about 50 kB.

    Attributes:
        width, height: of the picture it was taken from.
        gray: uint8 ``[h, w]``, longest side at most :data:`SIDE`.
        color: uint8 ``[32, 32, 3]``: the whole picture, stretched.
        points: float32 ``[n, 2]``: where its keypoints are, x and y, in pixels of ``gray``.
        descriptors: uint8 ``[n, 128]``: what is around them (SIFT).
    """

    width: int
    height: int
    gray: NDArray[np.uint8]
    color: NDArray[np.uint8]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.gray, self.color, self.points, self.descriptors)
        return sum(array.nbytes for array in arrays)


def look(picture: Image.Image) -> Look:
    """Look at a picture once, to compare it with many.

    Args:
        picture: of any mode and size; a thumbnail of 256 pixels is as good as the whole.
    """
    small = _fit(picture.convert("RGB"), _DETAIL)
    points, descriptors = _keypoints(np.asarray(small.convert("L")))
    gray = np.asarray(_fit(small, SIDE).convert("L"))
    scale = np.array(gray.shape[::-1], np.float32) / np.array(small.size, np.float32)
    color = np.asarray(small.resize((_TINY, _TINY), Image.Resampling.BOX))
    # Pixel centres: a point at 0 lies half a pixel inside of the picture at either size.
    points = np.asarray((points + 0.5) * scale - 0.5, np.float32)
    return Look(*picture.size, gray, color, points, descriptors)


def _fit(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest <= side:
        return picture
    width, height = (max(1, round(length * side / longest)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX, reducing_gap=None)


def _keypoints(gray: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    none = np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8)
    if min(gray.shape) < _LEAST:
        return none
    found, descriptors = _sift().detectAndCompute(gray, None)
    if descriptors is None:
        return none
    points = np.array([point.pt for point in found], np.float32)
    return points[:_KEYPOINTS], descriptors[:_KEYPOINTS]


def _sift() -> Any:
    """One detector a thread: it must not be used by two at once."""
    import cv2

    if not hasattr(_local, "sift"):
        _local.sift = cv2.SIFT.create(
            nfeatures=_KEYPOINTS,
            nOctaveLayers=3,
            contrastThreshold=0.02,
            edgeThreshold=10,
            sigma=1.6,
            descriptorType=cv2.CV_8U,
            enable_precise_upscale=True,
        )
    return _local.sift
