"""The two heads that meet in one space, and the losses that bring them there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.pocket.graph import CLASSES, POOLED
from retrieval.encoders.pocket.specs import DIM, LOGIT_SCALE

_PROTOTYPE_STRENGTH = 8.0
_RESIDUAL = 0.6


class ImageHead(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Backbone features ``[n, 2280]`` to unit vectors ``[n, dim]``."""

    def __init__(self, mean: Tensor, scale: Tensor, hidden: int = 512) -> None:
        """Make the head; ``mean`` and ``scale`` standardise the pooled features."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.linear = nn.Linear(POOLED, DIM)
        self.up = nn.Linear(POOLED, hidden)
        self.down = nn.Linear(hidden, DIM)
        self.classes = nn.Linear(CLASSES, DIM, bias=False)
        nn.init.normal_(self.classes.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Linear and non-linear views of the features, and the class probabilities' roots."""
        x = (features[:, :POOLED] - self.mean) / self.scale
        x = F.dropout(x, 0.6, self.training)
        roots = F.softmax(features[:, POOLED:], dim=1).sqrt()
        y = F.dropout(F.gelu(self.up(x), approximate="tanh"), 0.3, self.training)
        roots = F.dropout(roots, 0.2, self.training)
        return F.normalize(self.linear(x) + self.down(y) + self.classes(roots), dim=1)


class TextHead(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Sentence embeddings ``[n, 384]`` of any length to unit vectors ``[n, dim]``."""

    def __init__(self, width: int = 384, hidden: int = 512) -> None:
        """Make the head."""
        super().__init__()
        self.head = nn.Linear(width, DIM)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, DIM)

    def forward(self, sentence: Tensor) -> Tensor:
        """Linear and non-linear views of the direction of ``sentence``."""
        x = F.normalize(sentence, dim=1) * sentence.shape[1] ** 0.5
        x = F.dropout(x, 0.1, self.training)
        y = F.dropout(F.gelu(self.up(x), approximate="tanh"), 0.3, self.training)
        return F.normalize(self.head(x) + self.down(y), dim=1)


@dataclass
class Photos:
    """Features ``[photos, 2280]`` of the training photos.

    ``captioned`` holds one array for every view (as it is, mirrored, cropped) of the photos that
    have captions; ``others`` has no captions.
    """

    captioned: list[Tensor]
    others: Tensor


class Prototypes:
    """Imagined photos of the 1,000 classes.

    A linear classifier's row is about the inverse covariance of the features times the class's
    mean (Fisher's discriminant); so the covariance times the row, strong enough, added to what is
    left of a random photo, looks to the network like a photo of the class.
    """

    def __init__(
        self, features: Tensor, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Estimate mean and covariance from ``features`` ``[n, 2280]``."""
        self._weight, self._bias = torch.tensor(weight), torch.tensor(bias)
        self._pooled = features[:, :POOLED]
        self._mean = self._pooled.mean(0)
        covariance = torch.cov(self._pooled.T)
        shift = (self._weight - self._weight.mean(0)) @ covariance
        self._centres = self._mean + _PROTOTYPE_STRENGTH * shift

    def sample(self, generator: torch.Generator) -> Tensor:
        """One imagined photo of every class, ``[1000, 2280]``."""
        pick = torch.randint(len(self._pooled), (CLASSES,), generator=generator)
        residual = self._pooled[pick] - self._mean
        pooled = (self._centres + _RESIDUAL * residual).clamp(min=0)
        return torch.cat([pooled, pooled @ self._weight.T + self._bias], dim=1)


def contrast(images: Tensor, texts: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch of matching rows."""
    logits = LOGIT_SCALE * images @ texts.T
    truth = torch.arange(len(logits))
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def soft_labels(images: Tensor, names: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of class names on photos with the network's own probabilities."""
    return F.cross_entropy(LOGIT_SCALE * images @ names.T, logits.softmax(1))


def group_names(texts: Tensor, prototypes: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of imagined photos for names that are true of several classes alike."""
    return F.cross_entropy(LOGIT_SCALE * texts @ prototypes.T, truth)
