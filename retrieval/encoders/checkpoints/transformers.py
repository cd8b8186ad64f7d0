"""Checkpoint folders that transformers' ``save_pretrained`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.families import (
    FAMILIES,
    METACLIP2_MT5,
    NO_CLS,
    SIGLIP2,
    SIGLIP_MULTILINGUAL,
    Family,
)
from retrieval.encoders.checkpoints.files import read_json, weight_files
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.names import POOLINGS
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.preprocess_config import from_transformers
from retrieval.encoders.tokens import Tokenizer
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.towers import Towers


def open_checkpoint(folder: Path, config: Mapping[str, Any], pooling: str | None) -> Checkpoint:
    """Read the facts of a folder; see :func:`~retrieval.encoders.checkpoints.open_folder`."""
    files = weight_files(folder)
    family, spec = described(folder, config, pooling, files)
    assert spec.preprocess is not None
    return Checkpoint(
        folder=folder,
        spec=spec,
        files=files,
        towers=partial(_towers, folder, family, spec.pooling, spec.preprocess.size),
        tokenizer=tokenizer_of(folder, family),
    )


def described(
    folder: Path, config: Mapping[str, Any], pooling: str | None, files: tuple[Path, ...]
) -> tuple[Family, EncoderSpec]:
    """What the configuration says of the network, whatever format its weights have.

    Args:
        folder: the checkpoint.
        config: its ``config.json``.
        pooling: the one asked for.
        files: its weights.

    Raises:
        EncoderError: if something is missing, not supported, or contradicts itself.
    """
    if config["model_type"] in FAMILIES:
        family = _configured(folder, _family(folder, config, files), config)
        preprocess = from_transformers(folder)
        _check_input(folder, family, preprocess)
    else:
        family, preprocess = _backbone(folder, files)
    spec = EncoderSpec(
        name=str(folder),
        family=family.label,
        dim=family.projection or family.width * (2 if pooling == "cls+mean" else 1),
        modalities=family.modalities,
        preprocess=preprocess,
        pooling=_pooling(folder, family, pooling),
        source=str(folder),
        revision="local",
        licence="unknown: see where the folder came from",
        size_mb=round(sum(path.stat().st_size for path in files) / 1e6, 1),
        summary=f"{family.label} checkpoint in a local folder",
        prompt=family.prompt,
        patch_px=family.patch_px,
        tokenizer="" if family.text is None else family.reads.format(family.text.context),
    )
    return family, spec


def _family(folder: Path, config: Mapping[str, Any], files: tuple[Path, ...]) -> Family:
    """The row of a checkpoint, with what other checkpoints of its type do not have."""
    kind = str(config["model_type"])
    family = FAMILIES[kind]
    tokenizer = str(read_json(folder, "tokenizer_config.json").get("tokenizer_class", ""))
    if kind == "siglip" and tokenizer.startswith(("Gemma", "Siglip2")):
        # SigLIP 2 at fixed resolution has SigLIP's architecture; only the tokenizer tells.
        return SIGLIP2
    if kind == "siglip" and _part(config, "text_config").get("vocab_size", 0) > 100_000:
        return SIGLIP_MULTILINGUAL
    if kind == "metaclip_2" and tokenizer.startswith(("Siglip", "T5")):
        return METACLIP2_MT5
    if kind == "clip_vision_model" and "visual_projection.weight" not in _names(files):
        return replace(
            family, model_class="CLIPVisionModel", pooling="cls", poolings=POOLINGS, projection=None
        )
    if kind == "aimv2_vision_model" and config.get("use_head", True):
        return replace(family, pooling="attention")
    if kind.startswith("siglip") and not config.get("vision_use_head", True):
        return replace(family, pooling="mean")
    return family


def _configured(folder: Path, family: Family, config: Mapping[str, Any]) -> Family:
    """The row with the sizes of this checkpoint."""
    vision = _part(config, "vision_config") or config
    text = family.text
    if text is not None:
        positions = _part(config, "text_config").get("max_position_embeddings", text.context)
        text = replace(text, context=min(positions, text.context))
    return replace(
        family,
        prefix=family.prefix + vision.get("num_register_tokens", family.registers),
        width=vision.get("hidden_size", vision.get("hidden_sizes", [family.width])[-1]),
        patch_px=_side(folder, vision.get("patch_size", family.patch_px)),
        side_px=family.side_px and _side(folder, vision.get("image_size", family.side_px)),
        projection=family.projection and config.get("projection_dim", family.projection),
        text=text,
    )


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A nested configuration, which old checkpoints have under a second name that wins."""
    return {**(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}


def _backbone(folder: Path, files: tuple[Path, ...]) -> tuple[Family, Preprocess]:
    """A vision network without a row, as its class and a trial without weights tell."""
    require("torch", "transformers")
    from retrieval.encoders.towers.backbones import Blueprint

    blueprint = Blueprint(folder)
    preprocess = from_transformers(folder)
    assert isinstance(preprocess, Preprocess)
    found = blueprint.layout(preprocess.size)
    names = _names(files)
    own = found.pooled and all(
        any(f".{name}".endswith(f".{part}") for name in names) for part in blueprint.pooler
    )
    family = Family(
        label=blueprint.label,
        model_class="AutoModel",
        build="backbone",
        pooling="pooler" if own else "mean",
        poolings=POOLINGS if found.prefix else NO_CLS,
        prefix=found.prefix,
        width=found.width,
        patch_px=round(preprocess.size / found.rows),
        side_px=None,
    )
    return family, preprocess


def _names(files: tuple[Path, ...]) -> set[str]:
    """The names of all weights."""
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for path in files:
        try:
            with safe_open(path, framework="np") as weights:
                names.update(weights.keys())
        except SafetensorError as error:
            raise EncoderError(f"{path} is damaged ({error}); delete it and get it again") from None
    return names


def _check_input(folder: Path, family: Family, preprocess: Preprocess | NaFlex) -> None:
    """Refuse preprocessing whose output the network does not take."""
    if isinstance(preprocess, NaFlex):
        makes = f"patches of {preprocess.patch_px} px"
    else:
        makes = f"squares of {preprocess.size} px"
    if family.build.startswith("naflex"):
        takes = f"patches of {family.patch_px} px"
    else:
        takes = f"squares of {family.side_px or preprocess.size} px"
    if takes != makes:
        raise EncoderError(
            f"{folder}: the network takes {takes} but its preprocessor_config.json makes {makes}; "
            "correct one of the two"
        )


def _side(folder: Path, value: int | list[int]) -> int:
    """The side of a square, which may be given as a pair."""
    sides = set(value) if isinstance(value, list) else {value}
    if len(sides) != 1:
        raise EncoderError(f"{folder}: {value} in its config.json is no square; only these work")
    return sides.pop()


def _pooling(folder: Path, family: Family, asked: str | None) -> str:
    if asked is None or asked in family.poolings:
        return asked or family.pooling
    if not family.poolings:
        raise EncoderError(
            f"{folder}: {family.label} brings its own pooling ({family.pooling}), in which words "
            f"and pictures meet; leave out :{asked}"
        )
    raise EncoderError(
        f"{folder}: {family.label} has no CLS token, which {asked} needs; "
        f"take :{' or :'.join(family.poolings)}"
    )


def tokenizer_of(folder: Path, family: Family) -> Callable[[], Tokenizer] | None:
    """What reads the tokenizer of the text side; None without one."""
    if family.text is None:
        return None
    return partial(Tokenizer, folder, family.text, family.text.context)


def _towers(folder: Path, family: Family, pooling: str, side_px: int) -> Towers:
    require("torch", "transformers")
    from retrieval.encoders.towers.transformers import Cut, towers

    cut = Cut(family.build, pooling, family.prefix, side_px)
    return towers(folder, family.model_class, cut)
