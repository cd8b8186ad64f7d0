"""What the camera wrote: which way is up, when, with what. Never where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONGEST_TEXT = 100


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """The part of an EXIF block that we use; all defaults where there is none.

    Attributes:
        upright: how to turn the stored pixels so that up is up, or None.
        captured_at: ``DateTimeOriginal``, without time zone.
        facts: ``camera_make``, ``camera_model``, ``lens_model``, ``iso``, ``f_number``,
            ``exposure_time`` (s), ``focal_length_mm``, where known, as clean text.
    """

    upright: Image.Transpose | None = None
    captured_at: datetime | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def turn(self, image: Image.Image) -> Image.Image:
        """``image`` made upright; the same object where nothing is to be done."""
        return image if self.upright is None else image.transpose(self.upright)

    def turn_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(width, height)`` after :meth:`turn`."""
        swaps = self.upright is not None and self.upright >= Image.Transpose.ROTATE_90
        swaps = swaps and self.upright is not Image.Transpose.ROTATE_180
        return size[::-1] if swaps else size


def read_camera(image: Image.Image) -> CameraFacts:
    """Read the EXIF block of a loaded picture, as much of it as makes sense."""
    try:
        exif = image.getexif()
        upright = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken block may raise anything, and the pixels are fine without it
        return CameraFacts()
    try:
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        return CameraFacts(upright, _captured_at(camera), _facts(exif, camera))
    except Exception:  # as above, but the orientation was readable
        return CameraFacts(upright)


def _captured_at(camera: Mapping[int, Any]) -> datetime | None:
    text = _text(camera.get(ExifTags.Base.DateTimeOriginal))
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except ValueError:  # absent, or the zeros and blanks of a camera whose clock was never set
        return None


def _facts(exif: Mapping[int, Any], camera: Mapping[int, Any]) -> dict[str, str]:
    exposure = _number(camera.get(ExifTags.Base.ExposureTime))
    facts = {
        "camera_make": _text(exif.get(ExifTags.Base.Make)),
        "camera_model": _text(exif.get(ExifTags.Base.Model)),
        "lens_model": _text(camera.get(ExifTags.Base.LensModel)),
        "iso": _decimal(_number(camera.get(ExifTags.Base.ISOSpeedRatings))),
        "f_number": _decimal(_number(camera.get(ExifTags.Base.FNumber))),
        "exposure_time": f"1/{round(1 / exposure)}" if 0 < exposure < 0.5 else _decimal(exposure),
        "focal_length_mm": _decimal(_number(camera.get(ExifTags.Base.FocalLength))),
    }
    return {name: value for name, value in facts.items() if value}


def _text(value: object) -> str:
    """Printable text of one line, without what cameras pad with."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in value.split("\0")[0])
    return " ".join(printable.split())[:_LONGEST_TEXT]


def _number(value: object) -> float:
    """A positive finite number, or 0.0 for anything else."""
    if isinstance(value, tuple):
        value = value[0] if value else 0
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _decimal(number: float) -> str:
    return f"{number:.6g}" if number else ""
