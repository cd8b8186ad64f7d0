"""Derived spaces: what their vectors are, and that they stay what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.encoders.transformed import TransformedEncoder
from retrieval.errors import (
    CollectionError,
    EncoderError,
    ModalityError,
    SchemaError,
    SpaceMismatch,
    UnknownSpace,
)
from retrieval.query import derive as deriving
from retrieval.query.spaces import choose_space
from retrieval.query.terms import Term
from retrieval.store import Store, maintenance
from retrieval.store import derived as filling
from retrieval.store.transforms import Transform
from retrieval.types import Space
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture, write_pictures
from tests.query import fresh_child

ROOT = Path(__file__).resolve().parents[2]
PHOTOS, DIM = 40, 16
COLOURS = ("red", "green", "blue", "white")


class Counting(ColourEncoder):
    """Counts the pictures it sees."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    @property
    def seen(self) -> int:
        return sum(self._seen)

    def encode_images(self, images):
        self._seen.append(len(images))  # several threads do
        return super().encode_images(images)


class Seeing(Counting):
    """One that takes no words."""

    spec = replace(ColourEncoder.spec, modalities=("image",))
    encode_texts = None


def write(folder: Path) -> Path:
    write_pictures(folder, PHOTOS)
    for colour in COLOURS:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    return write(tmp_path / "photos")


def made(photos: Path, target: Path, encoder=None, **options):
    """A collection of ``photos``, and the encoder that serves it."""
    encoder = encoder or Counting()
    ingest(photos, target, encoders=[encoder], **options)
    collection = retrieval.open(target, encoders=[encoder])
    return collection, encoder


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("derive")
    opened, _ = made(write(folder / "photos"), folder / "c.lance")
    for kind in ("pca", "whiten", "truncate"):
        opened.derive("colour", kind, DIM)
    return opened


def stored(collection, space: str) -> np.ndarray:
    store = collection.store
    return store.vectors_of(space, store.ids()).astype(np.float64)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_projection_is_numpys_singular_value_decomposition(collection):
    base = stored(collection, "colour")
    centred = base - base.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:DIM] * np.sign(axes[np.arange(DIM), np.abs(axes[:DIM]).argmax(axis=1)])[:, None]
    coordinates = centred @ axes.T
    np.testing.assert_allclose(stored(collection, "colour-pca16"), unit(coordinates), atol=1e-5)
    deviations = lengths[:DIM] / np.sqrt(len(base) - 1)
    white = unit(coordinates / deviations)
    np.testing.assert_allclose(stored(collection, "colour-white16"), white, atol=1e-3)
    first = unit(base[:, :DIM])
    np.testing.assert_allclose(stored(collection, "colour-first16"), first, atol=1e-6)


def test_whitened_vectors_vary_alike_in_all_directions(collection):
    transform = collection.store.derived.transform(collection.spaces["colour-white16"])
    covariance = np.cov(stored(collection, "colour"), rowvar=False)
    seen = transform.matrix.T.astype(np.float64) @ covariance @ transform.matrix
    np.testing.assert_allclose(seen, np.eye(DIM), atol=2e-3)


def test_the_space_says_what_made_it(collection):
    base, pca = (collection.spaces[name] for name in ("colour", "colour-pca16"))
    assert (pca.base, pca.encoder, pca.dim) == ("colour", "colour", DIM)
    assert pca.pooling == "none|pca-16" and pca.preprocess_hash == base.preprocess_hash
    assert pca.modalities == base.modalities and pca.runtime == base.runtime
    hashes = {space.weights_hash for space in collection.spaces.values()}
    assert len(hashes) == 4  # another kind is another identity
    facts = {space["name"]: space for space in collection.status()["spaces"]}
    assert facts["colour"]["base"] is None and facts["colour-pca16"]["base"] == "colour"
    assert facts["colour-pca16"]["vectors"] == PHOTOS + len(COLOURS)


def test_another_fit_is_another_identity_and_the_same_fit_the_same(photos, tmp_path):
    opened, _ = made(photos, tmp_path / "c")
    first = opened.derive("colour", "pca", 8)
    assert opened.derive("colour", "pca", 8, "again").identity == first.identity
    write_pictures(photos, 10, start=500)
    ingest(photos, opened)
    assert opened.derive("colour", "pca", 8) == first  # fitted once
    assert opened.derive("colour", "pca", 8, "anew").weights_hash != first.weights_hash


