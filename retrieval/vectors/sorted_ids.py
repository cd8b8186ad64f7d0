"""Looking ids up in sorted ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def places(known: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of ``ids`` is in the sorted ``known``; -1 where it is not."""
    if len(known) == 0:
        return np.full(len(ids), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, at, -1)
