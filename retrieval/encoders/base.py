"""What an encoder is: the protocol, and the frozen facts of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.preprocess import Preprocess
from retrieval.types import Embeddings, Modality, Space, VectorType

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Frozen facts of one encoder.

    Attributes:
        name: how people ask for it (``--encoder NAME``); also the name of its space.
        family: architecture family, as ``SigLIP 2``.
        dim: length of an embedding.
        modalities: ``("image",)`` or ``("image", "text")``.
        preprocess: how a picture becomes the network's input; None for an encoder of the user's
            own, whose affair that is.
        pooling: how the network's last layer becomes one vector.
        source: registry package or hub repository of the weights.
        revision: version or commit of ``source``.
        licence: licence of the weights, by its short name.
        size_mb: download, in megabytes.
        summary: one line that helps to choose.
        logit_scale: factor on the cosine in the encoder's own image-text probability; None where
            it has none.
        logit_bias: bias added after scaling; None where it has none.
        terms: what binds the use of the weights beyond their licence; empty where nothing does.
        prompt: template around a bare word, as ``a photo of {}``; ``{}`` for none.
        reduced_decode: whether JPEGs may be decoded at reduced scale for it. Only where a test on
            real photos shows cosine ≥ 0.9999 to full scale; networks that react to the last bit
            of a pixel do not keep that.
        library: package whose network it is: ``transformers``, ``timm``, ``open_clip``, ``onnx``,
            or ``python`` for one of the user's own.
        patch_px: side of the square of input pixels that one patch token stands for; None where
            it gives no patch tokens.
        tokenizer: how its text side reads text, for people, as ``BPE, 77 tokens, English``.
        gated: whether the hub asks to accept terms before it gives the weights.
        gflops: multiply-adds times two of one picture's forward pass, in 10⁹; None if not counted.
        images_per_s: measured speed of the forward pass in fp32 on two CPU cores
            (``benchmarks/encoders``); None if not measured.
    """

    name: str
    family: str
    dim: int
    modalities: tuple[Modality, ...]
    preprocess: Preprocess | NaFlex | None
    pooling: str
    source: str
    revision: str
    licence: str
    size_mb: float
    summary: str
    logit_scale: float | None = None
    logit_bias: float | None = None
    prompt: str = "{}"
    terms: str = ""
    reduced_decode: bool = False
    library: str = "transformers"
    patch_px: int | None = None
    tokenizer: str = ""
    gated: bool = False
    gflops: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class PatchTokens:
    """What an encoder sees at each place of each picture.

    Attributes:
        tokens: float32 ``[n, places, width]``, not normalised; row by row from the top left. Those
            of a language-aligned encoder lie in the space of its embeddings (each place pooled as
            if it were the only one), so that they can be compared with words.
        grids: int64 ``[n, 2]``, rows and columns of each picture; its first ``rows * columns``
            tokens count, the rest is padding.
    """

    tokens: NDArray[np.float32]
    grids: NDArray[np.int64]

    def grid(self, at: int) -> NDArray[np.float32]:
        """The tokens of one picture: ``[rows, columns, width]``."""
        rows, columns = (int(side) for side in self.grids[at])
        return self.tokens[at, : rows * columns].reshape(rows, columns, -1)


@runtime_checkable
class Encoder(Protocol):
    """Turns images, and for language-aligned ones text, into embeddings.

    Safe to call from several threads. Answers do not depend on how inputs are batched
    (within 1e-5 at fp32). An empty input gives ``[0, dim]``.
    """

    @property
    def spec(self) -> EncoderSpec:
        """The facts of this encoder."""
        ...

    @property
    def weights_hash(self) -> str:
        """Hex digest of the source weights: two encoders of one hash give the same vectors."""
        ...

    @property
    def runtime(self) -> str:
        """What computes, as ``onnxruntime-cpu``."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size.

        Returns:
            float32 ``[n, dim]``, unit rows, in the order given.
        """
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder whose space also holds text."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts into the same space as the images.

        Returns:
            float32 ``[n, dim]``, unit rows, in the order given.
        """
        ...


@runtime_checkable
class DenseEncoder(Encoder, Protocol):
    """An encoder that also tells what is where."""

    def encode_patches(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens of the places of RGB pictures, in the order given.

        Raises:
            EncoderError: if the encoder gives no patch tokens (``spec.patch_px`` is None).
        """
        ...


@runtime_checkable
class MiddleEncoder(Encoder, Protocol):
    """An encoder whose middle layers tell finer places than its last one, as a CNN's do."""

    def encode_middle(self, images: Sequence[Image.Image]) -> PatchTokens:
        """What its middle layers see of RGB pictures, in the order given; it is like no text."""
        ...


@runtime_checkable
class Trunk(Protocol):
    """A forward pass that several encoders share."""

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 ``[n, width]``, one row an image, not normalised."""
        ...


@runtime_checkable
class TrunkEncoder(Encoder, Protocol):
    """An encoder that is a small head on a shared trunk."""

    @property
    def trunk(self) -> Trunk:
        """The shared forward pass; encoders of one trunk hold the same object."""
        ...

    def project(self, features: NDArray[np.float32]) -> Embeddings:
        """Turn the trunk's features ``[n, width]`` into unit embeddings ``[n, dim]``."""
        ...


@runtime_checkable
class DerivedEncoder(Encoder, Protocol):
    """An encoder that maps another one's embeddings."""

    @property
    def base(self) -> Encoder:
        """The other encoder."""
        ...

    def project(self, vectors: Embeddings) -> Embeddings:
        """Turn the base's unit embeddings ``[n, width]`` into unit embeddings ``[n, dim]``."""
        ...


def encode_spaces(
    encoders: Sequence[Encoder], images: Sequence[Image.Image]
) -> dict[str, Embeddings]:
    """Embed ``images`` with every encoder, running a shared trunk, or base encoder, once.

    Returns:
        Embeddings ``[n, dim]`` by encoder name.
    """
    features: dict[int, NDArray[np.float32]] = {}
    known: dict[str, Embeddings] = {}

    def embed(encoder: Encoder) -> Embeddings:
        name = encoder.spec.name
        if name in known:
            return known[name]
        if isinstance(encoder, DerivedEncoder):
            known[name] = encoder.project(embed(encoder.base))
        elif isinstance(encoder, TrunkEncoder):
            key = id(encoder.trunk)
            if key not in features:
                features[key] = encoder.trunk.features(images)
            known[name] = encoder.project(features[key])
        else:
            known[name] = encoder.encode_images(images)
        return known[name]

    return {encoder.spec.name: embed(encoder) for encoder in encoders}


def space_of(encoder: Encoder, dtype: VectorType = "float32") -> Space:
    """The space that ``encoder`` makes in a collection that stores vectors as ``dtype``."""
    spec = encoder.spec
    return Space(
        name=spec.name,
        encoder=spec.name,
        weights_hash=encoder.weights_hash,
        preprocess_hash=spec.preprocess.hash if spec.preprocess else "own",
        pooling=spec.pooling,
        dim=spec.dim,
        modalities=spec.modalities,
        dtype=dtype,
        runtime=encoder.runtime,
    )


def unit_rows(matrix: NDArray[np.floating]) -> Embeddings:
    """Scale every row of ``[n, dim]`` to unit length (float32 copy).

    Raises:
        ValueError: if a row is zero or not finite, since it has no direction.
    """
    rows = np.asarray(matrix, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        raise ValueError("an embedding is zero or not finite")
    return np.asarray(rows / norms, dtype=np.float32)
