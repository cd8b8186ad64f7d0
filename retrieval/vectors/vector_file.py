"""Vectors on disk, memory-mapped, of which nothing is used before its checksum was seen to fit.

A part is a folder of ``vectors.bin`` (rows one after the other, float32 or float16),
``vectors.sums`` (CRC-32 of every 16 KiB or so of it, uint32) and ``part.json``. Parts never
change; a file grows by further parts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import folders
from retrieval.errors import DamagedIndex, VectorIndexError
from retrieval.vectors.base import Positions

NOTE = "part.json"
_VECTORS, _SUMS = "vectors.bin", "vectors.sums"
_BLOCK_BYTES = 16_384


def write_part(folder: Path, blocks: Iterable[NDArray[np.floating]], dim: int) -> int:
    """Write vectors as a new part.

    Args:
        folder: where; it appears in one move.
        blocks: ``[m, dim]``, all float32 or all float16; streamed, so the whole may be larger than
            memory.
        dim: of the vectors.

    Returns:
        How many rows there were.

    Raises:
        OSError: if it cannot be written.
    """

    def make(inside: Path) -> dict[str, Any]:
        rows, kind = 0, "float32"
        with (inside / _VECTORS).open("wb") as file:
            for block in blocks:
                kind, rows = block.dtype.name, rows + len(block)
                file.write(np.ascontiguousarray(block).data)
        row_bytes = dim * np.dtype(kind).itemsize
        step = _rows_a_block(row_bytes) * row_bytes
        with (inside / _VECTORS).open("rb") as file:
            sums = [zlib.crc32(block) for block in iter(lambda: file.read(step), b"")]
        (inside / _SUMS).write_bytes(np.asarray(sums, dtype="<u4").tobytes())
        return {"rows": rows, "dim": dim, "dtype": kind}

    return int(folders.write(folder, NOTE, make, by_size=[_VECTORS])["rows"])


class VectorFile:
    """:class:`~retrieval.vectors.base.Rows` in parts. Safe to use from several threads."""

    def __init__(self, parts: Sequence[Path]) -> None:
        """Map the parts; reads next to nothing.

        Raises:
            DamagedIndex: if one is missing or damaged, or they do not fit together.
            VectorIndexError: if one cannot be read now.
        """
        self._parts = [_Part(path) for path in parts]
        if len({part.dim for part in self._parts}) != 1:
            raise DamagedIndex("the parts of a vector file do not fit together")
        self._starts = np.cumsum([0, *(len(part.matrix) for part in self._parts)])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""
        return int(self._starts[-1]), self._parts[0].dim

    def check(self) -> None:
        """Read everything once.

        Raises:
            DamagedIndex: if anything is damaged.
        """
        for part in self._parts:
            part.check(np.arange(len(part.sums)))

    def blocks(self, size: int, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """float32 ``[≤ size, dim]``: all rows from ``start`` on, in order.

        Raises:
            DamagedIndex: if what is read was damaged.
        """
        for part, first in zip(self._parts, self._starts, strict=False):
            for at in range(max(0, start - int(first)), len(part.matrix), size):
                yield part.slice(at, at + size)

    def take(self, positions: Positions) -> NDArray[np.float32]:
        """float32 ``[n, dim]``: the rows at ``positions``.

        Raises:
            DamagedIndex: if one of them was damaged.
        """
        if len(self._parts) == 1:
            return self._parts[0].take(positions)
        which = np.searchsorted(self._starts, positions, side="right") - 1
        out = np.empty((len(positions), self.shape[1]), dtype=np.float32)
        for number, part in enumerate(self._parts):
            mine = which == number
            if mine.any():
                out[mine] = part.take(positions[mine] - self._starts[number])
        return out


class _Part:
    def __init__(self, folder: Path) -> None:
        try:
            facts = folders.read_note(folder, NOTE)
            rows, self.dim, kind = int(facts["rows"]), int(facts["dim"]), str(facts["dtype"])
            files = facts["files"]
            whole = (folder / _VECTORS).stat().st_size == files[_VECTORS]["bytes"]
            whole &= folders.digest(folder / _SUMS) == files[_SUMS]["blake2b"]
            self.sums = np.fromfile(folder / _SUMS, dtype="<u4")
            row_bytes = self.dim * np.dtype(kind).itemsize
            self._step = _rows_a_block(row_bytes)
            if not whole or files[_VECTORS]["bytes"] != rows * row_bytes:
                raise DamagedIndex(f"the vectors in {folder} are damaged")
            if rows:
                self.matrix = np.memmap(folder / _VECTORS, kind, "r", shape=(rows, self.dim))
            else:
                self.matrix = np.empty((0, self.dim), kind)  # type: ignore[assignment]
            if len(self.sums) != -(-rows // self._step):
                raise DamagedIndex(f"the vectors in {folder} are damaged")
        except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
            raise DamagedIndex(f"the vectors in {folder} are damaged: {error}") from error
        except (OSError, MemoryError) as error:
            raise VectorIndexError(f"the vectors in {folder} cannot be read: {error}") from error
        self._folder = folder
        self._plain = np.asarray(self.matrix)  # a memmap's own indexing is slower
        self._seen = np.zeros(len(self.sums), dtype=bool)
        self._unseen = len(self.sums)

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        stop = min(stop, len(self._plain))
        if self._unseen and stop > start:
            self.check(np.arange(start // self._step, (stop - 1) // self._step + 1))
        return unit_float32(self._plain[start:stop])

    def take(self, positions: Positions) -> NDArray[np.float32]:
        if self._unseen:
            self.check(positions // self._step)
        return unit_float32(self._plain[positions])

    def check(self, blocks: NDArray[np.int64]) -> None:
        """See that blocks are as they were written, once each."""
        fresh = blocks[~self._seen[blocks]]
        for block in np.unique(fresh).tolist():
            rows = self._plain[block * self._step : (block + 1) * self._step]
            if zlib.crc32(rows.data) != self.sums[block]:
                raise DamagedIndex(f"the vectors in {self._folder} are damaged")
            self._seen[block] = True
        if len(fresh):
            self._unseen = len(self._seen) - int(self._seen.sum())


def _rows_a_block(row_bytes: int) -> int:
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def unit_float32(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """float32 rows as they are; float16 ones, which rounding moved off unit length, scaled back."""
    if rows.dtype == np.float32:
        return rows
    wide = rows.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-30))
    return wide
