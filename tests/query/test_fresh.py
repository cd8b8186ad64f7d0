"""Answers stay true whatever happens to rows and indexes, against a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from retrieval.errors import VectorIndexError
from retrieval.query import Collection, indexing
from retrieval.store import Store
from retrieval.vectors import choose, search
from retrieval.vectors.base import Effort
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import backend
from tests.query.fresh_child import DIM, SPACE, new, rows, unit, vectors_only

KINDS = [k for k in ("exact", "rabitq", "ivf-rabitq", "hnsw") if backend(k).missing() is None]
IDS = st.lists(st.integers(0, 90), min_size=1, max_size=25, unique=True)
SEEDS = st.integers(0, 30)  # few, so that some vectors are there twice
_ALL = Effort(4096, 4096)


class Killed(BaseException):
    """The process ends here."""


class Fresh(RuleBasedStateMachine):
    """One collection, searched through a handle that lives on while another one writes."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, tuple[str, np.ndarray | None]] = {}
        self.since: set[int] = set()  # written after the last change of an index
        self.thorough = True
        self.patch = pytest.MonkeyPatch()
        for name, value in {
            "_FOLD_SHARE": 0.0, "_FOLD_ROWS": 4, "_GROWTH": 2.5, "_MOST_PARTS": 3,
        }.items():  # fmt: skip
            self.patch.setattr(indexing, name, value)
        self.patch.setattr(choose, "SMALLEST_BYTES", 4 * DIM * 30)
        self.patch.setattr(search, "_EXACT_BYTES", 4 * DIM * 5)
        self.patch.setattr("retrieval.vectors.faiss_cpu._TOO_FEW_TO_GROW", 10)
        tuned = OpenIndex.effort.fget
        effort = property(lambda index: _ALL if self.thorough else tuned(index))
        self.patch.setattr(OpenIndex, "effort", effort)
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    @initialize(dtype=st.sampled_from(["float32", "float16"]), first=st.integers(0, 40))
    def create(self, dtype: str, first: int) -> None:
        self.dtype = dtype
        self.store = new(self.folder / "c", dtype)
        self.add(list(range(first)), 77, "x")
        self.collection = Collection(Store.open(self.folder / "c"))

    def stored(self, seed: int, n: int) -> np.ndarray:
        return unit(seed, n).astype(self.dtype)

    # -- rows -----------------------------------------------------------------------------------

    @rule(ids=IDS, seed=SEEDS, label=st.sampled_from("xy"))
    def add(self, ids: list[int], seed: int, label: str) -> None:
        vectors = self.stored(seed, len(ids))
        self.store.upsert(rows(ids, vectors, label))
        self.model |= {i: (label, v) for i, v in zip(ids, vectors, strict=True)}
        self.since |= set(ids)

    @rule(ids=IDS, label=st.sampled_from("xy"))
    def tell_more(self, ids: list[int], label: str) -> None:
        self.store.update(rows(ids, None, label).select(["image_id", "label"]))
        self.model |= {i: (label, self.model[i][1]) for i in ids if i in self.model}

    @rule(ids=IDS, seed=SEEDS)
    def embed_again(self, ids: list[int], seed: int) -> None:
        vectors = self.stored(seed, len(ids))
        self.store.update(vectors_only(ids, vectors))
        for i, vector in zip(ids, vectors, strict=True):
            if i in self.model:
                self.model[i] = (self.model[i][0], vector)
                self.since.add(i)

    @rule(ids=IDS)
    def forget_vectors(self, ids: list[int]) -> None:
        self.store.update(vectors_only(ids, [None] * len(ids)))
        self.model |= {i: (self.model[i][0], None) for i in ids if i in self.model}

    @rule(ids=IDS, purge=st.sampled_from([False, False, True]), seed=SEEDS, back=st.booleans())
    def delete(self, ids: list[int], purge: bool, seed: int, back: bool) -> None:
        there = len(self.model.keys() & set(ids))
        assert self.collection.delete(ids, purge=purge) == there
        for i in ids:
            self.model.pop(i, None)
        if purge:
            self.since = set(self.model)
            left = (self.folder / "c" / "indexes").rglob("*.bin")
            assert not list(left), "nothing of any vector is left"
        if back:  # an id that was gone comes back with another vector
            self.add(ids[:2], seed, "x")

    @rule()
    def compact(self) -> None:
        self.patch.setattr("retrieval.store.maintenance.MAX_SMALL_FRAGMENTS", 1)
        self.store.optimize()

    # -- indexes --------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(KINDS))
    def build(self, kind: str) -> None:
        self.collection.build_index(SPACE, kind)
        self.since = set()

    @rule()
    def update(self) -> None:
        if self.collection.update_indexes():
            self.since = set()

    @rule()
    def open_again(self) -> None:
        self.collection = Collection(Store.open(self.folder / "c"))
        self.store = Store.open(self.folder / "c")

    @rule(kind=st.sampled_from(KINDS), rename=st.integers(0, 3), fold=st.booleans())
    def crash(self, kind: str, rename: int, fold: bool) -> None:
        """Die at one of the moves that show something; what is half done stays there."""
        with killed_at(rename) as died, pytest.MonkeyPatch.context() as patch:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            try:
                other = Collection(Store.open(self.folder / "c"))
                _ = other.update_indexes() if fold else other.build_index(SPACE, kind)
            except Killed:
                assert died
        self.open_again()

    # -- answers --------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "collection"))
    @rule(
        seed=SEEDS,
        k=st.sampled_from([1, 3, 10, 200]),
        where=st.sampled_from([None, None, "label = 'x'", "image_id < 12", "image_id >= 40"]),
        thorough=st.booleans(),
        kind=st.sampled_from([None, None, *KINDS]),
    )
    def ask(self, seed: int, k: int, where: str | None, thorough: bool, kind: str | None) -> None:
        self.thorough = thorough
        queries = unit(seed, 3)
        try:
            found = self.collection.neighbors(queries, SPACE, k=k, where=where, index=kind)
        except VectorIndexError:
            assert kind != "exact" and kind not in self.kinds()
            return
        for query, ids, scores in zip(queries, found.ids, found.scores, strict=True):
            self.check(query, ids, scores, where, k, thorough or kind == "exact")

    @invariant()
    def nothing_is_missed(self) -> None:
        if hasattr(self, "collection"):
            self.ask(5, 10, None, True, None)

    def kinds(self) -> list[str]:
        return [facts["kind"] for facts in self.collection.indexes(SPACE)]

    def check(self, query, ids, scores, where, k, thorough) -> None:
        meant = {
            None: lambda i, label: True,
            "label = 'x'": lambda i, label: label == "x",
            "image_id < 12": lambda i, label: i < 12,
            "image_id >= 40": lambda i, label: i >= 40,
        }[where]
        true = {}
        for i, (label, vector) in self.model.items():
            if vector is not None and meant(i, label):
                wide = vector.astype(np.float64)
                true[i] = float(wide @ query / np.linalg.norm(wide) / np.linalg.norm(query))
        n = int((ids >= 0).sum())
        assert len(ids) == k and (ids[n:] == -1).all() and np.isneginf(scores[n:]).all()
        found = ids[:n].tolist()
        assert len(set(found)) == n and set(found) <= set(true), "answered ids live"
        np.testing.assert_allclose(scores[:n], [true[i] for i in found], rtol=0, atol=1e-5)
        assert (np.diff(scores[:n]) <= 0).all()
        least = scores[n - 1] if n == k else -2.0
        missed = {i for i, score in true.items() if i not in found and score > least + 1e-5}
        assert not (missed if thorough else missed & self.since)


