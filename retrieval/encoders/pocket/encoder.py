"""The two pocket encoders on one shared forward pass.

``pocket-visual`` is the backbone's pooled features, centred and half-whitened by PCA (every
component divided by the fourth root of its variance). ``pocket-text`` is a small head on the
features and class probabilities, beside a text tower trained into the same space.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders.base import EncoderSpec, PatchTokens, unit_rows
from retrieval.encoders.pocket import artefact, graph, weights
from retrieval.encoders.pocket.specs import DIM, PREPROCESS, TEXT, VISUAL
from retrieval.encoders.pocket.tower import MAX_TOKENS, TextTower, gelu
from retrieval.encoders.runtimes.onnx import RUNTIME, OnnxGraph
from retrieval.errors import EncoderUnavailable, UnknownEncoder
from retrieval.types import Embeddings

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

# cached_property is not locked: without this, threads that come first together would each build
# the graph.
_LOCK = threading.RLock()


class PocketTrunk:
    """EfficientNet-Lite0: one forward pass for both encoders, loaded at the first picture."""

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Pooled features and class logits.

        Args:
            images: RGB pictures of any size.

        Returns:
            float32 ``[n, 2280]``: 1,280 averages of the last feature map, 1,000 class logits.

        Raises:
            EncoderUnavailable: if the backbone's weights are missing or damaged.
        """
        out = np.empty((len(images), graph.WIDTH), dtype=np.float32)
        # One picture a run: its activations stay in the core's cache, which is faster than any
        # larger batch, and an answer cannot depend on its batch-mates.
        for row, image in enumerate(images):
            feeds = PREPROCESS.inputs([image])
            out[row] = self._graph.run(feeds, ["features"])[0][0]
        return out

    def places(self, image: Image.Image) -> NDArray[np.float32]:
        """The last feature map of one picture, row by row: float32 ``[49, 1280]``.

        Its mean is the first part of :meth:`features`.
        """
        [maps] = self._graph.run(PREPROCESS.inputs([image]), ["last"])
        return np.asarray(maps[0].reshape(graph.POOLED, -1).T)

    def middle(self, images: Sequence[Image.Image]) -> PatchTokens:
        """The map of the third stage, each place the mean of itself and the eight around it.

        Taken from the middle and averaged as PatchCore does with a ResNet (Roth et al., 2022): fine
        enough for small defects, and not yet bent towards the classes of ImageNet.

        Returns:
            Tokens ``[n, 784, 40]``, 28 rows and columns of each picture.
        """
        out = np.empty((len(images), graph.MIDDLE**2, graph.MIDDLE_WIDTH), dtype=np.float32)
        for row, image in enumerate(images):
            [maps] = self._graph.run(PREPROCESS.inputs([image]), ["stage3"])
            padded = np.pad(maps[0], ((0, 0), (1, 1), (1, 1)), mode="edge")
            around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
            out[row] = around.mean(axis=(3, 4)).reshape(graph.MIDDLE_WIDTH, -1).T
        return PatchTokens(out, np.full((len(images), 2), graph.MIDDLE, dtype=np.int64))

    @cached_property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Matrix ``[1280, 1000]`` and bias ``[1000]`` from features to class logits."""
        state = weights.load()
        return state["_fc.weight"].T, state["_fc.bias"]

    @property
    def _graph(self) -> OnnxGraph:
        with _LOCK:
            return self._loaded

    @cached_property
    def _loaded(self) -> OnnxGraph:
        return OnnxGraph(graph.graph_bytes(settings.load().cache_dir))


class PocketVisual:
    """Embeddings in which pictures that look alike are near."""

    spec: EncoderSpec = VISUAL
    runtime: str = RUNTIME

    def __init__(self, trunk: PocketTrunk) -> None:
        """Stand on ``trunk``; nothing is loaded before it is needed."""
        self.trunk = trunk

    @property
    def weights_hash(self) -> str:
        """Digest of the backbone's known bytes and of the whitening; costs no forward pass."""
        return artefact.digest(weights.SHA256.encode(), self._stored)

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size: float32 ``[n, 256]``, unit rows, in the order given."""
        return self.project(self.trunk.features(images))

    def encode_patches(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens ``[n, 49, 256]`` whose mean is the picture's embedding before it is normalised."""
        return _patch_tokens(images, lambda image: self._whiten(self.trunk.places(image)))

    def encode_middle(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens of finer places; see :meth:`PocketTrunk.middle`."""
        return self.trunk.middle(images)

    def project(self, features: NDArray[np.float32]) -> Embeddings:
        """Centre and whiten the trunk's features ``[n, 2280]``: unit rows ``[n, 256]``."""
        return unit_rows(self._whiten(features[:, : graph.POOLED]))

    def _whiten(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        whitening = self._whitening
        return np.asarray((pooled - whitening["mean"]) @ whitening["matrix"])

    @cached_property
    def _stored(self) -> artefact.Tensors:
        return artefact.read("visual.")

    @cached_property
    def _whitening(self) -> artefact.Tensors:
        return artefact.dequantise(self._stored)


class PocketText:
    """Embeddings in which a picture is near the words that describe it."""

    spec: EncoderSpec = TEXT
    runtime: str = RUNTIME

    def __init__(self, trunk: PocketTrunk) -> None:
        """Stand on ``trunk``; nothing is loaded before it is needed."""
        self.trunk = trunk

    @property
    def weights_hash(self) -> str:
        """Digest of the backbone's known bytes, both heads, the tower and its tokenizer."""
        tower = artefact.read("text.")
        return artefact.digest(
            weights.SHA256.encode(), artefact.read("image."), tower, self._tokenizer_bytes
        )

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size: float32 ``[n, 256]``, unit rows, in the order given."""
        return self.project(self.trunk.features(images))

    def encode_patches(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens ``[n, 49, 256]``: the image head on each place as if it were the whole picture."""
        return _patch_tokens(images, self._tokens)

    def encode_middle(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens of finer places; see :meth:`PocketTrunk.middle`."""
        return self.trunk.middle(images)

    def _tokens(self, image: Image.Image) -> NDArray[np.float32]:
        places = self.trunk.places(image)
        matrix, bias = self.trunk.classifier
        return self._project(np.hstack([places, places @ matrix + bias]))

    def project(self, features: NDArray[np.float32]) -> Embeddings:
        """Put the image head on the trunk's features ``[n, 2280]``: unit rows ``[n, 256]``."""
        return unit_rows(self._project(features))

    def _project(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        head = self._head
        x = (features[:, : graph.POOLED] - head["mean"]) / head["scale"]
        logits = features[:, graph.POOLED :]
        roots = np.exp((logits - logits.max(axis=1, keepdims=True, initial=-np.inf)) / 2)
        roots /= np.linalg.norm(roots, axis=1, keepdims=True)  # square roots of probabilities
        hidden = gelu(x @ head["up.weight"].T + head["up.bias"])
        out = x @ head["linear.weight"].T + head["linear.bias"]
        out += hidden @ head["down.weight"].T + head["down.bias"]
        out += roots @ head["classes.weight"].T
        return np.asarray(out)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts into the space of the images.

        Args:
            texts: any strings; what is beyond 64 tokens has no influence.

        Returns:
            float32 ``[n, 256]``, unit rows, in the order given.
        """
        with _LOCK:
            tokenizer, tower = self._tokenizer, self._tower
        # A lone surrogate, as a file name may carry, has no UTF-8 form for the tokenizer.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return unit_rows(tower([row.ids for row in tokenizer.encode_batch(clean)]))

    @cached_property
    def _head(self) -> artefact.Tensors:
        return artefact.dequantise(artefact.read("image."))

    @cached_property
    def _tower(self) -> TextTower:
        return TextTower(artefact.read("text."))

    @cached_property
    def _tokenizer_bytes(self) -> bytes:
        try:
            return artefact.TOKENIZER.read_bytes()
        except OSError as error:
            raise EncoderUnavailable(
                f"the pocket tokenizer is missing ({error}); fix: install this package again"
            ) from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer: Tokenizer = Tokenizer.from_str(self._tokenizer_bytes.decode("utf-8"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer


def _patch_tokens(
    images: Sequence[Image.Image], tokens: Callable[[Image.Image], NDArray[np.float32]]
) -> PatchTokens:
    out = np.empty((len(images), graph.SIDE**2, DIM), dtype=np.float32)
    for row, image in enumerate(images):
        out[row] = tokens(image)
    return PatchTokens(out, np.full((len(images), 2), graph.SIDE, dtype=np.int64))


_TRUNK = PocketTrunk()


def load(name: str) -> PocketVisual | PocketText:
    """One pocket encoder by name; all of them stand on the same trunk.

    Raises:
        UnknownEncoder: if ``name`` is neither ``pocket-visual`` nor ``pocket-text``.
    """
    if name == VISUAL.name:
        return PocketVisual(_TRUNK)
    if name == TEXT.name:
        return PocketText(_TRUNK)
    raise UnknownEncoder(f"no pocket encoder {name!r}; there are {VISUAL.name} and {TEXT.name}")
