"""The store: a collection's durable truth in LanceDB, and the filters that select from it."""

from retrieval.store.filters import compile_filter
from retrieval.store.store import Store

__all__ = ["Store", "compile_filter"]
