"""The text side of a student: a small transformer (Vaswani et al., 2017) over word pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrieval.encoders.towers import Tower

_WIDTH, _HEADS, _LAYERS = 192, 4, 2


class TextStudent(Tower):
    """Token ids and their mask to ``embedding``: the mean over tokens, then a two-layer head."""

    inputs = ("ids", "mask")

    def __init__(self, vocabulary: int, context: int, dim: int, seed: int) -> None:
        """Make the network, untrained.

        Args:
            vocabulary: token ids.
            context: most tokens of a text.
            dim: length of the teacher's embeddings.
            seed: of its first weights.
        """
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Parameter(0.5 * torch.randn(vocabulary, _WIDTH))
        self.positions = nn.Parameter(torch.zeros(context, _WIDTH))
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))
        self.head = nn.Sequential(
            nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``[n, dim]``, not normalised."""
        counts = mask.to(self.positions.dtype)
        x = self.words[ids] + self.positions[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :] > 0)
        mean = (x * counts[:, :, None]).sum(1) / counts.sum(1, keepdim=True)
        embedding: Tensor = self.head(mean)
        return embedding


class _Layer(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Self-attention and a two-layer network, each with its norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH)
        )

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        qkv = self.qkv(self.before_attention(x)).unflatten(-1, (3, _HEADS, _WIDTH // _HEADS))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.before_mlp(x))
        return x
