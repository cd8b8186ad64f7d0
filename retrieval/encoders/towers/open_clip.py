"""Towers cut out of open_clip's models."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from retrieval.encoders.layout import Layout
from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import Pool
from retrieval.encoders.towers.timm import Features, Head, Own
from retrieval.encoders.towers.towers import Tower, Towers
from retrieval.errors import EncoderError


def towers(
    folder: Path,
    file: Path,
    config: Mapping[str, Any],
    text_model: Mapping[str, Any] | None,
    layout: Layout | None,
) -> Towers:
    """Read a checkpoint and cut its towers out.

    Args:
        folder: the checkpoint, for messages.
        file: the weights.
        config: ``model_cfg`` of open_clip.
        text_model: configuration of a text side that is transformers'; None of another.
        layout: of a vision side that is timm's and whose places can be told apart; None of another.

    Raises:
        EncoderError: if weights are damaged, missing or of another network.
    """
    model = _built(folder, config, text_model)
    _load(model, file)
    _traceable(model)
    bias = model.logit_bias
    image, patches = _images(model.visual, layout)
    return Towers(
        image=image,
        patches=patches,
        text=_text(model).eval(),
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=None if bias is None else float(bias.detach()),
    )


class Whole(Tower):
    """A side of a model as it is, whose insides are of no use here."""

    def __init__(self, model: nn.Module, given: str) -> None:
        """Wrap the side; ``given`` is what it takes: ``pixels`` or ``ids``."""
        super().__init__()
        self.model = model
        self.inputs = (given,)

    def forward(self, given: Tensor) -> Tensor:
        """``[n, dim]``."""
        embedding: Tensor = self.model(given)
        return embedding


class SelfAttention(nn.Module):
    """A block's attention; in steps that ONNX knows while it is traced.

    torch's own would then leave out steps that ONNX lacks, or fix the length of texts.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Wrap torch's attention, which has the weights."""
        super().__init__()
        self.attention = attention

    def forward(self, *same: Tensor, need_weights: bool, attn_mask: Tensor | None) -> list[Tensor]:
        """``[n, length, width]``, given three times as query, key and value, to the same shape."""
        attention = self.attention
        if not torch.jit.is_tracing():
            return [attention(*same, need_weights=need_weights, attn_mask=attn_mask)[0]]
        n, length, width = same[0].shape
        mixed = functional.linear(same[0], attention.in_proj_weight, attention.in_proj_bias)
        heads = mixed.reshape(n, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.reshape(n, attention.num_heads, length, length)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return [attention.out_proj(found.transpose(1, 2).reshape(n, length, width))]


class VitTokens(nn.Module):
    """The tokens of open_clip's own vision transformer, before its last norm."""

    def __init__(self, visual: Any) -> None:
        """Wrap the vision side."""
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, side, side]`` to ``[n, 1 + places, width]``."""
        tokens: Tensor = self.visual.transformer(self.visual._embeds(pixels))
        return tokens


class VitHead(nn.Module):
    """Norm, pooling in the order of the checkpoint, and projection."""

    def __init__(self, visual: Any) -> None:
        """Wrap the vision side."""
        super().__init__()
        self.visual = visual

    def forward(self, tokens: Tensor) -> Tensor:
        """``[n, 1 + places, width]`` to ``[n, dim]``."""
        pooled: Tensor = self.visual._pool(tokens)[0]
        return pooled if self.visual.proj is None else pooled @ self.visual.proj


class Text(Tower):
    """The parts of a text side, wherever a model keeps them: apart from its image side.

    ``ids`` may be shorter than the context where the network does not look at padding.
    """

    inputs = ("ids",)

    def __init__(self, source: Any, pool: str, end: int | None) -> None:
        """Take the parts.

        Args:
            source: ``CLIP``, or the text side of another model.
            pool: which token is the embedding, in open_clip's words.
            end: id of the token that ends a text, for the pooling ``eos``.
        """
        super().__init__()
        self.token_embedding = source.token_embedding
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)
        self.pool, self.end = pool, end

    def forward(self, ids: Tensor) -> Tensor:
        """``[n, length]`` to ``[n, dim]``."""
        length = ids.shape[1]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        tokens = self.token_embedding(ids) + self.positional_embedding[:length]
        tokens = self.ln_final(self.transformer(tokens, attn_mask=mask))
        pooled: Tensor = text_global_pool(tokens, ids, self.pool, eos_token_id=self.end)
        if self.text_projection is None:
            return pooled
        if isinstance(self.text_projection, nn.Linear):
            pooled = self.text_projection(pooled)
            return pooled
        return pooled @ self.text_projection


def _traceable(model: nn.Module) -> None:
    """Replace the attention of every block by one that exporters understand."""
    for block in model.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.attn = SelfAttention(block.attn)


def _images(visual: Any, layout: Layout | None) -> tuple[Tower, Tower | None]:
    """The image tower, and the one of patches where places can be told apart."""
    trunk: nn.Module
    if isinstance(visual, VisionTransformer):
        trunk, head, prefix = VitTokens(visual), VitHead(visual), 1
    elif layout is not None:
        trunk, head = Features(visual.trunk, layout), Head(visual.trunk, layout, visual.head)
        prefix = layout.prefix
    else:
        return Whole(visual, "pixels").eval(), None
    pool: Pool = Own(head, prefix, aligned=True)
    return ImageTower(trunk, pool).eval(), PatchTower(trunk, pool).eval()


def _text(model: Any) -> Tower:
    if isinstance(model, open_clip.CLIP):
        return Text(model, model.text_pool_type, model.text_eos_id)
    text = model.text
    if isinstance(text, TextTransformer) and text.cls_emb is None:
        return Text(text, text.pool_type, text.eos_id)
    text.output_tokens = False
    return Whole(text, "ids")


def _built(folder: Path, config: Mapping[str, Any], text_model: Mapping[str, Any] | None) -> Any:
    """The model as open_clip's own factory builds it, but from nothing outside the folder."""
    given = copy.deepcopy(dict(config))
    custom = given.pop("custom_text", False) or text_model is not None
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    if custom and "multimodal_cfg" in given:
        kind = open_clip.CoCa
    given["vision_cfg"]["timm_model_pretrained"] = False
    try:
        with tempfile.TemporaryDirectory() as beside:
            if text_model is not None:
                Path(beside, "config.json").write_text(json.dumps(text_model))
                given["text_cfg"] |= {"hf_model_name": beside, "hf_model_pretrained": False}
            return kind(**given)
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        raise EncoderError(
            f"{folder}: open_clip {open_clip.__version__} cannot build what its "
            f"configuration describes ({error}); a newer one may: pip install --upgrade "
            "open_clip_torch"
        ) from error


def _load(model: Any, file: Path) -> None:
    """Read the weights, refusing what does not fit exactly."""
    try:
        open_clip.load_checkpoint(model, str(file), strict=True)
    except (SafetensorError, OSError, RuntimeError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"{file} is damaged or of another network than its configuration describes "
            f"({reason[:300]}); delete it and get it again"
        ) from error
