"""FAISS on the CPU: graphs and inverted files, built in blocks and opened memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from retrieval.errors import InstallError, VectorIndexError
from retrieval.vectors.base import Rows, VectorIndex
from retrieval.vectors.faiss_cells import CellIndex
from retrieval.vectors.faiss_install import load_faiss, threads
from retrieval.vectors.faiss_recipe import BLOCK, cells, trained
from retrieval.vectors.faiss_search import FlatIndex, GraphIndex

FILE = "index.faiss"
_TOO_FEW_TO_GROW = 10_000


class FaissCpu:
    """One of ``hnsw``, ``ivf-flat``, ``ivf-sq8``, ``ivf-pq``, ``rabitq`` and ``ivf-rabitq``.

    Writes one file, ``index.faiss``. Graphs are built by one thread, because with several the order
    of insertion, and with it the graph, differs from run to run.
    """

    incremental = True

    def __init__(self, kind: str) -> None:
        """Keep the name; nothing is imported yet."""
        self.kind = kind

    def missing(self) -> str | None:
        """What FAISS lacks here; None if it works."""
        try:
            load_faiss()
        except InstallError as error:
            return str(error)
        return None

    def build(self, rows: Rows, folder: Path) -> None:
        """Write an index of all ``rows`` into ``folder``; the same rows give the same file.

        Raises:
            VectorIndexError: if FAISS refuses; names the kind.
        """
        with faiss_errors(self.kind, "built"):
            self._grow(trained(self.kind, rows), rows, 0, folder)

    def extend(self, old: Path, rows: Rows, start: int, folder: Path) -> None:
        """Add the rows from ``start`` on to the index of ``old``; write it into ``folder``.

        Builds anew where the old one was trained on few rows, or has less than half of the cells
        that an index of this size would get.

        Raises:
            VectorIndexError: if FAISS refuses; names the kind.
        """
        faiss = load_faiss()
        with faiss_errors(self.kind, "extended"):
            if start >= _TOO_FEW_TO_GROW:
                index = faiss.read_index(str(old / FILE))
                if not self._outgrown(index, rows.shape[0]):
                    self._grow(index, rows, start, folder)
                    return
        self.build(rows, folder)

    def open(self, folder: Path, rows: Rows) -> VectorIndex:
        """The index in ``folder``, memory-mapped.

        Raises:
            VectorIndexError: if it cannot be opened.
        """
        return open_mapped(self.kind, folder, rows)

    def _outgrown(self, index: Any, n: int) -> bool:
        inverted = load_faiss().try_extract_index_ivf(index)
        if inverted is None or self.kind == "rabitq":
            return False
        return cells(n) > 2 * int(inverted.nlist)

    def _grow(self, index: Any, rows: Rows, start: int, folder: Path) -> None:
        faiss = load_faiss()
        if index.ntotal != start:
            raise VectorIndexError(f"the {self.kind} index holds {index.ntotal} rows, not {start}")
        with threads(faiss, 1) if self.kind == "hnsw" else nullcontext():
            for block in rows.blocks(BLOCK, start):
                index.add(block)
        faiss.write_index(index, str(folder / FILE))


def open_mapped(kind: str, folder: Path, rows: Rows) -> VectorIndex:
    """Serve the file that any FAISS kind wrote into ``folder``, memory-mapped, on the CPU.

    Raises:
        VectorIndexError: if it cannot be opened.
    """
    faiss = load_faiss()
    path = folder / FILE
    with faiss_errors(kind, "opened"):
        # Plain IO_FLAG_MMAP opens as fast and searches inverted files two to four times slower.
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        size_bytes = path.stat().st_size
    if faiss.try_extract_index_ivf(index) is not None:
        return CellIndex(kind, index, rows, size_bytes)
    served = GraphIndex if hasattr(index, "hnsw") else FlatIndex
    return served(kind, index, rows, size_bytes)


@contextmanager
def faiss_errors(kind: str, what: str) -> Iterator[None]:
    """Turn what FAISS throws into VectorIndexError; ``what`` is, say, "built"."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        raise VectorIndexError(f"the {kind} index could not be {what}: {error}") from error
