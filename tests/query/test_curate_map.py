"""The map: near stays near, the same again, in [-1, 1]; and its picture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.map_picture import map_picture, snapped
from retrieval.errors import QueryError
from retrieval.query import Collection
from retrieval.query.curate import layout
from retrieval.store import Store
from retrieval.types import Space

DIM, EACH = 16, 40


@pytest.fixture
def collection(tmp_path) -> Collection:
    """Three groups that are far from each other."""
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(3), EACH)
    rows = np.eye(DIM)[own] + 0.1 * rng.standard_normal((len(own), DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIM)
    uris = [f"/{number}.jpg" for number in own.cumsum() + np.arange(len(own))]
    labels = [f"group {number}" for number in own]
    ids = np.arange(len(own)) * 7 % 997
    store.upsert(pa.table({"image_id": ids, "uri": uris, "label": labels, "vector_s": flat}))
    return Collection(store)


def separated(collection: Collection, ids, places) -> float:
    """Share of the nearest places whose image is of the same group."""
    labels = np.array(collection.store.rows(ids, ["label"])["label"].to_pylist())
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


@pytest.mark.parametrize("method", ["pca", pytest.param("umap", marks=pytest.mark.slow)])
def test_near_stays_near_and_comes_out_the_same_again(collection, method):
    if method == "umap":
        pytest.importorskip("umap")
    drawn = collection.map(method)
    assert drawn.method == method
    assert np.abs(drawn.places).max() == pytest.approx(1.0) and drawn.places.shape == (120, 2)
    assert separated(collection, drawn.ids, drawn.places) == 1.0
    again = collection.map(method)
    np.testing.assert_array_equal(drawn.places, again.places)
    rows = collection.store.made.read(["map_x", "map_y"]).to_pydict()
    stored = dict(
        zip(rows["image_id"], zip(rows["map_x"], rows["map_y"], strict=True), strict=True)
    )
    assert stored == dict(zip(drawn.ids.tolist(), map(tuple, drawn.places.tolist()), strict=True))
    made = collection.status()["made"][0]
    assert made["made_by"] == "map" and made["parameters"]["method"] == method
    assert 0 < len(collection.store.ids("map_x < 0 and map_y > -2")) < 120


def test_pca_is_the_singular_value_decomposition(collection):
    vectors = collection.vectors("s")
    rows = vectors.take(np.arange(120)).astype(np.float64)
    found = layout.pca(vectors)
    _, strengths, axes = np.linalg.svd(rows - rows.mean(axis=0))
    expected = (rows - rows.mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), strengths[:2])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images_have_a_map_too(tmp_path, n):
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    if n:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(DIM, dtype="f4")[:n].ravel()), DIM)
        uris = [f"/{i}" for i in range(n)]
        store.upsert(pa.table({"image_id": range(n), "uri": uris, "vector_s": flat}))
    drawn = Collection(store).map()
    assert drawn.method == "pca" and drawn.places.shape == (n, 2)
    assert np.isfinite(drawn.places).all()
    assert map_picture(Collection(store), drawn)[1] == n


def test_methods_are_told(collection):
    with pytest.raises(QueryError, match="auto, umap, pca"):
        collection.map("tsne")  # type: ignore[arg-type]


@given(st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_no_two_images_share_a_cell(across, data):
    n = data.draw(st.integers(0, across * across))
    floats = st.floats(-1, 1)
    places = data.draw(st.lists(st.tuples(floats, floats), min_size=n, max_size=n))
    cells = snapped(np.array(places, float).reshape(n, 2), across)
    assert len({*map(tuple, cells.tolist())}) == n
    assert n == 0 or (cells.min() >= 0 and cells.max() < across)


def test_a_free_cell_is_the_nearest_and_up_is_up():
    cells = snapped(np.array([[0.0, 1.0], [0.0, 1.0], [-1.0, -1.0]]), 11)
    assert cells[0].tolist() == [5, 0] and cells[2].tolist() == [0, 10]
    assert np.abs(cells[1] - cells[0]).sum() == 1


def test_the_picture_shows_everybody_at_his_place(collection):
    drawn = collection.map("pca")
    picture, shown = map_picture(collection, drawn)
    assert shown == 120
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert len(colours) > 4, "paper, ink and three labels"
