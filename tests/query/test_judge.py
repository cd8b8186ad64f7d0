"""Verdicts on real photos: words that fit, words that fit nothing, pictures of another world."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import retrieval
from indexers import ingest
from retrieval import Ranking, Term
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.types import Space

PHOTOS = 150
NONSENSE = [
    "qzvx wplk trrgh",
    "the parties hereto agree to indemnify the licensor",
    "x = sum(i ** 2 for i in range(n))",
    "quarterly interest rate swap settlement",
    "hypotenuse lemma corollary",
]
SENSE = ["shoes", "a dress", "a t-shirt", "trousers", "a hat"]


@pytest.fixture(scope="module")
def shop(shared_data, tmp_path_factory):
    photos = sorted(shared_data("clothing").rglob("*.jpg"))
    made = tmp_path_factory.mktemp("made") / "c"
    ingest(photos[:: len(photos) // PHOTOS], made)
    return retrieval.open(made)


def test_words_that_fit_nothing_are_told_apart(shop):
    nonsense = [shop.search(text).verdict for text in NONSENSE]
    sense = [shop.search(text).verdict for text in SENSE]
    assert nonsense.count("no good match") >= 4, nonsense
    assert sense.count("good match") >= 4, sense


def test_relevance_goes_with_the_hits_and_never_removes_one(shop):
    hits = shop.search("qzvx wplk trrgh", k=20)
    assert len(hits) == 20
    assert all(0 <= hit.relevance <= 1 for hit in hits)
    assert hits.to_arrow()["relevance"].to_pylist() == pytest.approx([h.relevance for h in hits])
    best = max(hit.relevance for hit in shop.search("shoes"))
    assert best > max(hit.relevance for hit in hits)


def test_a_picture_of_the_collection_is_a_good_match_and_one_of_elsewhere_is_not(shop, shared_data):
    for image_id in shop.store.ids()[:5].tolist():
        assert shop.search(image_id=image_id).verdict == "good match"
    foreign = sorted(shared_data("coco128").rglob("*.jpg"))[:8]
    verdicts = [shop.search(image=path).verdict for path in foreign]
    assert verdicts.count("no good match") >= 6, verdicts


def test_a_filter_and_another_order_keep_the_verdict_honest(shop):
    assert shop.search("qzvx wplk trrgh", where="width > 0").verdict == "no good match"
    ranking = Ranking(feedback=5, diversity=0.2)  # near what was found, but not near the words
    assert shop.search("qzvx wplk trrgh", ranking=ranking).verdict == "no good match"
    assert shop.search("shoes", where="width < 0").verdict is None


def test_nothing_is_said_where_nothing_can_be_known(shop, tmp_path, shared_data):
    vector = np.ones(256)
    assert shop.search(vector=vector).verdict is None
    assert shop.search(negative=["shoes"]).verdict is None
    mixed = [Term("shoes"), Term(vector=vector, weight=2.0)]
    assert shop.search(terms=mixed, space="pocket-text").verdict is None
    few = sorted(shared_data("clothing").rglob("*.jpg"))[:12]
    ingest(few, tmp_path / "few")
    hits = retrieval.open(tmp_path / "few").search("shoes")
    assert hits.verdict is None
    assert all(hit.relevance is None for hit in hits)


def test_a_collection_that_grows_is_judged_anew(shop, tmp_path, shared_data):
    clothing = sorted(shared_data("clothing").rglob("*.jpg"))[:60]
    ingest(clothing, tmp_path / "c")
    collection = retrieval.open(tmp_path / "c")
    photo = sorted(shared_data("coco128").rglob("*.jpg"))[3]
    assert collection.search(image=photo).verdict == "no good match"
    ingest(sorted(shared_data("coco128").rglob("*.jpg"))[:60], tmp_path / "c")
    assert collection.search(image=photo).verdict == "good match"


def test_damage_that_shows_only_when_an_answer_is_judged_costs_no_answer(tmp_path):
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", 32, ("image",))])
    rows = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 32)
    ids, uris = np.arange(len(rows)), [f"/photos/{i}.jpg" for i in range(len(rows))]
    flags = pa.array([True] * len(rows))
    store.upsert(pa.table({"image_id": ids, "uri": uris, "vector_s": flat, "embedded_s": flags}))
    Collection(store).build_index("s", "ivf-flat")
    before = [hit.image for hit in Collection(store.again()).search(image_id=7)]
    (vectors,) = (tmp_path / "c").rglob("vectors.bin")
    content = bytearray(vectors.read_bytes())
    places = range(100, len(content), 16_384)
    for at in places:  # every block but those of the hits, which the search itself reads
        if not any(abs(at // 128 - image.image_id) < 256 for image in before):
            content[at] ^= 1
    vectors.write_bytes(content)
    hits = Collection(store.again()).search(image_id=7)
    assert [hit.image for hit in hits] == before
    assert hits.verdict == "good match"
