"""How cosines to labels become probabilities: as the encoder was trained to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import DerivedEncoder, TextEncoder
from retrieval.query.background import background
from retrieval.types import Embeddings

ASSUMED_SCALE = 100.0
"""Where an encoder has none of its own: what CLIP's training bounds it by, and mostly reaches."""
UNRELATED = 0.95
"""A label of several fits that is nearer to the picture than this share of unrelated scenes."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reading:
    """How probabilities are made of cosines.

    Attributes:
        scale: factor on the cosine.
        bias: added after that, where the encoder was trained with a sigmoid (SigLIP); None where
            it was trained with a softmax (CLIP).
        multi_label: whether every label is judged by itself.
        note: what is not the encoder's own; empty where all is.
    """

    scale: float
    bias: float | None
    multi_label: bool
    note: str = ""

    @property
    def sigmoid(self) -> bool:
        """Whether probabilities stand by themselves, so that none of the labels may fit."""
        return self.multi_label or self.bias is not None

    def probabilities(self, cosines: NDArray[Any], unrelated: NDArray[Any] | None = None) -> Floats:
        """float64 ``[n, labels]`` in [0, 1]; rows sum to one unless :attr:`sigmoid`.

        With a bias, 1 / (1 + exp(-(scale · cosine + bias))), as Zhai et al., "Sigmoid loss for
        language image pre-training" (2023). Without, softmax of scale · cosine, as Radford et al.,
        "Learning transferable visual models from natural language supervision" (2021); for several
        labels 1 / (1 + exp(-scale · (cosine - u))) with ``unrelated`` as u.

        Args:
            cosines: ``[n, labels]``.
            unrelated: ``[n]``: see :func:`unrelated`; needed for several labels without a bias.
        """
        raised = self.scale * np.asarray(cosines, dtype=np.float64)
        if self.bias is not None:
            return _sigmoid(raised + self.bias)
        if self.multi_label:
            assert unrelated is not None
            return _sigmoid(raised - self.scale * np.asarray(unrelated, np.float64)[:, None])
        powers = np.exp(raised - raised.max(axis=1, keepdims=True))
        found: Floats = powers / powers.sum(axis=1, keepdims=True)
        return found


def reading(encoder: TextEncoder, multi_label: bool) -> Reading:
    """How ``encoder`` reads cosines: by its own scale and bias, or its base's, or as CLIP does."""
    spec, note = encoder.spec, ""
    if spec.logit_scale is None and isinstance(encoder, DerivedEncoder):
        spec = encoder.base.spec
        note = f"probabilities use the scale of {spec.name}, which the space is derived from"
    if spec.logit_scale is None:
        note = f"the encoder has no scale of its own: probabilities assume {ASSUMED_SCALE:g}"
        return Reading(ASSUMED_SCALE, None, multi_label, note)
    return Reading(spec.logit_scale, spec.logit_bias, multi_label, note)


def unrelated(encoder: TextEncoder, vectors: Embeddings) -> Floats:
    """float64 ``[n]``: the cosine to a picture that 95 % of texts on other things stay below.

    Args:
        encoder: that reads the texts: scenes of many kinds; their vectors are kept in the cache.
        vectors: float32 ``[n, dim]``, unit rows.
    """
    scenes = background(encoder).scenes
    found: Floats = np.quantile(vectors @ scenes.T, UNRELATED, axis=1).astype(np.float64)
    return found


def _sigmoid(values: Floats) -> Floats:
    small = np.exp(-np.abs(values))  # no overflow
    found: Floats = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return found
