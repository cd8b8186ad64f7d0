"""What is asked of duplicates and makes no sense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from retrieval.errors import QueryError, SpaceMismatch
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.query.indexed import Indexed


def cosine(value: object) -> float:
    """A threshold.

    Raises:
        QueryError: if it is no number in [-1, 1].
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and -1 <= number <= 1:
            return number
    raise QueryError(f"a threshold is a cosine in [-1, 1] or auto, not {value!r}")


def some_tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """Tiers in their order, each once.

    Raises:
        QueryError: naming them, if one is none of them or none is asked for.
    """
    if isinstance(tiers, str) or not tiers or any(tier not in TIERS for tier in tiers):
        raise QueryError(f"tiers are some of {', '.join(TIERS)}, not {tiers!r}")
    return tuple(tier for tier in TIERS if tier in tiers)


def one_identity(places: Sequence[Indexed], space: str) -> None:
    """See that a space of several collections was made by one encoder.

    Raises:
        SpaceMismatch: naming two that were not.
        UnknownSpace: if one has no such space.
    """
    first, one = places[0], places[0].store.space(space)
    for place in places[1:]:
        other = place.store.space(space)
        if other.identity != one.identity:
            raise SpaceMismatch(
                f"space {space!r} of {first.uri} was made by {one.encoder} and that of {place.uri} "
                f"by {other.encoder}, or with other weights: index both with the same encoder"
            )
