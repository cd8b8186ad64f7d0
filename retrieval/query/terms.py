"""What a query is made of: weighted terms, and how they become one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders import Encoder, TextEncoder
from retrieval.errors import ModalityError, QueryError
from retrieval.images import ImageInput, load
from retrieval.store import Store
from retrieval.types import Space

NEGATIVE_WEIGHT = -0.5
"""Weight of a negative given without one. At -1 the part that all texts of a language-aligned
space share cancels out, and what is left is mostly noise."""


_LARGEST = 1e150  # beyond it the square in a norm overflows


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query: exactly one of text, image, image_id and vector, with a weight.

    Attributes:
        text: plain words.
        image: path, bytes, PIL picture or array ``[h, w]``, ``[h, w, 3]`` or ``[h, w, 4]``.
        image_id: an image of the collection.
        vector: ``[dim]`` in the space that is searched; need not be of unit length.
        weight: share of this term in the sum; negative pushes away from it.
    """

    text: str | None = None
    image: ImageInput | None = None
    image_id: int | None = None
    vector: NDArray[np.floating] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a term that says nothing, two things, or has no usable weight."""
        given = [
            name
            for name in ("text", "image", "image_id", "vector")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            said = " and ".join(given) or "nothing"
            raise QueryError(f"a term is one of text, image, image_id and vector; it has {said}")
        if not np.isfinite(self.weight) or self.weight == 0:
            raise QueryError(f"a term's weight is a finite number other than 0, not {self.weight}")
        if self.text is not None and not isinstance(self.text, str):
            raise QueryError(f"the query text is a string, not {type(self.text).__name__}")
        if self.text is not None and not self.text.strip():
            raise QueryError("the query text is empty")

    @property
    def is_text(self) -> bool:
        """Whether the term needs a language-aligned space."""
        return self.text is not None


def gather(
    text: str | None,
    image: ImageInput | None,
    image_id: int | None,
    vector: NDArray[np.floating] | None,
    negative: Sequence[str | Term],
    terms: Sequence[Term],
) -> list[Term]:
    """The terms of a query as people write it; see :meth:`Collection.search`.

    Raises:
        QueryError: if nothing is asked.
    """
    named = ("text", text), ("image", image), ("image_id", image_id), ("vector", vector)
    out = [Term(**{name: value}) for name, value in named if value is not None]  # type: ignore[arg-type]
    if isinstance(negative, str) or isinstance(terms, Term):
        raise QueryError("negative and terms are lists: negative=['leather']")
    out += terms
    out += [t if isinstance(t, Term) else Term(t, weight=NEGATIVE_WEIGHT) for t in negative]
    if not out:
        raise QueryError("the query is empty: give words, an image, an id or a vector")
    return out


def compose(
    terms: Sequence[Term],
    space: Space,
    encoder: Encoder | None,
    store: Store,
    templates: Sequence[str] = (),
) -> NDArray[np.float32]:
    """The unit vector ``[1, dim]`` of a query: the weighted sum of its terms' unit vectors.

    Args:
        terms: at least one.
        space: the space that is searched.
        encoder: the space's encoder; needed only for text and images.
        store: where stored vectors of ``image_id`` terms are.
        templates: phrases with ``{}``, in which texts are encoded; none for texts as they are.

    Raises:
        QueryError: if a template has no place for the words, the terms cancel out, or a vector does
            not fit the space.
        ModalityError: if there is text and the space has no text side.
    """
    total = np.zeros(space.dim, dtype=np.float64)
    for term in terms:
        total += term.weight * _unit(_vector(term, space, encoder, store, templates))
    norm = float(np.linalg.norm(total))
    if norm < 1e-6:
        raise QueryError("the positive and negative parts of the query cancel each other out")
    return np.asarray(total / norm, dtype=np.float32)[None, :]


def _vector(
    term: Term, space: Space, encoder: Encoder | None, store: Store, templates: Sequence[str]
) -> NDArray[Any]:
    if term.vector is not None:
        return _checked(term.vector, space)
    if term.image_id is not None:
        return np.asarray(store.vectors_of(space.name, [term.image_id])[0])
    if encoder is None:
        raise QueryError(f"space {space.name!r} needs its encoder for text and images")
    if term.image is not None:
        picture = load(term.image, max_pixels=settings.load().max_pixels)
        return np.asarray(encoder.encode_images([picture])[0])
    if not isinstance(encoder, TextEncoder):
        raise ModalityError(f"space {space.name!r} holds no text: search a language-aligned space")
    return np.asarray(encoder.encode_texts(_phrases(str(term.text), templates)).mean(axis=0))


def _phrases(text: str, templates: Sequence[str]) -> list[str]:
    if isinstance(templates, str):
        raise QueryError(f"templates is a list: [{templates!r}]")
    for template in templates:
        if "{}" not in template:
            raise QueryError(f"the template {template!r} has no {{}} for the words")
    return [template.replace("{}", text) for template in templates] or [text]


def _checked(given: NDArray[Any], space: Space) -> NDArray[Any]:
    try:
        vector = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"the query vector is not an array of numbers: {error}") from error
    if vector.shape != (space.dim,):
        raise QueryError(
            f"the query vector has shape {list(vector.shape)}, "
            f"but space {space.name!r} holds vectors of dim {space.dim}"
        )
    if not np.all(np.abs(vector) < _LARGEST):
        raise QueryError("the query vector holds values that are not finite numbers")
    return vector


def _unit(vector: NDArray[Any]) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(vector))
    if norm == 0:
        raise QueryError("the query vector is zero and has no direction")
    return np.asarray(vector, dtype=np.float64) / norm
