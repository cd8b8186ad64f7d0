"""From pairs of contents to groups of images, with their records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates import policy
from retrieval.query.duplicates.census import Census
from retrieval.query.duplicates.found import Group, Member
from retrieval.query.duplicates.groups import Members, members
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.store import Store
from retrieval.types import ImageRecord

SAME_BYTES = "same bytes"

_BLOCK = 10_000


@dataclass(frozen=True, slots=True)
class Links:
    """Pairs of different contents that count.

    Attributes:
        a: int64 ``[m]``: content of the one, as :class:`Census` calls it.
        b: int64 ``[m]``: content of the other.
        scores: float32 ``[m]``: exact cosines.
        tiers: tier of each.
        whys: what the two have in common, of each.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    scores: NDArray[np.float32]
    tiers: list[Tier]
    whys: list[str]

    @classmethod
    def none(cls) -> Links:
        """No pairs."""
        nobody = np.empty(0, np.int64)
        return cls(nobody, nobody, np.empty(0, np.float32), [], [])


def grouped(
    store: Store, known: Census, links: Links, rules: Sequence[str], *, same_bytes: bool
) -> tuple[Group, ...]:
    """The groups of a collection; see :func:`retrieval.query.duplicates.groups.members`.

    Args:
        store: the images, of the version of ``known``.
        known: the images that take part.
        links: between their contents.
        rules: which image stays.
        same_bytes: whether images of the same bytes are duplicates.
    """
    touched = [links.a, links.b, known.repeated] if same_bytes else [links.a, links.b]
    ids = known.images_of(np.concatenate(touched))
    rows = store.rows(ids, policy.COLUMNS)
    ids = ids[policy.preferred(rows, rules)]
    found = members(known.content_of(ids), links.a, links.b, same_bytes=same_bytes)
    told = records(store, ids[np.unique(np.concatenate([found.keep, found.member]))])
    borders = np.flatnonzero(np.diff(found.keep, prepend=-1, append=-1))
    return tuple(
        _group(ids, slice(start, stop), found, links, told) for start, stop in pairwise(borders)
    )


def records(store: Store, ids: Iterable[int]) -> dict[int, ImageRecord]:
    """Records by id, read in blocks.

    Raises:
        QueryError: naming an unknown id.
    """
    wanted = np.fromiter(ids, dtype=np.int64)
    blocks = (wanted[at : at + _BLOCK] for at in range(0, len(wanted), _BLOCK))
    return {record.image_id: record for block in blocks for record in store.records(block)}


def _group(
    ids: NDArray[np.int64],
    which: slice,
    found: Members,
    links: Links,
    told: dict[int, ImageRecord],
) -> Group:
    going = []
    for at, pair in zip(found.member[which].tolist(), found.pair[which].tolist(), strict=True):
        image = told[int(ids[at])]
        if pair < 0:
            going.append(Member(image, 1.0, "exact", SAME_BYTES))
        else:
            score, why = float(links.scores[pair]), links.whys[pair]
            going.append(Member(image, score, links.tiers[pair], why))
    weakest = max((member.kind for member in going), key=TIERS.index)
    return Group(weakest, told[int(ids[found.keep[which.start]])], tuple(going))
