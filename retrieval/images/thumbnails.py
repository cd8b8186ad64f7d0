"""Small pictures to look at."""

from __future__ import annotations

import io

from PIL import Image


def thumbnail(image: Image.Image, side: int = 256) -> bytes:
    """Shrink a picture to fit a square and pack it as WebP.

    Args:
        image: RGB, as :func:`retrieval.images.decode` gives it; not modified.
        side: longest side of the thumbnail, pixels; smaller pictures are not enlarged.

    Returns:
        Bytes of a lossy RGB WebP file without metadata.
    """
    longest = max(image.size)
    if longest > side:
        width, height = (max(1, round(length * side / longest)) for length in image.size)
        # reducing_gap averages whole blocks first: cheap, and not seen at twice the final size.
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=80, method=2, icc_profile=b"")
    return packed.getvalue()
