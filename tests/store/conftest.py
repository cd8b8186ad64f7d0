"""Small stores and rows for the store's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.store import Store
from retrieval.types import Space

MakeSpace = Callable[..., Space]
MakeRows = Callable[..., pa.Table]


@pytest.fixture
def space() -> MakeSpace:
    def make(name: str = "visual", dim: int = 8, **changes) -> Space:
        facts = {"weights_hash": "w" * 32, "preprocess_hash": "p" * 16, "pooling": "mean"}
        facts |= {"encoder": name, "modalities": ("image",)} | changes
        return Space(name=name, dim=dim, **facts)

    return make


@pytest.fixture
def rows() -> MakeRows:
    def make(ids: Sequence[int], *, dims: dict[str, int] | None = None, **columns) -> pa.Table:
        rng = np.random.default_rng(list(ids))
        made = {
            "image_id": pa.array(ids, pa.int64()),
            "uri": [f"/photos/{i}.jpg" for i in ids],
            "content_hash": [f"{i:032x}" for i in ids],
            "size_bytes": [1000 + i for i in ids],
        }
        for name, dim in ({"visual": 8} if dims is None else dims).items():
            values = rng.normal(size=len(ids) * dim).astype(np.float32)
            made[f"vector_{name}"] = pa.FixedSizeListArray.from_arrays(pa.array(values), dim)
        return pa.table(made | columns)

    return make


@pytest.fixture
def store(tmp_path: Path, space: MakeSpace) -> Store:
    return Store.create(tmp_path / "c.lance", [space()])
