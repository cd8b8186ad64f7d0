"""Why an image matched: which of its places are like the query.

A map tells where a picture is similar to what was asked, as its encoder sees it. It is no proof of
cause: an embedding is more than the sum of its places, a place's token also knows of what is around
it, and a map has a strongest place even where nothing fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders import DenseEncoder, Encoder, Preprocess, specs
from retrieval.encoders.base import unit_rows
from retrieval.errors import EncoderError, QueryError
from retrieval.images import load
from retrieval.query.pictures import stored_picture
from retrieval.query.terms import Term, compose
from retrieval.store import Store
from retrieval.types import ImageRecord, Space

Heat = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class View:
    """A picture as it was looked at.

    Attributes:
        picture: RGB, upright.
        box: left, top, right and bottom of the part that the heat covers, in pixels of
            ``picture``; encoders cut off borders, and some pad, so that it reaches outside.
        note: why this is not the file as it was indexed; empty if it is.
    """

    picture: Image.Image
    box: tuple[float, float, float, float]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How similar the places of an image are to a query.

    Attributes:
        image: the image that is explained.
        score: its score for the query, as a search gives it.
        space: name of the space that answers.
        heat: float32 ``[rows, columns]`` in [-1, 1], one value a place, row by row from the top.
            In a space that holds text: the cosine of the place's token to the query's vector. In
            another space: the best cosine to any place of the query's picture; of several
            pictures the weighted mean. Each cosine is multiplied by the lengths of its tokens,
            the longest of a picture being 1, since a short one, as of plain sky, adds little to
            an embedding, whatever its direction (``benchmarks/explain.py`` shows the cost of
            cosines alone).
        view: the picture that ``heat`` lies on.
        query_heat: the same from the other side if the query is one picture: how similar its
            places are to the image. None for all other queries.
        query_view: the picture that ``query_heat`` lies on.
    """

    image: ImageRecord
    score: float
    space: str
    heat: Heat
    view: View
    query_heat: Heat | None = None
    query_view: View | None = None


def explain(
    store: Store,
    spaces: Mapping[str, Space],
    space: Space,
    encoder: Encoder,
    image_id: int,
    terms: Sequence[Term],
) -> Explanation:
    """Compare the places of an image with a query; see :meth:`Collection.explain`."""
    dense = _dense(encoder, space, spaces, words=any(term.is_text for term in terms))
    [record] = store.records([image_id])
    vector = compose(terms, space, encoder, store)[0]
    own = unit_rows(store.vectors_of(space.name, [image_id]))[0]
    view = _view(dense, *stored_picture(store, record))
    tokens = _tokens(dense, view)
    views = [_view_of(term, dense, store) for term in terms]
    others = [None if other is None else _tokens(dense, other) for other in views]
    if "text" in space.modalities:
        heat = _toward(tokens, vector)
    else:
        heat = _like(tokens, others, [term.weight for term in terms])
    made = Explanation(record, float(own @ vector), space.name, heat, view)
    if len(terms) > 1 or others[0] is None:
        return made
    back = _toward(others[0], own) if "text" in space.modalities else _best(others[0], tokens)
    return replace(made, query_heat=back, query_view=views[0])


def _toward(tokens: Heat, vector: NDArray[np.float32]) -> Heat:
    """How far each token ``[rows, columns, dim]`` goes in the direction of a unit vector."""
    return np.asarray(_shortened(tokens) @ vector, dtype=np.float32)


def _like(tokens: Heat, others: Sequence[Heat | None], weights: Sequence[float]) -> Heat:
    """The weighted mean of the best matches with each picture."""
    total = np.zeros(tokens.shape[:2], dtype=np.float32)
    for other, weight in zip(others, weights, strict=True):
        if other is None:
            raise QueryError(
                "a bare vector has no places to compare with: explain by a picture, or in a space "
                "that holds text"
            )
        total += np.float32(weight) * _best(tokens, other)
    return total / np.float32(np.abs(weights).sum())


def _best(tokens: Heat, other: Heat) -> Heat:
    """Each token with that of another picture that it agrees with most."""
    flat = _shortened(other).reshape(-1, other.shape[-1])
    return np.asarray((_shortened(tokens) @ flat.T).max(axis=-1), dtype=np.float32)


def _shortened(tokens: Heat) -> Heat:
    """The tokens of a picture, scaled alike so that the longest has length 1."""
    longest = float(np.linalg.norm(tokens, axis=-1).max())
    return np.asarray(tokens / np.float32(max(longest, 1e-12)), dtype=np.float32)


def _dense(
    encoder: Encoder, space: Space, spaces: Mapping[str, Space], *, words: bool
) -> DenseEncoder:
    """The encoder, if it tells what is where; else an error that names some that do."""
    if encoder.spec.patch_px is not None and isinstance(encoder, DenseEncoder):
        return encoder
    able = {
        name: spec
        for name, spec in specs().items()
        if spec.patch_px is not None and (not words or "text" in spec.modalities)
    }
    here = [
        name
        for name, other in spaces.items()
        if other.base is None and other.encoder.partition(":")[0] in able
    ]
    way_out = (
        f"explain in the space {' or '.join(here)}"
        if here
        else f"index with an encoder that does, as {' or '.join(list(able)[:3])}"
    )
    raise EncoderError(f"{encoder.spec.name} does not tell what is where in a picture; {way_out}")


def _view_of(term: Term, encoder: DenseEncoder, store: Store) -> View | None:
    """The picture of a term; None where it has none."""
    if term.image is not None:
        return _view(encoder, load(term.image, max_pixels=settings.load().max_pixels))
    if term.image_id is not None:
        return _view(encoder, *stored_picture(store, store.records([term.image_id])[0]))
    return None


def _view(encoder: DenseEncoder, picture: Image.Image, note: str = "") -> View:
    """The picture with the box that the encoder looks at."""
    width, height = picture.size
    wide, high = float(width), float(height)
    preprocess = encoder.spec.preprocess
    if isinstance(preprocess, Preprocess):  # all others look at the whole
        if preprocess.resize != "squash":
            wide = high = min(wide, high) if preprocess.resize == "shortest" else max(wide, high)
        wide *= preprocess.size / preprocess.resize_to
        high *= preprocess.size / preprocess.resize_to
    left, top = (width - wide) / 2, (height - high) / 2
    return View(picture, (left, top, left + wide, top + high), note)


def _tokens(encoder: DenseEncoder, view: View) -> Heat:
    return encoder.encode_patches([view.picture]).grid(0)
