"""Nearest-neighbour search over vectors. Knows nothing of images or encoders."""

from retrieval.vectors.exact import Block, nearest

__all__ = ["Block", "nearest"]
