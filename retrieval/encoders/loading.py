"""Loading an encoder by whatever name people give it."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.encoders.base import Encoder, EncoderSpec
from retrieval.encoders.catalogue import specs
from retrieval.encoders.checkpoints import Checkpoint, open_folder
from retrieval.encoders.names import Asked, parse
from retrieval.errors import EncoderError, UnknownEncoder

if TYPE_CHECKING:
    from retrieval.encoders.own import OwnImages


def load(name: str, *, device: str | None = None) -> Encoder:
    """Load an encoder.

    Args:
        name: a name of :func:`~retrieval.encoders.specs`; ``owner/name[@revision]`` of a hub
            repository; the path of a checkpoint folder, whose absolute path then is the encoder's
            name; each of these with ``:cls``, ``:mean``, ``:cls+mean`` or ``:gem`` behind it, if
            another pooling than its own is wanted; or ``module:Class`` of the user's own.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the first of these that is there.

    Returns:
        The encoder; a :class:`~retrieval.encoders.base.TextEncoder` where it has a text side.

    Raises:
        UnknownEncoder: if ``name`` is none of these.
        EncoderUnavailable: if its packages or weights are not here and cannot be had.
        EncoderError: if its weights are damaged or not what they should be.
    """
    from retrieval.encoders import own, pocket
    from retrieval.encoders.build import torch_encoder

    asked = parse(name)
    if any(asked.name == own.name for own in pocket.SPECS):
        return pocket.load(name)
    if asked.kind == "class":
        return own.load(name)
    return torch_encoder(find(asked), device=device)


def resolve(encoder: str | Encoder | OwnImages) -> Encoder:
    """The encoder of that name, the object itself, or one with ``encode_images`` adapted.

    Raises as :func:`load` and :func:`~retrieval.encoders.own.adapt`.
    """
    from retrieval.encoders.own import adapt

    return load(encoder) if isinstance(encoder, str) else adapt(encoder)


def find(asked: Asked) -> Checkpoint:
    """The checkpoint of a name, downloaded if need be, with the name's facts.

    Raises:
        UnknownEncoder: if there is nothing of that name.
        EncoderUnavailable: if it cannot be had.
        EncoderError: if it is not what the name stands for.
    """
    from retrieval.encoders import hub

    if asked.kind == "folder":
        if not Path(asked.base).is_dir():
            raise UnknownEncoder(
                f"there is no checkpoint folder {asked.base}; `retrieval encoders` lists the "
                "encoders that have a name"
            )
        found = open_folder(Path(asked.base), asked.pooling)
        return replace(found, spec=replace(found.spec, name=asked.name))
    if asked.kind == "hub":
        folder = hub.fetch(asked.base, asked.revision or "main")
        found = open_folder(folder, asked.pooling)
        facts = replace(
            found.spec, name=asked.name, source=asked.base, revision=asked.revision or "main"
        )
        return replace(found, spec=facts)
    known = specs().get(asked.base)
    if known is None:
        raise UnknownEncoder(_unknown(asked.base))
    found = open_folder(hub.fetch(known.source, known.revision), asked.pooling)
    return replace(found, spec=_with_facts(found.spec, known, asked))


def _with_facts(found: EncoderSpec, known: EncoderSpec, asked: Asked) -> EncoderSpec:
    """What the checkpoint says of its network, with what the catalogue says of the encoder."""
    if found.family != known.family or (asked.pooling is None and found.dim != known.dim):
        raise EncoderError(
            f"{known.source} holds {found.family} of {found.dim} dimensions, not the "
            f"{known.family} of {known.dim} that {known.name!r} stands for"
        )
    own = asked.pooling is None
    return replace(
        known,
        name=asked.name,
        dim=found.dim,
        preprocess=found.preprocess,
        pooling=known.pooling if own else found.pooling,
        patch_px=found.patch_px,
    )


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, specs(), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"there is no encoder {name!r}{hint} `retrieval encoders` lists them; a hub repository "
        "(owner/name) or the path of a checkpoint folder works too"
    )
