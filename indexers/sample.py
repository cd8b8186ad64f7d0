"""A look at some of the pictures before the work begins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from PIL import Image

from indexers.sources import FolderSource, FoundFile
from retrieval import settings
from retrieval.errors import ImageError
from retrieval.images import decode

_LOOKED_AT = 10_000
_SHORTER_PX = 512  # more than encoders look at; dozens of whole photos would take gigabytes


def sample_pictures(sources: Sequence[FolderSource], count: int = 32) -> list[Image.Image]:
    """Up to ``count`` RGB pictures from all over the sources, the same ones every time.

    Large ones are shrunk to a shorter side of 512 px.
    """
    found = [
        file
        for source in sources
        for file in islice(source, _LOOKED_AT)
        if isinstance(file, FoundFile)
    ]
    random.Random(0).shuffle(found)
    pictures: list[Image.Image] = []
    for file in found:
        if len(pictures) == count:
            break
        try:
            with open(file.path, "rb") as stream:
                data = stream.read()
            image = decode(data, max_pixels=settings.load().max_pixels).image
        except (OSError, ImageError, MemoryError):
            continue  # the run itself will report it
        pictures.append(_shrunk(image))
    return pictures


def _shrunk(image: Image.Image) -> Image.Image:
    zoom = _SHORTER_PX / min(image.size)
    if zoom >= 1:
        return image
    return image.resize((round(image.width * zoom), round(image.height * zoom)))
