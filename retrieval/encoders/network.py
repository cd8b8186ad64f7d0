"""An encoder made of preprocessing, a network and a runtime."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import EncoderSpec, PatchTokens, unit_rows
from retrieval.encoders.runtimes import Graph
from retrieval.encoders.tokens import Tokenizer
from retrieval.errors import EncoderError
from retrieval.types import Embeddings

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
R = TypeVar("R")
Feeds = Mapping[str, NDArray[Any]]
OpenGraph = Callable[[str], Graph]
BATCH_SIZE = 32


class NetworkEncoder:
    """An image encoder on any runtime.

    Preprocessing runs in the callers' threads; a batch that does not fit into memory is halved.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        weights_hash: str,
        runtime: str,
        open_graph: OpenGraph,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Put the parts together.

        Args:
            spec: the facts.
            weights_hash: digest of the source weights.
            runtime: what computes image embeddings, as ``openvino-cpu-bf16``.
            open_graph: gives the network of ``image``, ``patches`` or ``text``; called once each,
                when it is first needed.
            batch_size: pictures in one forward pass; fewer after one did not fit.
        """
        self.spec = spec
        self.weights_hash = weights_hash
        self.runtime = runtime
        self._open_graph = open_graph
        self._graphs: dict[str, Graph] = {}
        self._opening = threading.Lock()
        self._batch_size = batch_size

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size: float32 ``[n, dim]``, unit rows, in the order given.

        Raises:
            EncoderError: if the computation fails.
        """
        out = np.empty((len(images), self.spec.dim), dtype=np.float32)
        for part, rows in self._in_batches(images, self._image_rows):
            out[part] = rows
        return out

    def encode_patches(self, images: Sequence[Image.Image]) -> PatchTokens:
        """Tokens of the places of RGB pictures, in the order given.

        Raises:
            EncoderError: if the encoder has none, or the computation fails.
        """
        if self.spec.patch_px is None:
            raise EncoderError(f"{self.spec.name} gives no patch tokens; take a ViT such as DINOv2")
        parts = [rows for _, rows in self._in_batches(images, self._patch_rows)]
        if not parts:
            return PatchTokens(np.empty((0, 0, 0), np.float32), np.empty((0, 2), np.int64))
        tokens, grids = zip(*parts, strict=True)
        return PatchTokens(np.concatenate(tokens), np.concatenate(grids))

    def _image_rows(self, images: Sequence[Image.Image]) -> Embeddings:
        return self._unit_rows("image", self._feeds(images))

    def _feeds(self, images: Sequence[Image.Image]) -> Feeds:
        if self.spec.preprocess is None:
            raise EncoderError(f"{self.spec.name} does not say how its pictures are prepared")
        return self.spec.preprocess.inputs(images)

    def _patch_rows(
        self, images: Sequence[Image.Image]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        feeds = self._feeds(images)
        [tokens] = self._graph("patches").run(feeds, ["patches"])
        if "shapes" in feeds:
            return tokens, feeds["shapes"].astype(np.int64)
        side = math.isqrt(tokens.shape[1])
        return tokens, np.full((len(images), 2), side, dtype=np.int64)

    def _unit_rows(self, tower: str, feeds: Feeds) -> Embeddings:
        [rows] = self._graph(tower).run(feeds, ["embedding"])
        if rows.shape[1:] != (self.spec.dim,):
            raise EncoderError(
                f"{self.spec.name} gives {tower} rows of {rows.shape[1:]}, not of {self.spec.dim}"
            )
        try:
            return unit_rows(rows)
        except ValueError as error:
            raise EncoderError(f"{self.spec.name} failed: {error}") from error

    def _in_batches(
        self, items: Sequence[T], step: Callable[[Sequence[T]], R]
    ) -> Iterator[tuple[slice, R]]:
        """Run ``step`` over slices of ``items``, halving those that do not fit into memory."""
        done = 0
        while done < len(items):
            part = slice(done, min(done + self._batch_size, len(items)))
            try:
                result = step(items[part])
            except MemoryError as error:
                if part.stop - done == 1:
                    raise EncoderError(
                        f"{self.spec.name} needs more memory for one input than there is: {error}"
                    ) from error
                self._batch_size = (part.stop - done) // 2
                continue
            yield part, result
            done = part.stop

    def _graph(self, tower: str) -> Graph:
        with self._opening:
            if tower not in self._graphs:
                self._graphs[tower] = self._open_graph(tower)
            return self._graphs[tower]


class NetworkTextEncoder(NetworkEncoder):
    """An encoder whose space also holds text."""

    def __init__(
        self,
        spec: EncoderSpec,
        weights_hash: str,
        runtime: str,
        open_graph: OpenGraph,
        tokenizer: Tokenizer,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Put the parts together; see :class:`NetworkEncoder`."""
        super().__init__(spec, weights_hash, runtime, open_graph, batch_size=batch_size)
        self._tokenizer = tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 ``[n, dim]``, unit rows; texts too long for the network are cut.

        Raises:
            EncoderError: if the computation fails.
        """
        rows = self._tokenizer.rows(texts)
        # Texts of like length go together, so that little of a batch is padding.
        order = np.argsort([len(row) for row in rows], kind="stable").astype(np.intp)
        out = np.empty((len(rows), self.spec.dim), dtype=np.float32)
        for part, vectors in self._in_batches([rows[at] for at in order], self._text_rows):
            out[order[part]] = vectors
        return out

    def _text_rows(self, rows: Sequence[Sequence[int]]) -> Embeddings:
        return self._unit_rows("text", self._tokenizer.padded(rows))
