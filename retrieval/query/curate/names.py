"""Words for clusters: each is named by what it is more than the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders import TextEncoder
from retrieval.errors import SourceError
from retrieval.query.background import text_vectors
from retrieval.types import Embeddings

_TEMPLATE = "a photo of {}"


def vocabulary(path: Path | None = None) -> list[str]:
    """Words to choose from, one a line; by default about a thousand of everyday things and scenes.

    Raises:
        SourceError: if the file cannot be read or holds no words.
    """
    place = path or Path(__file__).with_name("words.txt")
    try:
        lines = place.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SourceError(f"{place} cannot be read as a text of words: {error}") from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise SourceError(f"{place} holds no words: write one a line")
    return found


def word_vectors(encoder: TextEncoder, words: Sequence[str]) -> Embeddings:
    """float32 ``[w, dim]``: unit vectors of the words as captions."""
    return text_vectors(encoder, [_TEMPLATE.format(word) for word in words])


def by_words(means: Embeddings, words: Sequence[str], vectors: Embeddings) -> list[str]:
    """A word for each cluster: one that fits it, and fits it more than the others.

    With s(c, w) the cosine of a cluster's mean to a word, less its mean over all words, the score
    is ``s(c, w) + (s(c, w) - mean of s(c', w) over the other clusters)``: the second half alone
    prefers odd words. The best pair of all is taken first, and no word twice while there are
    others: clusters that share their best word are told apart by what they are next.

    Args:
        means: float32 ``[k, dim]``, unit means of the clusters in the words' space.
        words: to choose from.
        vectors: float32 ``[w, dim]``, theirs.
    """
    cosines = means.astype(np.float64) @ vectors.T.astype(np.float64)
    cosines -= cosines.mean(axis=1, keepdims=True)
    others = (cosines.sum(axis=0) - cosines) / max(1, len(means) - 1)
    scores = 2 * cosines - others
    found = [words[at] for at in np.argmax(scores, axis=1)]
    if len(words) < len(means):
        return found
    for _ in range(len(means)):
        cluster, word = np.unravel_index(int(np.argmax(scores)), scores.shape)
        found[int(cluster)] = words[int(word)]
        scores[cluster] = scores[:, word] = -np.inf
    return found


def by_labels(own: NDArray[np.int64], labels: Sequence[str | None], k: int) -> list[str | None]:
    """The most frequent label of each cluster, the first in the alphabet among equals."""
    counts: list[Counter[str]] = [Counter() for _ in range(k)]
    for number, label in zip(own.tolist(), labels, strict=True):
        if label is not None:
            counts[number][label] += 1
    best = [sorted(found.items(), key=lambda pair: (-pair[1], pair[0])) for found in counts]
    return [found[0][0] if found else None for found in best]
