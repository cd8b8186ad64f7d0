"""What two pictures have in common, by what is in them and not by their vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.query.duplicates.agreement import Agreement, agree
from retrieval.query.duplicates.alignment import by_keypoints, whole
from retrieval.query.duplicates.looks import Look, look
from retrieval.query.duplicates.tiers import Tier

__all__ = ["Evidence", "Look", "compare", "look"]

_SAME_SHOT = 0.7
_SAME_PLACE = 12
_TELLING = 6.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """The strongest tier that holds for a pair, and why, in a few words."""

    tier: Tier
    why: str


def compare(a: Look, b: Look) -> Evidence:
    """Say what two pictures have in common; the same whichever comes first.

    Never *exact*: that is for the bytes to say.
    """
    if _order(b) < _order(a):
        a, b = b, a
    best, support = _best(a, b)
    if best is not None and best.share >= _SAME_SHOT and best.weight >= _TELLING:
        return _told(best)
    if best is not None and best.residual < 3 and best.placement.support == 0:
        return _told(best)
    if support >= _SAME_PLACE:
        return Evidence("scene", f"{support} details in the same places")
    return Evidence("concept", "alike by their vectors only")


def _order(one: Look) -> tuple[int, int, bytes]:
    return (one.width, one.height, one.gray.tobytes())


def _best(a: Look, b: Look) -> tuple[Agreement | None, int]:
    best, support = None, 0
    for placement in whole(a, b):
        seen = agree(a, b, placement)
        if seen is not None and (best is None or seen.share > best.share):
            best = seen
    if best is not None and best.share > 0.95:
        return best, 0
    for placement in by_keypoints(a, b):
        support = max(support, placement.support)
        seen = agree(a, b, placement)
        if (
            seen is not None
            and seen.weight >= _TELLING
            and (best is None or seen.share > best.share)
        ):
            best = seen
    return best, support


def _told(seen: Agreement) -> Evidence:
    whys = []
    linear = seen.placement.matrix[:, :2]
    if np.linalg.det(linear) < 0:
        whys.append("mirrored")
        linear = linear @ np.diag([-1, 1])
    angle = round(
        float(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])))
    )
    if abs(angle) >= 2:
        whys.append(f"rotated {abs(angle)}°")
    if min(seen.cover_a, seen.cover_b) < 0.93:
        whys.append(f"crop of {min(seen.cover_a, seen.cover_b):.0%}".replace("%", " %"))
    if not 0.9 < seen.gain < 1.1 or abs(seen.offset) > 12:
        whys.append("brightness changed")
    if seen.differing > 0.03:
        whys.append(f"overlay on {seen.differing:.0%}".replace("%", " %"))
    if not whys:
        return Evidence("copy", "re-encoded")
    return Evidence("edited", ", ".join(whys))
