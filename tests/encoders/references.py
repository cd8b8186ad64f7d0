"""What transformers itself gives for a checkpoint: its processor, its tokenizer, its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from PIL import Image

Outputs = tuple[torch.Tensor, list[torch.Tensor]]
TEXT_TOKENS = {"chinese_clip": 52}


def image_inputs(folder: Path, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """By the library's processor, its version on Pillow where there is one."""
    processor = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return dict(processor(images=list(pictures), return_tensors="pt"))


def images(name: str, folder: Path, pictures: Sequence[Image.Image]) -> Outputs:
    """One row a picture ``[n, dim]``, and of each picture the places ``[count, width]``."""
    model = model_of(name, folder)
    inputs = image_inputs(folder, pictures)
    with torch.inference_mode():
        whole, places = _IMAGES.get(name, _aligned)(model, inputs)
    rows = [len(one) for one in places]
    if "pixel_attention_mask" in inputs:
        rows = inputs["pixel_attention_mask"].sum(dim=1).tolist()
    return whole, [one[:count] for one, count in zip(places, rows, strict=True)]


def model_of(name: str, folder: Path) -> Any:
    classes = {
        "clip_vision_projected": "CLIPVisionModelWithProjection",
        "metaclip2_vision": "MetaClip2VisionModelWithProjection",
    }
    return getattr(tf, classes.get(name, "AutoModel")).from_pretrained(folder).eval()


def texts(name: str, folder: Path, lines: Sequence[str]) -> torch.Tensor:
    """``[n, dim]``."""
    inputs = {key: torch.tensor(rows) for key, rows in text_inputs(name, folder, lines).items()}
    with torch.inference_mode():
        return tf.AutoModel.from_pretrained(folder).eval().get_text_features(**inputs)[1]


def text_inputs(name: str, folder: Path, lines: Sequence[str]) -> dict[str, list[list[int]]]:
    """By the library's tokenizer, called as the makers of the checkpoint say."""
    if name in ("siglip2", "naflex"):
        # The class whose lower-casing the published checkpoints' own tokenizer class forgets.
        return _filled(tf.Siglip2Tokenizer.from_pretrained(folder), lines, pad=0)
    if name in ("siglip", "metaclip2_mt5"):
        fast = tf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        fast.eos_token = "</s>"
        return _filled(fast, lines, pad=fast.eos_token_id)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    most = TEXT_TOKENS.get(name, 77)
    return dict(tokenizer(list(lines), padding=True, truncation=True, max_length=most))


def _filled(tokenizer: Any, lines: Sequence[str], pad: int) -> dict[str, list[list[int]]]:
    """All 64 places, no mask, as SigLIP was trained."""
    ids = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
    rows = [[*row[:63], tokenizer.eos_token_id] for row in ids]
    return {"input_ids": [row + [pad] * (64 - len(row)) for row in rows]}


def _cls(prefix: int) -> Callable[..., Any]:
    def outputs(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
        tokens = model(**inputs).last_hidden_state
        return tokens[:, 0], tokens[:, prefix:]

    return outputs


def _mean(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    tokens = model(**inputs).last_hidden_state
    return tokens.mean(dim=1), tokens


def _mae(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """Nothing masked; what was shuffled put back into its place by the library's own index."""
    model.config.mask_ratio = 0.0
    found = model(**inputs)
    order = found.ids_restore.unsqueeze(-1).expand(-1, -1, found.last_hidden_state.shape[-1])
    places = found.last_hidden_state[:, 1:].gather(1, order)
    return places.mean(dim=1), places


def _convnext(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    found = model(**inputs)
    return found.pooler_output, found.last_hidden_state[:, 1:]


def _projected(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    found = model(**inputs)
    normed = model.vision_model.post_layernorm(found.last_hidden_state[:, 1:])
    return found.image_embeds, model.visual_projection(normed)


def _normed(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    found = model(**inputs)
    return found.pooler_output, model.post_layernorm(found.last_hidden_state[:, 1:])


def _head(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    found = model(**inputs)
    return found.pooler_output, _one_by_one(model.head, found.last_hidden_state)


def _aligned(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """Each place as if it were the only one."""
    vision = model.vision_model
    whole = model.get_image_features(**inputs).pooler_output
    tokens = vision(**inputs).last_hidden_state
    places = _one_by_one(vision.head, tokens) if hasattr(vision, "head") else None
    if places is None:
        places = vision.post_layernorm(tokens[:, 1:])
    return whole, model.visual_projection(places) if hasattr(model, "visual_projection") else places


def _one_by_one(head: Any, tokens: torch.Tensor) -> torch.Tensor:
    return torch.stack([head(tokens[:, [at]]) for at in range(tokens.shape[1])], dim=1)


_IMAGES: dict[str, Callable[..., Any]] = {
    "dinov2": _cls(1),
    "dinov2_registers": _cls(5),
    "dinov3_vit": _cls(5),
    "dinov3_convnext": _convnext,
    "mae": _mae,
    "ijepa": _mean,
    "vit": _cls(1),
    "deit": _cls(2),
    "msn": _cls(1),
    "aimv2_vision": _mean,
    "aimv2_vision_head": _head,
    "clip_vision": _normed,
    "clip_vision_projected": _projected,
    "metaclip2_vision": _projected,
    "siglip_vision": _head,
    "siglip_vision_headless": _mean,
    "naflex_vision": _head,
}
