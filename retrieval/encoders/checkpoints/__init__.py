"""Folders on disk that hold an encoder: whose they are, and what is in them."""

from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.opening import open_folder
from retrieval.encoders.checkpoints.portable import Portable

__all__ = ["Checkpoint", "Portable", "open_folder"]
