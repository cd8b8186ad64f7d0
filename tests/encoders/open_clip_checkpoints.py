"""Tiny checkpoints of open_clip's own classes, with seeded random weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from tests.encoders import open_clip_vocabularies as vocabularies
from tests.encoders.timm_checkpoints import shake

VISION = {"image_size": 64, "patch_size": 16, "layers": 2, "width": 48, "head_width": 12}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    **TEXT,
    "context_length": 64,
    "hf_tokenizer_name": "somebody/SigLIP",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "xlm_roberta": {
        "model_type": "xlm-roberta",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "nllb": {
        "model_type": "m2m_100",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "scale_embedding": True,
        "pad_token_id": 1,
    },
}


def _timm(name: str, **facts: object) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": 64, **facts}


def _hf(pooler: str, **facts: object) -> dict[str, Any]:
    return {"hf_model_name": "some/text", "hf_tokenizer_name": "some/text", **facts} | {
        "hf_pooler_type": pooler
    }


MODELS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VISION, "text_cfg": TEXT},
    "vit_quick_gelu": {"vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True},
    "vit_mean": {
        "vision_cfg": {**VISION, "pool_type": "avg", "no_ln_pre": True, "ls_init_value": 0.1},
        "text_cfg": {**TEXT, "pool_type": "first", "no_causal_mask": True},
        "custom_text": True,
    },
    "vit_norm_last": {
        "vision_cfg": {**VISION, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "context_length": 32},
    },
    "resnet": {
        "vision_cfg": {**VISION, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": TEXT,
    },
    "convnext": {
        "vision_cfg": _timm("test_convnext", timm_pool="", timm_proj="linear"),
        "text_cfg": TEXT,
    },
    "eva_like": {
        "vision_cfg": _timm("test_vit", timm_pool="token", timm_proj=None, image_size=160),
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "mobileclip": {
        "vision_cfg": _timm("fastvit_mci0", timm_pool="avg", timm_proj=None),
        "text_cfg": {**TEXT, "no_causal_mask": True},
        "custom_text": True,
    },
    "siglip": {
        "vision_cfg": _timm("test_vit3", timm_pool="map", timm_proj="none", image_size=160),
        "text_cfg": SIGLIP_TEXT,
        "init_logit_bias": -10,
        "custom_text": True,
        "embed_dim": 96,
    },
    "attention_2d": {
        "vision_cfg": _timm("resnet10t", timm_pool="rot_attn", timm_proj="", image_size=96),
        "text_cfg": TEXT,
    },
    "coca": {
        "vision_cfg": {
            **VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 4,
            "attn_pooler_queries": 5,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 4},
        "custom_text": True,
    },
    "xlm_roberta": {"vision_cfg": VISION, "text_cfg": _hf("mean_pooler")},
    "nllb": {"vision_cfg": VISION, "text_cfg": _hf("cls_pooler", hf_proj_type="linear")},
}
PREPROCESS: dict[str, dict[str, Any]] = {
    "siglip": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "resize_mode": "squash",
        "interpolation": "bicubic",
    },
    "mobileclip": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
    "convnext": {"resize_mode": "longest", "fill_color": 128},
}


def write(folder: Path, name: str) -> Path:
    """Save one of ``MODELS`` in the layout of open_clip's hub repositories."""
    folder.mkdir(parents=True)
    config = {"embed_dim": 40, **copy.deepcopy(MODELS[name])}
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        size = vocabularies.write(folder, "t5" if name == "siglip" else name)
    if "hf_model_name" in text:
        text_model = {**TEXT_MODELS[name], "vocab_size": size}
        (folder / "config.json").write_text(json.dumps(text_model))
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESS.get(name, {})}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    model = _model(copy.deepcopy(config), folder)
    shake(model, 0.2 if name == "resnet" else 0.1)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _model(config: dict[str, Any], folder: Path) -> torch.nn.Module:
    hf = "hf_model_name" in config["text_cfg"]
    if hf:
        config["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    custom = config.pop("custom_text", False) or hf
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**config)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
