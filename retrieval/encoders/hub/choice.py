"""Which files of a repository an encoder needs: weights of one kind, never a pickle, never code."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["safetensors", "onnx"]

INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_TEXT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FACTS = (_CONFIG, "preprocessor_config.json", "processor_config.json", *_TEXT)
_OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class Choice:
    """Names of files in a repository, as ``onnx/model.onnx``.

    Attributes:
        weights: safetensors of one layout, or ONNX graphs with their external data.
        facts: configuration and tokenizer.
    """

    weights: tuple[str, ...]
    facts: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return self.weights + self.facts


def choose(
    names: Collection[str], wanted: Sequence[Kind], is_timm: Callable[[], bool]
) -> Choice | None:
    """What to take of a repository with these files; None if it has nothing of the kind.

    A folder of our own format (``encoder.json``) is taken whatever is wanted. A repository with
    ``model.safetensors`` beside ``open_clip_model.safetensors`` gives the first, which
    transformers reads, unless its configuration is timm's: then the first is the image tower
    alone, and open_clip's has the text tower too.

    Args:
        names: the repository's files.
        wanted: kinds of weights that the caller can run, best first.
        is_timm: whether ``config.json`` is timm's; asked only where it matters.
    """
    if {"encoder.json", "image.onnx"} <= set(names):
        graphs = ("image.onnx", "patches.onnx", "text.onnx")
        return Choice(_graphs(names, graphs), _there(names, ("encoder.json", *_TEXT)))
    for kind in wanted:
        found = _onnx(names) if kind == "onnx" else _safetensors(names, is_timm)
        if found:
            return found
    return None


def why_none(names: Collection[str], wanted: Sequence[Kind]) -> str:
    """What the repository lacks, and what to do, where :func:`choose` found nothing."""
    kinds = " or ".join("ONNX" if kind == "onnx" else kind for kind in wanted)
    if "safetensors" not in wanted and _safetensors(names, lambda: False):
        return "it has no ONNX files; its safetensors need torch: pip install torch transformers"
    if "onnx" not in wanted and _onnx(names):
        return "it has ONNX files only; they need onnxruntime"
    if _CONFIG not in names and _OPEN_CLIP[0] not in names:
        return "it has no config.json, open_clip_config.json or encoder.json: it is no encoder"
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    if pickled:
        return (
            f"its weights are pickled ({pickled[0]}), which can run code and are never loaded; "
            f"it has no {kinds}: look for a revision or a copy of it that has (save_pretrained "
            "of a recent transformers writes them)"
        )
    return f"it has no {kinds}"


def _safetensors(names: Collection[str], is_timm: Callable[[], bool]) -> Choice | None:
    weights = _there(names, ("model.safetensors",)) or _parts(names)
    open_clip = all(name in names for name in _OPEN_CLIP)
    if _CONFIG in names and weights and not (open_clip and is_timm()):
        return Choice(weights, _there(names, _FACTS))
    if open_clip:
        return Choice((_OPEN_CLIP[1],), _there(names, (_OPEN_CLIP[0], *_TEXT)))
    return None


def _parts(names: Collection[str]) -> tuple[str, ...]:
    """Weights in several files, with the index that says which tensor is where."""
    parts = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    return (*parts, INDEX) if parts and INDEX in names else ()


def _onnx(names: Collection[str]) -> Choice | None:
    """The towers on their own where there are any: the joint graph wants image and text at once."""
    towers = ("onnx/vision_model.onnx", "onnx/text_model.onnx")
    graphs = towers if towers[0] in names else ("onnx/model.onnx",)
    weights = _graphs(names, graphs)
    return Choice(weights, _there(names, _FACTS)) if weights and _CONFIG in names else None


def _graphs(names: Collection[str], graphs: Sequence[str]) -> tuple[str, ...]:
    """Those of ``graphs`` that exist, with the files that hold their large tensors."""
    found: list[str] = []
    for graph in _there(names, graphs):
        data = re.compile(re.escape(graph) + r"(_data(_\d+)?|\.data)")
        found += [graph, *sorted(name for name in names if data.fullmatch(name))]
    return tuple(found)


def _there(names: Collection[str], files: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in files if name in names)
