"""The facts of the pocket encoders."""

from __future__ import annotations

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.pocket import weights
from retrieval.encoders.preprocess import Preprocess

DIM = 256
LOGIT_SCALE = 20.0
PATCH_PX = 32

PREPROCESS = Preprocess(
    size=224,
    resize="shortest",
    resize_to=224,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

VISUAL = EncoderSpec(
    name="pocket-visual",
    family="EfficientNet-Lite0",
    dim=DIM,
    modalities=("image",),
    preprocess=PREPROCESS,
    pooling="mean, half-whitened",
    source=weights.PACKAGE,
    revision="0.1.0",
    licence="Apache-2.0",
    size_mb=18.8,
    summary="looks alike: the default, for any CPU, nothing to download",
    library="onnx",
    patch_px=PATCH_PX,
)

TEXT = EncoderSpec(
    name="pocket-text",
    family="EfficientNet-Lite0",
    dim=DIM,
    modalities=("image", "text"),
    preprocess=PREPROCESS,
    pooling="mean, trained head",
    source=weights.PACKAGE,
    revision="0.1.0",
    licence="Apache-2.0",
    size_mb=18.8,
    summary="words, everyday English: the default, modest, nothing to download",
    logit_scale=LOGIT_SCALE,
    prompt="a photo of a {}",
    terms=(
        "its text side was trained on Flickr8k captions, whose terms allow research and education: "
        "for a commercial service choose another encoder"
    ),
    library="onnx",
    patch_px=PATCH_PX,
    tokenizer="word pieces, 64 tokens, English",
)

SPECS: tuple[EncoderSpec, ...] = (VISUAL, TEXT)
