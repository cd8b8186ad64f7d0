"""Checkpoint folders that transformers' ``save_pretrained`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoint import _preprocess
from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.families import FAMILIES, SIGLIP2, Family
from retrieval.encoders.checkpoints.files import read_json, weight_files
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.tokens import Tokenizer
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.towers import Towers


def open_checkpoint(folder: Path, config: Mapping[str, Any], pooling: str | None) -> Checkpoint:
    """Read the facts of a folder; see :func:`~retrieval.encoders.checkpoints.open_folder`."""
    family = _family(folder, config)
    files = weight_files(folder)
    vision = config.get("vision_config", config)
    preprocess = _preprocess(folder, family)
    if family.text is not None and vision.get("image_size", 224) != preprocess.size:
        raise EncoderError(
            f"{folder}: the network takes {vision.get('image_size', 224)} px but its "
            f"preprocessor_config.json makes {preprocess.size} px; correct one of the two"
        )
    spec = EncoderSpec(
        name=str(folder),
        family=family.label,
        dim=_dim(family, config, vision, pooling),
        modalities=family.modalities,
        preprocess=preprocess,
        pooling=_pooling(folder, family, pooling),
        source=str(folder),
        revision="local",
        licence="unknown: see where the folder came from",
        size_mb=round(sum(path.stat().st_size for path in files) / 1e6, 1),
        summary=f"{family.label} checkpoint in a local folder",
        prompt=family.prompt,
        patch_px=vision.get("patch_size"),
    )
    return Checkpoint(
        folder=folder,
        spec=spec,
        files=files,
        towers=partial(_towers, folder, family, spec.pooling),
        tokenizer=_tokenizer(folder, family, config),
    )


def _family(folder: Path, config: Mapping[str, Any]) -> Family:
    kind = str(config["model_type"])
    if kind == "siglip":
        # SigLIP 2 at fixed resolution has SigLIP's architecture; only the tokenizer tells.
        named = str(read_json(folder, "tokenizer_config.json").get("tokenizer_class", ""))
        if named.startswith(("Gemma", "Siglip2")):
            return SIGLIP2
    if kind not in FAMILIES:
        raise EncoderError(
            f"{folder} holds a checkpoint of type {kind!r}, which is no image encoder known here; "
            f"known are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[kind]


def _pooling(folder: Path, family: Family, asked: str | None) -> str:
    if asked is None:
        return family.pooling
    if family.text is not None:
        raise EncoderError(
            f"{folder}: {family.label} brings its own pooling ({family.pooling}), in which words "
            f"and pictures meet; leave out :{asked}"
        )
    return asked


def _dim(
    family: Family, config: Mapping[str, Any], vision: Mapping[str, Any], pooling: str | None
) -> int:
    if family.build == "clip":
        return int(config.get("projection_dim", 512))
    return int(vision.get("hidden_size", 768)) * (2 if pooling == "cls+mean" else 1)


def _tokenizer(
    folder: Path, family: Family, config: Mapping[str, Any]
) -> Callable[[], Tokenizer] | None:
    if family.text is None:
        return None
    text = config.get("text_config", {})
    context = text.get("max_position_embeddings", family.text.context)
    return partial(Tokenizer, folder, family.text, context)


def _towers(folder: Path, family: Family, pooling: str) -> Towers:
    require("torch", "transformers")
    from retrieval.encoders.towers.transformers import towers

    return towers(folder, family.model_class, family.build, pooling)
