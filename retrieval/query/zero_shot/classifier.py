"""A classifier that is told its classes in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders import Encoder, TextEncoder, load
from retrieval.encoders.base import unit_rows
from retrieval.errors import ModalityError, QueryError
from retrieval.images import ImageInput
from retrieval.images import load as load_picture
from retrieval.query.zero_shot.reading import reading, unrelated
from retrieval.query.zero_shot.templates import Templates, resolve
from retrieval.types import Embeddings

FITS_FROM = 0.5
"""Probability from which on a label fits, where each is judged by itself."""
_BATCH = 32


class ZeroShotClassifier:
    """Says what pictures show, of labels given in words; nothing is trained.

    A label's vector is the mean of its unit vectors in all templates, scaled to unit length.
    Probabilities are the encoder's own: a softmax over the labels for CLIP and its like, so that
    one always fits; a sigmoid for each label for SigLIP, so that none may.

    >>> classifier = ZeroShotClassifier(["cat", "dog"])                  # doctest: +SKIP
    >>> classifier.predict(["pet.jpg"])                                  # doctest: +SKIP

    Attributes:
        classes_: the labels, in the order given.
        templates_: the phrases they are read in.
        reading: how cosines become probabilities.
        vectors: float32 ``[labels, dim]``, unit rows.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        encoder: TextEncoder | str = "pocket-text",
        templates: Templates | None = None,
        multi_label: bool = False,
    ) -> None:
        """Read the labels.

        Args:
            labels: what a picture may be, each another.
            encoder: a language-aligned one, or its name.
            templates: ``plain``, ``imagenet-7``, ``imagenet-80``, a file of one a line, or a list;
                by default the bare label and the encoder's own prompt.
            multi_label: whether several labels, or none, may fit one picture.

        Raises:
            QueryError: if there is no label, the same one twice, or only one where one always fits.
            ModalityError: if the encoder takes no text.
            EncoderError: if it cannot be loaded.
        """
        found = load(encoder) if isinstance(encoder, str) else encoder
        if not isinstance(found, TextEncoder):
            raise ModalityError(
                f"encoder {found.spec.name!r} reads no labels: choose one that takes text, as "
                "pocket-text"
            )
        self.encoder = found
        self.reading = reading(found, multi_label)
        self.classes_ = np.array(check_labels(labels, alone=self.reading.sigmoid))
        self.templates_name, self.templates_ = resolve(templates, found)
        self.vectors = _label_vectors(found, self.classes_.tolist(), self.templates_)

    def predict(self, pictures: Sequence[ImageInput] | Embeddings) -> NDArray[Any]:
        """The best label of each ``[n]``; with ``multi_label`` which fit: bool ``[n, labels]``."""
        found = self.predict_proba(pictures)
        if self.reading.multi_label:
            fits: NDArray[Any] = found >= FITS_FROM
            return fits
        best: NDArray[Any] = self.classes_[found.argmax(axis=1)]
        return best

    def predict_proba(self, pictures: Sequence[ImageInput] | Embeddings) -> NDArray[np.float64]:
        """Probabilities of the labels.

        Args:
            pictures: paths, bytes, Pillow pictures or arrays of pixels; or vectors ``[n, dim]`` of
                the encoder's space, of any length.

        Returns:
            float64 ``[n, labels]`` in [0, 1]; rows sum to one unless labels are judged by
            themselves.

        Raises:
            QueryError: if a vector is not finite or zero, or something is no picture.
            ImageError: if a picture cannot be read.
        """
        if isinstance(pictures, np.ndarray):
            return self.of_vectors(self._checked(pictures))
        if isinstance(pictures, str | bytes):
            raise QueryError("pictures come as a list: predict([picture])")
        return self.of_vectors(encoded(self.encoder, pictures))

    def of_vectors(self, vectors: Embeddings) -> NDArray[np.float64]:
        """Probabilities ``[n, labels]`` of pictures by their unit vectors ``[n, dim]``."""
        several = self.reading.multi_label and self.reading.bias is None
        beside = unrelated(self.encoder, vectors) if several else None
        return self.reading.probabilities(vectors @ self.vectors.T, beside)

    def _checked(self, given: NDArray[Any]) -> Embeddings:
        dim = self.vectors.shape[1]
        if given.ndim != 2 or given.shape[1] != dim:
            raise QueryError(
                f"vectors have shape [n, {dim}] in the space of {self.encoder.spec.name}, not "
                f"{list(given.shape)}; pictures come as a list"
            )
        try:
            return unit_rows(given) if len(given) else given.astype(np.float32)
        except ValueError as error:
            raise QueryError(f"vectors cannot be compared: {error}") from error


def check_labels(labels: Sequence[str], *, alone: bool) -> list[str]:
    """Labels without space around them.

    Args:
        labels: as given.
        alone: whether one label is enough, as where none may fit.

    Raises:
        QueryError: if they are none, empty, the same twice, or only one where it always fits.
    """
    if isinstance(labels, str):
        raise QueryError(f"labels are a list: [{labels!r}]")
    told = [str(label).strip() for label in labels]
    if not told:
        raise QueryError("there is no label: name at least two, as cat and dog")
    if "" in told:
        raise QueryError("a label is empty")
    if twice := sorted({label for label in told if told.count(label) > 1}):
        raise QueryError(f"the label {twice[0]!r} is given twice")
    if len(told) == 1 and not alone:
        raise QueryError(
            f"with {told[0]!r} as the only label every picture would get it: name what else they "
            "may be, or judge it by itself (multi_label, --multi-label)"
        )
    return told


def encoded(encoder: Encoder, pictures: Iterable[ImageInput]) -> Embeddings:
    """float32 ``[n, dim]``: pictures, read and embedded a few at a time."""
    limit = settings.load().max_pixels
    blocks, waiting = [np.empty((0, encoder.spec.dim), np.float32)], iter(pictures)
    while few := list(islice(waiting, _BATCH)):
        blocks.append(encoder.encode_images([load_picture(p, max_pixels=limit) for p in few]))
    return np.concatenate(blocks)


def _label_vectors(
    encoder: TextEncoder, labels: Sequence[str], templates: Sequence[str]
) -> Embeddings:
    means = [
        encoder.encode_texts([template.replace("{}", label) for template in templates]).mean(axis=0)
        for label in labels
    ]
    return unit_rows(np.stack(means))
