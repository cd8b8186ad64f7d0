"""How far a student agrees with its teacher, and how much cheaper it is, on unseen photos."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from retrieval.encoders import Encoder
from retrieval.encoders.pocket.train.evaluate import knn_accuracy
from retrieval.types import Embeddings

if TYPE_CHECKING:
    from PIL import Image

Figures = dict[str, float]

_K = 10
_TIMED_TOGETHER = 16


def mean_cosine(mine: Embeddings, theirs: Embeddings) -> float:
    """Mean cosine between matching unit rows ``[n, dim]``."""
    return float(np.mean(np.sum(mine * theirs, axis=1)))


def top(queries: Embeddings, gallery: Embeddings, *, own: bool = False) -> NDArray[np.int64]:
    """Rows of ``gallery`` nearest to each query, the ten best (or all), ``[queries, k]``.

    Args:
        queries: unit rows.
        gallery: unit rows.
        own: query ``i`` is row ``i`` of the gallery, and no answer to itself.
    """
    scores = queries @ gallery.T
    if own:
        np.fill_diagonal(scores, -np.inf)
    k = min(_K, len(gallery) - own)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def overlap(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    """Mean share of ``theirs`` ``[n, k]`` that is also in the same row of ``mine``."""
    found = (mine[:, :, None] == theirs[:, None, :]).any(axis=1)
    return float(found.mean())


def images_agree(mine: Embeddings, theirs: Embeddings) -> Figures:
    """Cosine, and neighbours that both find among the photos themselves.

    Args:
        mine: the student's embeddings of unseen photos ``[n, dim]``, n ≥ 2.
        theirs: the teacher's.
    """
    both = overlap(top(mine, mine, own=True), top(theirs, theirs, own=True))
    return {"cosine": mean_cosine(mine, theirs), "overlap_at_10": both}


def labels_agree(
    known: tuple[Embeddings, Embeddings],
    labels: Sequence[str],
    unseen: tuple[Embeddings, Embeddings],
    truth: Sequence[str],
) -> Figures:
    """Accuracy of kNN (k = 20, T = 0.07), student and teacher each in its own embeddings.

    Args:
        known: student's and teacher's embeddings of photos with ``labels``.
        labels: what they are.
        unseen: student's and teacher's embeddings of the photos to name.
        truth: what these are.
    """
    mine, theirs = (knn_accuracy(k, labels, u, truth) for k, u in zip(known, unseen, strict=True))
    return {"student": mine, "teacher": theirs}


def words_agree(
    texts: tuple[Embeddings, Embeddings],
    photos: tuple[Embeddings, Embeddings],
    photo_of: Sequence[int | None],
) -> Figures:
    """Cosine of texts, photos that both find for them, and how often their own is found.

    Args:
        texts: student's and teacher's embeddings of unseen texts.
        photos: student's and teacher's embeddings of unseen photos.
        photo_of: the photo that a text is about; None if it is about no single one of them.
    """
    mine, theirs = (top(t, p) for t, p in zip(texts, photos, strict=True))
    figures = {"cosine": mean_cosine(*texts), "overlap_at_10": overlap(mine, theirs)}
    about = np.array([-1 if photo is None else photo for photo in photo_of])
    if (about >= 0).any():
        for name, found in (("student", mine), ("teacher", theirs)):
            hits = (found == about[:, None]).any(axis=1)
            figures[f"hit_rate_at_10_{name}"] = float(hits[about >= 0].mean())
    return figures


def compare_speed(
    student: Encoder, teacher: Encoder, pictures: Sequence[Image.Image], rounds: int = 9
) -> Figures:
    """Milliseconds a picture on one thread, from decoded pictures, sixteen at a time.

    Rounds of student and teacher alternate, so that a busy machine slows both, and medians count.
    ``forward`` is the same without the preprocessing, which is timed in the same rounds.

    Args:
        student: the student.
        teacher: its teacher.
        pictures: decoded; the first sixteen are used.
        rounds: how often.
    """
    batch = list(pictures)[:_TIMED_TOGETHER]
    jobs: dict[str, Callable[[], object]] = {}
    for name, encoder in (("student", student), ("teacher", teacher)):
        jobs[name] = partial(encoder.encode_images, batch)
        if preprocess := encoder.spec.preprocess:
            jobs[f"{name}_preprocess"] = partial(preprocess.inputs, batch)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    with threadpool_limits(1):
        for at in range(rounds + 1):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                if at:  # the first round loads
                    times[name].append((time.perf_counter() - start) * 1e3 / len(batch))
    ms = {name: statistics.median(values) for name, values in times.items()}
    forward = {n: ms[n] - ms.get(f"{n}_preprocess", 0.0) for n in ("student", "teacher")}
    return {
        "student_ms": ms["student"],
        "teacher_ms": ms["teacher"],
        "ratio": ms["teacher"] / ms["student"],
        "student_forward_ms": forward["student"],
        "teacher_forward_ms": forward["teacher"],
        "forward_ratio": forward["teacher"] / forward["student"],
    }
