"""Clusters: found where they are, numbered by size, and named by words or labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import ModalityError, QueryError, SourceError
from retrieval.query import Collection
from retrieval.query.curate import kmeans, names
from retrieval.query.curate.clusters import usual_number
from retrieval.store import Store
from retrieval.types import Space

DIM = 16
SIZES = (50, 30, 20, 8)


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around four directions that are at right angles, and which is whose."""
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(SIZES)), SIZES)
    rows = np.eye(DIM)[own] + 0.05 * rng.standard_normal((len(own), DIM))
    order = rng.permutation(len(own))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit[order].astype(np.float32), own[order]


@pytest.fixture
def collection(tmp_path) -> Collection:
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    rows, own = blobs()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIM)
    labels = [["ant", "bee", "cat", None][number] for number in own]
    uris = [f"/{number}.jpg" for number in range(len(own))]
    ids = np.random.default_rng(1).permutation(len(own) * 9)[: len(own)]
    store.upsert(pa.table({"image_id": ids, "uri": uris, "label": labels, "vector_s": flat}))
    return Collection(store)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found_where_they_are(seed):
    rows, own = blobs(seed)
    centres = kmeans.centres(rows, len(SIZES), seed)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    found = kmeans.assign(lambda size: iter([rows[:60], rows[60:]]), centres)
    assert len({*zip(own.tolist(), found.tolist(), strict=True)}) == len(SIZES)
    np.testing.assert_array_equal(centres, kmeans.centres(rows, len(SIZES), seed))


def test_no_iteration_makes_it_worse():
    rows = np.random.default_rng(0).standard_normal((400, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centres = kmeans.centres(rows, 12, 0)
    cosines = rows @ centres.T
    own = cosines.argmax(axis=1)
    for number in range(12):  # a fixed point: every centre is the mean of its own
        mean = rows[own == number].sum(axis=0)
        np.testing.assert_allclose(centres[number], mean / np.linalg.norm(mean), atol=1e-4)
    assert cosines.max(axis=1).sum() > (rows @ rows[:12].T).max(axis=1).sum()


def test_equal_pictures_still_make_clusters():
    rows = np.repeat(blobs()[0][:1], 9, axis=0)
    assert len(kmeans.centres(rows, 4, 0)) == 4


def test_the_largest_is_number_one_and_has_its_label(collection):
    report = collection.shape(["clusters"], clusters=4)
    assert [(c.number, c.size, c.name) for c in report.clusters] == [
        (1, 50, "ant"), (2, 30, "bee"), (3, 20, "cat"), (4, 8, None),
    ]  # fmt: skip
    assert len(collection.store.ids("cluster = 2 and cluster_name = 'bee' and label = 'bee'")) == 30
    again = collection.shape(["clusters"], clusters=4)
    assert again == report
    [made] = [m for m in collection.status()["made"] if m["name"] == "cluster"]
    assert made["parameters"] == {"clusters": 4, "seed": 0, "names": "labels"}


def test_how_many_there_are_by_default(collection):
    assert [usual_number(n) for n in (0, 1, 2, 100, 10_000, 1_000_000)] == [0, 1, 2, 5, 50, 50]
    assert len(collection.shape(["clusters"]).clusters) == usual_number(sum(SIZES))
    with pytest.raises(QueryError, match="cannot make 200 clusters of 108"):
        collection.shape(["clusters"], clusters=200)


def test_words_need_a_space_that_holds_text(collection, tmp_path):
    (tmp_path / "words.txt").write_text("dog\n")
    with pytest.raises(ModalityError):
        collection.shape(["clusters"], words=tmp_path / "words.txt")


def test_a_name_fits_and_fits_more_than_elsewhere():
    words = ["thing", "dog", "puppy", "car"]
    vectors = np.array(
        [[0.7, 0.7, 0.14], [0.95, 0.05, 0.3], [0.9, 0.02, 0.43], [0.05, 0.97, 0.2]], np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.eye(3, dtype=np.float32)[:2]
    assert names.by_words(means, words, vectors) == ["dog", "car"]
    twice = np.array([[1, 0, 0], [0.9, 0, 0.43], [0, 1, 0]], np.float32)
    assert names.by_words(twice, words, vectors) == ["dog", "puppy", "car"]
    assert names.by_words(twice, words[1:2], vectors[1:2]) == ["dog"] * 3


def test_the_words_are_many_and_each_is_there_once(tmp_path):
    words = names.vocabulary()
    assert len(words) == len(set(words)) >= 800 and {"dog", "wedding dress"} <= {*words}
    (tmp_path / "mine.txt").write_text("one\n\n two \none\n")
    assert names.vocabulary(tmp_path / "mine.txt") == ["one", "two"]
    for content in (b"\n", b"\xff\xfe"):
        (tmp_path / "bad.txt").write_bytes(content)
        with pytest.raises(SourceError):
            names.vocabulary(tmp_path / "bad.txt")
    with pytest.raises(SourceError):
        names.vocabulary(tmp_path / "missing.txt")


def test_clothes_fall_into_clusters_of_their_kind(shared_data, tmp_path):
    """Pocket vectors of 400 photos; by chance the purity were about 0.25."""
    import csv
    import shutil

    import retrieval
    from indexers import ingest

    folder = shared_data("clothing")
    wanted = {"Pants", "Shoes", "Hat", "T-Shirt"}
    with (folder / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in wanted]
    some = tmp_path / "some"
    some.mkdir()
    for row in rows[::4]:
        source = folder / row["file"]
        shutil.copy(source, some / f"{row['label']}-{source.name}")
    ingest(some, tmp_path / "c", encoders=["pocket-visual"])
    collection = retrieval.open(tmp_path / "c")
    collection.shape(["clusters"], clusters=8)
    table = collection.store.made.read(["cluster", "uri"]).to_pylist()
    kinds: dict[int, list[str]] = {}
    for row in table:
        kinds.setdefault(row["cluster"], []).append(row["uri"].rsplit("/", 1)[1].split("-")[0])
    pure = sum(max(found.count(kind) for kind in found) for found in kinds.values()) / len(table)
    assert pure > 0.75
