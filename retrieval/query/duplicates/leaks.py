"""Leaks: what is the same on both sides of a border that should part it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.duplicates.census import Census
from retrieval.query.duplicates.found import Answer, as_frame, described
from retrieval.query.duplicates.grouping import SAME_BYTES, Links, records
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.store import Store
from retrieval.types import ImageRecord
from retrieval.vectors.sorted_ids import places

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Leak:
    """Two images that are the same, one on each side.

    Attributes:
        a: the one; between values of a column, that of the lower value.
        b: the other.
        score: exact cosine; 1 for the same bytes.
        kind: tier of the two.
        why: what they have in common, in words.
        sides: where each is: the value of its column, or its collection.
    """

    a: ImageRecord
    b: ImageRecord
    score: float
    kind: Tier
    why: str
    sides: tuple[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Leaks(Answer):
    """All leaks, the strongest tiers first, then the highest scores.

    An image that leaks is in one of them at least. Where several images have the same bytes, each
    is named with one of another side, and not with all of them.

    Attributes:
        pairs: see :class:`Leak`.
    """

    pairs: tuple[Leak, ...]

    def __len__(self) -> int:
        """Number of leaks."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Leak]:
        """The leaks."""
        return iter(self.pairs)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        return f"<Leaks n={len(self)} threshold={self.threshold}>"

    def to_arrow(self) -> pa.Table:
        """One row a leak."""
        import pyarrow as pa

        columns: dict[str, pa.Array] = {}
        for number, side in enumerate(("a", "b")):
            images = [getattr(leak, side) for leak in self.pairs]
            places = [leak.sides[number] for leak in self.pairs]
            columns[f"{side}_id"] = pa.array([image.image_id for image in images], pa.int64())
            columns[f"{side}_uri"] = pa.array([image.uri for image in images], pa.string())
            columns[f"{side}_side"] = pa.array(places, pa.string())
        columns["kind"] = pa.array([leak.kind for leak in self.pairs], pa.string())
        columns["score"] = pa.array([leak.score for leak in self.pairs], pa.float32())
        columns["why"] = pa.array([leak.why for leak in self.pairs], pa.string())
        return pa.table(columns).replace_schema_metadata(described(self.asked))

    def to_pandas(self) -> pd.DataFrame:
        """The table of :meth:`to_arrow` as a pandas frame.

        Raises:
            InstallError: if pandas is not here.
        """
        return as_frame(self.to_arrow())


@dataclass(frozen=True, slots=True)
class _Ids:
    """A leak by ids; ``link`` is -1 for the same bytes."""

    a: int
    b: int
    link: int
    sides: tuple[str, str]


def check_column(store: Store, column: str, where: str | None) -> None:
    """See that a column parts images: a leak check that compares nothing would always pass.

    Raises:
        QueryError: if there is no such column, or fewer than two values in it.
        FilterError: if ``where`` does not parse or fit the columns.
    """
    if column not in (names := store.columns().names):
        raise QueryError(f"no column {column!r} in {store.uri}; there are {', '.join(names)}")
    told = store.rows(store.ids(where), [column])[column].to_pylist()
    values = sorted({str(value) for value in told if value is not None})
    if len(values) < 2:
        has = f"only the value {values[0]!r}" if values else "no values"
        raise QueryError(
            f"nothing to compare: column {column!r} has {has}. `retrieval index --labels "
            "FILE.csv:COLUMN` brings in a column `split`; --against compares two collections"
        )


def check_collections(left: Store, right: Store, where: str | None) -> None:
    """See that two collections have images to compare, and are two.

    Raises:
        QueryError: if not.
        FilterError: if ``where`` does not parse or fit the columns.
    """
    if left.collection_id == right.collection_id:
        raise QueryError(
            f"{left.uri} and {right.uri} are one collection: `retrieval dedup` finds what "
            "is in it more than once, and --between what is in two of its splits"
        )
    for store in (left, right):
        if not len(store.ids(where)):
            raise QueryError(
                f"nothing to compare: {store.uri} has no images, or none that pass --where"
            )


