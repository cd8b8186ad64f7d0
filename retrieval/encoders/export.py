"""Networks of any library as ONNX, compared with what they were made from."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders.checkpoints.onnx_files import OnnxFile
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.checkpoints.portable import Portable, facts, read_portable
from retrieval.encoders.made import FACTS, facts_of, made, write_new
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.tokens import Tokenizer
    from retrieval.encoders.towers import Tower

LEAST_COSINE = 0.9999
"""An export whose answers are further than this from the network's own is refused."""

_VERSION = 1
"""Counts up when the same weights are to be exported in another way."""

_OPSET = 17
_TRACED, _TRIED = 2, (1, 2, 5)  # batch sizes: a traced one that stuck would show
_LARGE_BYTES = 1_900_000_000  # a protobuf holds two gigabytes
_ALL = ("image", "patches", "text")
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an ONNX graph is from the network that it was made from.

    Attributes:
        tower: ``image``, ``patches`` or ``text``.
        max_abs_difference: largest difference of any number of any output.
        min_cosine: of any row of any output.
        inputs: how many were compared, in batches of other sizes than the one traced.
    """

    tower: str
    max_abs_difference: float
    min_cosine: float
    inputs: int


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
    found = read_portable(_cached(checkpoint, _usual(checkpoint)))
    scale, bias = found.spec.logit_scale, found.spec.logit_bias
    return replace(
        found,
        spec=replace(checkpoint.spec, logit_scale=scale, logit_bias=bias),
        tokenizer=checkpoint.tokenizer,
        late=lambda tower: OnnxFile(_cached(checkpoint, (tower,)) / f"{tower}.onnx", {}),
    )


def _usual(checkpoint: Checkpoint) -> Sequence[str]:
    """The towers that every encoder needs."""
    return ("image",) if checkpoint.tokenizer is None else ("image", "text")


def _cached(checkpoint: Checkpoint, towers: Sequence[str]) -> Path:
    """The folder in the cache with these towers, made if need be."""
    preprocess = checkpoint.spec.preprocess
    size = preprocess.size if preprocess else 0
    key = (checkpoint.weights_hash, checkpoint.spec.pooling, str(size), *towers, str(_VERSION))
    folder = settings.load().cache_dir / "exports" / "-".join(key)
    made(folder, partial(_make, checkpoint, towers))
    return folder


def _make(checkpoint: Checkpoint, names: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """Write graphs, compare them, and say what they are."""
    require("torch")
    towers = checkpoint.towers()
    tokenizer = checkpoint.tokenizer and checkpoint.tokenizer()
    parity = []
    for name, tower in towers:
        if name not in names or (name == "text" and tokenizer is None):
            continue
        inputs = _texts(tokenizer) if name == "text" and tokenizer else _pictures(checkpoint)
        feeds = {key: inputs[key] for key in tower.inputs}
        _write(tower, feeds, folder / f"{name}.onnx")
        parity.append(asdict(_compare(name, tower, folder / f"{name}.onnx", feeds)))
    if tokenizer and "text" in names:
        tokenizer.save(folder)
    spec = replace(checkpoint.spec, logit_scale=towers.logit_scale, logit_bias=towers.logit_bias)
    rule = tokenizer.rule if tokenizer and "text" in names else None
    return {**facts(spec, checkpoint.weights_hash, rule), "parity": parity}


def _write(tower: Tower, feeds: Feeds, path: Path) -> None:
    """Trace the network with a part of the inputs and write the graph.

    The exporter of torch that traces is the one that is used: the newer one needs two packages
    more, takes ten times as long, and fails where a node is called as an output.
    """
    import torch

    size = sum(weight.nbytes for weight in tower.state_dict().values())
    axes = {name: {0: "n"} for name in (*tower.inputs, *tower.outputs)}
    if "ids" in feeds:
        axes |= {name: {0: "n", 1: "length"} for name in tower.inputs}
    raw = path if size < _LARGE_BYTES else path.with_suffix("") / path.name
    raw.parent.mkdir(exist_ok=True)
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                tower,
                tuple(torch.from_numpy(feeds[name][:_TRACED]) for name in tower.inputs),
                str(raw),
                input_names=list(tower.inputs),
                output_names=list(tower.outputs),
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except OSError:
        raise
    except Exception as error:  # whatever a network's code raises when it is traced
        raise EncoderError(f"{path.stem} cannot be exported to ONNX: {error}") from error
    if raw != path:
        _gather(raw, path)


def _gather(raw: Path, path: Path) -> None:
    """One file for all weights, where the exporter wrote a file for each."""
    import onnx

    onnx.save_model(
        onnx.load(raw),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )
    shutil.rmtree(raw.parent)


def _compare(name: str, tower: Tower, path: Path, feeds: Feeds) -> Parity:
    """Run both on the same inputs, in batches of several sizes."""
    import torch

    graph = OnnxGraph(path, threads=0)
    worst, cosine, start = 0.0, 1.0, 0
    for count in _TRIED:
        part = {key: array[start : start + count] for key, array in feeds.items()}
        with torch.inference_mode():
            given = tower(*(torch.from_numpy(part[key]) for key in tower.inputs))
        expected = [rows.numpy() for rows in (given if isinstance(given, tuple) else (given,))]
        for ours, theirs in zip(graph.run(part, tower.outputs), expected, strict=True):
            if ours.shape != theirs.shape:
                raise EncoderError(f"{name} as ONNX gives {ours.shape}, not {theirs.shape}")
            worst = max(worst, float(np.abs(ours - theirs).max()))
            cosine = min(cosine, _least_cosine(ours, theirs))
        start += count
    if not cosine >= LEAST_COSINE:
        raise EncoderError(
            f"{name} as ONNX gives other answers than in torch (cosine {cosine:.6f}, bound "
            f"{LEAST_COSINE}): run it with a precision of torch, as fp32 or bf16"
        )
    return Parity(name, worst, cosine, start)


def _least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = (rows.reshape(-1, rows.shape[-1]).astype(np.float64) for rows in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(axis=1) / norms).min())


def _pictures(checkpoint: Checkpoint) -> Feeds:
    """Random pictures of different shapes, as the network takes them."""
    preprocess = checkpoint.spec.preprocess
    if preprocess is None:
        raise EncoderError(f"{checkpoint.spec.name} does not say how its pictures are prepared")
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (sum(_TRIED), 9, 7, 3), dtype=np.uint8)
    sides = random.integers(60, 600, (sum(_TRIED), 2))
    images = [
        Image.fromarray(picture).resize((int(width), int(height)))
        for picture, (width, height) in zip(coarse, sides, strict=True)
    ]
    return preprocess.inputs(images)


def _texts(tokenizer: Tokenizer) -> Feeds:
    """Texts of different lengths, as the network takes them."""
    words = [
        "a",
        "photo",
        "of",
        "small",
        "dogs",
        "playing",
        "with",
        "a",
        "ball",
        "in",
        "the",
        "sand",
    ]
    texts = [" ".join(words[: 2 * at + 1]) for at in range(sum(_TRIED))]
    return dict(tokenizer.padded(tokenizer.rows(texts)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch has to say about its exporter; the comparison is what counts."""
    import torch

    # It asks this function, forgets to call it, and so logs whole graphs to standard output.
    name = "_jit_is_onnx_log_enabled"
    asked = getattr(torch._C, name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if asked is not None:
            setattr(torch._C, name, _No())
        try:
            yield
        finally:
            if asked is not None:
                setattr(torch._C, name, asked)


class _No:
    """Says no, called or not."""

    def __bool__(self) -> bool:
        return False

    def __call__(self) -> bool:
        return False