@pytest.mark.parametrize("kind", ["pca", "whiten", "truncate"])
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("float16", 6e-4)])
def test_later_images_get_what_deriving_at_the_end_would_give(photos, tmp_path, kind, dtype, near):
    opened, encoder = made(photos, tmp_path / "c", dtype=dtype)
    space = opened.derive("colour", kind, DIM)
    assert encoder.seen == PHOTOS + len(COLOURS) and space.dtype == dtype
    write_pictures(photos, 10, start=100)
    picture(999).save(photos / "0003.png")  # other content in a known place
    ingest(photos, opened)
    assert encoder.seen == PHOTOS + len(COLOURS) + 11  # one forward pass for both spaces
    transform = opened.store.derived.transform(space)
    late = replace(space, name="late")
    opened.store.add_space(late)
    opened.store.derived.fill(opened.spaces["late"])
    together, end = stored(opened, space.name), stored(opened, "late")
    np.testing.assert_allclose(together, end, atol=near)
    np.testing.assert_allclose(end, transform(stored(opened, "colour")), atol=near)
    assert opened.self_test(sample=1000) == (PHOTOS + len(COLOURS) + 10, [])


def test_what_is_missing_is_made_of_stored_vectors_without_a_forward_pass(photos, tmp_path):
    opened, encoder = made(photos, tmp_path / "c")
    space = opened.derive("colour", "pca", DIM)
    opened.store.add_space(replace(space, name="late"))  # as a killed derive leaves it
    dry = ingest(photos, opened, dry_run=True)
    before = encoder.seen
    report = ingest(photos, opened)
    assert encoder.seen == before
    assert dry.skipped == report.skipped == PHOTOS + len(COLOURS)
    np.testing.assert_array_equal(stored(opened, "late"), stored(opened, space.name))
    version = opened.version
    ingest(photos, opened)
    assert opened.version == version


def test_one_process_derives_and_another_indexes(photos, tmp_path):
    made(photos, tmp_path / "c")
    retrieval.open(tmp_path / "c").derive("colour", "whiten", DIM)
    write_pictures(photos, 3, start=200)
    encoder = Counting()
    ingest(photos, tmp_path / "c", encoders=[encoder])
    assert encoder.seen == 3
    opened = retrieval.open(tmp_path / "c", encoders=[encoder])
    assert opened.store.embedded("colour-white16") == PHOTOS + len(COLOURS) + 3
    (photos / "copy.png").write_bytes((photos / "0001.png").read_bytes())
    ingest(photos, opened)
    assert encoder.seen == 3
    assert opened.store.embedded("colour-white16") == PHOTOS + len(COLOURS) + 4


@pytest.mark.parametrize("kind", ["pca16", "white16"])
def test_words_pictures_ids_and_vectors_are_answered(collection, kind):
    space = f"colour-{kind}"
    transform = collection.store.derived.transform(collection.spaces[space])
    encoder = ColourEncoder()
    for colour in COLOURS:
        hits = collection.search(colour, space=space, k=1000)
        assert hits.space == space and hits[0].image.uri.endswith(f"{colour}.png")
        query = transform(encoder.encode_texts([colour]))[0]
        vectors = collection.store.vectors_of(space, [hit.image.image_id for hit in hits])
        np.testing.assert_allclose([hit.score for hit in hits], vectors @ query, atol=1e-5)
    photo = collection.search(image=picture(7), space=space)[0]
    assert photo.image.uri.endswith("0007.png") and photo.score == pytest.approx(1, abs=1e-4)
    by_id = collection.search(image_id=photo.image.image_id, space=space)
    by_vector = collection.search(vector=transform(encoder.encode_images([picture(7)]))[0],
                                  space=space)  # fmt: skip
    assert [h.image for h in by_id] == [h.image for h in by_vector]


def test_a_derived_space_answers_only_when_named(collection):
    for terms in ([Term("red")], [Term(image=picture(1))]):
        assert choose_space(collection.spaces, terms).name == "colour"
    backwards = dict(reversed(collection.spaces.items()))
    assert choose_space(backwards, [Term("red")]).name == "colour"
    assert collection.search("red").space == "colour"


