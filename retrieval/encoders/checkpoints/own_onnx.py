"""What a graph that does not follow this project's names takes and gives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.checkpoints.onnx_files import OnnxFile, Shape, Signature
from retrieval.encoders.names import POOLINGS
from retrieval.errors import EncoderError

_EMBEDDINGS = ("embedding", "image_embeds", "text_embeds", "pooler_output", "last_hidden_state")
_TEXT_INPUTS = {"ids": ("ids", "input_ids"), "mask": ("mask", "attention_mask")}
_EXAMPLE = {
    "size": 224,
    "resize": "shortest",
    "resize_to": 256,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@dataclass(frozen=True, slots=True)
class Found:
    """A graph on the image side.

    Attributes:
        file: it, under this project's names.
        dim: length of an embedding; None where the graph does not fix it.
        size: side of its input, pixels; None where the graph does not fix it.
        batch_size: pictures that it takes at once; None for any number.
        patch_px: side of a place, pixels; None where it gives no places.
    """

    file: OnnxFile
    dim: int | None
    size: int | None
    batch_size: int | None
    patch_px: int | None


def image_file(path: Path, graph: Signature, pooling: str | None, facts: Path) -> Found:
    """Find the picture input and the embedding of a graph.

    Args:
        path: the graph.
        graph: its signature.
        pooling: as the facts say; needed where the graph gives the last layer's tokens.
        facts: where the facts are written, for messages.

    Raises:
        EncoderError: if it is not clear what is what, with what to do.
    """
    pixels, shape = _picture_input(path, graph)
    name, out = _embedding(path, graph.outputs)
    names = {"pixels": pixels, "embedding": name}
    batch, size = shape[0], shape[2]
    if len(out) == 2:
        return Found(OnnxFile(path, names), out[1], size, batch, None)
    if pooling not in POOLINGS:
        raise EncoderError(
            f"{path}: its output {name!r} is {_text(out)}, which needs a pooling: write "
            f'"pooling": "cls" (or {", ".join(POOLINGS[1:])}) into "spec" of {facts}'
        )
    width, places = (out[1], _product(out[2:])) if len(out) == 4 else (out[2], out[1])
    side = math.isqrt(places) if places else None
    return Found(
        OnnxFile(path, {**names, "patches": name}, pooling),
        width and width * (2 if pooling == "cls+mean" else 1),
        size,
        batch,
        size // side if size and side else None,
    )


def text_file(path: Path, graph: Signature) -> OnnxFile:
    """Find the token input and the embedding of a graph.

    Raises:
        EncoderError: if it is not clear what is what.
    """
    names = {
        ours: theirs
        for ours, candidates in _TEXT_INPUTS.items()
        for theirs in candidates
        if theirs in graph.inputs
    }
    if "ids" not in names or len(names) != len(graph.inputs):
        raise EncoderError(
            f"{path} takes {', '.join(graph.inputs)}; a text graph takes input_ids and, if it "
            "needs one, attention_mask"
        )
    name, out = _embedding(path, graph.outputs)
    if len(out) != 2:
        raise EncoderError(f"{path}: its output {name!r} is {_text(out)}, not one row a text")
    return OnnxFile(path, {**names, "embedding": name})


def lacking(facts: Path, size: int | None, given: Mapping[str, Any]) -> EncoderError:
    """The error where the facts do not say how pictures are prepared."""
    example = {**_EXAMPLE, **({"size": size, "resize_to": size} if size else {})}
    text = json.dumps({"format": 1, "spec": {**given, "preprocess": example}})
    return EncoderError(
        f"how pictures are prepared for this graph is not known. Write it into {facts}, with the "
        f"numbers that the network was trained with (resize: shortest, longest or squash): {text}"
    )


def _picture_input(path: Path, graph: Signature) -> tuple[str, Shape]:
    if len(graph.inputs) != 1:
        raise EncoderError(
            f"{path} takes {', '.join(graph.inputs)}; an image graph takes pictures and nothing "
            "else: export the image side alone"
        )
    [(name, shape)] = graph.inputs.items()
    if len(shape) != 4 or shape[1] not in (3, None) or len({*shape[2:]} - {None}) > 1:
        raise EncoderError(
            f"{path}: its input {name!r} is {_text(shape)}, not [n, 3, size, size]: export it with "
            "square pictures and channels first"
        )
    if shape[0] not in (1, None):
        raise EncoderError(
            f"{path} takes exactly {shape[0]} pictures at once; export it with a dynamic batch axis"
        )
    return name, shape


def _embedding(path: Path, outputs: Mapping[str, Shape]) -> tuple[str, Shape]:
    """The output that is, or becomes, the embedding."""
    named = [name for name in _EMBEDDINGS if name in outputs] or list(outputs)
    rows = [name for name in named if len(outputs[name]) == 2]
    chosen = (rows or named)[:1] if named[0] in _EMBEDDINGS else rows or named
    if len(chosen) != 1 or len(outputs[chosen[0]]) not in (2, 3, 4):
        shapes = ", ".join(f"{name} {_text(outputs[name])}" for name in outputs)
        raise EncoderError(
            f"{path} gives {shapes}; it is not clear which is the embedding: call that one "
            "'embedding', [n, dim], when you export it"
        )
    return chosen[0], outputs[chosen[0]]


def _product(shape: Shape) -> int | None:
    return None if None in shape else math.prod(side for side in shape if side)


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