def parted_by(
    store: Store, known: Census, column: str
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]:
    """Which pairs can leak: some image of the one content has another value than one of the other.

    Args:
        store: the images, of the version of ``known``.
        known: the images that take part; pairs of others might leak.
        column: what parts them.
    """
    told = store.rows(known.ids, [column])[column].to_pylist()
    codes: dict[str, int] = {}
    code = np.array(
        [-1 if value is None else codes.setdefault(str(value), len(codes)) for value in told],
        dtype=np.int64,
    )
    at, has = places(known.ids, known.contents), code >= 0
    low, high = np.full(len(code), len(codes)), np.full(len(code), -1)
    np.minimum.at(low, at[has], code[has])
    np.maximum.at(high, at[has], code[has])

    def parted(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        i, j = places(known.ids, a), places(known.ids, b)
        both = (high[i] >= 0) & (high[j] >= 0)
        differ = np.minimum(low[i], low[j]) != np.maximum(high[i], high[j])
        return np.asarray((i < 0) | (j < 0) | (both & differ))

    return parted


def across_values(
    store: Store, known: Census, links: Links, column: str, *, same_bytes: bool
) -> tuple[Leak, ...]:
    """Leaks between different values of a column; images where it is null take no part.

    Args:
        store: the images, of the version of ``known``.
        known: the images that take part.
        links: between their contents.
        column: what parts them.
        same_bytes: whether images of the same bytes are leaks.
    """
    touched = np.concatenate([links.a, links.b, known.repeated])
    ids = known.images_of(touched)
    told = store.rows(ids, [column])[column].to_pylist()
    held: dict[int, dict[str, list[int]]] = {}
    for content, image, value in zip(known.content_of(ids), ids.tolist(), told, strict=True):
        if value is not None:
            held.setdefault(int(content), {}).setdefault(str(value), []).append(image)
    linked: list[tuple[int, int, int]] = []
    if same_bytes:
        linked += [(content, content, -1) for content in known.repeated.tolist()]
    linked += zip(links.a.tolist(), links.b.tolist(), range(len(links.a)), strict=True)
    found = [
        _Ids(*pair, link, sides)
        for a, b, link in linked
        for pair, sides in _across(held.get(a, {}), held.get(b, {})).items()
    ]
    images = records(store, {image for leak in found for image in (leak.a, leak.b)})
    return _told(found, links, images, images)


def across_collections(
    stores: tuple[Store, Store],
    known: tuple[Census, Census],
    links: Links,
    same: Sequence[tuple[int, int]],
) -> tuple[Leak, ...]:
    """Leaks between two collections.

    Args:
        stores: the two.
        known: their images that take part.
        links: ``a`` a content of the first, ``b`` one of the second.
        same: contents of the first and the second that are the same bytes.
    """
    sides = stores[0].uri, stores[1].uri
    touched = [[pair[side] for pair in same] for side in (0, 1)]
    images = [
        _by_content(one, np.concatenate([ends, np.array(more, dtype=np.int64)]))
        for one, ends, more in zip(known, (links.a, links.b), touched, strict=True)
    ]
    linked = [(a, b, -1) for a, b in same]
    linked += zip(links.a.tolist(), links.b.tolist(), range(len(links.a)), strict=True)
    found = [
        _Ids(*pair, link, sides)
        for a, b, link in linked
        for pair in _each_once(images[0][a], images[1][b])
    ]
    left = records(stores[0], {leak.a for leak in found})
    right = records(stores[1], {leak.b for leak in found})
    return _told(found, links, left, right)


def _across(
    ours: dict[str, list[int]], theirs: dict[str, list[int]]
) -> dict[tuple[int, int], tuple[str, str]]:
    """Pairs of images of two contents, or of one, and their values, the lower one first.

    Every image is named that can be paired with one of another value, and with one of them only:
    all with all would be more than anybody reads, or memory holds.
    """
    found = {}
    for mine, others in ((ours, theirs), (theirs, ours)):
        lowest = sorted(others)[:2]
        for x, images in mine.items():
            for y in [value for value in lowest if value != x][:1]:
                for at, image in enumerate(images):
                    other = others[y][at % len(others[y])]
                    (low, one), (high, another) = sorted([(x, image), (y, other)])
                    found[one, another] = low, high
    return found


def _each_once(ours: Sequence[int], theirs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs in which every image of both sides is named, and no more than it takes."""
    for at in range(max(len(ours), len(theirs))):
        yield ours[min(at, len(ours) - 1)], theirs[min(at, len(theirs) - 1)]


def _by_content(known: Census, contents: NDArray[np.int64]) -> dict[int, list[int]]:
    held: dict[int, list[int]] = {}
    ids = known.images_of(contents)
    for content, image in zip(known.content_of(ids).tolist(), ids.tolist(), strict=True):
        held.setdefault(content, []).append(image)
    return held


def _told(
    found: Sequence[_Ids],
    links: Links,
    left: dict[int, ImageRecord],
    right: dict[int, ImageRecord],
) -> tuple[Leak, ...]:
    leaks = []
    for leak in found:
        score, kind, why = 1.0, TIERS[0], SAME_BYTES
        if leak.link >= 0:
            score, kind = float(links.scores[leak.link]), links.tiers[leak.link]
            why = links.whys[leak.link]
        leaks.append(Leak(left[leak.a], right[leak.b], score, kind, why, leak.sides))
    leaks.sort(key=lambda each: (TIERS.index(each.kind), -each.score, each.a.uri, each.b.uri))
    return tuple(leaks)
