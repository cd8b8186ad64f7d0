"""The part of ingestion that worker threads do: read, hash, decode, thumbnail, encode."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexers.known import Known, KnownImages
from indexers.sources import FoundFile
from retrieval.encoders import Encoder, Preprocess, encode_spaces
from retrieval.errors import ImageError
from retrieval.images import content_hash, decode, thumbnail


@dataclass(frozen=True, slots=True)
class Job:
    """A file that needs work: new, changed, or without a vector in some space."""

    file: FoundFile
    known: Known | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be brought in."""

    file: FoundFile
    stage: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class SameContent:
    """A file whose bytes some complete row already has: nothing to decode or encode."""

    job: Job
    content_hash: str


@dataclass(slots=True)
class Prepared:
    """A decoded file with everything that its row needs.

    Attributes:
        job: the file.
        content_hash: of its bytes.
        spaces: names of the spaces it is to be embedded in.
        facts: columns of its row that come from the picture.
        image: the decoded picture, let go of once it is encoded.
        vectors: unit vectors ``[dim]`` by space.
    """

    job: Job
    content_hash: str
    spaces: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    image: Image.Image | None = None
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


Outcome = Failed | SameContent | Prepared


@dataclass(slots=True)
class Chunk:
    """What became of one chunk of jobs, in their order, and the CPU seconds it took by stage."""

    outcomes: list[Outcome] = field(default_factory=list)
    cpu_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Preparer:
    """Does the work of one chunk of jobs in the calling thread.

    Attributes:
        runtimes: what computes the vectors, by space.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        known: KnownImages,
        *,
        max_pixels: int,
        held_pixels: int = 64_000_000,
        dry_run: bool = False,
    ) -> None:
        """Prepare files for these ``encoders``.

        Args:
            encoders: those of the collection's spaces.
            known: what the collection holds; never changed here.
            max_pixels: larger pictures are refused.
            held_pixels: decoded pixels that a thread holds before it encodes what it has, however
                few pictures that is.
            dry_run: stop after the hash.
        """
        self._encoders = {encoder.spec.name: encoder for encoder in encoders}
        self.runtimes = {encoder.spec.name: encoder.runtime for encoder in encoders}
        self._known = known
        self._max_pixels = max_pixels
        self._held_pixels = held_pixels
        self._min_side = _min_side(encoders)
        self._dry_run = dry_run

    def __call__(self, jobs: Sequence[Job], *, reuse: bool = True) -> Chunk:
        """Work through ``jobs``; a bad file becomes an outcome and stops nothing.

        Args:
            jobs: what to do.
            reuse: stop at the hash where a row of the collection has the same bytes.
        """
        chunk = Chunk()
        waiting: list[Prepared] = []
        pixels = 0
        for job in jobs:
            outcome = self._prepare(job, reuse, chunk.cpu_seconds)
            chunk.outcomes.append(outcome)
            if isinstance(outcome, Prepared) and outcome.image is not None:
                waiting.append(outcome)
                pixels += outcome.image.width * outcome.image.height
                if pixels >= self._held_pixels:
                    self._encode(waiting, chunk)
                    waiting, pixels = [], 0
        self._encode(waiting, chunk)
        return chunk

    def _prepare(self, job: Job, reuse: bool, clock: dict[str, float]) -> Outcome:
        file = job.file
        try:
            with _timed(clock, "read"), open(file.path, "rb") as handle:
                data = handle.read()
        except OSError as error:
            return Failed(file, "read", type(error).__name__, error.strerror or str(error))
        with _timed(clock, "hash"):
            digest = content_hash(data)
        if reuse and self._known.has_content(digest):
            return SameContent(job, digest)
        unchanged = job.known is not None and job.known.content_hash == digest
        spaces = job.known.missing if job.known and unchanged else tuple(self._encoders)
        prepared = Prepared(job, digest, spaces)
        if self._dry_run:
            return prepared
        try:
            with _timed(clock, "decode"):
                picture = decode(data, min_side=self._min_side, max_pixels=self._max_pixels)
            with _timed(clock, "thumbnail"):
                small = thumbnail(picture.image)
        except ImageError as error:
            return Failed(file, "decode", error.kind, str(error))
        except MemoryError:
            return Failed(file, "decode", "memory", "there is not enough memory to decode it")
        prepared.image = picture.image
        prepared.facts = {
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "captured_at": picture.captured_at,
            "metadata": json.dumps(picture.exif) if picture.exif else None,
            "thumbnail": small,
        }
        return prepared

    def _encode(self, waiting: Sequence[Prepared], chunk: Chunk) -> None:
        """Encode pictures together; if that fails, one by one, so that only the bad one is lost."""
        for spaces in {each.spaces: None for each in waiting}:
            group = [each for each in waiting if each.spaces == spaces]
            try:
                self._encode_batch(group, spaces, chunk.cpu_seconds)
            except Exception as error:
                if len(group) > 1:
                    for each in group:
                        self._encode([each], chunk)
                else:
                    _replace_by_failure(chunk, group[0], error)

    def _encode_batch(
        self, group: Sequence[Prepared], spaces: Sequence[str], clock: dict[str, float]
    ) -> None:
        images = [each.image for each in group if each.image is not None]
        encoders = [self._encoders[name] for name in spaces]
        with _timed(clock, "encode"):
            vectors = encode_spaces(encoders, images)
        for name, matrix in vectors.items():
            if matrix.shape[0] != len(group) or not np.all(np.isfinite(matrix)):
                raise ValueError(f"encoder {name!r} gave vectors that are missing or not finite")
            for each, vector in zip(group, matrix, strict=True):
                each.vectors[name] = vector
        for each in group:
            each.image = None


def _min_side(encoders: Sequence[Encoder]) -> int | None:
    """Shorter side that a decoded picture must keep; None where one needs the full scale."""
    sides = [
        each.spec.preprocess.resize_to
        for each in encoders
        if each.spec.reduced_decode and isinstance(each.spec.preprocess, Preprocess)
    ]
    return max(sides) if sides and len(sides) == len(encoders) else None


def _replace_by_failure(chunk: Chunk, bad: Prepared, error: Exception) -> None:
    kind = type(error).__name__
    place = next(at for at, outcome in enumerate(chunk.outcomes) if outcome is bad)
    chunk.outcomes[place] = Failed(bad.job.file, "encode", kind, str(error) or kind)


@contextmanager
def _timed(clock: dict[str, float], stage: str) -> Iterator[None]:
    start = time.thread_time()
    try:
        yield
    finally:
        clock[stage] += time.thread_time() - start
