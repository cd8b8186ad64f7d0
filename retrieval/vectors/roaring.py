"""Sets of row addresses as Lance reads them: roaring bitmaps, one for each fragment."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_CONTAINER = 65_536
_NO_RUNS = 12_346
_LONGEST_ARRAY = 4096


def row_addresses(fragments: Iterable[tuple[int, NDArray[np.bool_]]]) -> bytes:
    """The rows that are True in the mask of a fragment, for the fragments' ids in order.

    The layout is that of Lance's ``RowAddrTreeMap::serialize_into``: a count, then for each
    fragment its id, the length of its bitmap and the bitmap, all little-endian.
    """
    chosen = [(number, _bitmap(mask)) for number, mask in fragments if mask.any()]
    parts = [struct.pack("<I", len(chosen))]
    for number, bitmap in chosen:
        parts += [struct.pack("<II", number, len(bitmap)), bitmap]
    return b"".join(parts)


def _bitmap(mask: NDArray[np.bool_]) -> bytes:
    """By the roaring format specification, without run containers."""
    heads, bodies = [], []
    for key, start in enumerate(range(0, len(mask), _CONTAINER)):
        part = mask[start : start + _CONTAINER]
        count = int(np.count_nonzero(part))
        if not count:
            continue
        heads.append(struct.pack("<HH", key, count - 1))
        if count <= _LONGEST_ARRAY:
            bodies.append(np.flatnonzero(part).astype("<u2").tobytes())
        else:
            bits = np.packbits(part, bitorder="little").tobytes()
            bodies.append(bits.ljust(_CONTAINER // 8, b"\0"))
    first = 8 + 8 * len(heads)
    offsets = np.cumsum([first, *map(len, bodies)])[:-1].astype("<u4").tobytes()
    return b"".join([struct.pack("<II", _NO_RUNS, len(heads)), *heads, offsets, *bodies])
