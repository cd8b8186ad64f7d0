"""Folders that hold an encoder as ONNX graphs: exports, distilled students, files of one's own.

``encoder.json`` says ``{"format": 1, "spec": {…}, "weights_hash": …, "text": {…} | null}``: the
fields of :class:`~retrieval.encoders.base.EncoderSpec` and of
:class:`~retrieval.encoders.tokens.TextRule`. Beside it lie ``image.onnx`` (``pixels`` to
``embedding``), and where the encoder has them ``patches.onnx`` (to ``embedding`` and ``patches``)
and ``text.onnx`` (``ids`` and maybe ``mask`` to ``embedding``) with ``tokenizer.json``.

Of one's own network the graph and ``{"format": 1, "spec": {"preprocess": {…}}}`` are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval import settings
from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints.onnx_files import OnnxFile, signature, weight_paths
from retrieval.encoders.checkpoints.own_onnx import image_file, lacking, text_file
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.made import FACTS, facts_of, write_new
from retrieval.encoders.specs_json import rule_of, spec_of, to_json
from retrieval.encoders.tokens import TextRule, Tokenizer
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.network import NetworkEncoder

_TOWERS = ("image", "patches", "text")


@dataclass(frozen=True)
class Portable:
    """An encoder on disk whose networks are ONNX graphs.

    Attributes:
        folder: where it is.
        spec: its facts.
        weights_hash: digest of the source weights; of the graphs, where they are the source.
        graphs: the graph of ``image`` and, where there is one, of ``patches`` and ``text``.
        tokenizer: reads the tokenizer; None for a visual encoder.
        batch_size: pictures that the graph takes at once, if that is fixed.
        late: makes the graph of a tower that is not there yet.
    """

    folder: Path
    spec: EncoderSpec
    weights_hash: str
    graphs: Mapping[str, OnnxFile]
    tokenizer: Callable[[], Tokenizer] | None = None
    batch_size: int | None = None
    late: Callable[[str], OnnxFile] | None = None

    def graph(self, tower: str) -> OnnxFile:
        """The graph of a tower, made now if need be."""
        if tower not in self.graphs and self.late is not None:
            return self.late(tower)
        return self.graphs[tower]


def open_portable(folder: Path, *, threads: int | None = None) -> NetworkEncoder:
    """Run a portable folder, or a single ``x.onnx`` with ``x.json``, in ONNX Runtime and fp32.

    Args:
        folder: the folder or the ``.onnx`` file.
        threads: cores that one call may use; 0 for all. By default one for a small network, of
            which many calls at once make better use of the cores, and all for a large one.

    Raises:
        EncoderError: if a file is missing, damaged, or does not say enough.
        EncoderUnavailable: if a graph cannot be loaded.
    """
    from retrieval.encoders.build import portable_encoder
    from retrieval.encoders.runtimes.plan import parse

    return portable_encoder(read_portable(folder), parse("onnxruntime-fp32"), threads=threads)


def save_portable(
    to: Path,
    spec: EncoderSpec,
    weights_hash: str,
    save: Callable[[Path], None],
    rule: TextRule | None = None,
) -> None:
    """Write a portable folder; it appears whole or not at all.

    Args:
        to: the new folder; an empty one may be there.
        spec: the facts.
        weights_hash: digest of what the graphs were made from.
        save: writes ``image.onnx`` and what else there is into the folder that it is given.
        rule: of the text side; None if there is none.

    Raises:
        EncoderError: if there is something at ``to`` already, or it cannot be written.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        save(folder)
        return facts(spec, weights_hash, rule)

    write_new(to, make)


def facts(spec: EncoderSpec, weights_hash: str, rule: TextRule | None) -> dict[str, Any]:
    """What ``encoder.json`` says."""
    text = None if rule is None else to_json(rule)
    return {"spec": to_json(spec), "weights_hash": weights_hash, "text": text}


def is_portable(path: Path) -> bool:
    """Whether :func:`read_portable` is the one to open this."""
    return path.suffix == ".onnx" or (path / FACTS).is_file()


