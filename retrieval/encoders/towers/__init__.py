"""Networks in torch with one shape: pixels or token ids in, an embedding (and patches) out.

These modules import torch at the top; whoever needs them imports them inside a function.
"""

from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import (
    Attention,
    Cls,
    ClsMean,
    Gem,
    Mean,
    Pool,
    named_pool,
    projected,
)
from retrieval.encoders.towers.towers import Tower, Towers

__all__ = [
    "Attention",
    "Cls",
    "ClsMean",
    "Gem",
    "ImageTower",
    "Mean",
    "PatchTower",
    "Pool",
    "Tower",
    "Towers",
    "named_pool",
    "projected",
]
