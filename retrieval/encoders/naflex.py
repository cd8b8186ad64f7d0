"""Pictures of their own shape as a sequence of patches (SigLIP 2 NaFlex)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.preprocess import (
    Centre,
    Interpolation,
    Preprocess,
    Resize,
    ResizeIn,
    Triple,
    affine,
    digest,
)
from retrieval.errors import EncoderError
from retrieval.images.pixels import to_rgb

_CHOICES = {
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "centre": get_args(Centre),
    "resize_in": get_args(ResizeIn),
}


@dataclass(frozen=True)
class NaFlex:
    """Resize to as many whole patches as are allowed, nearly keeping the aspect ratio.

    As the processor of SigLIP 2 (https://arxiv.org/abs/2502.14786, section 2.4.2) does it.

    Attributes:
        patch_px: side of a square patch, pixels.
        max_patches: most patches of a picture; all pictures are padded to as many.
        interpolation: resampling filter, antialiased.
        mean: per RGB channel, on values in [0, 1].
        std: per RGB channel, on values in [0, 1].
    """

    patch_px: int
    max_patches: int
    interpolation: Interpolation
    mean: Triple
    std: Triple

    @property
    def size(self) -> int:
        """Side of a square picture of ``max_patches``, pixels."""
        return self.patch_px * math.isqrt(self.max_patches)

    @cached_property
    def hash(self) -> str:
        """Hex digest over all fields: part of a space's identity."""
        return digest(asdict(self))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Turn pictures of any size, RGB or what becomes it, into one batch of patches.

        Returns:
            ``pixels``: float32 ``[n, max_patches, patch_px * patch_px * 3]``, row by row from the
            top left, a patch's pixels likewise with RGB last; zeros behind the last patch.
            ``mask``: int64 ``[n, max_patches]``, 1 for a patch, 0 for padding.
            ``shapes``: int64 ``[n, 2]``, rows and columns of patches.
        """
        side = self.patch_px
        pixels = np.zeros((len(images), self.max_patches, side * side * 3), dtype=np.float32)
        mask = np.zeros((len(images), self.max_patches), dtype=np.int64)
        shapes = np.empty((len(images), 2), dtype=np.int64)
        scale, shift = (np.tile(values, side) for values in affine(self.mean, self.std))
        resample = Image.Resampling[self.interpolation.upper()]
        for row, image in enumerate(images):
            rows, columns = shapes[row] = self.grid(*image.size)
            resized = np.asarray(to_rgb(image).resize((columns * side, rows * side), resample))
            patches = resized.reshape(rows, side, columns, side * 3).swapaxes(1, 2)
            out = pixels[row, : rows * columns].reshape(patches.shape)
            out[...] = patches
            out *= scale
            out -= shift
            mask[row, : rows * columns] = 1
        return {"pixels": pixels, "mask": mask, "shapes": shapes}

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of this size is resized to.

        The largest scale at which both, rounded up, are allowed; found by the reference's
        bisection, whose precision and upper bound show in the result.
        """
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            scale = (low + high) / 2
            rows, columns = self._patches(height * scale), self._patches(width * scale)
            if rows * columns <= self.max_patches:
                low = scale
            else:
                high = scale
        return self._patches(height * low), self._patches(width * low)

    def _patches(self, length: float) -> int:
        return max(math.ceil(length / self.patch_px), 1)


def preprocess_of(facts: Mapping[str, Any]) -> Preprocess | NaFlex:
    """Read back what ``dataclasses.asdict`` made of a preprocessing, also after JSON.

    Raises:
        EncoderError: naming the fields that are missing, unknown or have an impossible value.
    """
    kind = NaFlex if "max_patches" in facts else Preprocess
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if unknown := sorted(set(facts) - set(known)):
        raise EncoderError(f"preprocessing has no field {', '.join(unknown)}")
    if missing := [name for name, needed in known.items() if needed and name not in facts]:
        raise EncoderError(f"preprocessing lacks {', '.join(missing)}")
    return kind(**{name: _checked(name, value) for name, value in facts.items()})


def _checked(name: str, value: Any) -> Any:
    """The value of a field as the classes hold it."""
    if name in _CHOICES:
        if value in _CHOICES[name]:
            return value
    elif name == "fill":
        if _numbers(value) and all(isinstance(v, int) and 0 <= v <= 255 for v in value):
            return tuple(value)
    elif name in ("mean", "std"):
        if _numbers(value) and (name == "mean" or min(value) > 0):
            return tuple(float(number) for number in value)
    elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    hint = f": it is one of {', '.join(_CHOICES[name])}" if name in _CHOICES else ""
    raise EncoderError(f"preprocessing cannot have {name} {value!r}{hint}")


def _numbers(value: Any) -> bool:
    """Whether these are three finite numbers."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and math.isfinite(number) for number in value)
    )
