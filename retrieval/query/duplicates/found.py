"""What was found: groups of duplicates, and the plan of what would go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from retrieval.errors import InstallError
from retrieval.query.duplicates.fit import Fit
from retrieval.query.duplicates.tiers import Tier
from retrieval.query.shares import Share
from retrieval.types import ImageRecord

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Member:
    """An image that would go.

    Attributes:
        image: what is known of it.
        score: exact cosine to the image that stays; 1 for the same bytes.
        kind: tier of the two.
        why: what they have in common, in words.
    """

    image: ImageRecord
    score: float
    kind: Tier
    why: str


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are the same.

    Attributes:
        kind: the weakest tier of a member.
        keep: the image that stays; not among the members.
        members: all others; each has a pair with ``keep`` that reaches the threshold.
    """

    kind: Tier
    keep: ImageRecord
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search for pairs stood on.

    Attributes:
        collection: path or URI.
        collection_id: given once, when the collection was made.
        space: whose vectors were compared; None where only bytes were.
        threshold: cosine from which on pairs were looked at; None where only bytes were.
        fit: where the threshold comes from; None for a number that was given.
        version: of the collection.
        recall: measured share of the pairs above the threshold that were looked at; None if all
            were, or if ``approximate`` and no pair of the sample told it.
        approximate: whether an index was searched, so that some pairs may have been missed.
        no_vector: images without a vector in the space: only their bytes were compared.
        no_thumbnail: pairs above the threshold that could not be looked at, for want of a
            thumbnail; those are *concept*, unless their bytes are the same.
    """

    collection: str
    collection_id: str
    space: str | None
    threshold: float | None
    fit: Fit | None
    version: int
    recall: Share | None
    approximate: bool = False
    no_vector: int = 0
    no_thumbnail: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about pairs.

    Attributes:
        asked: what it stands on.
    """

    asked: Asked

    @property
    def space(self) -> str | None:
        """Whose vectors were compared; None where only bytes were."""
        return self.asked.space

    @property
    def threshold(self) -> float | None:
        """Cosine from which on pairs were looked at; None where only bytes were compared."""
        return self.asked.threshold

    @property
    def fit(self) -> Fit | None:
        """Where the threshold comes from; None for a number that was given."""
        return self.asked.fit

    @property
    def recall(self) -> Share | None:
        """Measured share of the pairs above the threshold that were looked at; see `Asked`."""
        return self.asked.recall

    @property
    def version(self) -> int:
        """Of the collection."""
        return self.asked.version


@dataclass(frozen=True, slots=True, repr=False)
class Duplicates(Answer):
    """Groups of duplicates, disjoint.

    Attributes:
        groups: see :class:`Group`; in the order of the keep policy.
    """

    groups: tuple[Group, ...]

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        """The groups."""
        return iter(self.groups)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        going = sum(len(group.members) for group in self.groups)
        return f"<Duplicates groups={len(self)} members={going} threshold={self.threshold}>"

    def to_arrow(self) -> pa.Table:
        """The plan: one row an image that would go, with the image that stays and why.

        Every row names the collection; the table's metadata say its space, threshold and version.
        """
        import pyarrow as pa

        rows = [(member, group.keep) for group in self.groups for member in group.members]
        going, staying = [member.image for member, _ in rows], [keep for _, keep in rows]
        columns: dict[str, pa.Array] = {
            "image_id": pa.array([image.image_id for image in going], pa.int64()),
            "uri": pa.array([image.uri for image in going], pa.string()),
            "content_hash": pa.array([image.content_hash for image in going], pa.string()),
            "size_bytes": pa.array([image.size_bytes for image in going], pa.int64()),
            "keep_id": pa.array([image.image_id for image in staying], pa.int64()),
            "keep_uri": pa.array([image.uri for image in staying], pa.string()),
            "keep_hash": pa.array([keep.content_hash for keep in staying], pa.string()),
            "kind": pa.array([member.kind for member, _ in rows], pa.string()),
            "score": pa.array([member.score for member, _ in rows], pa.float32()),
            "why": pa.array([member.why for member, _ in rows], pa.string()),
            "collection": pa.array([self.asked.collection] * len(rows), pa.string()),
            "collection_id": pa.array([self.asked.collection_id] * len(rows), pa.string()),
        }
        return pa.table(columns).replace_schema_metadata(described(self.asked))

    def to_pandas(self) -> pd.DataFrame:
        """The table of :meth:`to_arrow` as a pandas frame.

        Raises:
            InstallError: if pandas is not here.
        """
        return as_frame(self.to_arrow())


def described(asked: Asked) -> dict[str, str]:
    """What a table says of where it comes from."""
    facts: dict[str, Any] = {
        "collection": asked.collection,
        "collection_id": asked.collection_id,
        "space": asked.space or "",
        "threshold": "" if asked.threshold is None else asked.threshold,
        "version": asked.version,
    }
    return {name: str(value) for name, value in facts.items()}


def as_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a pandas frame.

    Raises:
        InstallError: if pandas is not here.
    """
    if find_spec("pandas") is None:
        raise InstallError("frames need pandas: pip install pandas")
    return table.to_pandas()
