"""Squares that together cover a picture, and the tokens of what is in them.

An encoder looks at one small square, and of a picture that is not square it cuts the borders off.
What is odd may be small, or at a border: so a picture is looked at in overlapping squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders import DenseEncoder, Encoder, Preprocess
from retrieval.encoders.base import MiddleEncoder
from retrieval.errors import EncoderError
from retrieval.types import Embeddings

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

OVERLAP = 0.25
"""Share of a square's side that the next one covers as well."""
_MOST = 16  # squares along the longer side for each along the shorter one
_BATCH = 16
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Places:
    """The tokens of a picture.

    Attributes:
        tokens: float32 ``[tiles, rows, columns, width]``, unit rows.
        boxes: of the tiles.
        size: width and height of the picture.
    """

    tokens: NDArray[np.float32]
    boxes: tuple[Box, ...]
    size: tuple[int, int]

    @property
    def rows(self) -> Embeddings:
        """All tokens, ``[n, width]``."""
        return self.tokens.reshape(-1, self.tokens.shape[-1])


def tells_places(encoder: Encoder) -> bool:
    """Whether an encoder tells what is where."""
    dense = isinstance(encoder, DenseEncoder) and encoder.spec.patch_px is not None
    return dense or isinstance(encoder, MiddleEncoder)


def tile_boxes(size: tuple[int, int], tiles: int) -> tuple[Box, ...]:
    """Squares that cover a picture, row by row, each overlapping the next by a quarter or more.

    Args:
        size: width and height.
        tiles: squares along the shorter side; as many along the longer one as cover it. Of a strip
            that would need more than 16 for each they become oblong.
    """
    short = min(size)
    side = short / (tiles - (tiles - 1) * OVERLAP)
    spans = [_spans(length, side, _MOST * tiles) for length in size]
    return tuple((x0, y0, x1, y1) for y0, y1 in spans[1] for x0, x1 in spans[0])


def places(encoder: Encoder, picture: Image.Image, tiles: int = 1) -> Places:
    """The tokens of a picture, all of it.

    They are those of the encoder's middle layers where it has some to show (the pocket encoders'
    last map is too coarse), else its patch tokens.

    Args:
        encoder: tells what is where.
        picture: RGB.
        tiles: squares along the shorter side.

    Raises:
        EncoderError: if the encoder does not tell what is where, or fails.
    """
    if not tells_places(encoder):
        raise EncoderError(
            f"{encoder.spec.name} does not tell what is where in a picture: patches need a ViT, as "
            "DINOv2, or a pocket encoder"
        )
    boxes = tile_boxes(picture.size, tiles)
    found = []
    for at in range(0, len(boxes), _BATCH):
        cut = [_cut(picture, box, encoder) for box in boxes[at : at + _BATCH]]
        if isinstance(encoder, MiddleEncoder):
            seen = encoder.encode_middle(cut)
        else:
            assert isinstance(encoder, DenseEncoder)
            seen = encoder.encode_patches(cut)
        found += [seen.grid(row) for row in range(len(cut))]
    tokens = np.stack(found)
    lengths = np.linalg.norm(tokens, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EncoderError(f"{encoder.spec.name} gave tokens that are not finite")
    unit = tokens / np.maximum(lengths, np.float32(_LEAST))
    return Places(np.asarray(unit, dtype=np.float32), boxes, picture.size)


def _spans(length: int, side: float, most: int) -> list[tuple[int, int]]:
    """Even pieces of one axis, each about ``side`` long."""
    step = side * (1 - OVERLAP)
    count = max(1, min(most, int(np.ceil((length - side) / step - 1e-6)) + 1))
    if count == 1:
        return [(0, length)]
    side = max(side, length / (count - (count - 1) * OVERLAP))
    starts = np.linspace(0, length - side, count)
    return [
        (first := int(start), max(first + 1, min(length, int(np.ceil(start + side)))))
        for start in starts
    ]


def _cut(picture: Image.Image, box: Box, encoder: Encoder) -> Image.Image:
    """What is in a box, with as much around it as the encoder will cut off again.

    Beyond the picture's border it is mirrored.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    preprocess = encoder.spec.preprocess
    wide, high = right - left, bottom - top
    if abs(wide - high) > 1:
        picture, wide, high = picture.crop(box).resize((side, side)), side, side
        left, top = 0, 0
    margin = 0
    if isinstance(preprocess, Preprocess) and preprocess.resize_to > preprocess.size:
        margin = round(side * (preprocess.resize_to / preprocess.size - 1) / 2)
    if margin == 0:
        return picture.crop((left, top, left + wide, top + high))
    pixels = np.asarray(picture)
    rows = _mirrored(np.arange(top - margin, top + high + margin), pixels.shape[0])
    columns = _mirrored(np.arange(left - margin, left + wide + margin), pixels.shape[1])
    return Image.fromarray(pixels[np.ix_(rows, columns)])


def _mirrored(at: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions outside of an axis, reflected into it."""
    around = np.mod(at, 2 * length)
    return np.asarray(np.minimum(around, 2 * length - 1 - around))
