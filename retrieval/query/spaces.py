"""Which space answers, and the encoder that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from retrieval.encoders import Encoder, space_of
from retrieval.errors import ModalityError, SpaceMismatch, UnknownSpace
from retrieval.query.terms import Term
from retrieval.types import Space


def choose_space(
    spaces: Mapping[str, Space], terms: Sequence[Term], name: str | None = None
) -> Space:
    """The space a query is answered in: the named one, or the first that fits.

    Words need a language-aligned space; without words a purely visual one comes first. A derived
    space comes after those that an encoder fills.

    Raises:
        UnknownSpace: if there is no space of that name, or none at all.
        ModalityError: if there are words and no space that fits holds text.
    """
    if not spaces:
        raise UnknownSpace("the collection has no space yet: index a folder first")
    words = any(term.is_text for term in terms)
    ordered = sorted(spaces.values(), key=lambda space: space.base is not None)
    aligned = [space for space in ordered if "text" in space.modalities]
    if name is not None:
        if name not in spaces:
            raise UnknownSpace(f"there is no space {name!r}; the spaces are {', '.join(spaces)}")
        chosen = spaces[name]
        if words and chosen not in aligned:
            have = ", ".join(space.name for space in aligned) or "none of this collection"
            raise ModalityError(f"space {name!r} holds no text; spaces that do: {have}")
        return chosen
    if words:
        if not aligned:
            raise ModalityError(
                f"none of the spaces ({', '.join(spaces)}) holds text; add one that does, as with "
                "--encoder pocket-text"
            )
        return aligned[0]
    visual = [space for space in ordered if "text" not in space.modalities]
    return (visual or aligned)[0]


def encoder_of(space: Space, load: Callable[[str], Encoder]) -> Encoder:
    """Load the encoder that made ``space`` by its name and check that it is still the same.

    Raises:
        SpaceMismatch: if the encoder of that name has other weights, preprocessing or pooling now.
    """
    encoder = load(space.encoder)
    check_identity(space, encoder)
    return encoder


def check_identity(space: Space, encoder: Encoder) -> None:
    """Refuse an encoder whose vectors cannot be compared with those of ``space``.

    Raises:
        SpaceMismatch: naming both sides and the way out.
    """
    here = space_of(encoder)
    if here.identity == space.identity:
        return
    fields = ("encoder", "weights_hash", "preprocess_hash", "pooling", "dim")
    differ = "; ".join(
        f"{field} {getattr(space, field)!r} in the collection, {getattr(here, field)!r} here"
        for field in fields
        if getattr(space, field) != getattr(here, field)
    )
    raise SpaceMismatch(
        f"space {space.name!r} was made by another encoder: {differ}. Install the version that "
        "made it, or index the images into a new collection"
    )
