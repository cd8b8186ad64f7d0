"""Networks of any library as ONNX, compared with what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval import settings
from retrieval.encoders.checkpoints.onnx_files import OnnxFile
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.checkpoints.portable import Portable, facts, read_portable
from retrieval.encoders.made import FACTS, facts_of, made, write_new
from retrieval.encoders.tracing import Feeds, Parity, trace
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.tokens import Tokenizer
    from retrieval.encoders.towers import Tower

_VERSION = 1
"""Counts up when the same weights are to be exported in another way."""

_ALL = ("image", "patches", "text")
_BATCHES = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made.

    Attributes:
        folder: a portable folder; its path loads as an encoder.
        parity: of each graph in it.
    """

    folder: Path
    parity: tuple[Parity, ...]


def export(checkpoint: Checkpoint, to: Path | None = None) -> ExportReport:
    """Write a checkpoint as a portable folder with all its towers, which needs no torch to run.

    Args:
        checkpoint: what to export.
        to: the new folder; by default in the cache, without the graph for patches.

    Raises:
        EncoderUnavailable: if torch or the library of the checkpoint is not installed.
        EncoderError: if the network cannot be exported, the result gives other answers, or it
            cannot be written.
    """
    if to is None:
        to = _cached(checkpoint, _usual(checkpoint))
    else:
        write_new(to, partial(_make, checkpoint, _ALL))
    told = facts_of(to / FACTS)["parity"]
    return ExportReport(to, tuple(Parity(**each) for each in told))


def exported(checkpoint: Checkpoint) -> Portable:
    """The same encoder as ONNX graphs, made once and kept in the cache.

    The graph for patches is made when it is first asked for.

    Raises:
        As :func:`export`; torch is needed only the first time.
    """
    folder = _cached(checkpoint, _usual(checkpoint))
    found, told = read_portable(folder), facts_of(folder / FACTS)["text"]
    scale, bias = found.spec.logit_scale, found.spec.logit_bias
    return replace(
        found,
        spec=replace(checkpoint.spec, logit_scale=scale, logit_bias=bias),
        tokenizer=checkpoint.tokenizer and partial(_tokenizer, checkpoint, told["fill"]),
        late=lambda tower: OnnxFile(_cached(checkpoint, (tower,)) / f"{tower}.onnx", {}),
    )


def _usual(checkpoint: Checkpoint) -> Sequence[str]:
    """The towers that every encoder needs."""
    return ("image",) if checkpoint.tokenizer is None else ("image", "text")


def _cached(checkpoint: Checkpoint, towers: Sequence[str]) -> Path:
    """The folder in the cache with these towers, made if need be."""
    preprocess = checkpoint.spec.preprocess
    size = preprocess.size if preprocess else 0
    # The same weights make another network with another configuration (QuickGELU or GELU).
    config = hashlib.blake2b(digest_size=8)
    for path in sorted(checkpoint.folder.glob("*config.json")):
        config.update(path.read_bytes())
    key = (checkpoint.weights_hash, config.hexdigest(), checkpoint.spec.pooling, size, *towers)
    name = "-".join(map(str, (*key, _VERSION)))
    folder = settings.load().cache_dir / "exports" / name
    made(folder, partial(_make, checkpoint, towers))
    return folder


def _tokenizer(checkpoint: Checkpoint, fill: bool) -> Tokenizer:
    """The checkpoint's own tokenizer, padding as the exported graph wants it."""
    assert checkpoint.tokenizer is not None
    tokenizer = checkpoint.tokenizer()
    tokenizer.rule = replace(tokenizer.rule, fill=fill)
    return tokenizer


def _make(checkpoint: Checkpoint, names: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """Write graphs, compare them, and say what they are."""
    require("torch")
    towers = checkpoint.towers()
    parity, rule = [], None
    for name, tower in towers:
        path = folder / f"{name}.onnx"
        if name not in names:
            continue
        if name != "text":
            parity.append(trace(name, tower, _pictures(checkpoint), path, any_length=False))
        elif checkpoint.tokenizer is not None:
            tokenizer = checkpoint.tokenizer()
            parity.append(_trace_text(tower, tokenizer, path))
            tokenizer.save(folder)
            rule = tokenizer.rule
    spec = replace(checkpoint.spec, logit_scale=towers.logit_scale, logit_bias=towers.logit_bias)
    said = facts(spec, checkpoint.weights_hash, rule)
    return {**said, "parity": [asdict(each) for each in parity]}


def _trace_text(tower: Tower, tokenizer: Tokenizer, path: Path) -> Parity:
    """For texts of any length, or else of one, to which the tokenizer then pads."""
    if not tokenizer.rule.fill:
        try:
            return trace("text", tower, _texts(tokenizer), path, any_length=True)
        except EncoderError:
            # In some networks the length sticks that they were traced with.
            tokenizer.rule = replace(tokenizer.rule, fill=True)
    return trace("text", tower, _texts(tokenizer), path, any_length=False)


def _pictures(checkpoint: Checkpoint) -> list[Feeds]:
    """Random pictures of different shapes, as the network takes them."""
    preprocess = checkpoint.spec.preprocess
    if preprocess is None:
        raise EncoderError(f"{checkpoint.spec.name} does not say how its pictures are prepared")
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (sum(_BATCHES), 9, 7, 3), dtype=np.uint8)
    sides = random.integers(60, 600, (sum(_BATCHES), 2))
    images = [
        Image.fromarray(picture).resize((int(width), int(height)))
        for picture, (width, height) in zip(coarse, sides, strict=True)
    ]
    return [preprocess.inputs(part) for part in _parts(images)]


def _texts(tokenizer: Tokenizer) -> list[Feeds]:
    """Texts of different lengths, as the network takes them."""
    words = ["a", "photo", "of", "small", "dogs", "and", "a", "red", "ball", "in", "the", "sand"]
    rows = tokenizer.rows([" ".join(words[: 2 * at + 1]) for at in range(sum(_BATCHES))])
    return [dict(tokenizer.padded(part)) for part in _parts(rows)]


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    """The items in batches."""
    ends = np.cumsum((0, *_BATCHES)).tolist()
    return [items[start:end] for start, end in pairwise(ends)]
