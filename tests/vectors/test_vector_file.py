"""Vectors on disk against the arrays they were written from."""

from __future__ import annotations

import json
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import VectorIndexError
from retrieval.vectors import vector_file
from retrieval.vectors.vector_file import VectorFile, unit_float32, write_part
from tests.vectors.clusters import clustered

DIM = 12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(vector_file, "_BLOCK_BYTES", 500)  # ten rows of float32


def written(folder: Path, matrix: np.ndarray, sizes: list[int], dtypes: list[str]) -> VectorFile:
    """Parts of the given sizes, each of another dtype and in blocks of seven rows."""
    parts, at = [], 0
    for number, (size, dtype) in enumerate(zip(sizes, dtypes, strict=True)):
        rows = matrix[at : at + size].astype(dtype)
        part = folder / f"part-{number}"
        blocks = (rows[start : start + 7] for start in range(0, size, 7))
        assert write_part(part, blocks, DIM) == size
        parts.append(part)
        at += size
    return VectorFile(parts)


def expected(matrix: np.ndarray, sizes: list[int], dtypes: list[str]) -> np.ndarray:
    parts = np.split(matrix, np.cumsum(sizes)[:-1])
    halves = [
        part.astype(kind).astype(np.float64) for part, kind in zip(parts, dtypes, strict=True)
    ]
    return np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in halves])


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 9, 10, 11, 37]), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 50),
)
def test_rows_come_back_whatever_part_they_lie_in(tmp_path_factory, sizes, seed, size):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    dtypes = rng.choice(["float32", "float16"], len(sizes)).tolist()
    matrix = clustered(200, DIM, seed=seed % 7).rows.matrix[:n]
    file = written(tmp_path_factory.mktemp("v"), matrix, sizes, dtypes)
    true = expected(matrix, sizes, dtypes)
    assert file.shape == (n, DIM)
    places = rng.integers(0, max(n, 1), 60 if n else 0)
    taken = file.take(places)
    assert taken.dtype == np.float32
    np.testing.assert_allclose(taken, true[places], rtol=0, atol=1e-6)
    for start in (0, n // 3, n):
        blocks = list(file.blocks(size, start))
        assert all(len(block) <= size and block.dtype == np.float32 for block in blocks)
        every = np.concatenate([np.empty((0, DIM)), *blocks])
        np.testing.assert_allclose(every, true[start:], rtol=0, atol=1e-6)
    assert file.take(np.empty(0, np.int64)).shape == (0, DIM)
    file.check()


def test_float16_rows_are_unit_rows_again():
    rows = clustered(50, DIM).rows.matrix.astype(np.float16)
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() > 1e-5
    wide = unit_float32(rows)
    np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1.0, rtol=0, atol=1e-6)
    whole = clustered(5, DIM).rows.matrix
    assert unit_float32(whole) is whole
    assert np.isfinite(unit_float32(np.zeros((1, DIM), np.float16))).all()


def test_the_sums_are_those_that_the_module_says(tmp_path):
    matrix = clustered(37, DIM).rows.matrix
    written(tmp_path, matrix, [37], ["float32"])
    data = (tmp_path / "part-0" / "vectors.bin").read_bytes()
    assert data == matrix.tobytes()
    sums = np.fromfile(tmp_path / "part-0" / "vectors.sums", "<u4")
    assert sums.tolist() == [zlib.crc32(data[at : at + 480]) for at in range(0, len(data), 480)]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_only_what_is_read_is_checked_and_a_damaged_block_is_never_given(tmp_path):
    matrix = clustered(95, DIM).rows.matrix
    written(tmp_path, matrix, [60, 35], ["float32", "float32"])
    flip(tmp_path / "part-1" / "vectors.bin", 480 * 2 + 7)  # rows 80 to 89
    file = VectorFile([tmp_path / "part-0", tmp_path / "part-1"])
    fine = np.r_[0:80, 90:95]
    for _ in range(2):
        assert np.array_equal(file.take(fine), matrix[fine])
        for row in range(80, 90):
            with pytest.raises(VectorIndexError, match="damaged"):
                file.take(np.array([3, row]))
        with pytest.raises(VectorIndexError, match="damaged"):
            list(file.blocks(1000))
        with pytest.raises(VectorIndexError, match="damaged"):
            list(file.blocks(4, 84))
        with pytest.raises(VectorIndexError, match="damaged"):
            file.check()
    assert np.array_equal(np.concatenate(list(file.blocks(5, 90))), matrix[90:])


def test_every_byte_of_the_vectors_and_of_what_is_said_of_them_counts(tmp_path):
    matrix = clustered(21, DIM).rows.matrix
    written(tmp_path, matrix, [21], ["float32"])
    part = tmp_path / "part-0"
    whole = {path: path.read_bytes() for path in part.iterdir()}
    for path, data in whole.items():
        for at in np.unique(np.linspace(0, len(data) - 1, 40).astype(int)):
            flip(path, at)
            with pytest.raises(VectorIndexError):
                VectorFile([part]).check()
            path.write_bytes(data)
        for length in (0, 1, len(data) // 2, len(data) - 2):
            path.write_bytes(data[:length])
            with pytest.raises(VectorIndexError):
                VectorFile([part]).check()
            path.write_bytes(data)
        path.unlink()
        with pytest.raises(VectorIndexError):
            VectorFile([part])
        path.write_bytes(data)
    VectorFile([part]).check()


@pytest.mark.parametrize(
    "name, value", [("rows", 20), ("dim", 6), ("dtype", "float16"), ("rows", -1)]
)
def test_notes_that_do_not_fit_their_vectors_are_refused(tmp_path, name, value):
    written(tmp_path, clustered(21, DIM).rows.matrix, [21], ["float32"])
    note = tmp_path / "part-0" / "part.json"
    note.write_text(json.dumps(json.loads(note.read_bytes()) | {name: value}))
    with pytest.raises(VectorIndexError):
        VectorFile([tmp_path / "part-0"])


def test_parts_of_other_dimensions_are_refused(tmp_path):
    matrix = clustered(10, DIM).rows.matrix
    write_part(tmp_path / "one", [matrix], DIM)
    write_part(tmp_path / "two", [matrix[:, :6]], 6)
    with pytest.raises(VectorIndexError, match="fit together"):
        VectorFile([tmp_path / "one", tmp_path / "two"])


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path):
    def blocks():
        yield clustered(10, DIM).rows.matrix
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_part(tmp_path / "part-0", blocks(), DIM)
    assert not list(tmp_path.iterdir())


def test_threads_may_read_at_once(tmp_path):
    matrix = clustered(400, DIM).rows.matrix
    file = written(tmp_path, matrix, [250, 150], ["float32", "float32"])
    errors = []

    def read(seed):
        for places in np.random.default_rng(seed).integers(0, 400, (200, 20)):
            if not np.array_equal(file.take(places), matrix[places]):
                errors.append(places)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert errors == []
