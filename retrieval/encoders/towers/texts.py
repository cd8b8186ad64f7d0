"""Text models of transformers as towers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrieval.encoders.towers.towers import Tower


class PooledText(Tower):
    """A text model's own pooled output, projected where the checkpoint projects it.

    The text side alone is wrapped: the image side may run in another precision.

    Args:
        model: text model.
        project: what follows its pooling.
        masked: whether it must be told what is padding. Causal models need not know, and SigLIP's
            were trained without.
        first: whether the first token is the pooled output.
    """

    def __init__(
        self,
        model: nn.Module,
        project: nn.Module | None = None,
        *,
        masked: bool = False,
        first: bool = False,
    ) -> None:
        """Wrap the model."""
        super().__init__()
        self.model = model
        self.project = project or nn.Identity()
        self.first = first
        self.inputs = ("ids", "mask") if masked else ("ids",)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[n, length]`` to ``[n, dim]``."""
        found = self.model(input_ids=ids, attention_mask=mask)
        pooled = found.last_hidden_state[:, 0] if self.first else found.pooler_output
        embedding: Tensor = self.project(pooled)
        return embedding


class CausalText(PooledText):
    """AIMv2's text model, whose tokens see none behind them.

    The library tells it so only in a batch in which some text is padded.
    """

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[n, length]`` to ``[n, dim]``."""
        weight = next(self.model.parameters())
        unseen = torch.full(
            (ids.shape[1], ids.shape[1]),
            torch.finfo(weight.dtype).min,
            dtype=weight.dtype,
            device=ids.device,
        )
        return super().forward(ids, unseen.triu(1)[None, None])
