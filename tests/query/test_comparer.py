"""Comparing stored pictures: what counts before any look, and what is kept of looks."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from skimage import data

from retrieval.errors import QueryError
from retrieval.images import thumbnail
from retrieval.query.duplicates.comparer import UNSEEN, Comparer
from retrieval.query.duplicates.evidence import look
from retrieval.query.duplicates.transforms import TRANSFORMS
from retrieval.store import Store

Kept = tuple[str, Image.Image, bool]
"""Content hash, picture, and whether it has a thumbnail."""


def stored(place, images: dict[int, Kept]) -> Store:
    store = Store.create(place)
    values = list(images.values())
    store.upsert(
        pa.table(
            {
                "image_id": pa.array(images, pa.int64()),
                "uri": [f"/photos/{i}.jpg" for i in images],
                "content_hash": [f"{content:0>32}" for content, _, _ in values],
                "size_bytes": pa.array([1000] * len(images), pa.int64()),
                "width": pa.array([picture.width for _, picture, _ in values], pa.int32()),
                "height": pa.array([picture.height for _, picture, _ in values], pa.int32()),
                "thumbnail": [thumbnail(picture) if has else None for _, picture, has in values],
            }
        )
    )
    return store


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [Image.fromarray(make()) for make in (data.astronaut, data.chelsea, data.coffee)]


@pytest.fixture
def store(tmp_path, photos) -> Store:
    cat, rng = photos[1], np.random.default_rng(0)
    changed = {name: make(cat, rng) for name, make in TRANSFORMS.items()}
    third = cat.resize((cat.width // 3, cat.height // 3))
    images: dict[int, Kept] = {
        10: ("a", photos[0], True),
        11: ("b", cat, True),
        12: ("c", photos[2], True),
        13: ("b", cat, False),
        14: ("d", cat, False),
        15: ("e", changed["resize"], True),
        16: ("f", changed["jpeg"], True),
        17: ("1", third, True),
        18: ("2", changed["flip"], True),
    }
    return stored(tmp_path / "c", images)


EXPECTED = {
    (11, 13): ("exact", "same bytes"),
    (11, 14): ("concept", "no thumbnail to compare"),
    (11, 15): ("copy", "half the size"),
    (11, 16): ("copy", "re-encoded"),
    (11, 17): ("copy", "33 % of the size"),
    (11, 18): ("edited", "mirrored"),
    (10, 11): ("concept", "alike by their vectors only"),
}


def told(comparer: Comparer, a, b) -> list[tuple[str, str]]:
    return [(found.tier, found.why) for found in comparer.compare(a, b)]


def test_each_pair_is_told_in_the_order_asked(store) -> None:
    a, b = zip(*EXPECTED, strict=True)
    comparer = Comparer(store)
    assert told(comparer, a, b) == list(EXPECTED.values())
    assert told(comparer, b[::-1], a[::-1]) == list(EXPECTED.values())[::-1]
    assert told(comparer, [], []) == []


def test_what_is_kept_of_looks_is_bounded_and_changes_no_answer(store) -> None:
    a, b = zip(*EXPECTED, strict=True)
    for memory in (0, 120_000, 256 << 20):
        comparer = Comparer(store, memory_bytes=memory)
        for _ in range(2):
            assert told(comparer, a, b) == list(EXPECTED.values())
            kept = comparer._looks._looks.values()
            assert sum(one.nbytes for one in kept) == comparer._looks._held <= memory
        assert len(kept) == {0: 0, 120_000: len(kept), 256 << 20: 6}[memory]
        assert memory == 0 or kept


def test_two_collections_may_use_one_id_for_different_pictures(tmp_path, store, photos) -> None:
    other = stored(tmp_path / "o", {11: ("a", photos[0], True), 12: ("x", photos[1], True)})
    found = told(Comparer(store, other), [10, 11, 11], [11, 11, 12])
    assert [tier for tier, _ in found] == ["exact", "concept", "copy"]


def test_a_damaged_thumbnail_spoils_only_its_own_pairs(store):
    rows = store.thumbnails([16])[16]
    broken = [b"", b"no picture", rows[: len(rows) // 2]]
    for bad in broken:
        store.update(pa.table({"image_id": [16], "thumbnail": pa.array([bad], pa.binary())}))
        comparer = Comparer(store)
        assert told(comparer, [11, 11], [16, 15]) == [
            ("concept", UNSEEN),
            ("copy", "half the size"),
        ]
        seen = look(Image.open(io.BytesIO(store.thumbnails([11])[11])))
        [one] = comparer.against([seen], [16])
        assert one.why == UNSEEN


def test_a_picture_that_is_not_stored_is_compared_with_those_that_are(store, photos) -> None:
    seen = look(Image.open(io.BytesIO(thumbnail(photos[2]))))
    found = Comparer(store).against([seen, seen, seen], [12, 11, 14])
    assert [one.tier for one in found] == ["copy", "concept", "concept"]


def test_pairs_that_do_not_match_up_are_refused(store) -> None:
    with pytest.raises(QueryError, match="as many ids"):
        Comparer(store).compare([10, 11], [12])
    with pytest.raises(QueryError, match="99"):
        Comparer(store).compare([10], [99])


def test_bytes_and_sizes_that_nobody_wrote_down_say_nothing(store, photos):
    nobody = {"content_hash": [None, None], "width": [None, 0], "height": [None, 0]}
    store.update(pa.table({"image_id": [10, 12], **nobody}))
    assert told(Comparer(store), [10], [12]) == [("concept", "alike by their vectors only")]
    store.update(pa.table({"image_id": [11, 16], **nobody}))
    assert told(Comparer(store), [11], [16]) == [("copy", "re-encoded")]