def read_portable(path: Path, pooling: str | None = None) -> Portable:
    """Read the facts of a folder with ``encoder.json``, or of ``x.onnx`` with ``x.json``.

    Args:
        path: the folder or the ``.onnx`` file.
        pooling: of a graph that gives tokens, in place of the one that its facts name.

    Raises:
        EncoderError: if a file is missing or damaged, or the facts do not say enough.
    """
    facts_path, told = _told(path)
    graphs = _graphs(path)
    given = dict(told.get("spec") or {})
    if "dim" in given and "weights_hash" in told and pooling is None:
        spec = replace(spec_of(given), name=str(path))
        if "patches" not in graphs:
            spec = replace(spec, patch_px=None)
        files = {tower: OnnxFile(graph, {}) for tower, graph in graphs.items()}
        found = Portable(path, spec, str(told["weights_hash"]), files)
    else:
        if pooling:
            given["pooling"] = pooling
        found = _discovered(path, facts_path, graphs, given)
        if pooling and found.graphs["image"].pooling is None:
            raise EncoderError(f"{path} gives finished embeddings: leave out :{pooling}")
    if "text" not in found.graphs:
        return found
    if told.get("text") is None:
        raise EncoderError(f'{facts_path} lacks "text": how {graphs["text"].name} reads text')
    rule = rule_of(told["text"])
    return replace(found, tokenizer=partial(Tokenizer, facts_path.parent, rule, rule.context))


def _told(path: Path) -> tuple[Path, dict[str, Any]]:
    """Where the facts are, and what they say."""
    where = path.with_suffix(".json") if path.suffix == ".onnx" else path / FACTS
    if not where.is_file():
        if not path.is_file():
            raise EncoderError(f"there is no {path}")
        raise lacking(where, image_file(path, signature(path), None, where).size, {})
    told = facts_of(where)
    if told.get("format") != 1:
        raise EncoderError(
            f"{where} is of format {told.get('format')!r}, which this version does not read; "
            "it reads 1"
        )
    return where, told


def _graphs(path: Path) -> dict[str, Path]:
    """The graphs by tower; a folder's only ``.onnx`` file may have any name."""
    if path.suffix == ".onnx":
        return {"image": path}
    found = {tower: path / f"{tower}.onnx" for tower in _TOWERS}
    found = {tower: graph for tower, graph in found.items() if graph.is_file()}
    others = sorted(path.glob("*.onnx"))
    if not found and len(others) == 1:
        return {"image": others[0]}
    if "image" not in found:
        raise EncoderError(f"{path} has no image.onnx")
    return found


def _discovered(
    path: Path, facts_path: Path, graphs: Mapping[str, Path], given: Mapping[str, Any]
) -> Portable:
    """A graph of the user's own, of which the facts say the least that is needed."""
    seen = {tower: signature(graph) for tower, graph in graphs.items() if tower != "patches"}
    image = image_file(graphs["image"], seen["image"], given.get("pooling"), facts_path)
    weights = [file for tower in seen for file in weight_paths(graphs[tower], seen[tower])]
    if "preprocess" not in given:
        raise lacking(facts_path, image.size, given)
    assumed = {
        "family": path.stem,
        "modalities": ("image", "text") if "text" in graphs else ("image",),
        "pooling": "own",
        "source": str(path),
        "revision": "local",
        "licence": "own",
        "size_mb": round(sum(file.stat().st_size for file in weights) / 1e6, 1),
        "summary": "an ONNX graph of your own",
        "library": "onnx",
        "patch_px": image.patch_px,
        **({} if image.dim is None else {"dim": image.dim}),
    }
    try:
        spec = spec_of({**given, "name": str(path)}, assumed)
    except EncoderError as error:
        raise EncoderError(f"{facts_path}: {error}") from error
    if spec.preprocess is None or image.size not in (None, spec.preprocess.size):
        raise EncoderError(
            f"{facts_path}: the graph takes {image.size} px, but its preprocess makes another size"
        )
    files = {"image": image.file}
    if "patches" in image.file.names:
        files["patches"] = image.file
    if "text" in graphs:
        files["text"] = text_file(graphs["text"], seen["text"])
    digest = weights_hash(weights, settings.load().cache_dir)
    return Portable(path, spec, digest, files, batch_size=image.batch_size)
