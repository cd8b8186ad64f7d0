"""A threshold that is fitted: what finds known copies without calling strangers copies.

Scores decide what is looked at, and the comparison of pictures decides what is reported: a pair
counts as found if its cosine reaches the threshold *and* its tier is one of those asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import QueryError
from retrieval.query.duplicates.tiers import Tier
from retrieval.query.shares import Share, wilson

GRID: NDArray[np.float64] = np.arange(1001) / 1000
"""The thresholds that are tried."""
MOST_CANDIDATES = 50.0
"""Pairs an image that are worth looking at: beyond it the work grows and hardly what is found."""

DEFAULT = 0.6
"""The threshold where nothing tells a better one."""
FEW = 30
"""Images below which a fit is no reason to look at fewer pairs than can be afforded."""

_PRECISION = 0.99
_RECALL_MARGIN = 0.005
_NOBODY_ALONE = "every image seems to be there more than once: nothing tells the precision"
_FEWEST_LABELLED = 4


@dataclass(frozen=True, slots=True)
class Fit:
    """A threshold, and what it is expected to do.

    Attributes:
        threshold: cosine from which on a pair is looked at.
        precision: share of the reported pairs that are right; None where nothing tells it. Of
            self-made copies: found copies / (found copies + false pairs), as if every image had
            one copy in the collection.
        recall: share of the known copies that are found; None where there were none.
        tiers: the tiers that count as found.
        source: ``copies`` that were made for the fit, or ``labels`` that a person gave.
        sampled: images that were copied, or pairs that were labelled.
        by_transform: recall by the way a copy was made.
        candidates_per_image: how many others an image is compared with, on average.
        seed: of the sample.
        note: what stands against trusting it; empty if nothing does.
        space: whose cosines it is about; None if that is not told.
    """

    threshold: float
    precision: Share | None
    recall: Share | None
    tiers: tuple[Tier, ...]
    source: str = "copies"
    sampled: int = 0
    by_transform: Mapping[str, Share] = field(default_factory=dict)
    candidates_per_image: float | None = None
    seed: int | None = None
    note: str = ""
    space: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> Fit:
        """What :meth:`as_json` gave."""

        def share(value: Mapping[str, float] | None) -> Share | None:
            return None if value is None else Share(**value)

        by_transform = {name: Share(**value) for name, value in facts["by_transform"].items()}
        shares = {name: share(facts[name]) for name in ("precision", "recall")}
        tiers = tuple(facts["tiers"])
        return cls(**{**facts, **shares, "tiers": tiers, "by_transform": by_transform})


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was seen of copies made of a collection's own images.

    Attributes:
        transforms: names ``[t]``.
        scores: float32 ``[s, t]``: of each copy with its original.
        verified: bool ``[s, t]``: whether the pair's tier is one asked for.
        false_scores: float32 ``[f]``: of one copy each of some of the images with images that it is
            no copy of, where the tier is one asked for.
        alone: how many images those are.
        candidates: float64 ``[len(GRID)]``: others that reach each threshold, mean over the images.
    """

    transforms: Sequence[str]
    scores: NDArray[np.float32]
    verified: NDArray[np.bool_]
    false_scores: NDArray[np.float32]
    alone: int
    candidates: NDArray[np.float64]


