"""Facts about a collection, and the test that its images find themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from retrieval.query.collection import Collection

_TIE = 1e-5


def status(collection: Collection, where: str | None = None) -> dict[str, Any]:
    """What a collection holds; see :meth:`Collection.status`."""
    import pyarrow.compute as pc

    store = collection.store
    store.refresh()
    known = store.known()
    facts: dict[str, Any] = {
        "uri": store.uri,
        "images": store.count(),
        "version": store.version,
        "size_bytes": store.stats()["size_bytes"],
        "columns": list(store.columns().names),
        "spaces": [
            {
                "name": space.name,
                "encoder": space.encoder,
                "dim": space.dim,
                "dtype": space.dtype,
                "modalities": list(space.modalities),
                "weights_hash": space.weights_hash,
                "preprocess_hash": space.preprocess_hash,
                "pooling": space.pooling,
                "vectors": pc.sum(known[f"embedded:{space.name}"]).as_py() or 0,
                "index": "exact scan, always fresh",
            }
            for space in store.spaces.values()
        ],
        "failures": store.failures().to_pylist(),
    }
    if where is not None:
        facts["matching"] = store.count(where)
    return facts


def self_test(collection: Collection, sample: int = 32) -> tuple[int, list[str]]:
    """Search some images by their own vectors; see :meth:`Collection.self_test`."""
    store = collection.store
    store.refresh()
    lost: list[str] = []
    ids = store.ids()
    tried = ids[np.unique(np.linspace(0, len(ids) - 1, min(sample, len(ids))).astype(int))]
    records = {record.image_id: record.uri for record in store.records(tried)} if len(tried) else {}
    for name in store.spaces:
        for image_id in tried.tolist():
            vector = store.vectors_of(name, [image_id])
            vector = vector / np.linalg.norm(vector)
            best = float(collection.neighbors(vector, name, k=1).scores[0, 0])
            # A byte-identical twin may share the first place; a better score may not.
            if not abs(best - 1.0) <= _TIE:
                lost.append(records[image_id])
    return len(tried), lost
