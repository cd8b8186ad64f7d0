"""Batches for the two sides, from what the teacher left on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexers.distill.photos import Shelf
from retrieval.encoders import Preprocess
from retrieval.encoders.preprocess import affine
from retrieval.encoders.tokens import Tokenizer

Batch = tuple[tuple[Tensor, ...], Tensor]

_SORTED_BATCHES = 50


class ImageLesson:
    """Photos, each time in one of their views."""

    def __init__(self, shelf: Shelf, photos: NDArray[np.int64], preprocess: Preprocess) -> None:
        """Learn from these ``photos`` of ``shelf``."""
        self._shelf, self._photos = shelf, photos
        self._affine = affine(preprocess.mean, preprocess.std)

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self._photos)

    def order(self, chance: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Any order."""
        return chance.permutation(len(self))

    def batch(
        self, rows: NDArray[np.int64], chance: np.random.Generator, device: torch.device
    ) -> Batch:
        """Normalised pixels ``[n, 3, side, side]``, and the teacher's rows."""
        photos = self._photos[rows]
        views = chance.integers(self._shelf.views, size=len(photos))
        levels = torch.from_numpy(self._shelf.pixels[views, photos]).to(device)
        scale, shift = (torch.from_numpy(part).to(device) for part in self._affine)
        pixels = (levels.float() * scale - shift).permute(0, 3, 1, 2)
        return (pixels,), torch.from_numpy(self._shelf.targets[views, photos]).to(device)


class TextLesson:
    """Tokenised texts."""

    def __init__(
        self, tokenizer: Tokenizer, texts: Sequence[str], targets: NDArray[np.float32]
    ) -> None:
        """Learn ``texts``, which the teacher puts at ``targets`` ``[n, dim]``."""
        self._tokenizer, self._rows, self._targets = tokenizer, tokenizer.rows(texts), targets

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._rows)

    def order(self, chance: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Texts of like length together, so that little of a batch is padding."""
        order = chance.permutation(len(self))
        lengths = np.array([len(row) for row in self._rows])
        span = _SORTED_BATCHES * size
        parts = [order[start : start + span] for start in range(0, len(order), span)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        whole = len(order) // size * size
        batches = chance.permutation(order[:whole].reshape(-1, size))
        return np.concatenate([batches.reshape(-1), order[whole:]])

    def batch(
        self, rows: NDArray[np.int64], chance: np.random.Generator, device: torch.device
    ) -> Batch:
        """Ids and mask ``[n, length]``, and the teacher's rows."""
        feeds = self._tokenizer.padded([self._rows[row] for row in rows])
        ids, mask = (torch.from_numpy(feeds[name]).to(device) for name in ("ids", "mask"))
        return (ids, mask), torch.from_numpy(self._targets[rows]).to(device)
