"""Lance's own indexes, over a Lance dataset of vectors in the index folder."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.vectors.base import Effort, Positions, Rows
from retrieval.vectors.roaring import row_addresses
from retrieval.vectors.scan import ScanIndex

_TYPES = {
    "lance-ivf-pq": "IVF_PQ",
    "lance-ivf-rq": "IVF_RQ",
    "lance-ivf-hnsw-sq": "IVF_HNSW_SQ",
}
_FACTORS = {"IVF_PQ": (5, 20), "IVF_RQ": (2,), "IVF_HNSW_SQ": (2,)}
_FILTERED = 32
_LEAST = 1024
"""Rows below which Lance is not asked to train an index: comparing all takes less than a call."""
_CELL = 256
_GRAPH = 1 << 17
_PART = 8
_BLOCK_BYTES = 16 << 20
_QUERIES = 256


class LanceNative:
    """IVF_PQ, IVF_RQ or IVF_HNSW_SQ of Lance, for comparison and for those who want nothing else.

    Candidates are what Lance's quantised scores say; it does not read the vectors again, which the
    exact re-scoring does anyway. With fewer than 1,024 rows there is no index and the answer is
    exact. Lance starts its clusters at random, so two builds differ a little.
    """

    incremental = True

    def __init__(self, kind: str) -> None:
        """One of ``lance-ivf-pq``, ``lance-ivf-rq`` and ``lance-ivf-hnsw-sq``.

        Raises:
            VectorIndexError: if ``kind`` is none of them.
        """
        if kind not in _TYPES:
            raise VectorIndexError(f"Lance has no index {kind!r}; there are {', '.join(_TYPES)}")
        self._type = _TYPES[kind]

    def missing(self) -> str | None:
        """Nothing: the store needs Lance as well."""
        return None

    def build(self, rows: Rows, folder: Path) -> None:
        """Write the vectors and Lance's index of them.

        Raises:
            VectorIndexError: if Lance cannot.
        """
        import lance

        n, dim = rows.shape
        try:
            dataset = lance.write_dataset(_reader(rows, 0), str(folder / _NAME), **_ONE_FILE)
            if n >= _LEAST:
                extra = {"num_sub_vectors": _wide(dim) // _PART} if self._type == "IVF_PQ" else {}
                dataset.create_index(
                    "vector", self._type, metric="cosine", num_partitions=self._cells(n), **extra
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise VectorIndexError(f"Lance cannot build {self._type}: {error}") from error

    def extend(self, old: Path, rows: Rows, start: int, folder: Path) -> None:
        """Give new rows to the cells there are; from twice as many rows on, build anew.

        Raises:
            VectorIndexError: if Lance cannot.
        """
        if start < _LEAST or rows.shape[0] >= 2 * start:
            return self.build(rows, folder)
        import lance

        place = str(folder / _NAME)
        try:
            # Lance writes new files and leaves those there are, so links are copies enough.
            shutil.copytree(old / _NAME, place, copy_function=_link)
            dataset = lance.write_dataset(_reader(rows, start), place, mode="append", **_ONE_FILE)
            dataset.optimize.optimize_indices(num_indices_to_merge=1)
            lance.dataset(place).cleanup_old_versions(timedelta(0), delete_unverified=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise VectorIndexError(f"Lance cannot extend {self._type}: {error}") from error
        return None

    def open(self, folder: Path, rows: Rows) -> LanceIndex | ScanIndex:
        """The index in ``folder``; Lance reads its parts when they are needed.

        Raises:
            VectorIndexError: if it cannot be read.
        """
        n = rows.shape[0]
        if n < _LEAST:
            return ScanIndex(rows)
        return LanceIndex(folder / _NAME, rows, self._type, self._cells(n))

    def _cells(self, n: int) -> int:
        """Partitions: the square root, but none with too few rows to train; few for graphs."""
        if self._type == "IVF_HNSW_SQ":
            return max(1, n // _GRAPH)
        return max(1, min(math.isqrt(n), n // _CELL))


class LanceIndex:
    """An open dataset with its index.

    Lance opens files when it first needs them: once another process has replaced the index, a
    search may find them gone, which costs one fallback to what is there now.
    """

    def __init__(self, place: Path, rows: Rows, kind: str, cells: int) -> None:
        """Open ``place``; ``rows`` answer where few are allowed."""
        import lance

        try:
            self._dataset = lance.dataset(str(place))
            self._starts = _starts(self._dataset)
        except (OSError, ValueError, RuntimeError) as error:
            raise VectorIndexError(f"Lance cannot read {place}: {error}") from error
        if int(self._starts[-1]) != rows.shape[0]:
            raise VectorIndexError(f"{place} is an index of other rows: build it again")
        self._rows, self._kind, self._cells = rows, kind, cells
        self._dim = _wide(rows.shape[1])
        files = (place / "_indices").rglob("*")
        self._bytes = sum(file.stat().st_size for file in files if file.is_file())

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """Cells that are looked into, or for a graph the candidates that the walk keeps."""
        graph = self._kind == "IVF_HNSW_SQ"
        most = 512 if graph else self._cells
        steps = [32 << i for i in range(5)] if graph else [2 << i for i in range(9)]
        return tuple(
            Effort(probes, factor)
            for probes in sorted({min(step, most) for step in steps})
            for factor in _FACTORS[self._kind]
        )

    @property
    def memory_bytes(self) -> int:
        """Of the index files, which Lance caches as it reads them."""
        return self._bytes

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """Candidates ``[q, k * factor]`` by Lance's own scores.

        Allowed rows may all lie in cells far from the query, so a filtered search looks into every
        cell and asks for more candidates. Where few rows are allowed, for graphs, whose walk would
        not get there, and for IVF_PQ, whose codes hardly tell far rows apart, the allowed rows are
        all compared.

        Raises:
            VectorIndexError: if Lance cannot read its files.
        """
        wanted, probes = min(k * effort.factor, self._rows.shape[0]), effort.probes
        found = np.full((len(queries), wanted), -1, dtype=np.int64)
        mask = None
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            if self._kind != "IVF_RQ" or count <= max(wanted, len(allowed) // 64):
                return ScanIndex(self._rows).candidates(queries, wanted, effort, allowed)
            # Far rows score so alike that codes hardly tell them apart.
            wanted, probes = min(_FILTERED * wanted, self._rows.shape[0]), self._cells
            found = np.full((len(queries), wanted), -1, dtype=np.int64)
            mask = row_addresses(self._masks(allowed))
        for at in range(0, len(queries), _QUERIES):
            some = queries[at : at + _QUERIES]
            self._ask(some, wanted, probes, mask, found[at : at + _QUERIES])
        return found

    def _ask(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        probes: int,
        mask: bytes | None,
        found: Positions,
    ) -> None:
        graph = self._kind == "IVF_HNSW_SQ"
        nearest: dict[str, Any] = {
            "column": "vector",
            "q": _padded(queries, self._dim),
            "k": wanted,
            "nprobes": self._cells if graph else min(probes, self._cells),
        }
        if graph:
            nearest["ef"] = max(probes, wanted)
        try:
            answer = self._dataset.scanner(
                columns=[],
                nearest=nearest,
                with_row_address=True,
                row_addr_allowlist=mask,
                disable_scoring_autoprojection=True,
            ).to_table()
        except (OSError, ValueError, RuntimeError) as error:  # pyarrow's errors are among these
            raise VectorIndexError(f"Lance cannot search {self._kind}: {error}") from error
        address = answer["_rowaddr"].to_numpy().astype(np.int64)
        query = answer["query_index"].to_numpy().astype(np.int64)
        order = np.argsort(query, kind="stable")
        query, address = query[order], address[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        found[query, rank] = self._starts[address >> 32] + (address & 0xFFFFFFFF)

    def _masks(self, allowed: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for number, first in enumerate(self._starts[:-1]):
            yield number, allowed[first : self._starts[number + 1]]


_NAME = "vectors.lance"
_ONE_FILE = {"max_rows_per_file": 1 << 31, "max_bytes_per_file": 1 << 50}


def _starts(dataset: Any) -> Positions:
    """First position of each fragment, and the number of rows; fragments count from 0."""
    fragments = dataset.get_fragments()
    if [fragment.fragment_id for fragment in fragments] != list(range(len(fragments))):
        raise ValueError("its fragments are not those that were written")
    return np.cumsum([0, *(fragment.count_rows() for fragment in fragments)])


def _reader(rows: Rows, start: int) -> Any:
    import pyarrow as pa

    dim = _wide(rows.shape[1])
    schema = pa.schema([pa.field("vector", pa.list_(pa.float32(), dim))])

    def batches() -> Iterator[Any]:
        for block in rows.blocks(max(1, _BLOCK_BYTES // (4 * dim)), start):
            flat = pa.array(_padded(block, dim).ravel())
            yield pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _wide(dim: int) -> int:
    """Lance wants whole bytes of codes; zeros at the end change no cosine."""
    return -(-dim // _PART) * _PART


def _padded(rows: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    return rows if rows.shape[1] == dim else np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where that cannot be, or where Lance may write it again."""
    if os.path.basename(os.path.dirname(source)) == "_versions":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
