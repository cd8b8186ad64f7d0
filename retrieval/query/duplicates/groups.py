"""Groups that do not chain: stars around the images that stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stars:
    """Who would go, and for whom: one entry a member, those of one kept node together.

    Attributes:
        keep: int64 ``[m]``: the node that stays, ascending.
        member: int64 ``[m]``: a node in its group; no node is in two groups or also kept.
        pair: int64 ``[m]``: the pair of the two.
    """

    keep: _Ids
    member: _Ids
    pair: _Ids


def stars(a: ArrayLike, b: ArrayLike) -> Stars:
    """Give each node to the best node that it has a pair with, if that one stays.

    The best node is kept, and all that have a pair with it are its members; then the same with
    what is left. So every member has a pair with the kept node itself, no chain becomes one group,
    and no node that stays has a pair with a better one that stays. This is the greedy maximal
    independent set in order of preference.

    Args:
        a: int ``[m]``: one node of each pair; a node's number is its rank, 0 the best.
        b: int ``[m]``: the other node.
    """
    left, right = np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)
    better, worse = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((worse, better))
    order = order[better[order] != worse[order]]
    taken: set[int] = set()
    chosen: list[int] = []
    pairs = zip(order.tolist(), better[order].tolist(), worse[order].tolist(), strict=True)
    for pair, keep, member in pairs:
        # All pairs of better nodes came before, so that it is settled whether this one stays.
        if keep not in taken and member not in taken:
            taken.add(member)
            chosen.append(pair)
    picked = np.asarray(chosen, dtype=np.int64)
    return Stars(better[picked], worse[picked], picked)


@dataclass(frozen=True, slots=True)
class Members:
    """Which images would go, and for which: one entry an image that goes.

    Attributes:
        keep: int64 ``[m]``: position of the image that stays, ascending; itself never a member.
        member: int64 ``[m]``: position of an image of its group, ascending within it, once at most.
        pair: int64 ``[m]``: the pair of the two; -1 where they have the same bytes.
    """

    keep: _Ids
    member: _Ids
    pair: _Ids


def members(contents: ArrayLike, a: ArrayLike, b: ArrayLike, *, same_bytes: bool = True) -> Members:
    """Group images by the pairs of their contents; see :func:`stars`.

    Args:
        contents: int ``[n]``: the content of each image, the one that stays before all others
            first. Images of the same bytes have the same content.
        a: int ``[m]``: one content of each pair.
        b: int ``[m]``: the other content.
        same_bytes: whether images of the same bytes as the kept one are members of its group.
    """
    codes, first, code = np.unique(contents, return_index=True, return_inverse=True)
    node_of = np.empty(len(codes), dtype=np.int64)
    node_of[np.argsort(first)] = np.arange(len(codes))
    best = np.sort(first)
    found = stars(*(node_of[np.searchsorted(codes, side)] for side in (a, b)))
    kept_by, pair_of = np.arange(len(codes)), np.full(len(codes), -1, dtype=np.int64)
    kept_by[found.member], pair_of[found.member] = found.keep, found.pair
    node = node_of[code]
    keep, pair = best[kept_by[node]], pair_of[node]
    goes = (keep != np.arange(len(node))) & (same_bytes | (pair >= 0))
    member = np.flatnonzero(goes)
    member = member[np.argsort(keep[member], kind="stable")]
    return Members(keep[member], member, pair[member])
