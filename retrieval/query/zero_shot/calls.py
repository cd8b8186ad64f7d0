"""Zero-shot classification: what people call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval.encoders import TextEncoder
from retrieval.errors import QueryError
from retrieval.images import ImageInput
from retrieval.query.indexed import Indexed
from retrieval.query.spaces import choose_space
from retrieval.query.terms import Term
from retrieval.query.zero_shot.classifier import ZeroShotClassifier
from retrieval.query.zero_shot.found import ZeroShotResult
from retrieval.query.zero_shot.naming import NEIGHBORS, of_new, of_stored, vectors_of
from retrieval.query.zero_shot.rows import common
from retrieval.query.zero_shot.templates import Templates
from retrieval.store import Store
from retrieval.store.made import Provenance
from retrieval.vectors.tiles import Tell

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("zero_shot", "zero_shot_confidence")


class ZeroShotNaming(Indexed):
    """What words say of a collection's images, and of new ones."""

    def zero_shot(
        self,
        labels: Sequence[str],
        *,
        images: Sequence[ImageInput | int] | None = None,
        where: str | None = None,
        templates: Templates | None = None,
        space: str | None = None,
        multi_label: bool = False,
        apply: bool = False,
        tell: Tell | None = None,
    ) -> ZeroShotResult:
        """Name pictures by labels that are given in words, beside what looks like them.

        Args:
            labels: what a picture may be.
            images: new pictures, or ids of stored images; None for all stored images, which also
                finds where words and eyes disagree.
            where: filter expression; of the stored images only these are named, or neighbours.
            templates: ``plain``, ``imagenet-7``, ``imagenet-80``, a file of one a line, or a list;
                by default the bare label and the encoder's own prompt.
            space: whose encoder reads the labels; the first language-aligned one by default.
            multi_label: whether several labels, or none, may fit one picture.
            apply: write the columns ``zero_shot`` (null where no label fits; several are separated
                by ``; ``) and ``zero_shot_confidence``.
            tell: called with the number of stored images that are done, and n.

        Returns:
            Predictions with their three nearest images, and the disagreements.

        Raises:
            QueryError: if the labels or templates make no sense, an id is unknown, there is no
                image, a vector is not finite, or ``apply`` goes with ``images``.
            ModalityError: if no space holds text, or ``space`` does not.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            ImageError: if a picture cannot be read.
            CollectionError: if a column of that name is a person's own; nothing is written over.
        """
        import pyarrow as pa

        if apply and images is not None:
            raise QueryError("apply writes columns of all stored images: leave images out")
        with self._lock:
            self.store.refresh()
            text = choose_space(self.spaces, [Term(text="words")], space).name
            visual = choose_space(self.spaces, ()).name
        store, encoder = self.store.again(), self.encoder(text)
        assert isinstance(encoder, TextEncoder)
        if apply:
            store.made.check(
                pa.schema(list(zip(COLUMNS, (pa.string(), pa.float64()), strict=True)))
            )
        classifier = ZeroShotClassifier(
            labels, encoder=encoder, templates=templates, multi_label=multi_label
        )
        if images is not None:
            return self._of_pictures(store, classifier, images, where, text, visual)
        found = self._of_stored(store, classifier, where, text, visual, tell)
        if apply:
            given = {
                "labels": list(found.classes), "templates": classifier.templates_name,
                "scale": found.scale, "bias": found.bias, "multi_label": multi_label,
                "where": where,
            }  # fmt: skip
            store.made.write(_columns(found), Provenance("zero-shot", text, given, found.version))
            with self._lock:
                self.store.refresh()
        return found

    def _of_stored(
        self,
        store: Store,
        classifier: ZeroShotClassifier,
        where: str | None,
        text: str,
        visual: str,
        tell: Tell | None,
    ) -> ZeroShotResult:
        """Name all stored images that the filter lets through."""
        ids = store.ids(where)
        if not len(ids):
            why = "fits the filter" if where else "there yet: index a folder first"
            raise QueryError(f"no image {why}")
        words, eyes = common(ids, self.vectors(text), self.vectors(visual))
        if not len(words.ids):
            raise QueryError(f"no image has a vector in {text} and in {visual} yet: index again")
        return of_stored(store, classifier, words, eyes, (text, visual), tell)

    def _of_pictures(
        self,
        store: Store,
        classifier: ZeroShotClassifier,
        images: Sequence[ImageInput | int],
        where: str | None,
        text: str,
        visual: str,
    ) -> ZeroShotResult:
        """Name pictures one by one beside their nearest stored images."""
        encoders = {space: self.encoder(space) for space in (text, visual)}
        vectors = vectors_of(store, images, encoders)
        near = self.neighbors(vectors[visual], visual, k=NEIGHBORS + 1, where=where)
        return of_new(store, classifier, images, vectors[text], near, (text, visual))


def _columns(found: ZeroShotResult) -> pa.Table:
    import pyarrow as pa

    names = [None if each.abstained else "; ".join(each.labels) for each in found]
    columns = [
        pa.array([each.image_id for each in found], pa.int64()),
        pa.array(names, pa.string()),
        pa.array([each.confidence for each in found], pa.float64()),
    ]
    return pa.table(columns, names=["image_id", *COLUMNS])
