"""The pocket encoders: what runs with nothing downloaded."""

from retrieval.encoders.pocket.encoder import PocketText, PocketTrunk, PocketVisual, load
from retrieval.encoders.pocket.specs import SPECS

__all__ = ["SPECS", "PocketText", "PocketTrunk", "PocketVisual", "load"]
