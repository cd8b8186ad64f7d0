"""How good answers are now: an index with everything that came since, against all vectors."""

from __future__ import annotations

import logging
import threading

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.query.space_vectors import SpaceVectors
from retrieval.query.view import View
from retrieval.types import Embeddings, Neighbors
from retrieval.vectors.base import Effort, Positions
from retrieval.vectors.exact import nearest
from retrieval.vectors.tune import Measurement, Trial

_log = logging.getLogger(__name__)
_EVERY = 1000
_BLOCK_ROWS = 8192
_TIE = 1e-6


def measure(view: View, texts: Embeddings | None = None) -> Measurement:
    """ann_recall_at_10 and latency of whole searches of a view, on queries made of its vectors.

    Args:
        view: of a space; its index, dead rows and fresh rows all count.
        texts: vectors of texts, as further queries.

    Raises:
        VectorIndexError: if the view's files turn out to be damaged.
    """
    rows = SpaceVectors(view)
    return Trial(rows, texts).measure(_Whole(view, rows), Effort())


class _Whole:
    """A view as an index of all its rows."""

    efforts = (Effort(),)
    memory_bytes = 0

    def __init__(self, view: View, rows: SpaceVectors) -> None:
        self._view = view
        self._order = np.argsort(rows.ids)
        self._ids = rows.ids[self._order]

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        ids = self._view.search(queries, k).ids
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(ids >= 0, self._order[at], -1)


class LiveRecall:
    """Watches real searches: now and then one is answered again by comparing all vectors.

    The comparison runs in a thread of its own, one at a time, so that it delays nobody.
    """

    def __init__(self, every: int = _EVERY) -> None:
        """Check one search of ``every``."""
        self._every = every
        self._lock = threading.Lock()
        self._seen = self._checked = 0
        self._found = 0.0
        self._thread: threading.Thread | None = None

    def watch(self, view: View, queries: Embeddings, found: Neighbors) -> None:
        """Take note of an unfiltered search."""
        if view.base is None:
            return
        with self._lock:
            self._seen += 1
            due = self._seen % self._every == 0
            if not due or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=self._check, args=(view, queries[:1], found), daemon=True, name="recall"
            )
            self._thread.start()

    def result(self) -> tuple[float | None, int]:
        """Mean recall of the searches that were checked, and how many they were."""
        with self._lock:
            return (self._found / self._checked if self._checked else None), self._checked

    def _check(self, view: View, queries: Embeddings, found: Neighbors) -> None:
        rows, k = SpaceVectors(view), found.ids.shape[1]
        try:
            scores = nearest(rows.named_blocks(_BLOCK_ROWS), queries, k).scores[0]
        except VectorIndexError as error:  # the next search notices it too, and acts
            _log.warning("a search cannot be checked: %s", error)
            return
        scores = scores[np.isfinite(scores)]
        if len(scores):
            share = float((found.scores[0] >= scores[-1] - _TIE).sum()) / len(scores)
            with self._lock:
                self._checked += 1
                self._found += min(1.0, share)
