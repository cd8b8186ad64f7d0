"""The encoder of a derived space: another encoder, and a map behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from retrieval.encoders.base import Encoder, EncoderSpec, TextEncoder
from retrieval.types import Embeddings, Space

if TYPE_CHECKING:
    from PIL import Image

Project = Callable[[Embeddings], Embeddings]


class TransformedEncoder:
    """Embeds pictures with ``base`` and maps the embeddings; it gives no patch tokens."""

    def __init__(self, base: Encoder, space: Space, project: Project) -> None:
        """Make the embeddings of ``space`` from those of ``base`` by ``project``."""
        self.base = base
        self.project = project
        self.weights_hash = space.weights_hash
        self.spec: EncoderSpec = replace(
            base.spec,
            name=space.name,
            dim=space.dim,
            pooling=space.pooling,
            patch_px=None,
            logit_scale=None,
            logit_bias=None,
        )

    @property
    def runtime(self) -> str:
        """What computes the base's embeddings."""
        return self.base.runtime

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size: float32 ``[n, dim]``, unit rows, in the order given."""
        return self.project(self.base.encode_images(images))


class TransformedTextEncoder(TransformedEncoder):
    """The same for a base whose space also holds text."""

    base: TextEncoder

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts into the same space: float32 ``[n, dim]``, unit rows, in the order given."""
        return self.project(self.base.encode_texts(texts))


def transformed(base: Encoder, space: Space, project: Project) -> TransformedEncoder:
    """The encoder of the derived ``space``; it takes text where ``base`` does.

    Args:
        base: encoder of the space that it is derived from.
        space: what it is to make.
        project: maps embeddings ``[n, base dim]`` to ``[n, dim]``, unit rows both.
    """
    kind = TransformedTextEncoder if isinstance(base, TextEncoder) else TransformedEncoder
    return kind(base, space, project)
