"""Predictions beside their nearest images, for stored images and for new ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.encoders.base import encode_spaces
from retrieval.images import ImageInput, load
from retrieval.query.zero_shot.classifier import FITS_FROM, ZeroShotClassifier
from retrieval.query.zero_shot.disagreements import Judged, disagreements
from retrieval.query.zero_shot.found import (
    Disagreement,
    Named,
    ZeroShotPrediction,
    ZeroShotResult,
)
from retrieval.query.zero_shot.rows import Part
from retrieval.store import Store
from retrieval.types import Embeddings, Neighbors
from retrieval.uris import uri_of
from retrieval.vectors.graph import knn_graph
from retrieval.vectors.tiles import Tell

NEIGHBORS = 3
_BATCH = 32
_BLOCK_ROWS = 8192


def of_stored(
    store: Store,
    classifier: ZeroShotClassifier,
    words: Part,
    eyes: Part,
    spaces: tuple[str, str],
    tell: Tell | None,
) -> ZeroShotResult:
    """Name stored images, and find where words and eyes disagree.

    Args:
        store: to read where the images are.
        classifier: names them.
        words: their vectors in the classifier's space.
        eyes: those in the visual space, row by row of the same images.
        spaces: names of both.
        tell: called with the number of images whose neighbours are found, and n.
    """
    found = [_judged(classifier, block) for block in words.blocks(_BLOCK_ROWS)]
    judged = Judged(*(np.concatenate(parts) for parts in zip(*(j for j, _ in found), strict=True)))
    fits = [labels for _, block in found for labels in block]
    for _ in eyes.blocks(_BLOCK_ROWS):
        pass  # a vector that is not finite is told before the long work
    near, scores = knn_graph(eyes, NEIGHBORS, tell=tell)
    uris = store.rows(words.ids, ["uri"])["uri"].to_pylist()

    def named(at: int, score: float) -> Named:
        label = str(classifier.classes_[judged.labels[at]])
        return Named(int(words.ids[at]), uris[at], label, float(judged.confidence[at]), score)

    predictions = []
    for at, labels in enumerate(fits):
        others = zip(near[at].tolist(), scores[at].tolist(), strict=True)
        beside = tuple(named(other, score) for other, score in others if other >= 0)
        predictions.append(_prediction(named(at, 1.0), bool(judged.abstained[at]), labels, beside))
    pairs = [
        Disagreement(p.kind, p.score, p.strength, named(p.a, p.score), named(p.b, p.score))
        for p in disagreements(judged, near, scores, eyes)
    ]
    return _result(predictions, pairs, classifier, spaces, words.vectors.version)


def of_new(
    store: Store,
    classifier: ZeroShotClassifier,
    images: Sequence[ImageInput | int],
    vectors: Embeddings,
    near: Neighbors,
    spaces: tuple[str, str],
) -> ZeroShotResult:
    """Name pictures that were given one by one.

    Args:
        store: to read where their neighbours are, and what words say of these.
        classifier: names them.
        images: pictures, or ids of stored images.
        vectors: float32 ``[q, dim]`` in the classifier's space.
        near: their nearest images in the visual space, one more than is shown.
        spaces: names of both.
    """
    asked = np.array([-1 if (i := stored_id(image)) is None else i for image in images], np.int64)
    near_ids = np.unique(near.ids[near.ids >= 0])
    known = np.union1d(near_ids, asked[asked >= 0])
    uris = dict(zip(known.tolist(), store.rows(known, ["uri"])["uri"].to_pylist(), strict=True))
    beside, _ = _judged(classifier, store.vectors_of(spaces[0], near_ids))
    told = {
        image_id: (str(classifier.classes_[label]), float(confidence))
        for image_id, label, confidence in zip(
            near_ids.tolist(), beside.labels, beside.confidence, strict=True
        )
    }
    judged, fits = _judged(classifier, vectors)
    predictions = []
    for at, own in enumerate(asked.tolist()):
        pairs = zip(near.ids[at].tolist(), near.scores[at].tolist(), strict=True)
        others = ((i, score) for i, score in pairs if i >= 0 and i != own)
        neighbors = [Named(i, uris[i], *told[i], score) for i, score in islice(others, NEIGHBORS)]
        label = str(classifier.classes_[judged.labels[at]])
        prediction = ZeroShotPrediction(
            image_id=None if own < 0 else own,
            uri=_uri(images[at]) if own < 0 else uris[own],
            label=label,
            confidence=float(judged.confidence[at]),
            abstained=bool(judged.abstained[at]),
            labels=fits[at],
            neighbors=tuple(neighbors),
        )
        predictions.append(prediction)
    return _result(predictions, [], classifier, spaces, store.version)


def vectors_of(
    store: Store, images: Sequence[ImageInput | int], encoders: Mapping[str, Encoder]
) -> dict[str, Embeddings]:
    """Vectors of pictures and stored images in some spaces: float32 ``[q, dim]`` by space.

    Raises:
        QueryError: if an id is unknown, or something is no picture.
        ImageError: if a picture cannot be read.
    """
    out = {s: np.empty((len(images), e.spec.dim), np.float32) for s, e in encoders.items()}
    ids = [stored_id(image) for image in images]
    stored = [at for at, i in enumerate(ids) if i is not None]
    for space, rows in out.items():
        rows[stored] = store.vectors_of(space, [i for i in ids if i is not None])
    limit, new = settings.load().max_pixels, [at for at, i in enumerate(ids) if i is None]
    for start in range(0, len(new), _BATCH):
        few = new[start : start + _BATCH]
        pictures = [load(images[at], max_pixels=limit) for at in few]  # type: ignore[arg-type]
        found = encode_spaces(list(encoders.values()), pictures)
        for space, encoder in encoders.items():
            out[space][few] = found[encoder.spec.name]
    return out


def stored_id(image: ImageInput | int) -> int | None:
    """The id of a stored image; None for a new picture."""
    return int(image) if isinstance(image, int | np.integer) else None


def _judged(
    classifier: ZeroShotClassifier, vectors: Embeddings
) -> tuple[Judged, list[tuple[str, ...]]]:
    """What words say of each row, and all labels that fit it."""
    found = classifier.of_vectors(vectors)
    best: NDArray[np.int64] = found.argmax(axis=1)
    confidence = found[np.arange(len(found)), best]
    sigmoid, several = classifier.reading.sigmoid, classifier.reading.multi_label
    abstained = (confidence < FITS_FROM) & sigmoid
    fits = []
    for row, first, none in zip(found, best.tolist(), abstained.tolist(), strict=True):
        order = np.argsort(-row, kind="stable") if several else [first]
        kept = [at for at in order if row[at] >= FITS_FROM or not several]
        fits.append(() if none else tuple(str(classifier.classes_[at]) for at in kept))
    return Judged(best, confidence, abstained), fits


def _prediction(
    own: Named, abstained: bool, labels: tuple[str, ...], neighbors: tuple[Named, ...]
) -> ZeroShotPrediction:
    return ZeroShotPrediction(
        own.image_id, own.uri, own.label, own.confidence, abstained, labels, neighbors
    )


def _uri(image: ImageInput | int) -> str | None:
    return uri_of(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None


def _result(
    predictions: Sequence[ZeroShotPrediction],
    pairs: Sequence[Disagreement],
    classifier: ZeroShotClassifier,
    spaces: tuple[str, str],
    version: int,
) -> ZeroShotResult:
    return ZeroShotResult(
        predictions,
        classes=classifier.classes_.tolist(),
        templates=classifier.templates_,
        disagreements=pairs,
        space=spaces[0],
        visual_space=spaces[1],
        scale=classifier.reading.scale,
        bias=classifier.reading.bias,
        note=classifier.reading.note,
        version=version,
    )
