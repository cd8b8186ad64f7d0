"""A class of the user's own as an encoder: one method is enough."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from retrieval.encoders.base import Encoder, EncoderSpec, unit_rows
from retrieval.errors import EncoderError, UnknownEncoder

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retrieval.types import Embeddings


class OwnImages(Protocol):
    """What a class must have to be used as an encoder."""

    def encode_images(self, images: Sequence[Image.Image]) -> ArrayLike:
        """One row a picture, ``[n, dim]``; rows need not have unit length."""
        ...


def load(name: str) -> Encoder:
    """Import ``module:Class`` (also from the current folder), make one and adapt it.

    Raises:
        UnknownEncoder: if there is no such module or class.
        EncoderError: if it cannot be made without arguments, or does not give vectors.
    """
    module_name, _, class_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownEncoder(
            f"there is no module {error.name} for the encoder {name}: run where it is, or install "
            "it here"
        ) from error
    except Exception as error:
        raise EncoderError(
            f"the module {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, class_name):
        raise UnknownEncoder(f"the module {module_name} has no class {class_name}")
    try:
        made = getattr(module, class_name)()
    except Exception as error:
        raise EncoderError(f"{name}() failed: {error}; it is made without arguments") from error
    return adapt(made, name)


def adapt(thing: Any, name: str | None = None) -> Encoder:
    """Make an :class:`~retrieval.encoders.base.Encoder` of an object that has ``encode_images``.

    It may also have ``encode_texts`` (then words search its space), and the attributes
    ``weights_hash`` (text that changes when its answers do; by default a digest of the source of
    its class), ``prompt`` and ``summary``. An object that is an encoder already is given back.

    Args:
        thing: the object; it should be safe to call from several threads.
        name: of the encoder and its space; by default ``module:Class``.

    Raises:
        EncoderError: if it has no ``encode_images``, or gives no vectors for a gray picture.
    """
    if isinstance(thing, Encoder):
        return thing
    kind = type(thing)
    name = name or f"{kind.__module__}:{kind.__qualname__}"
    if not callable(getattr(thing, "encode_images", None)):
        raise EncoderError(
            f"{name} cannot be an encoder: it has no method encode_images(images) that gives one "
            "row of numbers a picture"
        )
    digest = str(getattr(thing, "weights_hash", None) or _source_hash(kind, name))
    texts = callable(getattr(thing, "encode_texts", None))
    adapted = (OwnTextEncoder if texts else OwnEncoder)(thing, digest)
    try:
        first = thing.encode_images([Image.new("RGB", (64, 48), (128, 128, 128))])
    except Exception as error:
        raise EncoderError(
            f"{name} cannot encode a gray picture: {type(error).__name__}: {error}"
        ) from error
    adapted.spec = EncoderSpec(
        name=name,
        family=kind.__name__,
        dim=int(_rows(first, 1, name).shape[1]),
        modalities=("image", "text") if texts else ("image",),
        preprocess=None,
        pooling="own",
        source=kind.__module__,
        revision="local",
        licence="own",
        size_mb=0,
        summary=str(getattr(thing, "summary", "an encoder of your own")),
        prompt=str(getattr(thing, "prompt", "{}")),
        library="python",
    )
    return adapted


class OwnEncoder:
    """An object with ``encode_images`` behind the protocol; :func:`adapt` makes it."""

    runtime = "python"
    spec: EncoderSpec

    def __init__(self, inner: Any, weights_hash: str) -> None:
        """Wrap ``inner``."""
        self.inner = inner
        self.weights_hash = weights_hash

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures: float32 ``[n, dim]``, unit rows.

        Raises:
            EncoderError: if the object gives rows that are missing, zero or not numbers.
        """
        return self._unit(self.inner.encode_images, images)

    def _unit(self, encode: Any, items: Sequence[Any]) -> Embeddings:
        if not items:
            return np.empty((0, self.spec.dim), dtype=np.float32)
        rows = _rows(encode(items), len(items), self.spec.name)
        if rows.shape[1] != self.spec.dim:
            raise EncoderError(
                f"{self.spec.name} gave {rows.shape[1]} numbers, not {self.spec.dim}"
            )
        try:
            return unit_rows(rows)
        except ValueError as error:
            raise EncoderError(f"{self.spec.name} failed: {error}") from error


class OwnTextEncoder(OwnEncoder):
    """An object with ``encode_images`` and ``encode_texts`` behind the protocol."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 ``[n, dim]``, unit rows; raises as :meth:`encode_images`."""
        return self._unit(self.inner.encode_texts, texts)


def _rows(given: Any, count: int, name: str) -> Embeddings:
    if hasattr(given, "detach"):  # a torch tensor, maybe on a GPU
        given = given.detach().float().cpu()
    try:
        rows = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"{name} did not give numbers: {error}") from error
    if rows.ndim != 2 or rows.shape[0] != count:
        raise EncoderError(f"{name} gave an array {rows.shape} for {count} inputs, not [n, dim]")
    return rows


def _source_hash(kind: type, name: str) -> str:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError) as error:
        raise EncoderError(
            f"{name} has no source to tell its versions apart: give it an attribute weights_hash"
        ) from error
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
