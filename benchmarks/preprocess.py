"""What preprocessing costs: ours, the libraries' own, and Pillow's resize alone.

    python -m benchmarks.preprocess [--rounds 7] [--data ../shared/data]

Every variant turns the same decoded photos into input of 224 px, one by one, on one thread; rounds
are interleaved and the medians of CPU time compared. Needs torch, torchvision, transformers, timm
and open_clip.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features
from rich.console import Console
from rich.table import Table

from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
RESULT = Path(__file__).parent / "results" / "preprocess.json"

Job = Callable[[Image.Image], object]


def photo_sets(root: Path) -> dict[str, list[Image.Image]]:
    small = [Image.open(path).convert("RGB") for path in sorted(root.glob("coco128/*/*.jpg"))[:40]]
    large = [image.resize((4000, 3000)) for image in small[:4]]
    return {"coco128, 640 px": small, "the same at 4000x3000": large}


def numpy_by_hand(resized: Image.Image) -> np.ndarray:
    """What most people write after the resize."""
    pixels = np.array(resized) / 255.0
    return ((pixels - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)[None]


def shortest(image: Image.Image, side: int) -> Image.Image:
    ratio = side / min(image.size)
    return image.resize((int(image.width * ratio), int(image.height * ratio)), Image.BICUBIC)


def dinov2() -> dict[str, Job]:
    import timm.data
    from transformers import BitImageProcessor
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    ours = Preprocess(224, "shortest", 256, "bicubic", MEAN, STD, centre="floor")
    facts = {"size": {"shortest_edge": 256}, "image_mean": list(MEAN), "image_std": list(STD)}
    pil, torch = BitImageProcessorPil(**facts), BitImageProcessor(**facts)
    timms = timm.data.create_transform(224, interpolation="bicubic")
    return {
        "resize alone": lambda image: shortest(image, 256),
        "ours": lambda image: ours.inputs([image]),
        "numpy by hand": lambda image: numpy_by_hand(shortest(image, 256).crop((0, 0, 224, 224))),
        "transformers, Pillow": lambda image: pil([image], return_tensors="np"),
        "transformers, torchvision": lambda image: torch([image], return_tensors="pt"),
        "timm": timms,
    }


def siglip() -> dict[str, Job]:
    import open_clip.transform
    from transformers import SiglipImageProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    ours = Preprocess(224, "squash", 224, "bicubic", HALF, HALF)
    pil, torch = SiglipImageProcessorPil(), SiglipImageProcessor()
    config = open_clip.transform.PreprocessCfg(size=224, mean=HALF, std=HALF, resize_mode="squash")
    return {
        "resize alone": lambda image: image.resize((224, 224), Image.BICUBIC),
        "ours": lambda image: ours.inputs([image]),
        "transformers, Pillow": lambda image: pil([image], return_tensors="np"),
        "transformers, torchvision": lambda image: torch([image], return_tensors="pt"),
        "open_clip": open_clip.transform.image_transform_v2(config, is_train=False),
    }


def dinov3() -> dict[str, Job]:
    from transformers import DINOv3ViTImageProcessor

    ours = Preprocess(224, "squash", 224, "bilinear", MEAN, STD, resize_in="float")
    torch = DINOv3ViTImageProcessor()
    return {
        "resize alone": lambda image: image.resize((224, 224), Image.BILINEAR),
        "ours": lambda image: ours.inputs([image]),
        "transformers, torchvision": lambda image: torch([image], return_tensors="pt"),
    }


def naflex() -> dict[str, Job]:
    from transformers import Siglip2ImageProcessor
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    ours = NaFlex(16, 256, "bilinear", HALF, HALF)
    pil, torch = Siglip2ImageProcessorPil(), Siglip2ImageProcessor()
    return {
        "resize alone": lambda image: image.resize((288, 224), Image.BILINEAR),
        "ours": lambda image: ours.inputs([image]),
        "transformers, Pillow": lambda image: pil([image], return_tensors="np"),
        "transformers, torchvision": lambda image: torch([image], return_tensors="pt"),
    }


def cpu_ms(jobs: dict[str, Job], images: list[Image.Image], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds a photo."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.process_time()
            for image in images:
                job(image)
            times[name].append((time.process_time() - start) * 1000 / len(images))
    return {name: round(statistics.median(values[1:]), 3) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    sets = photo_sets(options.data)
    kinds = {"DINOv2": dinov2, "SigLIP": siglip, "DINOv3": dinov3, "SigLIP 2 NaFlex": naflex}
    found = {
        kind: {name: cpu_ms(make(), images, options.rounds) for name, images in sets.items()}
        for kind, make in kinds.items()
    }
    table = Table("preprocessing", "photos", "by", "ms", "× resize", title="CPU time of one photo")
    for kind, by_set in found.items():
        for name, times in by_set.items():
            for job, ms in times.items():
                table.add_row(kind, name, job, f"{ms:.2f}", f"{ms / times['resize alone']:.2f}")
    Console().print(table)
    facts = {"pillow": features.version("pil"), "cores": len(os.sched_getaffinity(0))}
    RESULT.write_text(json.dumps({**facts, "cpu_ms_per_photo": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
