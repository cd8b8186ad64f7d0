"""Tiny checkpoints of the real transformers classes, with seeded random weights.

Each function writes one into a folder and returns the folder.
"""

from tests.encoders.checkpoints.aligned import ALIGNED, clip, siglip, siglip2
from tests.encoders.checkpoints.backbones import BACKBONES
from tests.encoders.checkpoints.texts import CHINESE, SENTENCES
from tests.encoders.checkpoints.visual import VISUAL, dinov2

FAMILIES = {**VISUAL, **ALIGNED}

__all__ = [
    "ALIGNED",
    "BACKBONES",
    "CHINESE",
    "FAMILIES",
    "SENTENCES",
    "VISUAL",
    "clip",
    "dinov2",
    "siglip",
    "siglip2",
]
