"""Pairs that a person labelled, and the threshold that agrees with them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval.encoders.base import unit_rows
from retrieval.errors import QueryError, SourceError
from retrieval.query.duplicates.comparer import Comparer
from retrieval.query.duplicates.fit import Fit, fit_labelled
from retrieval.query.duplicates.tiers import Tier
from retrieval.query.indexed import Indexed
from retrieval.store import Store
from retrieval.uris import uri_of

Labelled = tuple[int | str, int | str, bool]
"""Two images, by id, path or URI, and whether they are the same."""

_YES, _NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0")
_COLUMNS = ("a", "b", "same")


def read_labels(path: str | os.PathLike[str], collection: Indexed) -> list[tuple[int, int, bool]]:
    """Read a CSV of columns ``a``, ``b`` and ``same`` (yes or no, 1 or 0, true or false).

    Args:
        path: of the file.
        collection: where its images are, by id, path or URI.

    Returns:
        Ids of two images, and whether they are the same.

    Raises:
        SourceError: naming the line, if there is no such file, column, word or image.
    """
    store = collection.store.again()
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not set(_COLUMNS) <= set(rows.fieldnames or ()):
                raise SourceError(f"{os.fspath(path)} needs the columns {', '.join(_COLUMNS)}")
            return [_pair(store, row, f"{os.fspath(path)}, line {rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot read {os.fspath(path)}: {error}") from error


def fit_pairs(
    collection: Indexed, space: str, pairs: Sequence[Labelled], tiers: tuple[Tier, ...]
) -> Fit:
    """Fit the threshold of a space to labelled pairs; see :meth:`Duplicating.fit_labelled`."""
    store = collection.store.again()
    told = _each_once([(_find(store, a), _find(store, b), same) for a, b, same in pairs])
    if not told:
        return fit_labelled([], [])
    a, b = ([pair[side] for pair in told] for side in (0, 1))
    left, right = (unit_rows(store.vectors_of(space, ids)) for ids in (a, b))
    scores = np.einsum("nd,nd->n", left, right)
    verified = [found.tier in tiers for found in Comparer(store).compare(a, b)]
    fit = fit_labelled(scores, list(told.values()), verified=verified, tiers=tiers)
    return replace(fit, space=space)


def _each_once(pairs: Sequence[tuple[int, int, bool]]) -> dict[tuple[int, int], bool]:
    """What was said of each pair; repeated it would weigh more, and leaving it out tell nothing."""
    told: dict[tuple[int, int], bool] = {}
    for a, b, same in pairs:
        if told.setdefault((min(a, b), max(a, b)), same) != same:
            raise QueryError(f"images {a} and {b} are labelled both the same and not: choose one")
    return told


def _pair(store: Store, row: dict[str, str], place: str) -> tuple[int, int, bool]:
    word = (row["same"] or "").strip().lower()
    if word not in _YES + _NO:
        raise SourceError(f"{place}: same is yes or no, not {row['same']!r}")
    try:
        return _find(store, row["a"] or ""), _find(store, row["b"] or ""), word in _YES
    except QueryError as error:
        raise SourceError(f"{place}: {error}") from error


def _find(store: Store, image: int | str) -> int:
    if isinstance(image, str):
        places = (image, uri_of(os.path.abspath(os.path.expanduser(image))))
        for uri in places if image else ():
            if (found := store.find_uri(uri)) is not None:
                return found
        if not image.isascii() or not image.isdigit():
            raise QueryError(f"no image {image!r} in {store.uri}: give its path, URI or id")
        image = int(image)
    store.rows([image], ["image_id"])
    return image