def affordable(candidates: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The thresholds of :data:`GRID` that leave few enough pairs to look at; never none."""
    few = candidates <= MOST_CANDIDATES
    few[-1] = True
    return few


def choose(seen: Rehearsal) -> tuple[float, str]:
    """The threshold, and what stands against it.

    Of those that are affordable and precise enough, the highest whose recall is within half a
    point of the best there. Copies of few images do not tell how far others lie apart: there it is
    the lowest of them, and :data:`DEFAULT` at most if that is affordable.
    """
    found, false = _found(seen), _false(seen)
    recall = found.mean(axis=(0, 1))
    reported = recall + false
    precision = np.divide(recall, reported, out=np.zeros(len(GRID)), where=reported > 0)
    few = affordable(seen.candidates)
    fine = few & (precision >= _PRECISION)
    if not recall[few].any():
        return float(GRID[few][0]), "none of the copies made for the fit was found"
    if (count := len(seen.scores)) < FEW:
        lowest = max(DEFAULT, GRID[few][0])
        if fine.any():
            lowest = min(lowest, GRID[fine][0])
        return float(lowest), f"fitted to {count} {'image' if count == 1 else 'images'} only"
    if fine.any():
        good = fine & (recall >= recall[fine].max() - _RECALL_MARGIN)
        return float(GRID[good][-1]), "" if seen.alone else _NOBODY_ALONE
    best = few & (precision == precision[few].max())
    best &= recall == recall[best].max()
    return float(GRID[best][-1]), f"no threshold reaches a precision of {_PRECISION}"


def judge(seen: Rehearsal, threshold: float, tiers: Sequence[Tier], seed: int, note: str) -> Fit:
    """What a threshold is expected to do, by a rehearsal."""
    images = len(seen.scores)
    found = seen.verified & (seen.scores >= np.float32(threshold))
    false = int((seen.false_scores >= np.float32(threshold)).sum())
    recall = _mean(found.mean(axis=1), found.shape[1])
    right = recall.value * seen.alone
    at = int(np.clip(np.floor(threshold * (len(GRID) - 1) + 1e-9), 0, len(GRID) - 1))
    return Fit(
        threshold=threshold,
        precision=wilson(right / (right + false), right + false) if right + false else None,
        recall=recall,
        tiers=tuple(tiers),
        sampled=images,
        by_transform={
            name: wilson(float(found[:, which].mean()), images)
            for which, name in enumerate(seen.transforms)
        },
        candidates_per_image=float(seen.candidates[at]) if threshold >= 0 else None,
        seed=seed,
        note=note,
    )


def fit_labelled(
    scores: ArrayLike,
    same: ArrayLike,
    *,
    verified: ArrayLike | None = None,
    tiers: Sequence[Tier] = ("exact", "copy", "edited"),
) -> Fit:
    """The threshold that agrees best with pairs that a person labelled.

    It has the best F1, and of several the highest. Precision and recall are by leaving one out:
    each pair is judged by the threshold that all others give.

    Args:
        scores: ``[n]``: cosine of each pair.
        same: bool ``[n]``: what the person said.
        verified: bool ``[n]``: whether the pair's tier is one asked for; None if that is not asked.
        tiers: those asked for.

    Raises:
        QueryError: for fewer than four pairs, if they are all the same or all not, or if no
            threshold finds one of those that are the same.
    """
    score, yes = np.asarray(scores, dtype=np.float32), np.asarray(same, dtype=bool)
    seen = np.ones(len(score), bool) if verified is None else np.asarray(verified, dtype=bool)
    if len(yes) < _FEWEST_LABELLED or yes.all() or not yes.any():
        raise QueryError(
            f"{len(yes)} labelled pairs, {int(yes.sum())} of them the same, are too few: label at "
            f"least {_FEWEST_LABELLED}, some that are the same and some that are not"
        )
    # int64 [len(GRID)]: how many of each kind are reported at each threshold, and by which pair.
    reported = (score[:, None] >= GRID.astype(np.float32)) & seen[:, None]
    hits, all_hits = reported[yes].sum(axis=0), reported.sum(axis=0)
    if not hits.any():
        raise QueryError(
            f"none of the {int(yes.sum())} pairs that are labelled the same is "
            f"{' or '.join(tiers)} with a cosine of at least 0: label others, or let more tiers "
            "count (--tier scene)"
        )
    threshold = _best_f1(hits, all_hits, int(yes.sum()))
    guesses = np.zeros(len(yes), dtype=bool)
    for i, right in enumerate(yes):
        left = hits - (reported[i] if right else 0), all_hits - reported[i]
        at = _best_f1(*left, int(yes.sum() - right))
        guesses[i] = reported[i, at]
    right = int((guesses & yes).sum())
    return Fit(
        threshold=float(GRID[threshold]),
        precision=wilson(right / int(guesses.sum()), int(guesses.sum())) if guesses.any() else None,
        recall=wilson(right / int(yes.sum()), int(yes.sum())),
        tiers=tuple(tiers),
        source="labels",
        sampled=len(yes),
    )


def _mean(shares: NDArray[np.float64], most: int) -> Share:
    """The mean over images of shares of ``most`` copies each, which are not independent.

    As many independent cases are taken as would spread like the images' shares do.
    """
    value, variance = float(shares.mean()), float(shares.var()) / len(shares)
    least, all_of_them = len(shares), len(shares) * most
    count = value * (1 - value) / variance if variance > 0 else least
    return wilson(value, float(np.clip(count, least, all_of_them)))


def _found(seen: Rehearsal) -> NDArray[np.bool_]:
    """Bool ``[s, t, len(GRID)]``."""
    reaches = seen.scores[..., None] >= GRID.astype(np.float32)
    return np.asarray(reaches & seen.verified[..., None])


def _false(seen: Rehearsal) -> NDArray[np.float64]:
    """False pairs of one copy at each threshold, ``[len(GRID)]``."""
    ordered = np.sort(seen.false_scores)
    above = len(ordered) - np.searchsorted(ordered, GRID.astype(np.float32), side="left")
    return np.asarray(above / max(1, seen.alone), dtype=np.float64)


def _best_f1(hits: NDArray[np.int64], reported: NDArray[np.int64], same: int) -> int:
    """Where in the grid F1 is best; of several the last."""
    f1 = 2 * hits / np.maximum(reported + same, 1)
    return int(np.flatnonzero(f1 == f1.max())[-1])
