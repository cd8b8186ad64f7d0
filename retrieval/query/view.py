"""One space at one version: what an index holds, what came after it, and what it must not answer.

LanceDB is the truth. A view is made from an index that was true at some version and from the rows
that the table says have changed since; moving it on to the next version reads only what changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.store import Store
from retrieval.types import Neighbors
from retrieval.vectors import Block, nearest
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.search import merge, search
from retrieval.vectors.sorted_ids import places
from retrieval.vectors.vector_file import unit_float32

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """Never changes, so that any number of threads may search it while a newer one is made.

    Attributes:
        version: of the table of images, that answers are true for.
        base: an index of an earlier or the same version; None if there is none.
        dead: bool ``[n]``: positions of the base whose rows are gone or have another vector now.
        ids: sorted int64: all images of the version, with a vector or not; None if that is not
            known yet, because nothing changed since the base.
        images: how many they are.
        fresh: rows that the base has not, or has with another vector: ids, and unit vectors.
    """

    version: int
    base: OpenIndex | None
    dead: NDArray[np.bool_] | None
    ids: Ids | None
    images: int
    fresh: Block

    def search(self, queries: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Neighbors:
        """The nearest images ``[q, k]``, with exact scores.

        Args:
            queries: float32 ``[q, dim]``, unit rows.
            k: wanted neighbours.
            allowed: sorted ids that may be answered; None for all.

        Raises:
            VectorIndexError: if the base turns out to be damaged.
        """
        if self.base is None:
            return nearest([self.fresh], queries, k, allowed=allowed)
        found = search(self.base, queries, k, dead=self.dead, allowed=allowed)
        if len(self.fresh[0]) == 0:
            return found
        return merge(found, nearest([self.fresh], queries, k, allowed=allowed))

    def vectors_of(self, ids: Ids) -> NDArray[np.float32]:
        """float32 ``[n, dim]``: unit vectors of images that the view answers with.

        Raises:
            VectorIndexError: if the base turns out to be damaged.
        """
        out = np.empty((len(ids), self.fresh[1].shape[1]), dtype=np.float32)
        old = np.zeros(len(ids), dtype=bool)
        if self.base is not None:
            at = self.base.positions_of(ids)
            old = at >= 0 if self.dead is None else (at >= 0) & ~self.dead[at]
            out[old] = self.base.rows.take(at[old])
        if not old.all():
            order = np.argsort(self.fresh[0])
            out[~old] = self.fresh[1][order[np.searchsorted(self.fresh[0][order], ids[~old])]]
        return out

    @property
    def rows(self) -> int:
        """How many images have a vector."""
        return self.indexed + len(self.fresh[0])

    @property
    def indexed(self) -> int:
        """How many living rows the base holds."""
        if self.base is None:
            return 0
        gone = 0 if self.dead is None else int(np.count_nonzero(self.dead))
        return len(self.base.ids) - gone


def first_view(store: Store, space: str, base: OpenIndex | None) -> View:
    """The view of the store's version, from an index or from nothing.

    Args:
        store: at the version that is wanted.
        space: name of the space.
        base: an index of the space whose version is not later; None reads every vector.

    Raises:
        VectorIndexError: if the base turns out to be damaged.
    """
    dim = store.space(space).dim
    nothing = (np.empty(0, np.int64), np.empty((0, dim), np.float32))
    if base is None:
        empty = View(0, None, None, np.empty(0, np.int64), 0, nothing)
        return moved(empty, store, space)
    dead = base.ids < 0
    view = View(
        base.version,
        base,
        dead if dead.any() else None,
        None,
        int(base.facts["images"]),
        nothing,
    )
    return moved(view, store, space)


def moved(view: View, store: Store, space: str) -> View:
    """The view that is true for the store's version now; ``view`` itself if that is its own.

    Raises:
        VectorIndexError: if the base turns out to be damaged.
    """
    if view.version == store.version:
        return view
    changed, new = _changes(view, store, space)
    ids = _all_ids(view, store, changed)
    gone = changed if view.ids is None else np.union1d(changed, np.setdiff1d(view.ids, ids))
    if view.ids is None and view.base is not None:
        known = view.base.ids[view.base.ids >= 0]
        gone = np.union1d(gone, np.setdiff1d(known, ids))
    return replace(
        view,
        version=store.version,
        dead=_dead(view, gone),
        ids=ids,
        images=len(ids),
        fresh=_renewed(view.fresh, gone, new),
    )


def _changes(view: View, store: Store, space: str) -> tuple[Ids, list[Block]]:
    """Ids of rows whose vector is new, another or gone since the view, and those new vectors."""
    changed, new = [np.empty(0, np.int64)], []
    for block in store.scan(space, since=view.version):
        vectors = unit_float32(block.vectors)
        ids = block.ids[block.present]
        same = _same(view, ids, vectors)
        changed += [block.ids[~block.present], ids[~same]]
        new.append((ids[~same], vectors[~same]))
    return np.unique(np.concatenate(changed)), new


def _same(view: View, ids: Ids, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows changed in other columns only: the view has them with just this vector."""
    same = np.zeros(len(ids), dtype=bool)
    if view.base is not None:
        at = view.base.positions_of(ids)
        if view.dead is not None:
            at = np.where(view.dead[at], -1, at)
        held = np.flatnonzero(at >= 0)
        same[held] = (view.base.rows.take(at[held]) == vectors[held]).all(axis=1)
    if len(view.fresh[0]) and len(ids):
        order = np.argsort(view.fresh[0])
        known = view.fresh[0][order]
        at = places(known, ids)
        held = np.flatnonzero(at >= 0)
        same[held] |= (view.fresh[1][order[at[held]]] == vectors[held]).all(axis=1)
    return same


def _all_ids(view: View, store: Store, changed: Ids) -> Ids:
    """All ids now: those of the view and the new ones, unless their number says some are gone."""
    if view.ids is not None and store.version:
        grown = np.union1d(view.ids, changed)
        if len(grown) == store.count():
            return grown
    return store.ids()


def _dead(view: View, gone: Ids) -> NDArray[np.bool_] | None:
    if view.base is None or len(view.base.ids) == 0 or len(gone) == 0:
        return view.dead
    at = view.base.positions_of(gone)
    dead = np.zeros(len(view.base.ids), dtype=bool) if view.dead is None else view.dead.copy()
    dead[at[at >= 0]] = True
    return dead


def _renewed(fresh: Block, gone: Ids, new: list[Block]) -> Block:
    """Fresh rows without those gone and with the new ones, copied once, or not if all stay."""
    kept = np.flatnonzero(~np.isin(fresh[0], gone))
    new_ids, new_vectors = zip((fresh[0][:0], fresh[1][:0]), *new, strict=True)
    ids = np.concatenate([fresh[0][kept], *new_ids])
    if len(kept) == len(fresh[0]) == len(ids):
        return fresh
    vectors = np.empty((len(ids), fresh[1].shape[1]), dtype=np.float32)
    # Told to clip, numpy writes what it takes in place, and not into a copy first.
    np.take(fresh[1], kept, axis=0, out=vectors[: len(kept)], mode="clip")
    np.concatenate(new_vectors, out=vectors[len(kept) :])
    return ids, vectors
