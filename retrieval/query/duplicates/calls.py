"""Duplicates, leaks and admission: what people call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from retrieval.errors import QueryError, SpaceMismatch
from retrieval.images import ImageInput
from retrieval.query.duplicates import admission, fitting, labels, leaks, policy
from retrieval.query.duplicates.admission import Admission
from retrieval.query.duplicates.census import Census, census, shared
from retrieval.query.duplicates.fit import Fit, Share
from retrieval.query.duplicates.found import Asked, Duplicates
from retrieval.query.duplicates.grouping import Links, grouped
from retrieval.query.duplicates.leaks import Leaks
from retrieval.query.duplicates.pairs import Pairs, find_pairs, pairs_between
from retrieval.query.duplicates.rehearsal import Tell
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.query.indexed import Indexed
from retrieval.query.spaces import choose_space
from retrieval.store import Store

Threshold: TypeAlias = float | Fit | Literal["auto"]
"""A cosine; a fit that was made before; or ``auto``, which fits one."""

SAME: tuple[Tier, ...] = ("exact", "copy", "edited")
"""The tiers that people act on."""

_MEMORY_BYTES = 256 << 20


class Duplicating(Indexed):
    """What a collection knows of images that are the same."""

    def fit_threshold(
        self,
        space: str | None = None,
        *,
        tiers: Sequence[Tier] = SAME,
        where: str | None = None,
        at: float | None = None,
        sample: int = fitting.SAMPLE,
        seed: int = 0,
        tell: Tell | None = None,
    ) -> Fit:
        """Fit the cosine from which on pairs are looked at, to copies of the collection's images.

        A sample of images is resized, packed again, cropped, mirrored, turned, brightened and
        marked; each copy is encoded and compared with all images as a run would do it. Of the
        thresholds that are expected to reach a precision of 0.99 and leave at most about 50 pairs
        an image to look at, it is the highest whose recall is within half a point of the best. The
        fit is kept beside the space's indexes until the collection has doubled or halved.

        Args:
            space: name of a space; the first visual one by default.
            tiers: those that count as found.
            where: filter; only these images take part, and the fit is not kept.
            at: take this threshold, and say what to expect of it.
            sample: how many images are copied; all where there are fewer.
            seed: of the sample.
            tell: called with what is done and all there is to do: copies, then comparisons.

        Raises:
            EncoderError: if the space's encoder is not here.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            QueryError: if a tier or the threshold makes no sense.
        """
        asked = _tiers(tiers)
        name = _space(self, space)
        if at is not None:
            _cosine(at)
        return fitting.fit_threshold(
            self, name, tiers=asked, where=where, at=at, sample=sample, seed=seed, tell=tell
        )

    def fit_labelled(
        self,
        pairs: Sequence[tuple[int | str, int | str, bool]],
        space: str | None = None,
        *,
        tiers: Sequence[Tier] = SAME,
    ) -> Fit:
        """Fit the threshold to pairs that a person labelled; see :func:`~.fit.fit_labelled`.

        Args:
            pairs: two images, by id, path or URI, and whether they are the same.
            space: name of a space; the first visual one by default.
            tiers: those that count as found.

        Raises:
            QueryError: if an image is not in the collection, or there are too few pairs.
        """
        return labels.fit_pairs(self, _space(self, space), pairs, _tiers(tiers))

    def duplicates(
        self,
        *,
        space: str | None = None,
        threshold: Threshold = "auto",
        tiers: Sequence[Tier] = SAME,
        keep: Sequence[str] = policy.DEFAULT,
        where: str | None = None,
        approximate: bool = False,
        memory_bytes: int = _MEMORY_BYTES,
        tell: Tell | None = None,
    ) -> Duplicates:
        """Find what is the same, and say of each group what stays.

        Every member of a group has a pair with the image that stays: its score reaches the
        threshold, and its tier is one of those asked for. Images of the same bytes are found also
        where they have no vector; if only they are asked for, no space is needed.

        Args:
            space: name of a space; the first visual one by default.
            threshold: cosine from which on a pair is looked at, a :class:`~.fit.Fit`, or ``auto``.
            tiers: those that count; *scene* and *concept* are to look at and not to act on.
            keep: rules for which image stays, in order: ``resolution``, ``size``, ``oldest``,
                ``folder:PATH``, ``split:NAME``.
            where: filter; only these images take part.
            approximate: search the space's index instead of comparing all; ``asked.recall`` says
                how many pairs that finds.
            memory_bytes: about how much is held at a time, besides the result.
            tell: called with what is done and all there is to do, for one step after the other.

        Raises:
            QueryError: if a tier, rule or threshold makes no sense, or too many pairs reach it.
            EncoderError: if the threshold is to be fitted and the space's encoder is not here.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            VectorIndexError: if there is no index and one is needed.
        """
        asked = _tiers(tiers)
        policy.check_rules(keep)
        name, bar, fit = _bar(self, space, threshold, asked, where, tell)
        pairs = None
        if name is not None and bar is not None:
            pairs = find_pairs(
                self,
                name,
                bar,
                where=where,
                approximate=approximate,
                memory_bytes=memory_bytes,
                tell=tell,
            )
        store = self.store.again()
        known = census(store, where)
        links = _links(pairs, asked, known, known)
        groups = grouped(store, known, links, keep, same_bytes="exact" in asked)
        return Duplicates(_stood_on(store, name, bar, fit, pairs), groups)

    def leaks(
        self,
        between: str = "split",
        *,
        against: Duplicating | None = None,
        space: str | None = None,
        threshold: Threshold = "auto",
        tiers: Sequence[Tier] = SAME,
        where: str | None = None,
        memory_bytes: int = _MEMORY_BYTES,
        tell: Tell | None = None,
    ) -> Leaks:
        """Find what is the same on both sides of a border: two splits, or two collections.

        Args:
            between: a column; images of different values are compared, those without one are not.
            against: compare with this collection instead.
            space: name of a space, that both collections have; the first visual one by default.
            threshold: as for :meth:`duplicates`; ``auto`` fits it to this collection.
            tiers: those that count.
            where: filter; only these images take part, of both collections.
            memory_bytes: about how much is held at a time, besides the result.
            tell: called with what is done and all there is to do, for one step after the other.

        Raises:
            QueryError: if the column has fewer than two values; and as for :meth:`duplicates`.
            SpaceMismatch: if the vectors of the two collections are not by the same encoder.
        """
        asked = _tiers(tiers)
        if against is None:
            leaks.check_column(self.store.again(), between, where)
        name, bar, fit = _bar(self, space, threshold, asked, where, tell)
        pairs = None
        if name is not None and bar is not None:
            pairs = (
                find_pairs(self, name, bar, where=where, memory_bytes=memory_bytes, tell=tell)
                if against is None
                else pairs_between(
                    self, against, name, bar, where=where, memory_bytes=memory_bytes, tell=tell
                )
            )
        store = self.store.again()
        known = census(store, where)
        exact = "exact" in asked
        if against is None:
            links = _links(pairs, asked, known, known)
            found = leaks.across_values(store, known, links, between, same_bytes=exact)
        else:
            other = against.store.again()
            theirs = census(other, where)
            links = _links(pairs, asked, known, theirs)
            same = shared(store, other, (known, theirs)) if exact else []
            found = leaks.across_collections((store, other), (known, theirs), links, same)
        return Leaks(_stood_on(store, name, bar, fit, pairs), found)

    def check(
        self,
        images: Sequence[ImageInput],
        *,
        against: Sequence[Duplicating] = (),
        space: str | None = None,
        threshold: Threshold = "auto",
        tiers: Sequence[Tier] = SAME,
        tell: Tell | None = None,
    ) -> list[Admission]:
        """Say of new pictures whether they are already here, before they are let in.

        Args:
            images: paths, bytes, PIL pictures or arrays.
            against: further collections to look into.
            space: name of a space that all of them have; the first visual one by default.
            threshold: as for :meth:`duplicates`; ``auto`` is fitted to each collection.
            tiers: those that count.
            tell: called with what is done of a fit, and all there is to do.

        Returns:
            What is there of each picture, in the order given.

        Raises:
            ImageError: if a picture cannot be read.
            SpaceMismatch: if the vectors of the collections are not by the same encoder.
            EncoderError: if the space's encoder is not here and bytes alone do not tell.
        """
        if isinstance(images, str | bytes):
            raise QueryError("images is a list of pictures: [PATH]")
        asked = _tiers(tiers)
        places = [self, *against]
        news = [admission.newcomer(image) for image in images]
        found = [
            [match for place in places for match in admission.same_bytes(place, new)]
            if "exact" in asked
            else []
            for new in news
        ]
        left = [at for at, matches in enumerate(found) if not matches]
        if left and set(asked) - {"exact"}:
            name = _space(self, space)
            _one_identity(places, name)
            rest = [news[at] for at in left]
            vectors = admission.encoded(fitting.encoder_of(self, name), rest)
            for place in places:
                _, bar, _ = _bar(place, name, threshold, asked, None, tell)
                if bar is not None:
                    more = admission.alike(place, name, bar, rest, vectors, asked)
                    for at, matches in zip(left, more, strict=True):
                        found[at] += matches
        return [admission.admission(matches) for matches in found]


def _tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    if isinstance(tiers, str) or not tiers or any(tier not in TIERS for tier in tiers):
        raise QueryError(f"tiers are some of {', '.join(TIERS)}, not {tiers!r}")
    return tuple(tier for tier in TIERS if tier in tiers)


def _space(collection: Indexed, name: str | None) -> str:
    with collection._lock:
        collection.store.refresh()
        return choose_space(collection.spaces, [], name).name


def _cosine(value: float) -> float:
    if not isinstance(value, int | float) or not -1 <= value <= 1 or math.isnan(value):
        raise QueryError(f"a threshold is a cosine in [-1, 1] or auto, not {value!r}")
    return float(value)


def _bar(
    collection: Indexed,
    space: str | None,
    threshold: Threshold,
    tiers: tuple[Tier, ...],
    where: str | None,
    tell: Tell | None,
) -> tuple[str | None, float | None, Fit | None]:
    """Space, threshold and its fit; nothing where only bytes are compared."""
    if tiers == ("exact",):
        return None, None, None
    name = _space(collection, space)
    if isinstance(threshold, Fit):
        return name, _cosine(threshold.threshold), threshold
    if threshold != "auto":
        return name, _cosine(threshold), None
    fit = fitting.fit_threshold(collection, name, tiers=tiers, where=where, tell=tell)
    return name, fit.threshold, fit


def _links(pairs: Pairs | None, tiers: Sequence[Tier], left: Census, right: Census) -> Links:
    """The pairs of different bytes that count, of images that are still there."""
    if pairs is None:
        return Links.none()
    wanted = [TIERS.index(tier) for tier in tiers if tier != "exact"]
    a, b = left.content_of(pairs.a), right.content_of(pairs.b)
    kept = np.flatnonzero(np.isin(pairs.tiers, wanted) & (a >= 0) & (b >= 0))
    return Links(
        a[kept],
        b[kept],
        pairs.scores[kept],
        [TIERS[tier] for tier in pairs.tiers[kept].tolist()],
        [pairs.whys[at] for at in kept.tolist()],
    )


def _stood_on(
    store: Store, space: str | None, bar: float | None, fit: Fit | None, pairs: Pairs | None
) -> Asked:
    measured = None if pairs is None else pairs.recall
    recall = None if measured is None else Share(measured.share, measured.low, measured.high)
    return Asked(store.uri, store.collection_id, space, bar, fit, store.version, recall)


def _one_identity(places: Sequence[Indexed], space: str) -> None:
    first = places[0].store.space(space)
    for place in places[1:]:
        if place.store.space(space).identity != first.identity:
            raise SpaceMismatch(
                f"space {space!r} of {places[0].uri} and of {place.uri} were made by other "
                "encoders: index both with the same one"
            )
