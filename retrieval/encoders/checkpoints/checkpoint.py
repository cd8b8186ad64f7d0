"""What a checkpoint folder is, whatever library wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import settings
from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.tokens import Tokenizer

if TYPE_CHECKING:
    from retrieval.encoders.towers import Towers


@dataclass(frozen=True)
class Checkpoint:
    """An encoder on disk whose network is built in torch.

    Attributes:
        folder: where it is.
        spec: its facts, as the folder tells them.
        files: its weights, safetensors, in a fixed order.
        towers: reads the weights and builds the networks; takes seconds and memory.
        tokenizer: reads the tokenizer; None for a visual encoder.
    """

    folder: Path
    spec: EncoderSpec
    files: tuple[Path, ...]
    towers: Callable[[], Towers]
    tokenizer: Callable[[], Tokenizer] | None = None

    @cached_property
    def weights_hash(self) -> str:
        """BLAKE2b-128 over the weights, 32 hex digits."""
        return weights_hash(self.files, settings.load().cache_dir)
