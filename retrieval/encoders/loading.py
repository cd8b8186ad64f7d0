"""Loading an encoder by whatever name people give it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import settings
from retrieval.encoders.base import Encoder, EncoderSpec
from retrieval.encoders.catalogue import specs
from retrieval.encoders.checkpoints import Checkpoint, Portable, open_folder
from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.checkpoints.portable import read_portable
from retrieval.encoders.names import Asked, parse
from retrieval.encoders.runtimes.plan import parse as parse_plan
from retrieval.errors import EncoderError, UnknownEncoder

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.encoders.own import OwnImages


def load(
    name: str,
    *,
    precision: str = "fp32",
    device: str | None = None,
    sample: Callable[[], Sequence[Image.Image]] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Encoder:
    """Load an encoder.

    Args:
        name: a name of :func:`~retrieval.encoders.specs`; ``owner/name[@revision]`` of a hub
            repository; the path of a checkpoint folder, whose absolute path then is the encoder's
            name; each of these with ``:cls``, ``:mean``, ``:cls+mean`` or ``:gem`` behind it, if
            another pooling than its own is wanted; or ``module:Class`` of the user's own.
        precision: ``fp32``; ``bf16``, ``fp16`` (torch); ``int8`` (ONNX Runtime); a runtime and its
            precision, as ``openvino-bf16``; or ``auto``: the fastest here that changes
            similarities between the pictures of ``sample`` by at most 0.005. Texts are always
            encoded in fp32; the pocket encoders and one's own run in one way only.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the first of these that is there.
        sample: gives some pictures of the kind that will be encoded; called only if needed.
        tell: called with a line about what ``auto`` tries and chooses.

    Returns:
        The encoder; a :class:`~retrieval.encoders.base.TextEncoder` where it has a text side.

    Raises:
        UnknownEncoder: if ``name`` is none of these.
        EncoderUnavailable: if its packages or weights are not here and cannot be had.
        EncoderError: if its weights are damaged or not what they should be.
    """
    from retrieval.encoders import own, pocket

    asked = parse(name)
    if asked.kind == "name" and asked.name in [spec.name for spec in pocket.SPECS]:
        return _in_one_way(pocket.load(name), precision, tell)
    if asked.kind == "class":
        return _in_one_way(own.load(name), precision, tell)
    from retrieval.encoders.build import build
    from retrieval.encoders.precision import fastest

    plan = None if precision == "auto" else parse_plan(precision)
    checkpoint = find(asked)
    looks = plan is None or plan.precision == "int8"
    pictures = sample() if sample is not None and looks else ()
    if plan is not None:
        return build(checkpoint, plan, device, pictures)
    encoder, choice = fastest(checkpoint, pictures, device=device, tell=tell)
    if tell:
        tell(f"{name} runs as {choice}")
    return encoder


def _in_one_way(encoder: Encoder, precision: str, tell: Callable[[str], None] | None) -> Encoder:
    """The encoder, which has no other way to run than its own."""
    if precision not in ("fp32", "auto"):
        parse_plan(precision)  # what is no precision at all is still an error
        if tell:
            tell(f"{encoder.spec.name} runs in one way only: {encoder.runtime}")
    return encoder


def resolve(encoder: str | Encoder | OwnImages) -> Encoder:
    """The encoder of that name, the object itself, or one with ``encode_images`` adapted.

    Raises as :func:`load` and :func:`~retrieval.encoders.own.adapt`.
    """
    from retrieval.encoders.own import adapt

    return load(encoder) if isinstance(encoder, str) else adapt(encoder)


def find(asked: Asked) -> Checkpoint | Portable:
    """The checkpoint of a name, downloaded if need be, with the name's facts.

    Raises:
        UnknownEncoder: if there is nothing of that name.
        EncoderUnavailable: if it cannot be had.
        EncoderError: if it is not what the name stands for.
    """
    from retrieval.encoders import hub, pocket
    from retrieval.encoders.checkpoints.packages import missing

    if asked.kind == "folder":
        if not Path(asked.base).exists():
            raise UnknownEncoder(
                f"there is no checkpoint folder {asked.base}; `retrieval encoders` lists the "
                "encoders that have a name"
            )
        found = open_folder(Path(asked.base), asked.pooling)
        return replace(found, spec=replace(found.spec, name=asked.name))
    known = specs().get(asked.base)
    if asked.kind == "name" and known is None:
        raise UnknownEncoder(_unknown(asked.base))
    if asked.kind == "class" or known in pocket.SPECS:
        way = f"; leave out :{asked.pooling}" if asked.pooling else ""
        raise EncoderError(f"{asked.base} is no checkpoint, and runs in one way only{way}")
    if missing("torch") and (exported := _exported(asked.name)):
        return exported
    source = known.source if known else asked.base
    wanted: tuple[hub.Kind, ...] = ("onnx",) if missing("torch") else ("safetensors", "onnx")
    revision = (known.revision if known else asked.revision) or "main"
    folder = hub.fetch(source, revision, wanted=wanted)
    found = open_folder(folder, asked.pooling)
    spec = _with_facts(found.spec, known, asked) if known else replace(found.spec, name=asked.name)
    at = hub.resolved_revision(folder) or revision
    return replace(found, spec=replace(spec, source=source, revision=at))


def _exported(name: str) -> Portable | None:
    """What was exported of an encoder here last, while torch was still installed."""
    there = (settings.load().cache_dir / "exports").glob("*/encoder.json")
    for facts in sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(EncoderError):  # a damaged one is made again, with torch
            if read_json(facts.parent, facts.name).get("spec", {}).get("name") == name:
                found = read_portable(facts.parent)
                return replace(found, spec=replace(found.spec, name=name))
    return None


def _with_facts(found: EncoderSpec, known: EncoderSpec, asked: Asked) -> EncoderSpec:
    """What the checkpoint says of its network, with what the catalogue says of the encoder."""
    if found.family != known.family or (asked.pooling is None and found.dim != known.dim):
        raise EncoderError(
            f"{known.source} holds {found.family} of {found.dim} dimensions, not the "
            f"{known.family} of {known.dim} that {known.name!r} stands for"
        )
    return replace(
        known,
        name=asked.name,
        dim=found.dim,
        preprocess=found.preprocess,
        pooling=found.pooling,
        patch_px=found.patch_px,
    )


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, specs(), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"there is no encoder {name!r}{hint} `retrieval encoders` lists them; a hub repository "
        "(owner/name) or the path of a checkpoint folder works too"
    )
