"""What zero-shot classification found, with its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from retrieval.query.zero_shot.disagreements import Kind

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Named:
    """A stored image and what words say of it.

    Attributes:
        image_id: which.
        uri: where it is.
        label: the best of the labels.
        confidence: its probability, in [0, 1].
        score: cosine in the visual space to the image in question.
    """

    image_id: int
    uri: str
    label: str
    confidence: float
    score: float


@dataclass(frozen=True, slots=True)
class ZeroShotPrediction:
    """What words say of one picture.

    Attributes:
        image_id: of a stored image; None for a new picture.
        uri: where it is; None for one that was given as pixels.
        label: the best of the labels, also when none fits.
        confidence: its probability, in [0, 1].
        abstained: whether no label fits: all have a probability below 0.5 where each is judged by
            itself; never where one always fits.
        labels: all that fit, the likeliest first; with one label a picture, that one.
        neighbors: the nearest stored images in the visual space, best first.
    """

    image_id: int | None
    uri: str | None
    label: str
    confidence: float
    abstained: bool
    labels: tuple[str, ...]
    neighbors: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two images about which words and eyes disagree.

    Attributes:
        kind: ``looks alike``: near neighbours with other labels; ``named alike``: one label, and
            among the 1 % least alike of all pairs of one label.
        score: their cosine in the visual space.
        strength: ``score`` (``looks alike``) or 1 - ``score`` (``named alike``), times the lesser
            of both confidences.
        a: one image.
        b: the other.
    """

    kind: Kind
    score: float
    strength: float
    a: Named
    b: Named


class ZeroShotResult(Sequence[ZeroShotPrediction]):
    """One prediction a picture, in the order asked; stored images in the order of their ids.

    Attributes:
        classes: the labels.
        templates: the phrases they were read in.
        disagreements: where words and eyes disagree, of each kind the clearest first; empty for
            new pictures.
        space: whose encoder read the labels.
        visual_space: that tells what looks alike.
        scale: factor on the cosine in the probability.
        bias: added after that; None for a softmax.
        note: what of that is not the encoder's own; empty where all is.
        version: of the collection.
    """

    def __init__(
        self,
        predictions: Sequence[ZeroShotPrediction],
        *,
        classes: Sequence[str],
        templates: Sequence[str],
        disagreements: Sequence[Disagreement],
        space: str,
        visual_space: str,
        scale: float,
        bias: float | None,
        note: str,
        version: int,
    ) -> None:
        """Wrap ``predictions``."""
        self._predictions = tuple(predictions)
        self.classes, self.templates = tuple(classes), tuple(templates)
        self.disagreements = tuple(disagreements)
        self.space, self.visual_space = space, visual_space
        self.scale, self.bias, self.note, self.version = scale, bias, note, version

    @overload
    def __getitem__(self, index: int) -> ZeroShotPrediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ZeroShotPrediction]: ...
    def __getitem__(self, index: int | slice) -> ZeroShotPrediction | Sequence[ZeroShotPrediction]:
        """The prediction at ``index``, from 0, or a slice of them."""
        return self._predictions[index]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._predictions)

    def __iter__(self) -> Iterator[ZeroShotPrediction]:
        """Predictions, in the order asked."""
        return iter(self._predictions)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        pairs = len(self.disagreements)
        return f"<ZeroShotResult n={len(self)} classes={len(self.classes)} disagreements={pairs}>"

    def as_json(self) -> dict[str, Any]:
        """Plain values, for machines."""
        names = (
            "classes", "templates", "space", "visual_space", "scale", "bias", "note", "version",
        )  # fmt: skip
        return {
            "predictions": [asdict(each) for each in self],
            "disagreements": [asdict(each) for each in self.disagreements],
        } | {name: getattr(self, name) for name in names}

    def to_arrow(self) -> pa.Table:
        """One row a picture: id, uri, label, confidence, whether it abstained, all that fit."""
        import pyarrow as pa

        fields = [
            ("image_id", pa.int64()), ("uri", pa.string()), ("label", pa.string()),
            ("confidence", pa.float64()), ("abstained", pa.bool_()),
            ("labels", pa.list_(pa.string())),
        ]  # fmt: skip
        rows = [{name: getattr(each, name) for name, _ in fields} for each in self]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))
