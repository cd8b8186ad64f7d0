"""Student against teacher on what was held out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexers.distill.agreement import Figures, images_agree, labels_agree, words_agree
from indexers.distill.material import Material
from indexers.distill.photos import Shelf, Tell, in_parallel
from retrieval.encoders import Encoder, TextEncoder
from retrieval.types import Embeddings

_MOST_UNSEEN, _MOST_KNOWN, _CHUNK = 2_000, 10_000, 16


class Assessment:
    """Embeddings of student and teacher side by side, and the figures that come of them.

    Attributes:
        unseen: held-out photos that are compared, as indices.
    """

    def __init__(
        self, student: Encoder, material: Material, shelf: Shelf, seed: int, tell: Tell
    ) -> None:
        """Have the student embed held-out photos, and some of the others that have labels."""
        self._material, self._student = material, student
        photos, usable = material.photos, [int(at) for at in np.flatnonzero(shelf.usable())]
        self.unseen = _some([at for at in usable if photos[at].held_out], _MOST_UNSEEN, seed)
        known = [at for at in usable if photos[at].label and not photos[at].held_out]
        self._known = _some(known, _MOST_KNOWN, seed)
        asked = [*self.unseen, *self._known]
        self._teacher = dict(zip(asked, shelf.targets[0, asked], strict=True))
        self._mine = dict(zip(asked, self._embed(asked, tell), strict=True))

    def images(self) -> Figures:
        """See :func:`~indexers.distill.agreement.images_agree`."""
        return images_agree(*self._both(self.unseen))

    def labels(self) -> Figures | None:
        """See :func:`~indexers.distill.agreement.labels_agree`; None where labels are missing."""
        photos = self._material.photos
        unseen = [at for at in self.unseen if photos[at].label]
        if not unseen or not self._known:
            return None
        return labels_agree(
            self._both(self._known),
            [str(photos[at].label) for at in self._known],
            self._both(unseen),
            [str(photos[at].label) for at in unseen],
        )

    def texts(self, teacher: Embeddings | None) -> Figures | None:
        """See :func:`~indexers.distill.agreement.words_agree`; None without a text side.

        Args:
            teacher: the teacher's embeddings of the unseen texts.
        """
        if teacher is None or not isinstance(self._student, TextEncoder):
            return None
        unseen = self._material.unseen
        row_of = {at: row for row, at in enumerate(self.unseen)}
        mine = self._student.encode_texts([each.text for each in unseen])
        photo_of = [None if each.photo is None else row_of.get(each.photo) for each in unseen]
        return words_agree((mine, teacher), self._both(self.unseen), photo_of)

    def _both(self, photos: Sequence[int]) -> tuple[Embeddings, Embeddings]:
        mine, theirs = ([side[at] for at in photos] for side in (self._mine, self._teacher))
        return np.stack(mine), np.stack(theirs)

    def _embed(self, photos: Sequence[int], tell: Tell) -> NDArray[np.float32]:
        out = np.empty((len(photos), self._student.spec.dim), dtype=np.float32)

        def work(chunk: Sequence[int]) -> None:
            pictures = [self._material.photos[photos[at]].picture() for at in chunk]
            out[list(chunk)] = self._student.encode_images(pictures)

        in_parallel(range(len(photos)), _CHUNK, work, len(photos), tell=tell)
        return out


def _some(photos: Sequence[int], most: int, seed: int) -> list[int]:
    """At most so many of ``photos``, in their order."""
    if len(photos) <= most:
        return list(photos)
    return sorted(random.Random(seed).sample(photos, most))
