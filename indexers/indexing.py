"""Indexes after a run: those that there are take in what is new; a large space gets its first."""

from __future__ import annotations

import logging
from collections.abc import Callable

from retrieval.errors import VectorIndexError
from retrieval.query import Collection
from retrieval.vectors.kinds import backend

_log = logging.getLogger(__name__)


def check_kind(kind: str | None) -> None:
    """Refuse a kind of index that cannot be made here, before any work is done.

    Raises:
        VectorIndexError: naming the kinds, or what is missing.
    """
    if kind not in (None, "auto") and (why := backend(str(kind)).missing()):
        raise VectorIndexError(f"an index of kind {kind} cannot be made here: {why}")


def bring_up_to_date(
    collection: Collection | None, kind: str | None, tell: Callable[[str], None] | None = None
) -> None:
    """Take new rows into the indexes, and make those of ``kind`` that are missing.

    Raises:
        VectorIndexError: if an index of the kind that was asked for cannot be made. One that was
            not asked for only costs time, so that a failure of it is logged.
    """
    if collection is None:
        return
    try:
        collection.update_indexes(tell=tell)
    except VectorIndexError as error:
        (tell or _log.warning)(f"searches will be slower: {error}")
    if kind is None:
        return
    for space in collection.spaces:
        there = [facts["kind"] for facts in collection.indexes(space)]
        if kind not in there and not (kind == "auto" and there):
            collection.build_index(space, kind, tell=tell)
