"""Duplicates, leaks and admission: what people call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from retrieval.encoders import Encoder
from retrieval.errors import QueryError
from retrieval.images import ImageInput
from retrieval.query.duplicates import admission, fitting, labels, leaks, policy
from retrieval.query.duplicates.admission import Admission
from retrieval.query.duplicates.census import Census, census, shared
from retrieval.query.duplicates.comparer import UNSEEN
from retrieval.query.duplicates.fit import Fit
from retrieval.query.duplicates.found import Asked, Duplicates
from retrieval.query.duplicates.grouping import Links, grouped
from retrieval.query.duplicates.leaks import Leaks
from retrieval.query.duplicates.pairs import Pairs, find_pairs, pairs_between
from retrieval.query.duplicates.refusals import cosine, one_identity, some_tiers
from retrieval.query.duplicates.tiers import SAME, TIERS, Tier
from retrieval.query.indexed import Indexed
from retrieval.query.shares import Share
from retrieval.store import Store
from retrieval.vectors.tiles import Tell

Threshold: TypeAlias = float | Fit | Literal["auto"]
"""A cosine; a fit that was made before; or ``auto``, which fits one."""

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
        an image to look at, it is the highest whose recall is within half a point of the best; of
        fewer than 30 images the lowest, since they tell little. Copies are neither *scene* nor
        *concept*: where only those count, it is fitted to find copies, and says so. The fit is
        kept beside the space's indexes until the collection has doubled or halved.

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
            QueryError: if a tier, the sample or the threshold makes no sense.
        """
        asked = some_tiers(tiers)
        name = self._space(space).name
        if at is not None:
            cosine(at)
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
            QueryError: if an image is not in the collection, a pair is labelled both ways, there
                are too few, or none that is the same can be found.
        """
        return labels.fit_pairs(self, self._space(space).name, pairs, some_tiers(tiers))

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
            space: name of a space; that of a fit that is given, or the first visual one by default.
            threshold: cosine from which on a pair is looked at, a :class:`~.fit.Fit`, or ``auto``.
            tiers: those that count; *scene* and *concept* are to look at and not to act on.
            keep: rules for which image stays, in order: ``resolution``, ``size``, ``oldest``,
                ``folder:PATH``, ``split:NAME``; what they do not settle the default ones do.
            where: filter; only these images take part.
            approximate: search the space's index instead of comparing all; ``asked.recall`` says
                how many pairs that finds.
            memory_bytes: about how much is held at a time, besides the result.
            tell: called with what is done and all there is to do, for one step after the other.

        Raises:
            QueryError: if a tier, rule or threshold makes no sense, a rule prefers none of the
                images, or too many pairs reach the threshold.
            EncoderError: if the threshold is to be fitted and the space's encoder is not here.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            VectorIndexError: if there is no index and one is needed.
        """
        asked = some_tiers(tiers)
        _check_keep(self, keep, where)
        name, bar, fit = _bar([self], space, threshold, asked, where, tell)
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
        return Duplicates(_stood_on([self], store, [known], name, bar, fit, pairs), groups)

    def leaks(
        self,
        between: str | None = None,
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
                ``split`` by default.
            against: compare with this collection instead.
            space: name of a space, that both collections have; the first visual one by default.
            threshold: as for :meth:`duplicates`; ``auto`` takes the lower of both fits.
            tiers: those that count.
            where: filter; only these images take part, of both collections.
            memory_bytes: about how much is held at a time, besides the result.
            tell: called with what is done and all there is to do, for one step after the other.

        Raises:
            QueryError: if there is nothing to compare: the column has fewer than two values, or a
                collection no images; and as for :meth:`duplicates`.
            SpaceMismatch: if the vectors of the two collections are not by the same encoder.
        """
        asked, exact = some_tiers(tiers), "exact" in tiers
        if against is None:
            leaks.check_column(self.store.again(), between := between or "split", where)
        else:
            if between is not None:
                raise QueryError("--between parts one collection and --against two: choose one")
            leaks.check_collections(self.store.again(), against.store.again(), where)
        places = [self] if against is None else [self, against]
        name, bar, fit = _bar(places, space, threshold, asked, where, tell)
        pairs = None
        if name is not None and bar is not None:
            if against is None:
                store = self.store.again()
                parted = leaks.parted_by(store, census(store, where), str(between))
                pairs = find_pairs(
                    self,
                    name,
                    bar,
                    where=where,
                    wanted=parted,
                    memory_bytes=memory_bytes,
                    tell=tell,
                )
            else:
                pairs = pairs_between(
                    self, against, name, bar, where=where, memory_bytes=memory_bytes, tell=tell
                )
        store = self.store.again()
        known = [census(store, where)]
        if against is None:
            links = _links(pairs, asked, known[0], known[0])
            found = leaks.across_values(store, known[0], links, str(between), same_bytes=exact)
        else:
            other = against.store.again()
            known.append(theirs := census(other, where))
            links = _links(pairs, asked, known[0], theirs)
            same = shared(store, other, (known[0], theirs)) if exact else []
            found = leaks.across_collections((store, other), (known[0], theirs), links, same)
        return Leaks(_stood_on(places, store, known, name, bar, fit, pairs), found)

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
            threshold: as for :meth:`duplicates`; ``auto`` is fitted to each collection, and the
                lowest is taken.
            tiers: those that count.
            tell: called with what is done of a fit, and all there is to do.

        Returns:
            What is there of each picture, in the order given; one that cannot be read has an
            ``error``.

        Raises:
            QueryError: if ``images`` is no list, or a tier or the threshold makes no sense.
            SpaceMismatch: if the vectors of the collections are not by the same encoder.
            EncoderError: if the space's encoder is not here and bytes alone do not tell.
        """
        if not isinstance(images, Sequence) or isinstance(images, str | bytes | bytearray):
            raise QueryError("images is a list of pictures: [PATH]")
        asked = some_tiers(tiers)
        places = [self, *against]
        if space is None and isinstance(threshold, Fit):
            space = threshold.space

        def encoder() -> Encoder:
            name = self._space(space).name
            one_identity(places, name)
            return fitting.encoder_of(self, name)

        only_bytes = asked == ("exact",)
        news = admission.newcomers(
            images, places if "exact" in asked else [], None if only_bytes else encoder
        )
        if left := [new for new in news if new.vector is not None]:
            name, bar, _ = _bar(places, space, threshold, asked, None, tell)
            if name is not None and bar is not None:
                for place in places:
                    admission.alike(place, name, bar, left, asked)
        return [new.admission() for new in news]


def _check_keep(collection: Indexed, keep: Sequence[str], where: str | None) -> None:
    policy.check_rules(keep)
    if any(":" in rule for rule in keep):
        store = collection.store.again()
        policy.check_preferring(keep, store.rows(store.ids(where), policy.NAMED))


def _bar(
    places: Sequence[Indexed],
    space: str | None,
    threshold: Threshold,
    tiers: tuple[Tier, ...],
    where: str | None,
    tell: Tell | None,
) -> tuple[str | None, float | None, Fit | None]:
    """Space, threshold and its fit; nothing where only bytes are compared."""
    if tiers == ("exact",):
        return None, None, None
    fit = threshold if isinstance(threshold, Fit) else None
    name = places[0]._space(space if space is not None or fit is None else fit.space).name
    one_identity(places, name)
    if fit is not None:
        if fit.space not in (None, name):
            raise QueryError(
                f"the threshold was fitted to the cosines of {fit.space!r}, and those of {name!r} "
                "are others: fit it there"
            )
        return name, cosine(fit.threshold), fit
    if threshold != "auto":
        return name, cosine(threshold), None
    fit = fitting.fit_all(places, name, tiers=tiers, where=where, tell=tell)
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
    places: Sequence[Indexed],
    store: Store,
    known: Sequence[Census],
    space: str | None,
    bar: float | None,
    fit: Fit | None,
    pairs: Pairs | None,
) -> Asked:
    if space is None or pairs is None:
        return Asked(store.uri, store.collection_id, space, bar, fit, store.version, None)
    measured = pairs.recall
    told = measured is not None and measured.checked > 0
    return Asked(
        store.uri,
        store.collection_id,
        space,
        bar,
        fit,
        store.version,
        Share(measured.share, measured.low, measured.high) if measured and told else None,
        approximate=measured is not None,
        no_vector=sum(
            int(np.isin(images.ids, place.vectors(space).ids, invert=True).sum())
            for place, images in zip(places, known, strict=True)
        ),
        no_thumbnail=pairs.whys.count(UNSEEN),
    )
