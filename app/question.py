"""One search as data, so that a warm server can answer it as well as this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from retrieval import Collection, Hits


class Question(TypedDict):
    """What `retrieval search` asks; paths are absolute."""

    collection: str
    text: str | None
    images: list[str]
    image_id: int | None
    negative: list[str]
    where: str | None
    k: int
    space: str | None
    index: str | None
    diversity: float
    rerank: str | None
    feedback: int


def absolute(collection: str) -> str:
    """The path of a local collection from the root; a URI, or nothing, stays as it is."""
    if not collection or "://" in collection:
        return collection
    return os.path.abspath(os.path.expanduser(collection))


def answer(collection: Collection, question: Question) -> Hits:
    """Search ``collection``; raises as :meth:`retrieval.Collection.search` does."""
    from retrieval import Ranking, Term

    return collection.search(
        question["text"],
        image_id=question["image_id"],
        terms=[Term(image=path) for path in question["images"]],
        negative=question["negative"],
        where=question["where"],
        k=question["k"],
        space=question["space"],
        index=question["index"],
        ranking=Ranking(
            diversity=question["diversity"],
            rerank=question["rerank"],
            feedback=question["feedback"],
        ),
    )
