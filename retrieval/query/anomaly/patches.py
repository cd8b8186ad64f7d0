"""Anomaly scores of patches: how far each place of a picture is from every place of normal ones.

The recipe of PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", 2022)
as AnomalyDINO uses it (Damm et al., 2025): the tokens of normal pictures are a memory bank, a
token's distance is 1 - cosine to its nearest one there, and a picture's score the mean of the
highest 1 % of its tokens' distances. Here, and nowhere else in this project, more is worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.anomaly.tiling import Box
from retrieval.query.curate.candidates import Candidates
from retrieval.query.curate.farthest import farthest
from retrieval.types import Embeddings
from retrieval.vectors.tiles import Tell

TOP_SHARE = 0.01
"""Of a picture's patches, whose mean distance is its score."""
MEMORY_BYTES = 256 << 20
_THINNED = 4
"""Tokens, for each that is kept, among which the farthest are looked for."""


@dataclass(frozen=True, slots=True)
class PatchMap:
    """How odd the places of a picture are.

    Attributes:
        distances: float32 ``[tiles, rows, columns]`` in [0, 2].
        boxes: of the tiles, in pixels of the picture.
        size: width and height of the picture.
    """

    distances: NDArray[np.float32]
    boxes: tuple[Box, ...]
    size: tuple[int, int]

    @property
    def score(self) -> float:
        """The mean of the highest 1 % of the distances, of one at least."""
        return top_mean(self.distances)

    @property
    def sigma(self) -> float:
        """Pixels by which :meth:`heatmap` is smoothed: half the side of the smallest place."""
        rows, columns = self.distances.shape[1:]
        sides = [((x1 - x0) / columns, (y1 - y0) / rows) for x0, y0, x1, y1 in self.boxes]
        return float(0.5 * min(min(side) for side in sides))

    def heatmap(self) -> NDArray[np.float32]:
        """The distances on the picture: float32 ``[height, width]``.

        Scaled up bilinearly tile by tile, averaged where tiles overlap, and smoothed by a Gaussian
        of :attr:`sigma`.
        """
        import cv2

        width, height = self.size
        total = np.zeros((height, width), dtype=np.float32)
        count = np.zeros((height, width), dtype=np.float32)
        for distances, (x0, y0, x1, y1) in zip(self.distances, self.boxes, strict=True):
            size = x1 - x0, y1 - y0
            total[y0:y1, x0:x1] += cv2.resize(distances, size, interpolation=cv2.INTER_LINEAR)
            count[y0:y1, x0:x1] += 1
        total /= count
        if self.sigma < 0.3:  # less than a pixel sees
            return total
        border = cv2.BORDER_REPLICATE
        return np.asarray(cv2.GaussianBlur(total, (0, 0), self.sigma, borderType=border))


def top_mean(distances: NDArray[np.float32], share: float = TOP_SHARE) -> float:
    """The mean of the highest ``share`` of distances of any shape, of one at least."""
    flat = distances.reshape(-1)
    count = max(1, round(share * len(flat)))
    return float(np.partition(flat, len(flat) - count)[len(flat) - count :].mean(dtype=np.float64))


def nearest_distances(
    tokens: Embeddings,
    bank: Embeddings,
    *,
    owners: NDArray[np.int64] | None = None,
    without: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> NDArray[np.float32]:
    """1 - cosine of each token to the nearest one of a bank.

    Args:
        tokens: unit rows ``[n, width]``.
        bank: unit rows ``[m, width]``.
        owners: ``[m]``, which picture each row of the bank is from.
        without: leave this picture's rows out, to score it as if the bank did not know it.
        memory_bytes: about how much is held at a time besides.

    Returns:
        float32 ``[n]`` in [0, 2]; 2 where no row is left.
    """
    best = np.full(len(tokens), -1.0, dtype=np.float32)
    step = max(1, min(1024, len(tokens)))
    across = max(1, memory_bytes // (4 * step))
    for begin in range(0, len(bank), across):
        block = bank[begin : begin + across]
        if owners is not None and without is not None:
            block = block[owners[begin : begin + across] != without]
        if not len(block):
            continue
        for at in range(0, len(tokens), step):
            part = best[at : at + step]
            np.maximum(part, (tokens[at : at + step] @ block.T).max(axis=1), out=part)
    return np.clip(1 - best, 0.0, 2.0)


def coreset(
    blocks: Sequence[Embeddings], keep: int | None, seed: int = 0, tell: Tell | None = None
) -> tuple[Embeddings, NDArray[np.int64]]:
    """A memory bank of a few tokens that lie near all others.

    The greedy k-center of PatchCore: again and again the token farthest from all picked ones. It
    looks at four times as many tokens as it keeps, drawn evenly; see :func:`share_of`.

    Args:
        blocks: unit rows ``[n, width]`` of each picture.
        keep: most tokens; None for all.
        seed: of the first pick.
        tell: called with the number of picks, and of all to come.

    Returns:
        float32 ``[m, width]``, and int64 ``[m]``: which block each is from.
    """
    rows = np.concatenate([block for block in blocks if len(block)])
    owners = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    if keep is None or len(rows) <= keep:
        return rows, owners
    from threadpoolctl import threadpool_limits

    every, one = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)
    # Thousands of small products: waking other cores for each takes longer than they save.
    with threadpool_limits(1, user_api="blas"):
        picks = np.sort(farthest(Candidates(every, rows, one, np.array([keep])), keep, seed, tell))
    return rows[picks], owners[picks]


def share_of(rows: Embeddings, pictures: int, keep: int | None, seed: int) -> Embeddings:
    """The part of one picture's tokens among which a coreset is looked for, drawn by a seed."""
    if keep is None or len(rows) <= (most := -(-_THINNED * keep // pictures)):
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]
