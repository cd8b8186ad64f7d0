"""The store: a collection's durable truth in LanceDB, and the filters that select from it."""

from retrieval.store.filters import compile_filter
from retrieval.store.opening import check_spaces
from retrieval.store.schema import check_columns
from retrieval.store.store import Store

__all__ = ["Store", "check_columns", "check_spaces", "compile_filter"]