def test_what_the_base_cannot_do_its_derived_space_cannot(collection, photos, tmp_path):
    some = int(collection.store.ids()[0])
    with pytest.raises(EncoderError, match="colour-pca16 does not tell what is where"):
        collection.explain(some, "red", space="colour-pca16")
    opened, _ = made(photos, tmp_path / "c", Seeing())
    opened.derive("colour", "pca", DIM)
    with pytest.raises(ModalityError, match="holds no text"):
        opened.search("red", space="colour-pca16")
    assert type(opened.encoder("colour-pca16")) is TransformedEncoder


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("shape", "pca", 4), UnknownSpace, "no space 'shape'"),
        (("colour", "ica", 4), CollectionError, "truncate, pca, whiten, not 'ica'"),
        (("colour", "truncate", 50), CollectionError, "from 1 to 49"),
        (("colour", "pca", 0), CollectionError, "from 1 to 49"),
        (("colour", "pca", 23), CollectionError, "takes 46, or a dim of at most 22"),
        (("colour", "pca", 8, "colour"), SpaceMismatch, "choose another"),
        (("colour", "pca", 8, "colour-white16"), SpaceMismatch, "choose another"),
        (("colour", "pca", 8, "colour_pca16"), CollectionError, "share the column"),
        (("colour-pca16", "pca", 4), CollectionError, "derive from 'colour'"),
    ],
)
def test_what_cannot_be_derived_is_told_and_nothing_is_written(collection, arguments, error, words):
    before, version = list(collection.spaces), collection.version
    with pytest.raises(error, match=words):
        collection.derive(*arguments)
    again = retrieval.open(collection.uri)
    assert (list(again.spaces), again.version) == (before, version)


def test_axes_of_images_that_are_alike_are_refused(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (20 + number, 20), "red").save(folder / f"{number}.png")
    opened, _ = made(folder, tmp_path / "c")
    with pytest.raises(CollectionError, match="differ in 0 directions"):
        opened.derive("colour", "whiten", 4)


