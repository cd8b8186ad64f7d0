"""Checkpoint folders of open_clip, as its ``push_to_hf_hub`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.checkpoints.layouts import layout
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.checkpoints.text_models import TEXT_MODELS
from retrieval.encoders.layout import Layout
from retrieval.encoders.open_clip_tokens import tokenizer_of
from retrieval.encoders.preprocess_config import from_open_clip
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.towers import Towers

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

_GEMMA_WORDS = 256000
_POOLINGS = {"tok": "cls-projection", "token": "cls-projection", "map": "attention"}


def open_checkpoint(folder: Path, pooling: str | None) -> Checkpoint:
    """Read the facts of a folder; see :func:`~retrieval.encoders.checkpoints.open_folder`."""
    config = read_json(folder, CONFIG)
    model, vision, text = _parts(folder, config)
    file = folder / WEIGHTS
    if not file.is_file():
        raise EncoderError(
            f"{folder} has no {WEIGHTS}; only safetensors are loaded "
            "(open_clip.push_to_hf_hub(…, safe_serialization=True) writes them)"
        )
    try:
        size = vision.get("image_size", 224)
        preprocess = from_open_clip({**(config.get("preprocess_cfg") or {}), "size": size})
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from error
    found = _layout(folder, vision, preprocess.size)
    patch_px = _patch_px(vision, found, preprocess.size)
    family = _family(model, vision, text)
    own = _own_pooling(vision)
    if pooling is not None:
        raise EncoderError(
            f"{folder}: {family} brings its own pooling ({own}), in which words and pictures "
            f"meet; leave out :{pooling}"
        )
    spec = EncoderSpec(
        name=str(folder),
        family=family,
        dim=int(model["embed_dim"]),
        modalities=("image", "text"),
        preprocess=preprocess,
        pooling=own,
        source=str(folder),
        revision="local",
        licence="unknown: see where the folder came from",
        size_mb=round(file.stat().st_size / 1e6, 1),
        summary=f"{family} of open_clip in a local folder",
        prompt="this is a photo of {}" if family.startswith("SigLIP") else "a photo of a {}",
        library="open_clip",
        patch_px=patch_px,
        tokenizer=_reads(text),
    )
    return Checkpoint(
        folder=folder,
        spec=spec,
        files=(file,),
        towers=partial(_towers, folder, file, model, found if patch_px else None),
        tokenizer=partial(tokenizer_of, folder, text),
    )


def _parts(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The configuration of the network, of its vision side and of its text side."""
    model = config.get("model_cfg")
    if isinstance(model, dict):
        vision, text = model.get("vision_cfg"), model.get("text_cfg")
        if isinstance(vision, dict) and isinstance(text, dict) and "embed_dim" in model:
            return model, vision, text
    raise EncoderError(
        f"{folder / CONFIG} has no model_cfg with embed_dim, vision_cfg and text_cfg"
    )


def _layout(folder: Path, vision: Mapping[str, Any], size: int) -> Layout | None:
    """The layout of a vision side that is timm's; None of another."""
    name = vision.get("timm_model_name")
    if name is None:
        return None
    if ":" in name:
        raise EncoderError(f"{folder}: {name!r} would be got from elsewhere; give timm's own name")
    return layout(folder, {}, size, name)


def _patch_px(vision: Mapping[str, Any], found: Layout | None, size: int) -> int | None:
    if found is not None:
        if found.side is None or vision.get("timm_pool") in ("abs_attn", "rot_attn"):
            return None
        return round(size / found.side)
    return None if isinstance(vision.get("layers"), list) else int(vision.get("patch_size", 16))


def _own_pooling(vision: Mapping[str, Any]) -> str:
    if "timm_model_name" in vision:
        named = vision.get("timm_pool", "avg")
    elif vision.get("attentional_pool") or isinstance(vision.get("layers"), list):
        named = "map"
    else:
        named = vision.get("pool_type", "tok")
    return _POOLINGS.get(named, "mean-projection" if named in ("avg", "") else str(named))


def _family(model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """What people call it."""
    trunk = str(vision.get("timm_model_name"))
    if "multimodal_cfg" in model:
        return "CoCa"
    if "_mci" in trunk:
        return "MobileCLIP"
    if model.get("init_logit_bias") is not None:
        return "SigLIP 2" if text.get("vocab_size") == _GEMMA_WORDS else "SigLIP"
    return "CLIP"


def _reads(text: Mapping[str, Any]) -> str:
    context = text.get("context_length", 77)
    if named := text.get("hf_tokenizer_name"):
        return f"that of {named}, {context} tokens"
    return f"BPE, {context} tokens, English"


def _towers(folder: Path, file: Path, model: dict[str, Any], found: Layout | None) -> Towers:
    named = model["text_cfg"].get("hf_model_name")
    require("torch", "open_clip", *(["transformers"] if named else []))
    from retrieval.encoders.towers.open_clip import towers

    return towers(folder, file, model, _text_model(folder, named) if named else None, found)


def _text_model(folder: Path, name: str) -> dict[str, Any]:
    """What transformers needs to know of a text model that open_clip only names."""
    if (folder / "config.json").is_file():
        found = read_json(folder, "config.json")
        if "auto_map" in found:
            raise EncoderError(f"{folder}: its config.json asks for code of its own, never run")
    elif name in TEXT_MODELS:
        found = TEXT_MODELS[name]
    else:
        raise EncoderError(
            f"{folder}: its text side is {name}, whose configuration it does not bring: copy "
            f"config.json of {name} into it"
        )
    return {
        **{key: value for key, value in found.items() if key != "torch_dtype"},
        "dtype": "float32",
    }
