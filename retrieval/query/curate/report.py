"""What a look at a whole collection tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.query.curate.closeness import TWIN
from retrieval.query.curate.quality import ISSUES
from retrieval.store import Store


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster.

    Attributes:
        number: 1 is the largest one's.
        name: proposed; None where nothing proposes one.
        size: images in it.
    """

    number: int
    name: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """What :meth:`Curating.shape` wrote, in numbers; None for what was not asked.

    Attributes:
        images: in the collection.
        space: that was looked at.
        measured: how many images each measure was computed for.
        near_twins: images with ``uniqueness`` below 0.1.
        issues: number of images by issue; those without a picture to look at have none.
        clusters: the largest first.
    """

    images: int
    space: str | None
    measured: Mapping[str, int]
    near_twins: int | None
    issues: Mapping[str, int] | None
    clusters: Sequence[Cluster] | None


def report(store: Store, space: str | None, measured: Mapping[str, int]) -> ShapeReport:
    """Count what the columns of the measures in ``measured`` hold."""
    return ShapeReport(
        images=store.count(),
        space=space,
        measured=measured,
        near_twins=store.count(f"uniqueness < {TWIN}") if "uniqueness" in measured else None,
        issues=_issues(store) if "quality" in measured else None,
        clusters=_clusters(store) if "clusters" in measured else None,
    )


def _issues(store: Store) -> dict[str, int]:
    found = Counter(store.made.read(["issues"])["issues"].drop_null().to_pylist())
    return {
        name: sum(count for text, count in found.items() if name in text.split(", "))
        for name in ISSUES
    }


def _clusters(store: Store) -> list[Cluster]:
    rows: dict[str, Any] = store.made.read(["cluster", "cluster_name"]).to_pydict()
    pairs = zip(rows["cluster"], rows["cluster_name"], strict=True)
    found = Counter(pair for pair in pairs if pair[0] is not None)
    return [Cluster(*pair, size) for pair, size in sorted(found.items())]
