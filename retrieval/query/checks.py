"""Facts about a collection, and the test that its images find themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.base import unit_rows

if TYPE_CHECKING:
    from retrieval.query.collection import Collection
    from retrieval.store import Store

_TIE = 1e-5
_INDEX_FACTS = ("kind", "rows", "behind", "version", "created_at", "effort", "measured")


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
        "made": _made(store),
        "spaces": [
            {
                "name": space.name,
                "encoder": space.encoder,
                "base": space.base,
                "dim": space.dim,
                "dtype": space.dtype,
                "modalities": list(space.modalities),
                "weights_hash": space.weights_hash,
                "preprocess_hash": space.preprocess_hash,
                "pooling": space.pooling,
                "runtimes": space.runtime.split(", "),
                "vectors": pc.sum(known[f"embedded:{space.name}"]).as_py() or 0,
                "indexes": [
                    {name: facts[name] for name in _INDEX_FACTS if name in facts}
                    for facts in collection.indexes(space.name)
                ],
            }
            for space in store.spaces.values()
        ],
        "failures": store.failures().to_pylist(),
    }
    if where is not None:
        facts["matching"] = store.count(where)
    return facts


def _made(store: Store) -> list[dict[str, Any]]:
    """Where the made columns come from, and how many images are newer than their values."""
    outdated = store.made.outdated()
    return [
        {"name": name, **asdict(made), "outdated": outdated[name]}
        for name, made in sorted(store.made.columns().items())
    ]


def self_test(collection: Collection, sample: int = 32) -> tuple[int, list[str]]:
    """Search some images by their own vectors; see :meth:`Collection.self_test`."""
    store = collection.store
    store.refresh()
    known = store.known()
    tried: set[int] = set()
    lost: list[int] = []
    for name in store.spaces:
        ids = np.sort(known.filter(known[f"embedded:{name}"])["image_id"].to_numpy())
        if len(ids) == 0:
            continue
        ids = ids[np.unique(np.linspace(0, len(ids) - 1, min(sample, len(ids))).astype(int))]
        vectors = unit_rows(store.vectors_of(name, ids))
        best = collection.neighbors(vectors, name, k=1).scores[:, 0]
        tried.update(ids.tolist())
        # A byte-identical twin may share the first place; a better score may not.
        lost += ids[~(np.abs(best - 1.0) <= _TIE)].tolist()
    return len(tried), [record.uri for record in store.records(lost)]
