"""The image side: a trunk that gives tokens and a pool that makes a vector of them."""

from __future__ import annotations

from torch import Tensor, nn

from retrieval.encoders.towers.pools import Pool
from retrieval.encoders.towers.towers import Tower


class ImageTower(Tower):
    """Pixels to an embedding, not normalised.

    Args:
        trunk: module from the inputs to tokens ``[n, prefix + places, width]``.
        pool: what makes ``[n, dim]`` of them.
        inputs: ``("pixels",)``, or ``("pixels", "mask", "shapes")`` for variable resolution.
    """

    def __init__(self, trunk: nn.Module, pool: Pool, inputs: tuple[str, ...] = ("pixels",)) -> None:
        """Put the two together."""
        super().__init__()
        self.trunk = trunk
        self.pool = pool
        self.inputs = inputs

    def forward(self, *inputs: Tensor) -> Tensor:
        """``[n, dim]``."""
        embedding: Tensor = self.pool(self.trunk(*inputs), _mask(inputs))
        return embedding


class PatchTower(ImageTower):
    """Pixels to an embedding and what every place would give alone."""

    outputs = ("embedding", "patches")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, dim]`` and ``[n, places, width]``."""
        tokens = self.trunk(*inputs)
        return self.pool(tokens, _mask(inputs)), self.pool.each(self.pool.places(tokens))


def _mask(inputs: tuple[Tensor, ...]) -> Tensor | None:
    return inputs[1] if len(inputs) > 1 else None
