"""Known copies: made of a collection's own images, to see how well a run would find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.errors import QueryError
from retrieval.images import decode
from retrieval.images.thumbnails import thumbnail
from retrieval.query.duplicates.census import Census
from retrieval.query.duplicates.comparer import Comparer
from retrieval.query.duplicates.fit import GRID, Rehearsal, affordable
from retrieval.query.duplicates.looks import Look, look
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.query.duplicates.transforms import TRANSFORMS
from retrieval.query.pictures import stored_picture
from retrieval.query.space_vectors import SpaceVectors
from retrieval.store import Store
from retrieval.types import Embeddings
from retrieval.vectors.sorted_ids import places
from retrieval.vectors.tiles import Tell

_SIDE = 1024  # encoders look at less; the edits are to take no longer for large photos
_BATCH = 4
_BLOCK_ROWS = 8192
_TOLD = 256  # pairs between two calls of tell
_NEAREST = 200  # of one copy that are compared; those of the fits seen are fewer by far


@dataclass(frozen=True, slots=True)
class _Copies:
    """Of ``s`` images, ``t`` of each: their vectors ``[s, t, dim]`` and their looks."""

    originals: NDArray[np.int64]
    vectors: NDArray[np.float32]
    looks: list[list[Look]]


def rehearse(
    store: Store,
    vectors: SpaceVectors,
    known: Census,
    encoder: Encoder,
    *,
    tiers: Sequence[Tier],
    sample: int,
    seed: int,
    at: float | None = None,
    tell: Tell | None = None,
) -> Rehearsal:
    """Copy some images in every known way, and see which pairs a run would report.

    Args:
        store: where their thumbnails are.
        vectors: of the space.
        known: the images that take part; one of each content does.
        encoder: the space's.
        tiers: those that count as found.
        sample: how many images to copy; all where there are fewer.
        seed: of the sample and of the copies.
        at: a threshold that will be asked about besides those that are affordable.
        tell: called with what is done and all there is to do: images, then pairs.
    """
    ids = np.sort(vectors.ids)
    ids = ids[known.content_of(ids) == ids]
    copies = _copied(store, encoder, ids, sample, seed, tell)
    own = vectors.take(vectors.positions(copies.originals))
    comparer = Comparer(store)
    wanted = [TIERS.index(tier) for tier in tiers]
    shape = copies.vectors.shape[:2]
    evidence = comparer.against(
        [one for row in copies.looks for one in row], np.repeat(copies.originals, shape[1])
    )
    verified = np.isin([TIERS.index(each.tier) for each in evidence], wanted).reshape(shape)
    candidates = _candidates(vectors, own, ids)
    floor = float(GRID[affordable(candidates)][0])
    false_scores, alone = _false(
        vectors, ids, copies, comparer, wanted, floor if at is None else min(at, floor), tell
    )
    scores = np.clip(np.einsum("std,sd->st", copies.vectors, own), -1, 1)
    return Rehearsal(tuple(TRANSFORMS), scores, verified, false_scores, alone, candidates)


def _copied(
    store: Store,
    encoder: Encoder,
    ids: NDArray[np.int64],
    sample: int,
    seed: int,
    tell: Tell | None,
) -> _Copies:
    total = min(sample, len(ids))
    originals: list[int] = []
    vectors: list[Embeddings] = []
    looks: list[Look] = []
    pictures = islice(_pictures(store, np.random.default_rng(seed).permutation(ids)), total)
    with ThreadPoolExecutor(settings.cores(), thread_name_prefix="copies") as pool:
        while some := list(islice(pictures, _BATCH)):
            made = [
                transform(picture, np.random.default_rng((seed, len(originals) + at, which)))
                for at, (_, picture) in enumerate(some)
                for which, transform in enumerate(TRANSFORMS.values())
            ]
            seen = pool.map(_seen, made)
            vectors.append(encoder.encode_images(made))
            looks += seen
            originals += [image_id for image_id, _ in some]
            if tell is not None:
                tell(len(originals), total)
    shape = (len(originals), len(TRANSFORMS))
    whole = np.concatenate(vectors) if vectors else np.empty((0, encoder.spec.dim), np.float32)
    rows = [looks[at : at + shape[1]] for at in range(0, len(looks), shape[1])]
    return _Copies(np.array(originals, dtype=np.int64), whole.reshape(*shape, whole.shape[1]), rows)


def _seen(copy: Image.Image) -> Look:
    """As the collection would see it: by its thumbnail."""
    return look(decode(thumbnail(copy)).image)


def _pictures(store: Store, ids: NDArray[np.int64]) -> Iterator[tuple[int, Image.Image]]:
    """Those that can be read, of images that are still there, in the order given."""
    for image_id in ids.tolist():
        with suppress(QueryError):
            picture, _ = stored_picture(store, store.records([image_id])[0])
            picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
            yield image_id, picture


def _candidates(
    vectors: SpaceVectors, own: Embeddings, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How many of ``ids`` reach each threshold of the grid with an image, without itself; mean."""
    bins = np.zeros(len(GRID), dtype=np.int64)
    for named, block in vectors.named_blocks(_BLOCK_ROWS):
        scores = own @ block[places(ids, named) >= 0].T
        # In the same numbers as elsewhere: 0.7 of the grid is what 0.7 is as float32.
        at = np.searchsorted(GRID.astype(np.float32), scores.ravel(), side="right") - 1
        bins += np.bincount(at[at >= 0], minlength=len(GRID))
    above = np.cumsum(bins[::-1])[::-1] / max(1, len(own))
    return np.asarray(np.maximum(above - 1, 0), dtype=np.float64)


def _false(
    vectors: SpaceVectors,
    ids: NDArray[np.int64],
    copies: _Copies,
    comparer: Comparer,
    wanted: Sequence[int],
    floor: float,
    tell: Tell | None,
) -> tuple[NDArray[np.float32], int]:
    """Scores of one copy an image with strangers that are taken for the same, and of how many.

    An image that the collection seems to hold more than once, since something else is taken for
    the same as it is, says nothing of strangers and is left out: what its copy is paired with may
    be right.
    """
    count, kinds = copies.vectors.shape[:2]
    one = np.arange(count), np.arange(count) % kinds
    near = vectors.within(copies.vectors[one], floor)
    which = np.repeat(np.arange(count), np.diff(near.offsets))
    fits = (places(ids, near.ids) >= 0) & (near.ids != copies.originals[which])
    which, others, scores = which[fits], near.ids[fits], near.scores[fits]
    rank = np.arange(len(which)) - np.searchsorted(which, which)
    which, others, scores = (each[rank < _NEAREST] for each in (which, others, scores))
    seen = [copies.looks[i][i % kinds] for i in which.tolist()]
    tiers: list[int] = []
    for at in range(0, len(seen), _TOLD):
        found = comparer.against(seen[at : at + _TOLD], others[at : at + _TOLD])
        tiers += [TIERS.index(each.tier) for each in found]
        if tell is not None:
            tell(len(tiers), len(seen))
    alike = np.isin(np.array(tiers, dtype=np.int64), wanted)
    which, others, scores = which[alike], others[alike], scores[alike]
    also = comparer.compare(copies.originals[which], others)
    same = np.isin(np.array([TIERS.index(e.tier) for e in also], dtype=np.int64), wanted)
    alone = np.ones(count, dtype=bool)
    alone[which[same]] = False
    return np.asarray(scores[alone[which]]), int(alone.sum())
