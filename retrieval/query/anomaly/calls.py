"""Anomalies: what people call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.errors import ImageError, QueryError
from retrieval.images import ImageInput, load
from retrieval.query.anomaly.bank import KEEP, MemoryBank, Recipe, kept_bank, make_bank
from retrieval.query.anomaly.found import Anomalies, AnomalyResult, Unread
from retrieval.query.anomaly.images import NEIGHBORS, Method, Normals
from retrieval.query.anomaly.limits import DEFAULT_RATE, Limit, check_rate, fit_limit
from retrieval.query.anomaly.limits import held_out_scores as held_out
from retrieval.query.anomaly.patches import PatchMap
from retrieval.query.anomaly.tiling import tells_places
from retrieval.query.curate.candidates import among
from retrieval.query.indexed import Indexed
from retrieval.query.pictures import stored_picture
from retrieval.store import Store
from retrieval.types import Embeddings, ImageRecord, Space
from retrieval.uris import uri_of
from retrieval.vectors.tiles import Tell


@dataclass(frozen=True, slots=True)
class _Judge:
    """What pictures are compared with."""

    encoder: Encoder
    vectors: Normals
    image_limit: Limit
    bank: MemoryBank | None
    limit: Limit

    def look(self, place: int, uri: str, picture: Image.Image) -> AnomalyResult:
        """Score one picture."""
        vector = self.encoder.encode_images([picture])
        whole = float(self.vectors.score(vector)[0])
        seen: PatchMap | None = None
        if self.bank is not None:
            seen = self.bank.compare(self.encoder, picture)
        score = whole if seen is None else seen.score
        limit = self.limit
        return AnomalyResult(place, uri, score, limit.threshold, limit.exceeded(score), whole, seen)


class Spotting(Indexed):
    """What a collection knows of what is odd."""

    def anomaly(
        self,
        images: Sequence[ImageInput],
        normal: str,
        *,
        space: str | None = None,
        patches: bool = True,
        tiles: int = 3,
        rotate: bool = False,
        keep: int | None = KEEP,
        method: Method = "distance",
        k: int = NEIGHBORS,
        false_alarm_rate: float = DEFAULT_RATE,
        tell: Tell | None = None,
    ) -> Anomalies:
        """Say of pictures how unlike the normal images of this collection they are, and where.

        The normal images' tokens are kept in the collection as a memory bank, which is made anew
        when they, or what is asked, change. One normal image is enough for scores; a threshold
        takes two, and ``1 / false_alarm_rate - 1`` of them to promise that rate.

        Args:
            images: the pictures: paths, bytes, Pillow pictures or arrays.
            normal: filter expression: the images that are as they should be.
            space: whose encoder looks; by default the first visual one.
            patches: whether to compare place by place, which an encoder must be able to; else
                ``anomaly_score`` is that of the whole picture.
            tiles: overlapping squares along the shorter side that are looked at one by one: more
                find smaller things, and take the square of the time.
            rotate: whether the normal images count in their four quarter turns.
            keep: most tokens of the memory bank; None for all.
            method: how whole pictures are compared; see :mod:`~.images`.
            k: neighbours of ``distance`` and ``density``.
            false_alarm_rate: share of normal pictures that may be called anomalies.
            tell: called with what is done and all there is to do, for one step after the other.

        Returns:
            A sequence of results, and the pictures that could not be read.

        Raises:
            QueryError: if no image is normal, or of none there is a vector, or what is asked makes
                no sense.
            FilterError: if ``normal`` does not parse or fit the columns.
            UnknownSpace: if there is no such space.
            EncoderError: if the space's encoder cannot be loaded, or fails.
            SpaceMismatch: if it, or the one that made the memory bank, is another one.
        """
        check_rate(false_alarm_rate)
        recipe = Recipe(tiles, rotate, keep)
        if isinstance(images, str | bytes | os.PathLike):
            raise QueryError("images is a list of pictures, as [path]")
        chosen = self._space(space)
        store = self.store.again()
        normals = _normal_records(store, normal)
        encoder = self.encoder(chosen.name)
        vectors = self._normal_vectors(chosen, normals)
        whole = Normals(vectors, method, k)
        image_limit = fit_limit(held_out(vectors, method, k), false_alarm_rate)
        bank, limit, note = None, image_limit, ""
        if patches:
            bank, note = _bank(store, chosen, encoder, normal, normals, recipe, tell)
        if bank is not None:
            limit = fit_limit(bank.held_out, false_alarm_rate)
        judge = _Judge(encoder, whole, image_limit, bank, limit)
        results, failures = _looked_at(judge, images, tell)
        told = "; ".join(each for each in (note, limit.note) if each)
        return Anomalies(results, failures, chosen.name, len(normals), limit, image_limit, told)

    def _normal_vectors(self, space: Space, normals: Sequence[ImageRecord]) -> Embeddings:
        """Vectors of those normal images that have one, in the order of their ids."""
        ids: NDArray[np.int64] = np.sort([record.image_id for record in normals])
        there, vectors = among(self.vectors(space.name), ids)
        if not len(there):
            raise QueryError(
                f"none of the {len(ids)} normal images has a vector in space {space.name!r}: index "
                "again"
            )
        odd = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(odd):
            raise QueryError(
                f"the vector of image {there[odd[0]]} in space {space.name!r} is not finite: "
                "delete the image and index it again"
            )
        return vectors


def _normal_records(store: Store, normal: str) -> list[ImageRecord]:
    if not store.count():
        raise QueryError("the collection is empty: index normal images first")
    ids = store.ids(normal)
    if not len(ids):
        raise QueryError(
            f"no image fits {normal!r}, so nothing is normal; retrieval status -c {store.uri} "
            "tells what columns there are"
        )
    return store.records(np.sort(ids))


def _bank(
    store: Store,
    space: Space,
    encoder: Encoder,
    normal: str,
    normals: Sequence[ImageRecord],
    recipe: Recipe,
    tell: Tell | None,
) -> tuple[MemoryBank | None, str]:
    """The memory bank, None where an encoder sees no places, and what to know about it."""
    if not tells_places(encoder):
        name = encoder.spec.name
        return None, f"{name} does not tell what is where: only whole pictures are compared"
    made: list[MemoryBank] = []
    gone: list[int] = []

    def read(number: int) -> Image.Image | None:
        try:
            picture, other = stored_picture(store, normals[number])
        except QueryError as error:  # there is not even a thumbnail
            other = str(error)
        if not other:
            return picture
        gone.append(number)  # a thumbnail is too small to tell what is normal
        return None

    def make() -> MemoryBank | None:
        made.append(make_bank(encoder, len(normals), read, recipe, tell))
        return None if gone else made[0]

    kept = kept_bank(store, space, normal, normals, recipe, make)
    if not gone:
        assert kept is not None
        return kept, ""
    return made[0], f"{len(gone)} normal images are left out: their files are gone or changed"


def _looked_at(
    judge: _Judge, images: Sequence[ImageInput], tell: Tell | None
) -> tuple[tuple[AnomalyResult, ...], tuple[Unread, ...]]:
    results, failures = [], []
    for place, image in enumerate(images):
        uri = _name(image, place)
        try:
            picture = load(image, max_pixels=settings.load().max_pixels)
        except (ImageError, QueryError) as error:
            failures.append(Unread(place, uri, str(error)))
        else:
            results.append(judge.look(place, uri, picture))
        if tell is not None:
            tell(place + 1, len(images))
    return tuple(results), tuple(failures)


def _name(image: ImageInput, place: int) -> str:
    if isinstance(image, str | os.PathLike):
        return uri_of(os.path.abspath(os.fspath(image)))
    return f"picture {place + 1}"
