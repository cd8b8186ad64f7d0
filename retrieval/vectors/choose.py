"""Which kinds of index to try for so many rows on this machine, best guess first."""

from __future__ import annotations

import os

from retrieval.vectors.kinds import backend

TARGET = 0.98
"""``ann_recall_at_10`` that an index is tuned for, as the lower end of a 95 % interval."""
SMALLEST_BYTES = 16 << 20
"""Fewer bytes of vectors are scanned in about a millisecond: no index is made of them by itself."""
_CELLS_PAY = 200_000  # rows from which sorting them into cells is worth its training
_CODE_BYTES = {"rabitq": 24, "ivf-rabitq": 40}  # of a row, beyond one bit a dimension


def wanted(rows: int, dim: int) -> bool:
    """Whether a space of this size is faster with an index than by scanning."""
    return 4 * rows * dim >= SMALLEST_BYTES


def kinds_for(rows: int, dim: int, memory_bytes: int | None = None) -> list[str]:
    """Kinds to try in this order; the first one that reaches its target is good.

    RaBitQ codes keep a bit for each dimension and are re-scored exactly from the stored vectors,
    which stay on disk: a flat scan of them is built in a second, sorting them into cells takes
    longer and pays for many rows. (J. Gao and C. Long, "RaBitQ: Quantizing High-Dimensional
    Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search", 2024.)

    Args:
        rows: how many there are.
        dim: of each.
        memory_bytes: what the index may hold in memory; by default half of the machine's.
    """
    budget = memory_bytes if memory_bytes is not None else _machine_bytes() // 2
    order = ["ivf-rabitq", "rabitq"] if rows >= _CELLS_PAY else ["rabitq", "ivf-rabitq"]
    fitting = [kind for kind in order if rows * (dim // 8 + _CODE_BYTES[kind]) <= budget]
    return [kind for kind in (*fitting, "exact") if backend(kind).missing() is None]


def _machine_bytes() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 << 30
