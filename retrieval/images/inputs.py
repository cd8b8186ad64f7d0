"""A query picture from whatever the caller has at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ImageError, QueryError
from retrieval.images.decoder import check_pixels, decode, silence_pillow
from retrieval.images.exif import read_camera
from retrieval.images.pixels import to_rgb
from retrieval.settings import DEFAULT_MAX_PIXELS

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.generic]
"""A path, the bytes of a file, a Pillow picture, or an array (see :func:`load`)."""


def load(source: ImageInput, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Bring a query picture into the form that encoders take.

    Args:
        source: path of a file, bytes of a file, Pillow picture of any mode, or array
            ``[height, width]``, ``[height, width, 3]`` or ``[height, width, 4]`` in the order
            (RGB, RGBA), uint8 or float in [0, 1]. Never modified.
        max_pixels: larger pictures are refused.

    Returns:
        Upright RGB picture.

    Raises:
        ImageError: if it is a picture that cannot or must not be decoded.
        QueryError: if it is not a picture at all: no such file, wrong type, shape or range.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(bytes(source), max_pixels=max_pixels).image
    if isinstance(source, str | os.PathLike):
        return decode(read_bytes(source), max_pixels=max_pixels).image
    raise QueryError(
        "a query picture is a path, bytes, a Pillow picture or a numpy array, "
        f"not {type(source).__name__}"
    )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a query picture's file.

    Raises:
        QueryError: if there is no such file, or it cannot be read.
    """
    try:
        if not Path(path).is_file():  # a pipe or a device would be waited for without end
            raise QueryError(f"no such file: {os.fspath(path)}")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise QueryError(f"cannot read {os.fspath(path)!r}: {error}") from error


def _from_pillow(image: Image.Image, max_pixels: int) -> Image.Image:
    if 0 in image.size:
        raise QueryError("the query picture has no pixels")
    check_pixels(image.size, max_pixels)
    silence_pillow()
    try:
        image.load()
        upright = read_camera(image).turn(to_rgb(image))
    except Exception as error:  # a lazily opened file may fail in any way only now
        raise ImageError("corrupt", f"the query picture cannot be decoded: {error}") from error
    if upright is image:
        upright = image.copy()
    upright.info.clear()
    return upright


def _from_array(array: NDArray[np.generic], max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (3, 4)):
        hint = "; transpose(1, 2, 0) puts channels last" if shape[:1] in ((3,), (4,)) else ""
        raise QueryError(f"expected an array [h, w], [h, w, 3] or [h, w, 4], not {shape}{hint}")
    if array.size == 0:
        raise QueryError(f"the query array {shape} has no pixels")
    check_pixels((shape[1], shape[0]), max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN fails too
            raise QueryError("a float array must hold values in [0, 1]; divide by its maximum")
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise QueryError(f"expected uint8, or floats in [0, 1], not {array.dtype}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
