"""All about one encoder: the sheet behind `retrieval encoders NAME`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.output import console, printable
from retrieval.errors import EncoderError, EncoderUnavailable

if TYPE_CHECKING:
    from retrieval.encoders import EncoderSpec
    from retrieval.encoders.naflex import NaFlex
    from retrieval.encoders.names import Asked
    from retrieval.encoders.preprocess import Preprocess

_PACKAGES = {
    "transformers": ("torch", "transformers"),
    "timm": ("torch", "timm"),
    "open_clip": ("torch", "open_clip"),
}
_POOLINGS = {
    "cls": "the CLS token",
    "mean": "the mean of the patches",
    "mean-norm": "the mean of the patches, then the network's norm",
    "cls+mean": "the CLS token and the mean of the patches side by side",
    "gem": "the generalised mean of the patches (GeM, exponent 3)",
    "attention": "an attention head over the patches",
    "cls-projection": "the CLS token, projected to where words are",
    "mean-projection": "the mean of the patches, projected to where words are",
    "attention-projection": "an attention head over the patches, projected to where words are",
}


def described(name: str) -> EncoderSpec:
    """The facts of an encoder of any name, without a download.

    Raises:
        UnknownEncoder: if there is nothing of that name.
        EncoderUnavailable: for a hub repository, whose facts are known after its download.
        EncoderError: if a folder is not what it should be.
    """
    from retrieval.encoders import load, specs
    from retrieval.encoders.loading import find
    from retrieval.encoders.names import parse

    asked = parse(name)
    if asked.kind == "class":
        return load(name).spec
    if asked.kind == "hub":
        same = [spec.name for spec in specs().values() if spec.source == asked.base]
        listed = f"; the catalogue has it as {same[0]}" if same else ""
        raise EncoderUnavailable(
            f"{name} tells its facts after the download, which retrieval index … --encoder "
            f"{name} makes{listed}"
        )
    if asked.kind == "name" and asked.base in specs():
        return _pooled(specs()[asked.base], asked)
    return find(asked).spec


def _pooled(spec: EncoderSpec, asked: Asked) -> EncoderSpec:
    if asked.pooling is None:
        return spec
    if "/" not in spec.source:
        raise EncoderError(f"{spec.name} runs in one way only; leave out :{asked.pooling}")
    if "text" in spec.modalities:
        raise EncoderError(
            f"{spec.name} brings its own pooling ({spec.pooling}), in which words and pictures "
            f"meet; leave out :{asked.pooling}"
        )
    dim = spec.dim * 2 if asked.pooling == "cls+mean" else spec.dim
    return replace(spec, name=asked.name, pooling=asked.pooling, dim=dim)


def missing(spec: EncoderSpec) -> list[str]:
    """Packages that the encoder needs and that are not installed, as pip knows them."""
    from retrieval.encoders.checkpoints import packages
    from retrieval.encoders.checkpoints.portable import is_portable
    from retrieval.encoders.names import parse

    asked = parse(spec.name)
    if asked.kind == "folder" and is_portable(Path(asked.base)):  # it may come from torch's
        return []
    needed = _PACKAGES.get(spec.library, ()) if "/" in spec.source else ()
    client = ("huggingface_hub",) if needed and spec.revision != "local" else ()
    return packages.missing(*needed, *client)


def print_facts(spec: EncoderSpec) -> None:
    """Print everything about one encoder."""
    out = console()
    out.print(f"{printable(spec.name)}: {spec.family}; {spec.summary}", style="bold")
    for label, text in _facts(spec):
        wrapped = textwrap.wrap(
            printable(text), max(out.width - 15, 40), break_long_words=False, break_on_hyphens=False
        )
        for at, line in enumerate(wrapped):
            out.print(f"  {label if at == 0 else '':<13}{line}")


def _facts(spec: EncoderSpec) -> Iterator[tuple[str, str]]:
    yield "holds", "images and text" if "text" in spec.modalities else "images"
    yield "embedding", f"{spec.dim} numbers: {_POOLINGS.get(spec.pooling, spec.pooling)}"
    if spec.preprocess is not None:
        yield "picture", in_words(spec.preprocess)
    if spec.patch_px is not None:
        yield "places", _places(spec)
    if "text" in spec.modalities:
        yield "text", spec.tokenizer or "as its tokenizer reads it"
        yield "prompt", f"{spec.prompt}  (around a bare word)"
        yield "probability", _probability(spec)
    if spec.gflops is not None:
        yield "cost", f"{spec.gflops:g} GFLOP a picture"
    if spec.images_per_s is not None:
        yield "speed", f"{spec.images_per_s:.0f} pictures a second in fp32 on two CPU cores"
    yield "weights", f"{spec.source} ({spec.library}), {spec.size_mb:,.0f} MB"
    yield "revision", _revision(spec)
    gate = "; gated: accept the terms on its hub page, then set HF_TOKEN" if spec.gated else ""
    yield "licence", spec.licence + gate
    if spec.terms:
        yield "terms", spec.terms
    absent = missing(spec)
    yield "install", f"pip install {' '.join(absent)}" if absent else "nothing: all is here"
    yield "use", f"retrieval index ~/Pictures -c photos.lance --encoder {spec.name}"


def in_words(preprocess: Preprocess | NaFlex) -> str:
    """How a picture becomes the network's input."""
    from retrieval.encoders.naflex import NaFlex

    levels = f"mean {_numbers(preprocess.mean)}, deviation {_numbers(preprocess.std)}"
    size, how = preprocess.size, preprocess.interpolation
    if isinstance(preprocess, NaFlex):
        return (
            f"resized ({how}) to at most {preprocess.max_patches} patches of "
            f"{preprocess.patch_px} px, its shape nearly kept; {levels}"
        )
    to = preprocess.resize_to
    resized = {
        "shortest": f"shorter side to {to} px ({how}), then the centre of {size} × {size}",
        "longest": f"longer side to {to} px ({how}), then borders up to {size} × {size}",
        "squash": f"both sides to {to} px ({how}), its shape not kept",
    }[preprocess.resize]
    if preprocess.resize == "squash" and to != size:
        resized += f", then the centre of {size} × {size}"
    return f"{resized}; {levels}"


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:.3g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " ".join(shown)


def _places(spec: EncoderSpec) -> str:
    from retrieval.encoders.naflex import NaFlex

    if isinstance(spec.preprocess, NaFlex):
        return f"at most {spec.preprocess.max_patches} patches of {spec.patch_px} px"
    if spec.preprocess is None or spec.patch_px is None:
        return f"patches of {spec.patch_px} px"
    side = spec.preprocess.size // spec.patch_px
    return f"{side} × {side} patches of {spec.patch_px} px, for heatmaps"


def _probability(spec: EncoderSpec) -> str:
    if spec.logit_scale is None:
        return "its scale of the cosine is read from the weights"
    bias = f" {spec.logit_bias:+g}" if spec.logit_bias is not None else ""
    return f"cosine × {spec.logit_scale:g}{bias}"


def _revision(spec: EncoderSpec) -> str:
    if spec.revision == "local":
        return "your own class" if spec.library == "python" else "a local folder"
    if "/" not in spec.source:
        return f"{spec.revision}, from the package registry"
    if spec.revision == "main":
        return "main, not pinned: a collection records the commit of the first download"
    return spec.revision
