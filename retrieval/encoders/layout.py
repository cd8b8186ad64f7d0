"""What the last layer of a network looks like from outside."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """What a network of timm makes of one picture.

    Attributes:
        name: its class, as ``ConvNeXt``.
        shape: of its last layer's features; empty if these are several tensors.
        channels_last: whether a map of features has its channels last.
        prefix: tokens before those of places.
        has_cls: whether the first of them is a CLS token.
        dim: length of its own pooled embedding.
    """

    name: str
    shape: tuple[int, ...]
    channels_last: bool
    prefix: int
    has_cls: bool
    dim: int

    @property
    def side(self) -> int | None:
        """Rows and columns of the square of places; None where there is no such square."""
        if len(self.shape) == 3:
            rows, columns = self.shape[:2] if self.channels_last else self.shape[1:]
            return rows if rows == columns else None
        if len(self.shape) != 2:
            return None
        places = self.shape[0] - self.prefix
        side = math.isqrt(max(places, 0))
        # One token alone is a CLS token that its network does not count as such.
        return side if side > 1 and side * side == places else None

    @property
    def width(self) -> int:
        """Length of the features of a place."""
        return self.shape[0 if len(self.shape) == 3 and not self.channels_last else -1]
