"""Count what one picture costs in every architecture of the catalogue.

    python benchmarks/encoder_flops.py [NAME…]

The networks are built at full size on torch's `meta` device, which has shapes and no numbers, and
`FlopCounterMode` counts the multiplications and additions of matrix products, convolutions and
attention (two for a multiply-add) in one forward pass of the image side. Counted too: the
weights, of which the size of a download in fp32 follows (large tokenizers come on top). Nothing
is downloaded and little memory used. A figure that is not the catalogue's is marked.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from retrieval.encoders import specs

Network = Any
Made = tuple[Network, Callable[[Network, torch.Tensor], Any]]
VIT = {
    "small": {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12},
    "large": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24},
    "huge": {"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32},
    "so400m": {"hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27},
    "giant": {"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40},
}
TEXT = {
    512: {"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 12},
    768: {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12},
    1024: {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24},
}


def vit(size: str, **more: Any) -> dict[str, Any]:
    facts = VIT[size]
    return {**facts, "intermediate_size": 4 * facts["hidden_size"], **more}


def text(width: int, **more: Any) -> dict[str, Any]:
    return {**TEXT[width], "intermediate_size": 4 * width, **more}


def visual(kind: str, **facts: Any) -> Made:
    """A vision network of transformers."""
    config = getattr(transformers, f"{kind}Config")(**facts, attn_implementation="eager")
    with torch.device("meta"):
        network = getattr(transformers, f"{kind}Model")(config)
    return network, lambda network, pixels: network(pixel_values=pixels)


def aligned(kind: str, vision: dict[str, Any], words: dict[str, Any], **more: Any) -> Made:
    """A language-aligned network of transformers."""
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**vision, "attn_implementation": "eager"},
        text_config=words,
        attn_implementation="eager",
        **more,
    )
    with torch.device("meta"):
        network = getattr(transformers, f"{kind}Model")(config)
    return network, lambda network, pixels: network.get_image_features(pixel_values=pixels)


def clip(
    size: str, patch: int, dim: int, side: int = 224, kind: str = "CLIP", **words: Any
) -> Made:
    vision = vit(size, patch_size=patch, image_size=side, projection_dim=dim)
    return aligned(kind, vision, text(dim, projection_dim=dim, **words), projection_dim=dim)


def siglip(size: str, patch: int, side: int, vocabulary: int = 32_000) -> Made:
    wide = {"intermediate_size": 4304} if size == "so400m" else {}
    vision = vit(size, patch_size=patch, image_size=side, **wide)
    return aligned("Siglip", vision, vit(size, vocab_size=vocabulary, **wide))


def timm(name: str) -> Made:
    import timm as library

    library.layers.set_fused_attn(False)
    with torch.device("meta"):
        network = library.create_model(name, num_classes=0)
    return network, lambda network, pixels: network(pixels)


def open_clip(name: str) -> Made:
    import open_clip as library
    import timm as towers

    towers.layers.set_fused_attn(False)
    with torch.device("meta"):
        network = library.create_model(name, pretrained=None, device="meta")
    return network, lambda network, pixels: network.encode_image(pixels)


def aimv2(**more: Any) -> dict[str, Any]:
    return {**VIT["large"], "num_attention_heads": 8, "intermediate_size": 2816, **more}


def convnext(depth: int, first: int) -> Made:
    sizes = [first << step for step in range(4)]
    return visual("DINOv3ConvNext", depths=[3, 3, depth, 3], hidden_sizes=sizes)


V2 = {"patch_size": 14, "image_size": 518}
MAKE: dict[str, Callable[[], Made]] = {
    "dinov2-small": lambda: visual("Dinov2", **vit("small", **V2)),
    "dinov2-base": lambda: visual("Dinov2", **vit("base", **V2)),
    "dinov2-large": lambda: visual("Dinov2", **vit("large", **V2)),
    "dinov2-giant": lambda: visual("Dinov2", **vit("giant", use_swiglu_ffn=True, **V2)),
    "dinov2-small-reg": lambda: visual("Dinov2WithRegisters", **vit("small", **V2)),
    "dinov2-base-reg": lambda: visual("Dinov2WithRegisters", **vit("base", **V2)),
    "dinov2-large-reg": lambda: visual("Dinov2WithRegisters", **vit("large", **V2)),
    "dinov2-giant-reg": lambda: visual(
        "Dinov2WithRegisters", **vit("giant", use_swiglu_ffn=True, **V2)
    ),
    "dinov3-small": lambda: visual("DINOv3ViT", **vit("small", num_register_tokens=4)),
    "dinov3-small-plus": lambda: visual(
        "DINOv3ViT", **vit("small", num_register_tokens=4, use_gated_mlp=True)
    ),
    "dinov3-base": lambda: visual("DINOv3ViT", **vit("base", num_register_tokens=4)),
    "dinov3-large": lambda: visual("DINOv3ViT", **vit("large", num_register_tokens=4)),
    "dinov3-convnext-tiny": lambda: convnext(9, 96),
    "dinov3-convnext-small": lambda: convnext(27, 96),
    "dinov3-convnext-base": lambda: convnext(27, 128),
    "dinov3-convnext-large": lambda: convnext(27, 192),
    "mae-base": lambda: timm("vit_base_patch16_224"),
    "mae-large": lambda: timm("vit_large_patch16_224"),
    "ijepa-huge": lambda: visual("IJepa", **vit("huge", patch_size=14)),
    "vit-base": lambda: visual("ViT", **vit("base")),
    "eva02-base": lambda: timm("eva02_base_patch14_224"),
    "eva02-large": lambda: timm("eva02_large_patch14_224"),
    "aimv2-large": lambda: visual("Aimv2Vision", **aimv2(use_head=False)),
    "clip-vit-b-32": lambda: clip("base", 32, 512),
    "clip-vit-b-16": lambda: open_clip("ViT-B-16-quickgelu"),
    "clip-vit-l-14": lambda: clip("large", 14, 768),
    "clip-vit-l-14-336": lambda: open_clip("ViT-L-14-336-quickgelu"),
    "laion-b-32": lambda: clip("base", 32, 512),
    "laion-l-14": lambda: clip("large", 14, 768),
    "laion-h-14": lambda: clip("huge", 14, 1024),
    "datacomp-b-32": lambda: open_clip("ViT-B-32-256"),
    "mobileclip-s1": lambda: open_clip("MobileCLIP-S1"),
    "mobileclip-s2": lambda: open_clip("MobileCLIP-S2"),
    "mobileclip-b": lambda: open_clip("MobileCLIP-B"),
    "mobileclip2-s0": lambda: open_clip("MobileCLIP2-S0"),
    "mobileclip2-s2": lambda: open_clip("MobileCLIP2-S2"),
    "mobileclip2-b": lambda: open_clip("MobileCLIP2-B"),
    "pe-core-b-16": lambda: open_clip("PE-Core-B-16"),
    "pe-core-l-14-336": lambda: open_clip("PE-Core-L-14-336"),
    "siglip-base": lambda: siglip("base", 16, 224),
    "siglip-base-384": lambda: siglip("base", 16, 384),
    "siglip-large-384": lambda: siglip("large", 16, 384),
    "siglip-so400m": lambda: siglip("so400m", 14, 224),
    "siglip-so400m-384": lambda: siglip("so400m", 14, 384),
    "siglip-base-multilingual": lambda: siglip("base", 16, 256, 250_000),
    "siglip2-base": lambda: siglip("base", 16, 224, 256_000),
    "siglip2-large": lambda: siglip("large", 16, 256, 256_000),
    "siglip2-so400m": lambda: siglip("so400m", 14, 384, 256_000),
    # NaFlex costs what the fixed network costs on as many patches, 16 × 16.
    "siglip2-base-naflex": lambda: siglip("base", 16, 256, 256_000),
    "siglip2-so400m-naflex": lambda: siglip("so400m", 16, 256, 256_000),
    "aimv2-lit": lambda: aligned(
        "Aimv2",
        aimv2(use_head=True),
        {"hidden_size": 768, "num_attention_heads": 6, "num_hidden_layers": 12},
        projection_dim=768,
    ),
    "metaclip2-b-32": lambda: clip("base", 32, 512, kind="MetaClip2", vocab_size=901_629),
    "metaclip2-l-14": lambda: clip("large", 14, 768, kind="MetaClip2", vocab_size=901_629),
    "metaclip2-h-14": lambda: clip("huge", 14, 1024, kind="MetaClip2", vocab_size=901_629),
    "altclip": lambda: aligned(
        "AltCLIP",
        vit("large", patch_size=14, projection_dim=768),
        {**text(1024), "project_dim": 768, "vocab_size": 250_002},
        projection_dim=768,
    ),
}


def count(name: str) -> tuple[float, float, int]:
    """GFLOP of one picture, megabytes of all weights in fp32, length of an embedding."""
    preprocess = specs()[name].preprocess
    assert preprocess is not None
    network, run = MAKE[name]()
    network.eval().requires_grad_(False)
    weights = sum(part.numel() for part in network.parameters())
    pixels = torch.empty(1, 3, preprocess.size, preprocess.size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        out = run(network, pixels)
    pooled = getattr(out, "pooler_output", None)
    embedding = pooled if pooled is not None else getattr(out, "last_hidden_state", out)
    return counter.get_total_flops() / 1e9, weights * 4 / 1e6, embedding.shape[-1]


def main() -> None:
    transformers.logging.set_verbosity_error()
    logging.getLogger().setLevel(logging.ERROR)
    print(f"{'name':<26}{'GFLOP':>8}{'MB':>7}{'dim':>6}")
    for name in sys.argv[1:] or MAKE:
        gflops, size_mb, dim = count(name)
        spec = specs()[name]
        told = (round(gflops, 1), dim) == (spec.gflops, spec.dim) and size_mb < spec.size_mb + 1
        mark = "" if told else f"  the catalogue has {spec.gflops}, {spec.size_mb}, {spec.dim}"
        print(f"{name:<26}{gflops:>8.1f}{size_mb:>7.0f}{dim:>6}{mark}", flush=True)


if __name__ == "__main__":
    main()