@contextmanager
def killed_at(rename: int):
    """Raise :class:`Killed` instead of the n-th renaming of a folder."""
    real, seen, died = Path.rename, [], []

    def renamed(self, target):
        if len(seen) == rename:
            died.append(self)
            raise Killed
        seen.append(self)
        return real(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        yield died


def run(examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=checks,
    )
    run_state_machine_as_test(Fresh, settings=options)


def test_searches_never_miss_and_never_resurrect() -> None:
    run(12, 20)


@pytest.mark.slow
def test_searches_never_miss_and_never_resurrect_at_length() -> None:
    run(40, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_nothing_takes_in_what_comes(tmp_path, kind) -> None:
    store = new(tmp_path / "c")
    collection = Collection(Store.open(tmp_path / "c"))
    built = collection.build_index(SPACE, kind)
    assert built["rows"] == 0 and built["measured"]["queries"] == 0
    vectors = unit(1, 6)
    for n in range(1, 7):
        store.upsert(rows([n], vectors[n - 1 : n]))
        found = collection.neighbors(vectors[:n], SPACE, k=1, index=kind)
        assert found.ids[:, 0].tolist() == list(range(1, n + 1))
    assert collection.indexes(SPACE)[0]["behind"] == 6
    assert collection.update_indexes(), "it has grown beyond what it was trained on"
    assert collection.indexes(SPACE)[0]["behind"] == 0


@pytest.mark.skipif("rabitq" not in KINDS, reason="needs FAISS")
@pytest.mark.parametrize("error", [VectorIndexError("FAISS refuses"), MemoryError("too much")])
def test_auto_goes_on_to_the_next_kind_where_one_cannot_be_built(tmp_path, monkeypatch, error):
    class Refusing(type(backend("rabitq"))):
        def build(self, rows, folder):
            raise error

    monkeypatch.setattr("retrieval.vectors.faiss_cpu.FaissCpu", Refusing)
    store, told = new(tmp_path / "c"), []
    store.upsert(rows(range(50), unit(1, 50)))
    built = Collection(store).build_index(SPACE, tell=told.append)
    assert built["kind"] == "exact" and any(str(error) in line for line in told)
    with pytest.raises(type(error), match=str(error)):
        Collection(store).build_index(SPACE, "rabitq")
    (kept,) = Collection(store).indexes(SPACE)
    assert kept == built | {"behind": 0}


@pytest.mark.skipif(len(KINDS) < 3, reason="needs FAISS")
def test_what_was_asked_for_is_asked_for_again_when_an_index_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_FOLD_ROWS", 5)
    small, large = KINDS[0], KINDS[-1]
    monkeypatch.setattr(choose, "kinds_for", lambda n, *_: [small if n < 250 else large])
    store = new(tmp_path / "c")
    store.upsert(rows(range(100), unit(1, 100)))
    collection = Collection(store)
    collection.build_index(SPACE, target=0.3)
    collection.build_index(SPACE, KINDS[1], target=0.4)
    seen = []
    for n in (120, 140, 300):  # two are folded in
        store.upsert(rows(range(n), unit(1, n)))
        assert collection.update_indexes()
        seen.append({f["kind"]: (f["asked"], _target(f)) for f in collection.indexes(SPACE)})
    also = {KINDS[1]: (KINDS[1], 0.4)}
    assert seen == [{small: ("auto", 0.3)} | also] * 2 + [{large: ("auto", 0.3)} | also]
    for note in (tmp_path / "c" / "indexes").rglob("ids.bin"):
        note.write_bytes(b"damaged")
    assert collection.update_indexes()
    assert {f["kind"]: (f["asked"], _target(f)) for f in collection.indexes(SPACE)} == seen[-1]


def _target(facts: dict) -> float:
    return facts["measured"]["target"]


def test_an_index_of_a_collection_that_was_here_before_is_not_used(tmp_path) -> None:
    store = new(tmp_path / "old")
    store.upsert(rows(range(50), unit(1, 50)))
    Collection(store).build_index(SPACE, KINDS[0])
    again = new(tmp_path / "c")
    again.upsert(rows(range(50), unit(2, 50)))
    shutil.copytree(tmp_path / "old" / "indexes", tmp_path / "c" / "indexes")
    collection = Collection(again)
    assert collection.neighbors(unit(2, 50), SPACE, k=1).ids[:, 0].tolist() == list(range(50))
    assert collection.indexes(SPACE) == [] and not collection.update_indexes()
    collection.build_index(SPACE, KINDS[-1])
    assert len(list((tmp_path / "c" / "indexes").glob("*/[!.p]*"))) == 1, "it is swept"
