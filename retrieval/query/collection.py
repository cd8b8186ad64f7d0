"""A collection: what people open, search and look at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError, VectorIndexError, VersionGone
from retrieval.images import ImageInput
from retrieval.query import checks
from retrieval.query.anomaly.calls import Spotting
from retrieval.query.classify.calls import Classifying
from retrieval.query.curate.calls import Curating
from retrieval.query.duplicates.calls import Duplicating
from retrieval.query.explain import Explanation, explain
from retrieval.query.indexing import Indexes
from retrieval.query.judge import Judge, Question
from retrieval.query.label_quality.calls import LabelChecking
from retrieval.query.ranking import Ranking
from retrieval.query.records import Records
from retrieval.query.relevance import Judgement
from retrieval.query.spaces import choose_space
from retrieval.query.terms import Term, compose, gather
from retrieval.query.zero_shot.calls import ZeroShotNaming
from retrieval.store import Store
from retrieval.types import Hit, Hits, ImageRecord, Neighbors

_TRIES = 4  # of an answer whose version another thread moves on meanwhile


class Collection(Classifying, Curating, Duplicating, LabelChecking, Spotting, ZeroShotNaming):
    """One set of images, its vectors, and the answers to queries about them.

    Every answer is true for the newest version of the collection at the moment of the call: a
    row is found as soon as its write returned, and a deleted row never comes back. Safe to use
    from several threads.
    """

    def __init__(self, store: Store) -> None:
        """Stand on an open ``store``; people call :func:`retrieval.open`."""
        super().__init__(store)
        self._records = Records(store)
        self._judge = Judge()

    @property
    def version(self) -> int:
        """Version of the table of images; grows with every write."""
        return self.store.version

    def __len__(self) -> int:
        """Number of images."""
        with self._lock:
            self.store.refresh()
            return self.store.count()

    def __repr__(self) -> str:
        """Short, for the prompt."""
        return f"<Collection {self.uri} n={len(self)} spaces={list(self.spaces)}>"

    def search(
        self,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        image_id: int | None = None,
        vector: NDArray[np.floating] | None = None,
        negative: Sequence[str | Term] = (),
        terms: Sequence[Term] = (),
        where: str | None = None,
        k: int = 10,
        space: str | None = None,
        index: str | None = None,
        templates: Sequence[str] = (),
        ranking: Ranking | None = None,
    ) -> Hits:
        """Find the images nearest to words, pictures, stored images, or a mix of them.

        Args:
            text: plain words.
            image: path, bytes, PIL picture, or array.
            image_id: an image of this collection; it finds itself first.
            vector: ``[dim]`` in the space that is searched.
            negative: what to move away from; a bare string weighs -0.5.
            terms: further terms, with weights.
            where: filter expression, as ``label = 'dress' and width >= 600``.
            k: number of hits; fewer come back only if fewer images fit.
            space: name of a space; by default words go to the first language-aligned space and
                everything else to the first visual one.
            index: kind of index that answers, ``exact`` for none; by default the best there is.
            templates: phrases with ``{}`` for the words, as ``a photo of a {}``; a text is searched
                by the mean of what it becomes in them.
            ranking: another order than by score.

        Returns:
            Hits with exact cosine scores to the composed query vector, best first.

        Raises:
            QueryError: if nothing is asked, k < 1, an id is unknown, or a vector does not fit.
            UnknownSpace: if there is no such space.
            ModalityError: if there are words and the space holds none.
            SpaceMismatch: if the space's encoder is another one now.
            FilterError: if ``where`` does not parse or fit the columns.
            ImageError: if the picture cannot be read.
            VectorIndexError: if ``index`` is no kind, or the space has none of it.
        """
        if k < 1:
            raise QueryError(f"k is at least 1, not {k}")
        asked = gather(text, image, image_id, vector, negative, terms)
        order = ranking or Ranking()
        for _ in range(_TRIES - 1):
            with suppress(VersionGone):  # another process purges
                return self._answer(asked, where, k, space, index, templates, order)
        return self._answer(asked, where, k, space, index, templates, order)

    def explain(
        self,
        image_id: int,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        query_id: int | None = None,
        vector: NDArray[np.floating] | None = None,
        negative: Sequence[str | Term] = (),
        terms: Sequence[Term] = (),
        space: str | None = None,
    ) -> Explanation:
        """Show where an image is like a query: why a search for it finds the image.

        Args:
            image_id: the image to explain, whether or not a search would find it.
            text: plain words.
            image: path, bytes, PIL picture, or array.
            query_id: the image of this collection that was searched by.
            vector: ``[dim]`` in the space that is searched.
            negative: what to move away from; a bare string weighs -0.5.
            terms: further terms, with weights.
            space: name of a space; by default the one that :meth:`search` would take.

        Returns:
            A map over the image and its score; :mod:`retrieval.query.explain` says what they do
            not prove.

        Raises:
            EncoderError: if the space's encoder does not tell what is where.
            QueryError: and all others, as :meth:`search` does.
        """
        asked = gather(text, image, query_id, vector, negative, terms)
        with self._lock:
            self.store.refresh()
            chosen = choose_space(self.spaces, asked, space)
        encoder = self.encoder(chosen.name)
        return explain(self.store, self.spaces, chosen, encoder, image_id, asked)

    def get(self, image_id: int) -> ImageRecord:
        """The record of one image.

        Raises:
            QueryError: if there is no such image.
        """
        with self._lock:
            self.store.refresh()
            return self._records.of([image_id])[0]

    def delete(self, ids: Sequence[int], *, purge: bool = False) -> int:
        """Take images out of the collection; their files stay where they are.

        Args:
            ids: image ids; unknown ones are ignored.
            purge: also remove old versions and everything else that still holds their traces.

        Returns:
            How many were removed.
        """
        with self._lock:
            self.store.refresh()
            there = np.intersect1d(np.asarray(ids, dtype=np.int64), self.store.ids())
            self.store.clear_failures([record.uri for record in self.store.records(there)])
            removed = self.store.delete(there) if len(there) else 0
            if purge:
                self._searcher.views.forget()
                Indexes(self.store).drop()
                self.store.purge()
            return removed

    def status(self, where: str | None = None) -> dict[str, Any]:
        """What the collection holds: images, spaces, columns, failures, size on disk.

        Args:
            where: filter expression; adds ``matching``, the number of images for which it holds.
        """
        with self._lock:
            return checks.status(self, where)

    def self_test(self, sample: int = 32) -> tuple[int, list[str]]:
        """Search up to ``sample`` images by their own vectors, in every space.

        Returns:
            How many were tried, and the uris of those that did not find themselves first.
        """
        with self._lock:
            return checks.self_test(self, sample)

    def _answer(
        self,
        terms: Sequence[Term],
        where: str | None,
        k: int,
        space: str | None,
        index: str | None,
        templates: Sequence[str],
        ranking: Ranking,
    ) -> Hits:
        with self._lock:
            self.store.refresh()
            chosen = choose_space(self.spaces, terms, space)
        needs_encoder = any(term.is_text or term.image is not None for term in terms)
        encoder = self.encoder(chosen.name) if needs_encoder else None
        query = compose(terms, chosen, encoder, self.store, templates)
        asked = Question(tuple(terms), chosen, encoder, query, where, index)
        self._judge.prepare(asked, self.store.count())
        for last in (*[False] * (_TRIES - 1), True):
            with self._lock if last or not ranking.plain else nullcontext():
                found, version = self._searcher.ranked(query, chosen.name, k, where, index, ranking)
                with self._lock:  # neighbours and records of one and the same version
                    if self.store.version == version:
                        return self._hits(found, asked)
        raise AssertionError("under the lock nothing moves")

    def _hits(self, found: Neighbors, asked: Question) -> Hits:
        kept = found.ids[0] >= 0
        ids, scores = found.ids[0, kept], found.scores[0, kept]
        records = self._records.of(ids)
        judged = self._judged(asked, ids)
        relevance = [None] * len(records) if judged is None else judged.relevance.tolist()
        rows = zip(scores.tolist(), records, relevance, strict=True)
        hits = [Hit(rank, *row) for rank, row in enumerate(rows, 1)]
        verdict = None if judged is None else judged.verdict
        return Hits(hits, space=asked.space.name, version=self.version, verdict=verdict)

    def _judged(self, asked: Question, ids: NDArray[np.int64]) -> Judgement | None:
        while view := self._searcher.views.at_version(asked.space.name, asked.index):
            try:
                size = self._searcher.size(view, asked.where)
                return self._judge.judge(view, asked, ids, size)
            except VectorIndexError as error:
                self._searcher.views.distrust(view, error)
        return None
