"""What two collections must agree in."""

from __future__ import annotations

from retrieval.store import Store


def columns_of(store: Store) -> list[str]:
    """All columns of images but the time of ingestion."""
    plain = [name for name in store.columns().names if name != "ingested_at"]
    return [*plain, "thumbnail", *(store.vector_column(name) for name in store.spaces)]
