"""Checkpoint folders of timm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.errors import EncoderError


def open_checkpoint(folder: Path, config: Mapping[str, Any], pooling: str | None) -> Checkpoint:
    """Read the facts of a folder."""
    raise EncoderError(f"{folder}: not read yet")
