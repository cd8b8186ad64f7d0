"""What every tower is, and the set of them that one checkpoint gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


class Tower(nn.Module):
    """A network with named inputs and outputs, so that every runtime feeds it alike.

    Attributes:
        inputs: names of the arguments of ``forward``, in order.
        outputs: names of what ``forward`` gives, in order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("embedding",)


@dataclass(frozen=True, slots=True)
class Towers:
    """The networks of one checkpoint, in fp32 and in evaluation mode.

    Attributes:
        image: ``pixels`` (NaFlex: also ``mask``, ``shapes``) to ``embedding`` [n, dim].
        patches: the same, and ``patches`` [n, places, width]; shares the weights of ``image``.
        text: ``ids`` (some also ``mask``) int64 [n, length] to ``embedding`` [n, dim].
        logit_scale: factor on the cosine in the encoder's own image-text probability.
        logit_bias: bias added after scaling.
    """

    image: Tower
    patches: Tower | None = None
    text: Tower | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        """Put all of them into evaluation mode: an export would else restore training mode."""
        for _, tower in self:
            tower.eval()

    def __iter__(self) -> Iterator[tuple[str, Tower]]:
        """The towers there are, by name."""
        for name in ("image", "patches", "text"):
            if (tower := getattr(self, name)) is not None:
                yield name, tower
