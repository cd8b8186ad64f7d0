"""Answers: everything that reads a collection."""

from retrieval.query.collection import Collection
from retrieval.query.opening import open_collection
from retrieval.query.ranking import Ranking
from retrieval.query.terms import Term

__all__ = ["Collection", "Ranking", "Term", "open_collection"]
