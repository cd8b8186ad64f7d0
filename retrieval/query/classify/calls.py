"""Classification by example: what people call."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.errors import ImageError, QueryError
from retrieval.images import ImageInput, load
from retrieval.query.classify import leave_one_out
from retrieval.query.classify.answering import Asked, predicted, wrapped
from retrieval.query.classify.exemplars import Exemplars, gather
from retrieval.query.classify.leave_one_out import KS, TEMPERATURES, LeaveOneOut
from retrieval.query.classify.linear_probe import CS, LinearProbe, fit_probe
from retrieval.query.classify.predictions import (
    Prediction,
    Predictions,
)
from retrieval.query.classify.trust import FEWEST, Trust
from retrieval.query.classify.votes import TEMPERATURE, K
from retrieval.query.classify.writing import check_columns, write_predictions
from retrieval.query.duplicates.census import census
from retrieval.query.indexed import Indexed
from retrieval.store import Store
from retrieval.types import Embeddings
from retrieval.uris import uri_of
from retrieval.vectors.tiles import Tell

COVERAGE = 0.9
_SEED = 0  # of the sample that confidence is fitted to
_BATCH = 32  # pictures
_ROWS = 1024  # stored images
_KEPT = 8  # fits of confidence that are remembered


class Classifying(Indexed):
    """What a collection knows of the classes of images."""

    def __init__(self, store: Store) -> None:
        """Stand on an open ``store``."""
        super().__init__(store)
        self._trusts: OrderedDict[tuple[Any, ...], Trust | None] = OrderedDict()

    def classify(
        self,
        images: Sequence[ImageInput],
        labels: str = "label",
        *,
        k: int = K,
        temperature: float = TEMPERATURE,
        balanced: bool = False,
        where: str | None = None,
        space: str | None = None,
        coverage: float = COVERAGE,
        min_accuracy: float | None = None,
    ) -> Predictions:
        """Say what pictures are by the labelled images that they are most like.

        The k nearest labelled images vote; see :mod:`retrieval.query.classify.votes`. All of them
        are compared, as they are now: an exemplar that was added counts in the next call. How far
        the answer can be trusted is fitted to the exemplars; see
        :mod:`retrieval.query.classify.trust`, and :func:`~.predictions.judge` for the rule by which
        a label is abstained from.

        Args:
            images: paths, bytes, PIL pictures or arrays.
            labels: column of text, whole numbers, or true and false; images where it is null are
                no exemplars.
            k: neighbours that vote; all exemplars where these are fewer.
            temperature: of the votes; the smaller, the more the nearest decide.
            balanced: divide votes by the number of exemplars of their class.
            where: filter expression; only these images are exemplars.
            space: whose vectors tell what is alike; the first visual one by default.
            coverage: how often the true class is to be in the prediction set.
            min_accuracy: answer where this accuracy was reached on the exemplars, whatever the
                prediction set.

        Raises:
            QueryError: if a number makes no sense, there are fewer than two classes, or too few
                exemplars to tell their accuracy.
            ImageError: if a picture cannot be read.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
        """
        if isinstance(images, str | bytes):
            raise QueryError("images is a list of pictures: [PATH]")
        name = self._space(space).name
        asked = Asked(labels, k, temperature, balanced, where, name, coverage, min_accuracy)
        store = self.store.again()
        exemplars = gather(store, self.vectors(name), labels, where)
        queries = self._encoded(images, name)
        trust = self._trust(store, exemplars, asked)
        uris = [_uri(image) for image in images]
        told = predicted(store, exemplars, queries, asked, trust, uris, None)
        return wrapped(told, exemplars, asked, trust)

    def classify_stored(
        self,
        which: str | Sequence[int],
        labels: str = "label",
        *,
        k: int = K,
        temperature: float = TEMPERATURE,
        balanced: bool = False,
        where: str | None = None,
        space: str | None = None,
        coverage: float = COVERAGE,
        min_accuracy: float | None = None,
        apply: bool = False,
        tell: Tell | None = None,
    ) -> Predictions:
        """Say what images of the collection are by the labelled ones; none has a vote on itself.

        Args:
            which: filter expression, as ``label is null``, or ids. Images without a vector in the
                space are left out.
            labels: as for :meth:`classify`, and so are ``k``, ``temperature``, ``balanced``,
                ``where``, ``space``, ``coverage`` and ``min_accuracy``.
            k: neighbours that vote.
            temperature: of the votes.
            balanced: divide votes by the number of exemplars of their class.
            where: filter expression; only these images are exemplars.
            space: whose vectors tell what is alike.
            coverage: how often the true class is to be in the prediction set.
            min_accuracy: answer where this accuracy was reached on the exemplars.
            apply: write what was found as columns ``predicted_LABELS``,
                ``predicted_LABELS_confidence`` and ``predicted_LABELS_abstained``; images that were
                not asked for have null there.
            tell: called with how many are classified, and of how many.

        Raises:
            QueryError: as :meth:`classify`; if an id is unknown.
            CollectionError: if a column of that name is a person's own; nothing is written then.
        """
        name = self._space(space).name
        asked = Asked(labels, k, temperature, balanced, where, name, coverage, min_accuracy)
        store = self.store.again()
        vectors = self.vectors(name)
        exemplars = gather(store, vectors, labels, where)
        if apply:
            check_columns(store, labels, exemplars.classes)
        ids = store.ids(which) if isinstance(which, str) else _known(store, which)
        at = vectors.positions(ids)
        ids, at = ids[at >= 0], at[at >= 0]
        trust = self._trust(store, exemplars, asked) if len(ids) else None
        told: list[Prediction] = []
        for first in range(0, len(ids), _ROWS):
            some = slice(first, first + _ROWS)
            uris = store.rows(ids[some], ["uri"])["uri"].to_pylist()
            queries = vectors.take(at[some])
            told += predicted(store, exemplars, queries, asked, trust, uris, ids[some])
            if tell is not None:
                tell(len(told), len(ids))
        found = wrapped(told, exemplars, asked, trust)
        if apply:
            write_predictions(store, found, labels, exemplars.classes, _parameters(asked))
            with self._lock:
                self.store.refresh()
        return found

    def evaluate_knn(
        self,
        labels: str = "label",
        *,
        k: int = K,
        temperature: float = TEMPERATURE,
        balanced: bool = False,
        where: str | None = None,
        space: str | None = None,
        coverage: float = COVERAGE,
        ks: Sequence[int] = KS,
        temperatures: Sequence[float] = TEMPERATURES,
        seed: int = 0,
        tell: Tell | None = None,
    ) -> LeaveOneOut:
        """Measure how well labelled images tell each other: each is classified by all others.

        One comparison of all with all serves every k and temperature of the sweep. Memory grows
        with exemplars times the largest k, 20 bytes each.

        Args:
            labels: column of text, whole numbers, or true and false.
            k: neighbours that vote.
            temperature: of the votes.
            balanced: divide votes by the number of exemplars of their class.
            where: filter expression; only of these images.
            space: whose vectors tell what is alike; the first visual one by default.
            coverage: of the prediction sets.
            ks: tried in the sweep.
            temperatures: tried in the sweep.
            seed: of the bootstrap, and of the sample that confidence is fitted to.
            tell: called with what is done of the comparison, and all there is to do.

        Raises:
            QueryError: if a number makes no sense, or there are fewer than two classes.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
        """
        name = self._space(space).name
        asked = Asked(labels, k, temperature, balanced, where, name, coverage, None)
        store = self.store.again()
        exemplars = gather(store, self.vectors(name), labels, where)
        return leave_one_out.evaluate(
            exemplars,
            census(store).content_of(exemplars.ids),
            labels=asked.labels,
            space=name,
            k=asked.k,
            temperature=asked.temperature,
            balanced=asked.balanced,
            coverage=asked.coverage,
            ks=ks,
            temperatures=temperatures,
            seed=seed,
            tell=tell,
        )

    def linear_probe(
        self,
        labels: str = "label",
        *,
        where: str | None = None,
        space: str | None = None,
        cs: Sequence[float] = CS,
        seed: int = 0,
    ) -> LinearProbe:
        """Fit a linear classifier to the labelled images, as a second opinion beside neighbours.

        Args:
            labels: column of text, whole numbers, or true and false.
            where: filter expression; only of these images.
            space: whose vectors it is fitted to; the first visual one by default.
            cs: inverse strengths of the regularisation; cross-validation chooses.
            seed: of the folds.

        Raises:
            InstallError: if scikit-learn is not here.
            QueryError: if there are fewer than two classes, or one has a single exemplar.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
        """
        name = self._space(space).name
        exemplars = gather(self.store.again(), self.vectors(name), labels, where)
        return fit_probe(exemplars, labels, self.store.space(name), cs, seed)

    def _encoded(self, images: Sequence[ImageInput], space: str) -> Embeddings:
        encoder, most = self.encoder(space), settings.load().max_pixels
        parts = [np.empty((0, encoder.spec.dim), dtype=np.float32)]
        for at in range(0, len(images), _BATCH):
            pictures = [_picture(image, most) for image in images[at : at + _BATCH]]
            parts.append(encoder.encode_images(pictures))
        return np.concatenate(parts)

    def _trust(self, store: Store, exemplars: Exemplars, asked: Asked) -> Trust | None:
        """How far votes can be trusted, remembered for the version that it was fitted to."""
        key = (store.version, exemplars.version, store.made.stamp(), asked)
        with self._lock:
            known = key in self._trusts
            trust = self._trusts.get(key)
        if not known:
            k, how = asked.k, (asked.temperature, asked.balanced)
            found = leave_one_out.near_of_sample(exemplars, k, _SEED)
            trust = leave_one_out.fit_trust(
                exemplars, found, k, *how, asked.coverage, asked.min_accuracy
            )
            with self._lock:
                self._trusts[key] = trust
                if len(self._trusts) > _KEPT:
                    self._trusts.popitem(last=False)
        if trust is None and asked.min_accuracy is not None:
            raise QueryError(
                f"too few exemplars to tell how accurate answers are: {FEWEST} that have another "
                "of their class are needed. Bring more, or ask for no accuracy"
            )
        return trust


def _picture(image: ImageInput, max_pixels: int) -> Image.Image:
    try:
        return load(image, max_pixels=max_pixels)
    except ImageError as error:
        if not isinstance(image, str | os.PathLike):
            raise
        raise ImageError(error.kind, f"{os.fspath(image)}: {error}") from error


def _uri(image: ImageInput) -> str | None:
    return uri_of(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None


def _known(store: Store, ids: Sequence[int]) -> NDArray[np.int64]:
    """Ids as given, all of which are in the collection."""
    known = store.rows(list(ids), ["image_id"])["image_id"].to_numpy()
    return np.asarray(known, dtype=np.int64)


def _parameters(asked: Asked) -> dict[str, Any]:
    return {name: value for name, value in asdict(asked).items() if name != "space"}
