"""From the last layer's tokens to one vector, and from each place's token to a vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Turns tokens ``[n, prefix + places, width]`` into ``[n, dim]``.

    Attributes:
        prefix: tokens before the places: CLS and registers.
    """

    def __init__(self, prefix: int) -> None:
        """Know how many tokens stand before the places."""
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool; ``mask`` [n, places] is 1 where a place counts, None where all do."""
        raise NotImplementedError

    def each(self, places: Tensor) -> Tensor:
        """What every place of ``[n, places, width]`` would give if it were the only one."""
        return places

    def places(self, tokens: Tensor) -> Tensor:
        """The tokens of places, without what stands before them."""
        return tokens[:, self.prefix :]


class Cls(Pool):
    """The CLS token."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take the first token."""
        return tokens[:, 0]


class Mean(Pool):
    """The mean of the places."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Average over the places that count."""
        places = self.places(tokens)
        if mask is None:
            return places.mean(dim=1)
        weight = mask.to(places.dtype).unsqueeze(-1)
        return (places * weight).sum(dim=1) / weight.sum(dim=1)


class ClsMean(Mean):
    """The CLS token and the mean of the places side by side, as DINOv2's linear evaluation."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate to ``[n, 2 * width]``."""
        return torch.cat([tokens[:, 0], super().forward(tokens, mask)], dim=-1)


class Gem(Pool):
    """Generalised mean of the places with exponent 3 (Radenović et al., arXiv:1711.02512)."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Cube, average, cube root; values under 1e-6 count as 1e-6, as in the paper's code."""
        cubes = self.places(tokens).clamp(min=1e-6).pow(3)
        if mask is None:
            return cubes.mean(dim=1).pow(1 / 3)
        weight = mask.to(cubes.dtype).unsqueeze(-1)
        return ((cubes * weight).sum(dim=1) / weight.sum(dim=1)).pow(1 / 3)


class Attention(Pool):
    """A learned attention head over the places.

    Args:
        head: module from tokens ``[n, places, width]`` (and a mask, where ``masked``) to
            ``[n, dim]``.
        prefix: tokens before the places; the head sees them too.
        masked: whether ``head`` takes a mask.
    """

    def __init__(self, head: nn.Module, prefix: int = 0, masked: bool = False) -> None:
        """Wrap the checkpoint's own head."""
        super().__init__(prefix)
        self.head = head
        self.masked = masked

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend."""
        pooled: Tensor = self.head(tokens, mask) if self.masked else self.head(tokens)
        return pooled

    def each(self, places: Tensor) -> Tensor:
        """Attend to one place at a time: its value through the head."""
        n, count, width = places.shape
        alone = places.reshape(n * count, 1, width)
        pooled: Tensor = self.head(alone, None) if self.masked else self.head(alone)
        return pooled.reshape(n, count, -1)


class _Projected(Pool):
    def __init__(self, pool: Pool, project: Callable[[Tensor], Tensor]) -> None:
        super().__init__(pool.prefix)
        self.pool = pool
        self.project = project

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.project(self.pool(tokens, mask))

    def each(self, places: Tensor) -> Tensor:
        return self.project(self.pool.each(places))


def projected(pool: Pool, *steps: nn.Module) -> Pool:
    """``pool`` followed by ``steps`` (a norm, a linear projection), for places as for the whole."""
    return _Projected(pool, nn.Sequential(*steps))


_NAMED: dict[str, type[Pool]] = {"cls": Cls, "mean": Mean, "cls+mean": ClsMean, "gem": Gem}


def named_pool(name: str, prefix: int) -> Pool:
    """The pool of one of the names ``cls``, ``mean``, ``cls+mean``, ``gem``."""
    return _NAMED[name](prefix)
