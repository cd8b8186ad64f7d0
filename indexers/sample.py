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


def sample_pictures(sources: Sequence[FolderSource], count: int = 32) -> list[Image.Image]:
    """Up to ``count`` RGB pictures from all over the sources, the same ones every time."""
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
            pictures.append(decode(data, max_pixels=settings.load().max_pixels).image)
        except (OSError, ImageError, MemoryError):
            continue  # the run itself will report it
    return pictures
