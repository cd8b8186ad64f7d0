"""Judges answers of a collection: draws its samples and keeps its calibrations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders import Encoder, TextEncoder
from retrieval.errors import EncoderError
from retrieval.query.background import Background, background
from retrieval.query.relevance import (
    FEWEST,
    SAMPLE,
    Calibration,
    Judgement,
    calibrate_images,
    calibrate_texts,
)
from retrieval.query.space_vectors import SpaceVectors
from retrieval.query.terms import Term
from retrieval.query.view import View
from retrieval.types import Embeddings, Space

_log = logging.getLogger(__name__)
_DRIFT = 0.1  # a collection that grew or shrank by more is calibrated anew
Kind = Literal["text", "image"]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A query that was understood.

    Attributes:
        terms: what was asked.
        space: that is searched.
        encoder: of the space; None where nothing had to be encoded.
        vector: what the terms became, float32 ``[1, dim]``.
        where: filter expression.
        index: kind of index that is asked.
    """

    terms: tuple[Term, ...]
    space: Space
    encoder: Encoder | None
    vector: Embeddings
    where: str | None
    index: str | None


class Judge:
    """Not safe by itself but for :meth:`prepare`: the collection calls it under its lock."""

    def __init__(self) -> None:
        """Know no space yet."""
        self._backgrounds: dict[str, Background] = {}
        self._made: dict[tuple[str, Kind], tuple[int, Calibration | None]] = {}

    def prepare(self, asked: Question, images: int) -> None:
        """Do what may take seconds, once for an encoder, and needs no lock."""
        name, encoder = asked.space.name, asked.encoder
        if images < FEWEST or _kind(asked.terms) != "text" or name in self._backgrounds:
            return
        if isinstance(encoder, TextEncoder):
            try:
                self._backgrounds[name] = background(encoder)
            except EncoderError as error:  # an encoder of few words; its answers go unjudged
                _log.warning("answers of %s get no verdict: %s", name, error)

    def judge(
        self, view: View, asked: Question, ids: NDArray[np.int64], size: int
    ) -> Judgement | None:
        """What the hits of a query are worth.

        Args:
            view: of the space, at the version that answered.
            asked: the query.
            ids: the hits.
            size: how many images were searched.

        Returns:
            The judgement in the order of ``ids``; None for a bare vector, of which nobody knows
            what it stands for, for negative terms alone, and where there are too few images to
            compare with.
        """
        kind = _kind(asked.terms)
        if kind is None or len(ids) == 0:
            return None
        calibration = self._calibration(view, asked.space.name, kind)
        if calibration is None:
            return None
        vectors, query = view.vectors_of(ids), asked.vector[0]
        return calibration.judge(query, vectors, vectors @ query, size)

    def _calibration(self, view: View, space: str, kind: Kind) -> Calibration | None:
        rows, made = self._made.get((space, kind), (0, None))
        if abs(view.rows - rows) > _DRIFT * rows:
            drawn = np.random.default_rng(0).permutation(view.rows)[:SAMPLE]
            sample = SpaceVectors(view).take(drawn)
            if kind == "image":
                made = calibrate_images(sample)
            elif space in self._backgrounds:
                made = calibrate_texts(sample, *self._backgrounds[space])
            self._made[space, kind] = view.rows, made
        return made


def _kind(terms: Sequence[Term]) -> Kind | None:
    """What weighs most of what is asked for; a picture, if words weigh the same."""
    weights = {"text": 0.0, "image": 0.0, "vector": 0.0}
    for term in terms:
        if term.weight > 0:
            kind = "text" if term.is_text else "image" if term.vector is None else "vector"
            weights[kind] += term.weight
    if not any(weights.values()) or weights["vector"] > max(weights["text"], weights["image"]):
        return None
    return "text" if weights["text"] > weights["image"] else "image"
