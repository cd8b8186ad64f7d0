"""Pairs that a person labelled, and the threshold that agrees with them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
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


def read_labels(path: str | os.PathLike[str]) -> list[Labelled]:
    """Read a CSV of columns ``a``, ``b`` and ``same`` (yes or no, 1 or 0, true or false).

    Raises:
        SourceError: naming the line, if there is no such file, column or word.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not set(_COLUMNS) <= set(rows.fieldnames or ()):
                raise SourceError(f"{os.fspath(path)} needs the columns {', '.join(_COLUMNS)}")
            return [_pair(row, f"{os.fspath(path)}, line {rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot read {os.fspath(path)}: {error}") from error


def fit_pairs(
    collection: Indexed, space: str, pairs: Sequence[Labelled], tiers: tuple[Tier, ...]
) -> Fit:
    """Fit the threshold of a space to labelled pairs; see :meth:`Duplicating.fit_labelled`."""
    store = collection.store.again()
    a, b = ([_find(store, pair[side]) for pair in pairs] for side in (0, 1))
    if not pairs:
        return fit_labelled([], [])
    left, right = (unit_rows(store.vectors_of(space, ids)) for ids in (a, b))
    scores = np.einsum("nd,nd->n", left, right)
    verified = [found.tier in tiers for found in Comparer(store).compare(a, b)]
    return fit_labelled(scores, [pair[2] for pair in pairs], verified=verified, tiers=tiers)


def _pair(row: dict[str, str], place: str) -> Labelled:
    word = (row["same"] or "").strip().lower()
    if word not in _YES + _NO:
        raise SourceError(f"{place}: same is yes or no, not {row['same']!r}")
    return row["a"] or "", row["b"] or "", word in _YES


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
