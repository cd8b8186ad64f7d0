"""A collection in a bucket, on a real server that speaks S3, on loopback."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.errors import CollectionError, CollectionNotFound
from retrieval.store import Store


def test_a_collection_in_a_bucket(bucket, space, rows):
    uri = "s3://bucket/photos and more/c.lance/"
    assert not Store.exists(uri, storage_options=bucket)
    with pytest.raises(CollectionNotFound):
        Store.open(uri, storage_options=bucket)
    store = Store.create(uri, [space()], storage_options=bucket)
    assert store.uri == "s3://bucket/photos and more/c.lance"
    with pytest.raises(CollectionError, match="already"):
        Store.create(uri, storage_options=bucket)
    with pytest.raises(CollectionError, match="not empty"):
        Store.create("s3://bucket/photos and more", storage_options=bucket)

    other = Store.open(uri, storage_options=bucket)
    store.upsert(rows(range(20), label=["a", "b"] * 10, thumbnail=[b"t"] * 20))
    store.upsert(rows([20]))
    assert store.delete([3]) == 1
    assert other.count() == 0
    assert other.refresh() and not other.refresh()
    assert list(other.ids("label = 'b'")) == [1, 5, 7, 9, 11, 13, 15, 17, 19]
    assert [record.image_id for record in other.records([20, 0])] == [20, 0]
    ids = np.concatenate([ids for ids, _ in other.vectors("visual")])
    assert sorted(ids) == sorted(other.ids())
    other.add_space(space("late", 4))
    assert store.refresh() and "late" in store.spaces
    store.optimize()
    store.purge()
    assert store.stats()["size_bytes"] is None
    assert store.stats()["tables"]["images"]["versions"] == 1
    assert Store.open(uri, storage_options=bucket).count() == 20


def test_an_endpoint_that_does_not_answer_is_an_error(bucket):
    nowhere = bucket | {"endpoint": "http://127.0.0.1:9", "client_max_retries": "0"}
    with pytest.raises(CollectionError, match="cannot be read"):
        Store.open("s3://bucket/c", storage_options=nowhere)
