"""What two pictures have in common, by what is in them and not by their vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates.agreement import Agreement, agree
from retrieval.query.duplicates.alignment import Placement, by_keypoints, whole
from retrieval.query.duplicates.looks import Look, look
from retrieval.query.duplicates.tiers import Tier

__all__ = ["METHOD", "Evidence", "Look", "compare", "look"]

METHOD = 2
"""Number of this way of telling pairs: what was kept of another one's answers is not used."""

_TYPICAL = 0.92
"""Likes correlate up to 0.89 (of 8,000 pairs of photos and of texts in one layout), copies from
0.94 on; in between are mostly fine stripes, which shrinking spoils."""
_SHARE, _CLEAR, _ALL = 0.5, 0.95, 0.98
_DETAIL = 6.0
"""Cells full of detail from which on a picture can be told by them."""
_COVER = 0.5
_FLAT = 6.0
_EDGE = 0.03
_SAME_PLACE = 12
_STRETCHED = 1.04
_SHIFT = 6.0
_OVERLAY, _CORNERS = 0.04, 0.1


@dataclass(frozen=True, slots=True)
class Evidence:
    """The strongest tier that holds for a pair, and why, in a few words."""

    tier: Tier
    why: str


def compare(a: Look, b: Look) -> Evidence:
    """Say what two pictures have in common; the same whichever comes first.

    Keypoints and a few guesses say how one could lie on the other; the pixels then decide. Never
    *exact*: that is for the bytes to say.
    """
    if _order(b) < _order(a):
        a, b = b, a
    shots, placements = _shots(a, b, whole(a, b)), []
    if all(seen.share <= _CLEAR for seen in shots):
        placements = list(by_keypoints(a, b))
        shots += _shots(a, b, placements)
    if shots:
        return _told(a, b, max(shots, key=_likeliness))
    support = max((placement.support for placement in placements), default=0)
    if support >= _SAME_PLACE:
        return Evidence("scene", f"{support} details arranged alike")
    return Evidence("concept", "alike by their vectors only")


def _order(one: Look) -> tuple[int, int, bytes, bytes]:
    return (one.width, one.height, one.gray.tobytes(), one.color.tobytes())


def _shots(a: Look, b: Look, placements: Iterable[Placement]) -> list[Agreement]:
    """What was seen in those placements in which the pixels say that it is one shot."""
    found = [agree(a, b, placement) for placement in placements]
    return [seen for seen in found if seen is not None and _one_shot(a, b, seen)]


def _likeliness(seen: Agreement) -> float:
    # Keypoints always fit a little better than the whole: that alone is no crop.
    return seen.share - (_EDGE if seen.placement.support else 0)


def _one_shot(a: Look, b: Look, seen: Agreement) -> bool:
    if max(seen.cover_a, seen.cover_b) < _COVER:
        return False
    if seen.detail >= _DETAIL and seen.typical >= _TYPICAL and seen.share >= _SHARE:
        return True
    # Pictures with next to nothing on them: nothing may differ then.
    if seen.placement.support or seen.placement.stretch > _STRETCHED:
        return False
    if seen.worst > _FLAT and not (seen.typical >= _TYPICAL and seen.share >= _ALL):
        return False
    return float(np.abs(np.subtract(*_colors(a, b, seen))).mean()) <= _FLAT


def _told(a: Look, b: Look, seen: Agreement) -> Evidence:
    turned, whys = _movement(seen.placement)
    cover = round(100 * min(seen.cover_a, seen.cover_b))
    if cover < 95 or (seen.placement.support and not whys):
        whys.append(f"crop of {min(cover, 99)} %")
    if change := _color_change(a, b, seen):
        whys.append(change)
    if seen.shift > _SHIFT:
        whys.append("brightness changed")
    if seen.differing > (_CORNERS if turned else _OVERLAY):
        whys.append(f"overlay on {round(100 * seen.differing)} %")
    return Evidence("edited", ", ".join(whys)) if whys else Evidence("copy", "re-encoded")


def _movement(placement: Placement) -> tuple[bool, list[str]]:
    """Whether corners came to lie outside, and what was done, in words."""
    whys, linear = [], placement.matrix[:, :2]
    if np.linalg.det(linear) < 0:
        whys.append("mirrored")
        linear = linear @ np.diag([-1.0, 1.0])
    turn = np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])
    angle = abs(round(float(np.degrees(turn))))
    if angle >= 2:
        whys.append(f"rotated {angle}°")
    if placement.stretch > _STRETCHED:
        whys.append("stretched")
    return angle % 90 >= 2, whys


def _color_change(a: Look, b: Look, seen: Agreement) -> str | None:
    first, second = _colors(a, b, seen)
    vivid = [float(np.median(np.ptp(colors, axis=1))) for colors in (first, second)]
    if min(vivid) < 3 and max(vivid) > 9:
        return "gray"
    second = np.clip(seen.gain * second + seen.offset, 0, 255)
    hues = [colors - colors.mean(axis=1, keepdims=True) for colors in (first, second)]
    away = float(np.median(np.abs(hues[0] - hues[1]).max(axis=1)))
    return "colours changed" if away > 16 else None


def _colors(a: Look, b: Look, seen: Agreement) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 ``[n, 3]`` each: RGB in the same places of both pictures."""
    side = len(b.color)
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    spots = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) / side
    there = spots * b.gray.shape[::-1] - 0.5
    here = there @ seen.placement.matrix[:, :2].T + seen.placement.matrix[:, 2] + 0.5
    cells = np.floor(here / a.gray.shape[::-1] * side).astype(int)
    inside = ((cells >= 0) & (cells < side)).all(axis=1)
    x, y = cells[inside].T
    colors = a.color[y, x], b.color.reshape(-1, 3)[inside]
    return colors[0].astype(np.float64), colors[1].astype(np.float64)
