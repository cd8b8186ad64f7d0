"""Labels that are likely wrong, with their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from retrieval.query.classify.exemplars import Label

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Evidence:
    """A near image and its label.

    Attributes:
        image_id: which.
        uri: where it is.
        label: what it is given.
        score: cosine to the image in question.
    """

    image_id: int
    uri: str
    label: Label
    score: float


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A label that is likely wrong.

    Attributes:
        image_id: whose label it is.
        uri: where the image is.
        given: the label.
        suggested: the likeliest other one.
        suspicion: in [0.9, 1]; see :class:`retrieval.query.label_quality.suspicion.Suspicion`.
        confidence: probability of ``suggested``, in [0, 1].
        by_neighbors: probability of the given label by the neighbours, in [0, 1].
        by_line: the same by the linear classifier.
        neighbors: the nearest other images, best first.
    """

    image_id: int
    uri: str
    given: Label
    suggested: Label
    suspicion: float
    confidence: float
    by_neighbors: float
    by_line: float
    neighbors: tuple[Evidence, ...]


class LabelIssues(Sequence[LabelIssue]):
    """Labels that are likely wrong, the most suspicious first.

    Attributes:
        column: whose values were judged.
        space: whose vectors told what is alike.
        images: how many labels were judged.
        unlabelled: images without a label; they take no part.
        classes: the labels that there are.
        single: labels of one image only, which cannot be judged.
        version: of the collection.
    """

    def __init__(
        self,
        issues: Sequence[LabelIssue],
        *,
        column: str,
        space: str,
        images: int,
        unlabelled: int,
        classes: Sequence[Label],
        single: Sequence[Label],
        version: int,
    ) -> None:
        """Wrap ``issues``, already ranked."""
        self._issues = tuple(issues)
        self.column, self.space, self.images = column, space, images
        self.unlabelled, self.classes = unlabelled, tuple(classes)
        self.single, self.version = tuple(single), version

    @overload
    def __getitem__(self, index: int) -> LabelIssue: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelIssue]: ...
    def __getitem__(self, index: int | slice) -> LabelIssue | Sequence[LabelIssue]:
        """The issue at ``index``, from 0, or a slice of them."""
        return self._issues[index]

    def __len__(self) -> int:
        """Number of labels that are likely wrong."""
        return len(self._issues)

    def __iter__(self) -> Iterator[LabelIssue]:
        """Issues, the most suspicious first."""
        return iter(self._issues)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        return f"<LabelIssues n={len(self)} of {self.images} in {self.column!r}>"

    def as_json(self) -> dict[str, Any]:
        """Plain values, for machines."""
        told = ("column", "space", "images", "unlabelled", "classes", "single", "version")
        issues = [asdict(issue) for issue in self]
        return {"issues": issues} | {name: getattr(self, name) for name in told}

    def to_arrow(self) -> pa.Table:
        """One row an issue; labels as text; the evidence as JSON text."""
        import json

        import pyarrow as pa

        rows = []
        for issue in self:
            row = asdict(issue)
            row |= {name: str(row[name]) for name in ("given", "suggested")}
            rows.append(row | {"neighbors": json.dumps(row["neighbors"])})
        text, number = pa.string(), pa.float64()
        fields = [("image_id", pa.int64()), ("uri", text), ("given", text), ("suggested", text)]
        fields += [(n, number) for n in ("suspicion", "confidence", "by_neighbors", "by_line")]
        return pa.Table.from_pylist(rows, schema=pa.schema([*fields, ("neighbors", text)]))