def test_the_sample_is_spread_evenly_over_all_vectors(collection, monkeypatch):
    monkeypatch.setattr(deriving, "_BLOCK_ROWS", 7)
    store, count = collection.store, PHOTOS + len(COLOURS)
    everything = np.vstack([block for _, block in store.vectors("colour")])
    for most in (1, 13, 16, count, 1000):
        monkeypatch.setattr(deriving, "FITTED_ROWS", most)
        taken = np.vstack(list(deriving._sample(store, "colour", count)))
        n = min(most, count)
        np.testing.assert_array_equal(taken, everything[[i * count // n for i in range(n)]])


def test_a_row_of_which_nothing_is_left_has_a_place():
    rows = np.array([[0, 0, 1], [0, 1, 0]], np.float32)
    given = rows.copy()
    np.testing.assert_array_equal(Transform.truncate(2)(rows), [[1, 0], [0, 1]])
    np.testing.assert_array_equal(rows, given)
    assert Transform.truncate(2)(rows[:0]).shape == (0, 2)


def test_a_transform_survives_being_written(collection):
    transform = collection.store.derived.transform(collection.spaces["colour-white16"])
    back = Transform.from_json(json.loads(json.dumps(transform.to_json())))
    np.testing.assert_array_equal(back.mean, transform.mean)
    np.testing.assert_array_equal(back.matrix, transform.matrix)
    assert back.digest("x") == transform.digest("x") != transform.digest("y")


@pytest.mark.parametrize("damage", ["'{}'", "'7'", "replace(value, 'A', 'B')"])
def test_a_damaged_transform_is_never_used(photos, tmp_path, damage):
    opened, encoder = made(photos, tmp_path / "c")
    opened.derive("colour", "pca", DIM)
    lance.dataset(str(tmp_path / "c" / "manifest.lance")).update(
        {"value": damage}, where="key like 'transform:%'"
    )
    again = retrieval.open(tmp_path / "c", encoders=[encoder])
    assert again.search("red").space == "colour"
    with pytest.raises(SchemaError, match="transform of space 'colour-pca16' is"):
        again.search("red", space="colour-pca16")


# -- the fill, killed and disturbed ---------------------------------------------------------------

ROWS = 300
KILLED = """
import sys
from retrieval.query import Collection
from retrieval.store import Store, derived
derived._block_rows = lambda *_: 10
opened = Collection(Store.open(sys.argv[1]))
opened.derive("s", "whiten", 8, watch=lambda done, total: print(done, total, flush=True))
"""


def filled(place: Path) -> Store:
    store = fresh_child.new(place)
    table = fresh_child.rows(range(ROWS), fresh_child.unit(1, ROWS))
    hashes = [None if i % 5 == 0 else f"h{i}" for i in range(ROWS)]
    store.upsert(table.append_column("content_hash", [hashes]))
    return store


def test_a_fill_that_is_killed_goes_on_with_the_same_transform(tmp_path):
    filled(tmp_path / "c")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "c")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    for _ in range(3):
        last = child.stdout.readline()
    assert last == f"30 {ROWS}\n"
    child.kill()
    child.communicate()
    store = Store.open(tmp_path / "c")
    left = ROWS - store.embedded("s-white8")
    assert 0 < left <= ROWS - 30
    told: list[tuple[int, int]] = []
    opened = retrieval.open(tmp_path / "c")
    killed = opened.spaces["s-white8"]
    made = opened.derive("s", "whiten", 8, watch=lambda *numbers: told.append(numbers))
    assert made == killed and told == [(left, left)]
    transform = opened.store.derived.transform(made)
    np.testing.assert_allclose(
        stored(opened, "s-white8"), transform(fresh_child.unit(1, ROWS)), atol=1e-6
    )


def changing(store: Store, row: int, new: np.ndarray):
    """Another process that gives a row other content, once."""
    other = store.again()

    def change() -> None:
        if other is not None and not other.find_hash("other"):
            changed = fresh_child.vectors_only([row], new)
            other.update(changed.append_column("content_hash", [["other"]]))

    return change


@pytest.mark.parametrize("row", [7, 299])
def test_a_row_that_changes_while_a_space_is_filled_has_the_vector_of_what_it_is(
    tmp_path, monkeypatch, row
):
    """Changed between the moment when its block is read and the one when it is written."""
    monkeypatch.setattr(filling, "_block_rows", lambda *_: 100)
    store, new = filled(tmp_path / "c"), fresh_child.unit(2, 1)
    store.optimize()
    change, made = changing(store, row, new), Transform.__call__

    def disturbed(self: Transform, vectors: np.ndarray) -> np.ndarray:
        change()
        return made(self, vectors)

    opened = retrieval.open(tmp_path / "c")
    with monkeypatch.context() as during:
        during.setattr(Transform, "__call__", disturbed)
        space = opened.derive("s", "pca", 8)
    assert opened.store.find_hash("other") == [row]
    transform = opened.store.derived.transform(space)
    np.testing.assert_array_equal(opened.store.vectors_of("s", [row]), new)
    np.testing.assert_allclose(stored(opened, "s-pca8"), transform(stored(opened, "s")), atol=1e-6)


def test_rows_that_come_and_go_while_a_space_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "_block_rows", lambda *_: 100)
    monkeypatch.setattr(maintenance, "MIN_INDEXED_ROWS", 100)
    store = filled(tmp_path / "c")
    store.optimize()  # scalar indexes, as a large collection has them
    other, opened = store.again(), retrieval.open(tmp_path / "c")

    def watch(done: int, _: int) -> None:
        if done == 100:
            other.delete([5, 298])
            other.upsert(fresh_child.rows([1000], fresh_child.unit(3, 1)))
            other.optimize()

    space = opened.derive("s", "whiten", 8, watch=watch)
    assert opened.store.embedded("s-white8") == len(opened) == ROWS - 1
    transform = opened.store.derived.transform(space)
    np.testing.assert_allclose(
        stored(opened, "s-white8"), transform(stored(opened, "s")), atol=1e-6
    )


def test_a_space_is_filled_that_the_engine_could_not_merge_at_once(tmp_path):
    count, dim = 90_000, 128
    facts = ("own", "w" * 32, "p" * 32, "cls")
    store = Store.create(tmp_path / "c", [Space("s", *facts, dim, ("image",))])
    vectors = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    uris = [f"/{n}.jpg" for n in range(count)]
    store.upsert(pa.table({"image_id": range(count), "uri": uris, "vector_s": column}))
    store.optimize()
    opened = retrieval.open(tmp_path / "c")
    opened.derive("s", "truncate", dim)
    some = [0, 1, 45_000, count - 1]
    got = opened.store.vectors_of("s-first128", some)
    np.testing.assert_allclose(got, unit(vectors[some]), atol=1e-6)
    assert opened.store.embedded("s-first128") == count
