"""The nouns that cross module borders: records, hits, neighbours, spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CollectionError, InstallError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Embeddings: TypeAlias = NDArray[np.float32]
"""float32 ``[n, dim]``, finite, every row of unit length."""

Modality: TypeAlias = Literal["image", "text"]
VectorType: TypeAlias = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What a collection knows of one image.

    Attributes:
        image_id: int64, given once per uri and kept when the file moves.
        uri: absolute path or URL; a path that is not valid UTF-8 is written as a ``file://`` URL.
        content_hash: BLAKE2b-128 of the file's bytes, 32 hex digits.
        width: pixels, after EXIF orientation.
        height: pixels, after EXIF orientation.
        format: ``JPEG``, ``PNG``, …, from the content.
        size_bytes: size of the file.
        captured_at: when the camera says it was taken, without time zone.
        label: what a person says it is.
        split: the part of a dataset it belongs to.
        tags: words a person put on it.
        metadata: everything else known of it: typed columns and JSON, by name.
    """

    image_id: int
    uri: str
    content_hash: str
    width: int
    height: int
    format: str
    size_bytes: int
    captured_at: datetime | None = None
    label: str | None = None
    split: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Space:
    """One encoder's vectors in a collection, and what made them.

    ``encoder``, ``weights_hash``, ``preprocess_hash``, ``pooling`` and ``dim`` are its identity;
    ``runtime`` tells what computed the vectors, as ``torch-cpu-fp32``; all that did, with commas,
    where runs differed. ``base`` names the space whose vectors this one's are made of, by a
    transform that is part of ``weights_hash``; None for a space that an encoder fills itself.
    """

    name: str
    encoder: str
    weights_hash: str
    preprocess_hash: str
    pooling: str
    dim: int
    modalities: tuple[Modality, ...]
    dtype: VectorType = "float32"
    runtime: str = ""
    base: str | None = None

    def __post_init__(self) -> None:
        """Refuse a type that vectors cannot be stored in."""
        if self.dtype not in ("float32", "float16"):
            raise CollectionError(f"vectors are stored as float32 or float16, not {self.dtype!r}")

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """What must agree for two sets of vectors to be comparable."""
        return (self.encoder, self.weights_hash, self.preprocess_hash, self.pooling, self.dim)


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Nearest rows for a batch of queries, best first.

    Attributes:
        ids: int64 ``[q, k]``; ``-1`` where there are fewer than k.
        scores: float32 ``[q, k]``, exact cosine in [-1, 1]; ``-inf`` where there are fewer than k.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: an image, its exact cosine score, and its rank from 1.

    Attributes:
        rank: from 1.
        score: exact cosine to the query.
        image: what is known of it.
        relevance: in [0, 1], what the score is worth in this collection; see
            :mod:`retrieval.query.relevance`. None where nothing can be said.
    """

    rank: int
    score: float
    image: ImageRecord
    relevance: float | None = None


class Hits(Sequence[Hit]):
    """The answer to a query, best first.

    Attributes:
        space: name of the space that answered.
        version: table version of the collection the answer is true for.
        verdict: ``good match``, ``weak match`` or ``no good match``, judged against what unrelated
            queries get in this collection; None where nothing can be said. It never removes hits.
    """

    def __init__(
        self, hits: Sequence[Hit] = (), *, space: str, version: int, verdict: str | None = None
    ) -> None:
        """Wrap ``hits``, already ranked."""
        self._hits = tuple(hits)
        self.space = space
        self.version = version
        self.verdict = verdict

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """The hit at ``index``, from 0, or a slice of hits."""
        return self._hits[index]

    def __len__(self) -> int:
        """Number of hits."""
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        """Hits, best first."""
        return iter(self._hits)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        best = f", best {self._hits[0].score:.3f} {self._hits[0].image.uri}" if self._hits else ""
        return f"<Hits n={len(self._hits)} space={self.space}{best}>"

    def to_arrow(self) -> pa.Table:
        """One row a hit: rank, score, relevance, and its record with metadata as JSON text."""
        import json

        import pyarrow as pa

        columns: dict[str, Any] = {
            "rank": pa.array([h.rank for h in self], pa.int64()),
            "score": pa.array([h.score for h in self], pa.float32()),
            "relevance": pa.array([h.relevance for h in self], pa.float32()),
            "image_id": pa.array([h.image.image_id for h in self], pa.int64()),
            "width": pa.array([h.image.width for h in self], pa.int32()),
            "height": pa.array([h.image.height for h in self], pa.int32()),
            "size_bytes": pa.array([h.image.size_bytes for h in self], pa.int64()),
            "captured_at": pa.array([h.image.captured_at for h in self], pa.timestamp("us")),
            "tags": pa.array([list(h.image.tags) for h in self], pa.list_(pa.string())),
            "metadata": pa.array(
                [json.dumps(dict(h.image.metadata), default=str) for h in self], pa.string()
            ),
        }
        for name in ("uri", "content_hash", "format", "label", "split"):
            columns[name] = pa.array([getattr(h.image, name) for h in self], pa.string())
        return pa.table(columns)

    def to_pandas(self) -> pd.DataFrame:
        """The table of :meth:`to_arrow` as a pandas frame.

        Raises:
            InstallError: if pandas is not here.
        """
        if find_spec("pandas") is None:
            raise InstallError("frames need pandas: pip install pandas")
        return self.to_arrow().to_pandas()
