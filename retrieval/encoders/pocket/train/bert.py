"""BERT as a sentence encoder in torch: the teacher's architecture, and the small student's.

Devlin et al., "BERT", 2018, without token types beyond the first; the mean over the tokens is the
sentence (Reimers and Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a tower; ``rank`` is the width of the factorised word vectors, 0 for full."""

    vocabulary: int
    width: int = 384
    layers: int = 6
    hidden: int = 1536
    heads: int = 12
    positions: int = 512
    rank: int = 0


class Layer(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Attention and a two-layer network, each added and normalised."""

    def __init__(self, shape: Shape) -> None:
        """Make the layer."""
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm1 = nn.LayerNorm(shape.width, eps=1e-12)
        self.up = nn.Linear(shape.width, shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor, dropout: float) -> Tensor:
        """``x`` ``[n, tokens, width]``; ``mask`` bool ``[n, 1, 1, tokens]``."""
        n, tokens, width = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # Written out: in bfloat16 on a CPU the fused kernel's way back takes three times as long.
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype) @ v
        mixed = self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        x = self.norm1(x + F.dropout(mixed, dropout, self.training))
        y = self.down(F.gelu(self.up(x), approximate="tanh"))
        return self.norm2(x + F.dropout(y, dropout, self.training))


class Tower(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Token ids to one vector a sentence."""

    def __init__(self, shape: Shape) -> None:
        """Make the tower with random weights."""
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.rank or shape.width)
        self.widen = nn.Linear(shape.rank, shape.width, bias=False) if shape.rank else None
        self.positions = nn.Parameter(torch.zeros(shape.positions, shape.width))
        self.norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, ids: Tensor, mask: Tensor, dropout: float = 0.0) -> Tensor:
        """Mean of the last layer over real tokens, not normalised.

        Args:
            ids: int64 ``[n, tokens]``.
            mask: bool ``[n, tokens]``, true at real tokens.
            dropout: on what every layer adds.

        Returns:
            float32 ``[n, width]``.
        """
        x = self.words(ids)
        if self.widen is not None:
            x = self.widen(x)
        x = self.norm(x + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :], dropout)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return ((x * weight).sum(1) / weight.sum(1)).float()


def load_teacher(folder: Path) -> Tower:
    """MiniLM-L6 from its ``model.safetensors``."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    words = state["embeddings.word_embeddings.weight"]
    tower = Tower(Shape(vocabulary=words.shape[0]))
    own = {
        "words.weight": words,
        "positions": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
    }
    names = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for part in ("weight", "bias"):
        own[f"norm.{part}"] = state[f"embeddings.LayerNorm.{part}"]
        for i in range(tower.shape.layers):
            layer = f"encoder.layer.{i}"
            own[f"layers.{i}.qkv.{part}"] = torch.cat(
                [state[f"{layer}.attention.self.{x}.{part}"] for x in ("query", "key", "value")]
            )
            for mine, theirs in names.items():
                own[f"layers.{i}.{mine}.{part}"] = state[f"{layer}.{theirs}.{part}"]
    tower.load_state_dict(own)
    tower.eval()
    return tower
