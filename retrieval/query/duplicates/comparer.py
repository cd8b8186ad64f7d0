"""Pairs of stored pictures, compared by their thumbnails."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval import settings
from retrieval.errors import ImageError, QueryError
from retrieval.images import decode
from retrieval.query.duplicates.evidence import Evidence, compare, look
from retrieval.query.duplicates.looks import Look
from retrieval.store import Store

UNSEEN = "no thumbnail to compare"
"""What is said of a pair that could not be looked at: a thumbnail is missing or damaged."""

_BATCH = 512
"""Pairs whose pictures are read together."""


class Comparer:
    """Says what pairs of stored pictures have in common; keeps what it saw of them.

    It may be asked by several threads; what it answers does not depend on them.
    """

    def __init__(
        self, store: Store, other: Store | None = None, *, memory_bytes: int = 256 << 20
    ) -> None:
        """Compare images of ``store`` with those of ``other``, or with each other.

        Args:
            store: where the first of a pair is.
            other: where the second is; None for the same place.
            memory_bytes: bound for what is kept of pictures seen; those of one batch stay besides.
        """
        self._stores = (store, store if other is None else other)
        self._looks = _Looks(memory_bytes)

    def compare(self, a: ArrayLike, b: ArrayLike) -> list[Evidence]:
        """What each pair has in common.

        Args:
            a: ids in ``store``, ``[m]``.
            b: ids in ``other``, ``[m]``.

        Raises:
            QueryError: for an unknown id, or where ``a`` and ``b`` are not of one length.
        """
        first, second = (np.asarray(ids, np.int64).ravel() for ids in (a, b))
        if len(first) != len(second):
            raise QueryError(f"pairs need as many ids on both sides: {len(first)}, {len(second)}")
        found: list[Evidence] = []
        with _workers() as pool:
            for start in range(0, len(first), _BATCH):
                part = slice(start, start + _BATCH)
                found.extend(self._batch(first[part], second[part], pool))
        return found

    def against(self, seen: Sequence[Look], ids: ArrayLike) -> list[Evidence]:
        """What each picture that is not stored has in common with a stored one.

        Args:
            seen: looks ``[m]``, as of a thumbnail of the picture.
            ids: ids in ``store``, ``[m]``.

        Raises:
            QueryError: for an unknown id.
        """
        wanted = np.asarray(ids, np.int64).ravel()
        found: list[Evidence] = []
        with _workers() as pool:
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH].tolist()
                looks = self._look(0, sorted(set(part)), pool)
                others = [looks[0, i] for i in part]
                found.extend(pool.map(_compared, seen[start : start + _BATCH], others))
        return found

    def _batch(
        self, a: NDArray[np.int64], b: NDArray[np.int64], pool: ThreadPoolExecutor
    ) -> list[Evidence]:
        sides = (0, 0 if self._stores[0] is self._stores[1] else 1)
        columns = ["content_hash", "width", "height"]
        facts = [
            store.rows(ids, columns).to_pylist()
            for store, ids in zip(self._stores, (a, b), strict=True)
        ]
        hashes = ([row["content_hash"] for row in rows] for rows in facts)
        differ = [not x or x != y for x, y in zip(*hashes, strict=True)]
        looks: dict[_Key, Look | None] = {}
        for side in dict.fromkeys(sides):
            wanted = [ids[differ] for s, ids in zip(sides, (a, b), strict=True) if s == side]
            looks |= self._look(side, np.unique(np.concatenate(wanted)).tolist(), pool)

        def one(i: int) -> Evidence:
            if not differ[i]:
                return Evidence("exact", "same bytes")
            x, y = looks[sides[0], int(a[i])], looks[sides[1], int(b[i])]
            found = Evidence("concept", UNSEEN) if x is None else _compared(x, y)
            if found.tier == "copy":
                return Evidence("copy", _sized(facts[0][i], facts[1][i]))
            return found

        return list(pool.map(one, range(len(a))))

    def _look(self, side: int, ids: list[int], pool: ThreadPoolExecutor) -> dict[_Key, Look | None]:
        found: dict[_Key, Look | None] = self._looks.get((side, i) for i in ids)
        missing = [i for i in ids if (side, i) not in found]
        packed = self._stores[side].thumbnails(missing)
        for i, seen in zip(missing, pool.map(_looked, map(packed.get, missing)), strict=True):
            found[side, i] = seen
            if seen is not None:
                self._looks.put((side, i), seen)
        return found


_Key = tuple[int, int]
"""Which of the two stores, and an image's id there."""


class _Looks:
    """The looks used last, up to a number of bytes; safe to share between threads."""

    def __init__(self, memory_bytes: int) -> None:
        self._bound = memory_bytes
        self._held = 0
        self._looks: OrderedDict[_Key, Look] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, keys: Iterable[_Key]) -> dict[_Key, Look | None]:
        found: dict[_Key, Look | None] = {}
        with self._lock:
            for key in keys:
                if (seen := self._looks.get(key)) is not None:
                    self._looks.move_to_end(key)
                    found[key] = seen
        return found

    def put(self, key: _Key, seen: Look) -> None:
        with self._lock:
            if (replaced := self._looks.pop(key, None)) is not None:
                self._held -= replaced.nbytes
            self._looks[key] = seen
            self._held += seen.nbytes
            while self._held > self._bound:
                self._held -= self._looks.popitem(last=False)[1].nbytes


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """One thread a core; products of small matrices gain nothing by threads of their own."""
    from threadpoolctl import threadpool_limits

    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(settings.cores(), thread_name_prefix="compare") as pool,
    ):
        yield pool


def _compared(seen: Look, other: Look | None) -> Evidence:
    return Evidence("concept", UNSEEN) if other is None else compare(seen, other)


def _looked(thumbnail: bytes | None) -> Look | None:
    """None where there is nothing to look at: no thumbnail, or a damaged one."""
    if thumbnail is None:
        return None
    try:
        return look(decode(thumbnail).image)
    except ImageError:
        return None


def _sized(a: dict[str, Any], b: dict[str, Any]) -> str:
    """How the sizes of two files of one picture relate, in words."""
    areas = sorted((one["width"] or 0) * (one["height"] or 0) for one in (a, b))
    if not areas[0]:
        return "re-encoded"  # nobody wrote down how large they are
    ratio = float(np.sqrt(areas[0] / areas[1]))
    if ratio > 0.99:
        return "re-encoded"
    return "half the size" if abs(ratio - 0.5) < 0.01 else f"{100 * ratio:.0f} % of the size"
