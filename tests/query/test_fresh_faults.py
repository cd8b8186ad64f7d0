"""What fails without damage takes no index away, and says what is the matter."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from retrieval import folders
from retrieval.errors import VectorIndexError
from retrieval.query import Collection
from retrieval.query.indexing import Indexes
from retrieval.query.views import Views
from retrieval.store import Store
from retrieval.vectors import faiss_install
from retrieval.vectors.base import Effort
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import backend
from tests.query.fresh_child import SPACE, new, rows, unit

KINDS = [kind for kind in ("exact", "hnsw", "rabitq") if backend(kind).missing() is None]
QUERIES = unit(1000, 4)


class Made:
    """A collection with an index, and some rows beside it."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind
        store = new(place)
        store.upsert(rows(range(120), unit(1, 120)))
        Collection(store).build_index(SPACE, kind)
        store.upsert(rows(range(110, 130), unit(2, 20)))
        self.truth = Collection(store).neighbors(QUERIES, SPACE, k=10, index="exact")
        self.folder = Indexes(store).newest(SPACE, kind).folder

    def files(self) -> list[Path]:
        """Of the index and of its part."""
        return sorted(p for p in self.folder.parent.rglob("*") if p.is_file())

    def open(self) -> Collection:
        return Collection(Store.open(self.place))

    def same_answers(self, collection: Collection, index: str | None = None) -> None:
        found = collection.neighbors(QUERIES, SPACE, k=10, index=index)
        assert np.array_equal(found.ids, self.truth.ids)
        np.testing.assert_allclose(found.scores, self.truth.scores, rtol=0, atol=1e-6)


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(OpenIndex, "effort", Effort(4096, 4096))  # so that answers are exact
    return Made(tmp_path / "c", KINDS[-1])


class Opened:
    """Counts how often indexes are opened, and fails as long as there is an ``error``."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: str) -> None:
        self.times, self.error = 0, None
        cls = type(backend(kind))
        self._real = cls.open
        patch.setattr(cls, "open", lambda *args: self._open(*args))

    def _open(self, *args):
        self.times += 1
        if self.error is not None:
            raise self.error
        return self._real(*args)


FAULTS = [OSError(errno.EMFILE, "too many"), MemoryError(), RuntimeError("CUDA out of memory")]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_an_index_that_cannot_be_opened_now_is_kept(made, monkeypatch, caplog, error):
    opened = Opened(monkeypatch, made.kind)
    opened.error = error
    made.same_answers(made.open())
    assert opened.times and str(error) in caplog.text and made.folder.exists()
    opened.error = None
    made.same_answers(made.open(), made.kind)


@pytest.mark.parametrize("name", ["index.json", "ids.bin", "part.json", "vectors.bin"])
def test_files_that_cannot_be_read_now_are_kept(made, monkeypatch, name):
    real = Path.open

    def full(self, *args, **kwargs):
        if self.name == name:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(self, *args, **kwargs)

    before = made.files()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        patch.setattr(np, "memmap", full_map) if name == "vectors.bin" else None
        made.same_answers(made.open())
    assert made.files() == before
    made.same_answers(made.open(), made.kind)


def full_map(*_, **__):
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("told", [{"format": 2}, {"format": 2, "owner": 0}, {"kind": "later"}])
def test_what_a_newer_version_wrote_is_kept_and_not_used(made, told):
    facts = json.loads((made.folder / "index.json").read_bytes()) | told
    facts["seal"] = folders._seal(facts)
    (made.folder / "index.json").write_text(json.dumps(facts))
    made.same_answers(made.open())
    assert Views(Store.open(made.place)).at_version(SPACE).base is None
    made.open().build_index(SPACE, "exact")
    made.same_answers(made.open())
    assert made.folder.exists() and (made.folder.parent / facts["parts"][0]["name"]).exists()


def test_an_index_that_fails_without_damage_is_only_not_used_any_more(made):
    views, before = Views(Store.open(made.place)), made.files()
    views.distrust(views.at_version(SPACE), VectorIndexError("no memory left"))
    assert views.at_version(SPACE).base is None and made.files() == before
    assert Views(Store.open(made.place)).at_version(SPACE).base is not None


def test_an_index_is_not_opened_again_while_it_is_the_best(made, monkeypatch):
    opened, collection = Opened(monkeypatch, made.kind), made.open()
    made.same_answers(collection)
    (made.folder.parent / ".0123.part").mkdir()  # somebody builds
    made.same_answers(collection)
    assert opened.times == 1
    collection.build_index(SPACE, made.kind)
    opened.times = 0
    made.same_answers(collection)
    assert opened.times == 1


@pytest.mark.skipif("hnsw" not in KINDS, reason="needs FAISS")
def test_who_asks_for_a_kind_hears_what_it_lacks_here(made, monkeypatch):
    made.open().build_index(SPACE, "hnsw")
    with pytest.raises(VectorIndexError, match="build it first"):
        made.same_answers(made.open(), "ivf-flat")
    monkeypatch.setattr(faiss_install, "_installed", list)
    with pytest.raises(VectorIndexError, match=r"hnsw.*pip install faiss-cpu"):
        made.same_answers(made.open(), "hnsw")
    made.same_answers(made.open())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_only_a_full_disk_makes_us_ask_for_room(made, monkeypatch, number):
    def fail(self, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(VectorIndexError, match=os.strerror(number)) as caught:
        made.open().build_index(SPACE, made.kind)
    assert ("make room there" in str(caught.value)) == (number == errno.ENOSPC)
