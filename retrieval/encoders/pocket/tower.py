"""The text tower's forward pass in numpy: a small BERT, so that a query costs no runtime's start.

Architecture: Devlin et al., "BERT", 2018, with factorised word vectors (Lan et al., "ALBERT",
2019), the tanh form of GELU (Hendrycks and Gimpel, 2016) and the mean over all tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.pocket.artefact import dequantise

HEADS = 12
MAX_TOKENS = 64

_BATCH_SIZE = 64
_EPSILON = 1e-12

Array = NDArray[np.float32]


class TextTower:
    """Token ids to sentence embeddings.

    Texts of equal length are computed together, so that nothing is padded.
    """

    def __init__(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Unpack the stored tensors, but for the word vectors, of which a query needs few."""
        self._words, self._word_scale = stored["words.q"], stored["words.s"]
        rest = {name: value for name, value in stored.items() if not name.startswith("words.")}
        self._weights = dequantise(rest)
        self._layers = sum(name.endswith("qkv.bias") for name in self._weights)

    def __call__(self, rows: Sequence[Sequence[int]]) -> Array:
        """Embed tokenised texts, each of 1 to 64 ids.

        Returns:
            float32 ``[n, dim]``, not normalised.
        """
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            by_length[len(row)].append(index)
        out = np.empty((len(rows), self._weights["head.bias"].size), dtype=np.float32)
        for group in by_length.values():
            for start in range(0, len(group), _BATCH_SIZE):
                part = group[start : start + _BATCH_SIZE]
                out[part] = self._forward(np.array([rows[i] for i in part]))
        return out

    def _forward(self, ids: NDArray[np.int64]) -> Array:
        words = self._words[ids].astype(np.float32) * self._word_scale[ids][..., None]
        x = words @ self._weights["widen.weight"].T + self._weights["positions"][: ids.shape[1]]
        x = self._norm(x, "norm")
        for layer in range(self._layers):
            x = self._layer(x, f"layers.{layer}")
        h = x.mean(axis=1)
        h *= np.sqrt(h.shape[1]) / np.linalg.norm(h, axis=1, keepdims=True)
        return self._linear(h, "head") + self._linear(gelu(self._linear(h, "up")), "down")

    def _layer(self, x: Array, name: str) -> Array:
        """``x`` ``[n, tokens, width]``: attention, then a two-layer network."""
        n, tokens, width = x.shape
        qkv = self._linear(x, f"{name}.qkv").reshape(n, tokens, 3, HEADS, width // HEADS)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) / np.float32(np.sqrt(width // HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        mixed = self._linear(mixed.swapaxes(1, 2).reshape(n, tokens, width), f"{name}.out")
        x = self._norm(x + mixed, f"{name}.norm1")
        y = self._linear(gelu(self._linear(x, f"{name}.up")), f"{name}.down")
        return self._norm(x + y, f"{name}.norm2")

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        return np.asarray(x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def gelu(x: NDArray[Any]) -> Array:
    """GELU by tanh, element by element."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.asarray(np.float32(0.5) * x * (1 + np.tanh(inner)), dtype=np.float32)
