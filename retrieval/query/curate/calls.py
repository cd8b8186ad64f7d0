"""The shape of a collection: what people call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders import TextEncoder
from retrieval.errors import EncoderError, ModalityError, QueryError, SpaceMismatch
from retrieval.query.curate import layout
from retrieval.query.curate.closeness import NEIGHBORS, closeness
from retrieval.query.curate.clusters import (
    clustered,
    named_by_labels,
    named_by_words,
    usual_number,
)
from retrieval.query.curate.layout import MapMethod
from retrieval.query.curate.pixels import write_quality
from retrieval.query.curate.report import ShapeReport, report
from retrieval.query.curate.subset import Method, pick
from retrieval.query.indexed import Indexed
from retrieval.query.spaces import choose_space
from retrieval.query.terms import Term
from retrieval.store import Store
from retrieval.store.made import Provenance
from retrieval.vectors.tiles import Tell

Measure = Literal["uniqueness", "quality", "clusters"]
_SEED = 0  # of the clusters


@dataclass(frozen=True, slots=True)
class Map:
    """Places of images on a plane.

    Attributes:
        space: whose vectors were laid out.
        method: ``umap`` or ``pca``.
        ids: int64 ``[n]``, the images.
        places: float64 ``[n, 2]`` in [-1, 1]: x to the right and y up.
    """

    space: str
    method: str
    ids: NDArray[np.int64]
    places: NDArray[np.float64]


class Curating(Indexed):
    """What a collection knows of its images as a whole."""

    def shape(
        self,
        only: Sequence[Measure] = (),
        *,
        clusters: int | None = None,
        words: str | os.PathLike[str] | None = None,
        space: str | None = None,
        tell: Tell | None = None,
    ) -> ShapeReport:
        """Measure all images and write what was found as columns that filters can use.

        ``uniqueness`` and ``representativeness`` (see
        :class:`retrieval.query.curate.closeness.Closeness`) depend on all images and are computed
        anew by every call. The quality columns (see :mod:`retrieval.query.curate.quality`) are only
        measured for images that are new or changed. ``cluster`` (1 is the largest) and
        ``cluster_name`` are made anew as well; the names are words, where there is a
        language-aligned space whose encoder loads, else the clusters' most frequent labels.

        Args:
            only: measures; all of them by default.
            clusters: how many; by default half the square root of the number of images, from 2 to
                50.
            words: file of words to name clusters by, one a line; by default about a thousand of
                everyday things and scenes.
            space: whose vectors tell what is alike; the first visual one by default.
            tell: called with what is done and all there is to do, for one measure after the other.

        Returns:
            The numbers in it.

        Raises:
            QueryError: if there is no such measure, or there are fewer images than clusters.
            UnknownSpace: if there is no such space.
            ModalityError: if there are ``words`` and no space that holds text.
            SourceError: if ``words`` cannot be read.
            CollectionError: if a column of that name is a person's own; nothing is written over.
        """
        for name in only:
            if name not in get_args(Measure):
                raise QueryError(f"no measure {name!r}; there are {', '.join(get_args(Measure))}")
        wanted = [name for name in get_args(Measure) if name in only or not only]
        store, chosen, measured = self.store.again(), None, {}
        if wanted != ["quality"]:
            chosen = self._space(space).name
        if "uniqueness" in wanted:
            assert chosen is not None
            measured["uniqueness"] = self._write_closeness(store, chosen, tell)
        if "quality" in wanted:
            measured["quality"] = write_quality(store, tell)
        if "clusters" in wanted:
            assert chosen is not None
            measured["clusters"] = self._write_clusters(store, chosen, clusters, words, tell)
        self._see()
        return report(store, chosen, measured)

    def subset(
        self,
        n: int,
        *,
        method: Method = "farthest",
        per: str | None = None,
        where: str | None = None,
        space: str | None = None,
        seed: int = 0,
        column: str | None = None,
        tell: Tell | None = None,
    ) -> NDArray[np.int64]:
        """Pick a few images that are unlike each other, or that stand for all.

        All vectors that are picked from are held in memory.

        Args:
            n: how many.
            method: ``farthest`` takes the image least like all picks, again and again, and so finds
                the odd ones; ``coverage`` takes those to which all others are most alike.
            per: a column; as many of each of its values, as far as there are. What cannot be
                shared equally goes to the most frequent values. Images without a value are not
                picked.
            where: filter expression; only of these images.
            space: whose vectors tell what is alike; the first visual one by default.
            seed: decides the first pick of ``farthest``; ``coverage`` leaves nothing to chance.
            column: name of a bool column to write: true for the picks, false for all others.
            tell: called with what is done and all there is to do.

        Returns:
            int64 ``[n]``: ids in the order they were picked; the first few of them are a smaller
            subset.

        Raises:
            QueryError: if there are fewer than ``n`` images to pick from, or no such method or
                column.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            CollectionError: if ``column`` is a person's own; nothing is written over.
        """
        import pyarrow as pa

        if column is not None:
            self.store.made.check(pa.schema([(column, pa.bool_())]))
        chosen = self._space(space).name
        vectors, store = self.vectors(chosen), self.store.again()
        picks = pick(store, vectors, n, method, per, where, seed, tell)
        if column is not None:
            given = {"n": n, "method": method, "per": per, "where": where, "seed": seed}
            ids = store.ids()
            rows = pa.table({"image_id": ids, column: np.isin(ids, picks)})
            store.made.write(rows, Provenance("subset", chosen, given, vectors.version))
            self._see()
        return picks

    def map(
        self,
        method: MapMethod = "auto",
        *,
        space: str | None = None,
        seed: int = 0,
        tell: Tell | None = None,
    ) -> Map:
        """Lay all images out on a plane, like near like, and write the places as columns.

        The columns are ``map_x`` and ``map_y``, in [-1, 1].

        Args:
            method: ``umap`` (needs the extra ``map``) keeps neighbours together, ``pca`` shows the
                two directions in which the images differ most; ``auto`` takes UMAP where it is
                installed and there are at least 30 images.
            space: whose vectors tell what is alike; the first visual one by default.
            seed: of UMAP.
            tell: called with what is done and all there is to do, while neighbours are looked for.

        Returns:
            The places.

        Raises:
            QueryError: if there is no such method.
            InstallError: if UMAP is asked for and is not installed.
            UnknownSpace: if there is no such space.
            CollectionError: if a column of that name is a person's own; nothing is written over.
        """
        import pyarrow as pa

        names = ("map_x", "map_y")
        name, store = self._space(space).name, self.store.again()
        store.made.check(pa.schema([(column, pa.float64()) for column in names]))
        vectors = self.vectors(name)
        drawn = layout.chosen(method, vectors.shape[0])
        raw = layout.umap(vectors, seed, tell) if drawn == "umap" else layout.pca(vectors)
        places = layout.scaled(raw)
        rows = pa.table([vectors.ids, *places.T], names=["image_id", *names])
        given = {"method": drawn, "seed": seed} if drawn == "umap" else {"method": drawn}
        store.made.write(rows, Provenance("map", name, given, vectors.version))
        self._see()
        return Map(name, drawn, vectors.ids, places)

    def _see(self) -> None:
        with self._lock:
            self.store.refresh()

    def _write_closeness(self, store: Store, space: str, tell: Tell | None) -> int:
        import pyarrow as pa

        names = ("uniqueness", "representativeness")
        store.made.check(pa.schema([(name, pa.float64()) for name in names]))
        vectors = self.vectors(space)
        found = [pa.array(values, from_pandas=True) for values in closeness(vectors, tell)]
        rows = pa.table([pa.array(vectors.ids), *found], names=["image_id", *names])
        given = {"neighbors": NEIGHBORS}
        store.made.write(rows, Provenance("uniqueness", space, given, vectors.version))
        return len(rows)

    def _write_clusters(
        self,
        store: Store,
        space: str,
        k: int | None,
        words: str | os.PathLike[str] | None,
        tell: Tell | None,
    ) -> int:
        import pyarrow as pa

        fields = [("cluster", pa.int64()), ("cluster_name", pa.string())]
        store.made.check(pa.schema(fields))
        vectors = self.vectors(space)
        n = vectors.shape[0]
        k = usual_number(n) if k is None else k
        own = clustered(vectors, k, _SEED) if n or k else np.empty(0, np.int64)
        named, by = self._names(store, vectors.ids, own, words) if n else ([], "")
        texts = [named[number] for number in own.tolist()]
        columns = [pa.array(vectors.ids), pa.array(own + 1), pa.array(texts, pa.string())]
        rows = pa.table(columns, names=["image_id", "cluster", "cluster_name"])
        given = {"clusters": k, "seed": _SEED, "names": by}
        store.made.write(rows, Provenance("clusters", space, given, vectors.version))
        if tell is not None:
            tell(n, n)
        return n

    def _names(
        self,
        store: Store,
        ids: NDArray[np.int64],
        own: NDArray[np.int64],
        words: str | os.PathLike[str] | None,
    ) -> tuple[list[str | None], str]:
        """Names of the clusters, and what they come from."""
        path = None if words is None else Path(words)
        try:
            texts = choose_space(self.spaces, [Term(text="words")]).name
            encoder = self.encoder(texts)
            assert isinstance(encoder, TextEncoder)
            found = named_by_words(self.vectors(texts), ids, own, encoder, path)
            return found, f"{path.name if path else 'words'} in {texts}"
        except (ModalityError, EncoderError, SpaceMismatch):
            if words is not None:
                raise
        return named_by_labels(store, ids, own), "labels"
