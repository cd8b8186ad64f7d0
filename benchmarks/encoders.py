"""How fast encoders run in every way there is here, beside the loops that people would write.

    python benchmarks/encoders.py [--device cpu] [--rounds 5] [--images 32] [NAME…]

Full-size architectures with random weights (speed does not depend on weights), 224 px, from
decoded photos, so preprocessing counts on every side. All contenders take turns in every round;
figures are medians, ratios are to `transformers fp32`, the loop of processor and network as a
user would write it. `auto` is what `--precision auto` chose. `GEMM` is the machine's own matrix
multiplication in the same precision, of which the share says how much room is left. With
`--jpeg FILE…` the whole way from JPEG bytes is timed too, with as many threads as cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from retrieval import settings
from retrieval.encoders.build import build
from retrieval.encoders.checkpoints import Checkpoint, open_folder
from retrieval.encoders.precision import fastest
from retrieval.encoders.runtimes.plan import available
from retrieval.errors import EncoderError
from retrieval.images import decode

RESULTS = Path(__file__).parent / "results"
BATCH = 16
Run = Callable[[Sequence[Image.Image]], Any]


def clip_b32() -> tuple[Any, Any]:
    config = transformers.CLIPConfig()
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor()


def siglip_b16() -> tuple[Any, Any]:
    config = transformers.SiglipConfig(vision_config={"image_size": 224, "patch_size": 16})
    processor = transformers.SiglipImageProcessor(size={"height": 224, "width": 224})
    return transformers.SiglipModel(config), processor


def dinov2(width: int, heads: int, layers: int) -> tuple[Any, Any]:
    config = transformers.Dinov2Config(
        hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers, image_size=518,
        patch_size=14,
    )  # fmt: skip
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}
    )
    return transformers.Dinov2Model(config), processor


NETWORKS: dict[str, tuple[Callable[[], tuple[Any, Any]], float]] = {
    # name: how to make it, GFLOP of one picture's forward pass
    "clip-vit-b-32": (clip_b32, 8.8),
    "siglip-base": (siglip_b16, 35.4),
    "dinov2-small": (lambda: dinov2(384, 6, 12), 12.3),
    "dinov2-base": (lambda: dinov2(768, 12, 12), 46.8),
    "dinov2-large": (lambda: dinov2(1024, 16, 24), 164.0),
}


def save(name: str, folder: Path) -> Checkpoint:
    """A checkpoint with random weights; the text side's tokenizer is left out."""
    torch.manual_seed(0)
    network, processor = NETWORKS[name][0]()
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    opened = open_folder(folder)
    return Checkpoint(folder, opened.spec, opened.files, opened.towers)


def naive(folder: Path, name: str, device: str) -> Run:
    """What a user would write with transformers, in fp32."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval().to(device)

    def run(images: Sequence[Image.Image]) -> Any:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        with torch.inference_mode():
            if name.startswith("dinov2"):
                rows = network(**inputs).pooler_output
            else:
                rows = network.get_image_features(**inputs).pooler_output
        return torch.nn.functional.normalize(rows, dim=-1).cpu().numpy()

    return run


def open_clip_loop(device: str) -> Run:
    """What a user would write with open_clip."""
    import open_clip

    network, _, transform = open_clip.create_model_and_transforms("ViT-B-32", device=device)
    network.eval()

    def run(images: Sequence[Image.Image]) -> Any:
        with torch.inference_mode():
            rows = network.encode_image(torch.stack([transform(i) for i in images]).to(device))
        return torch.nn.functional.normalize(rows, dim=-1).cpu().numpy()

    return run


def openvino_loop(graph: Path, precision: str) -> Run:
    """As OpenVINO's own benchmark_app in throughput mode: ready tensors, nothing else."""
    import openvino

    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(graph), "CPU", options)
    queue = openvino.AsyncInferQueue(compiled)
    pixels = np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224)).astype(np.float32)

    def run(images: Sequence[Image.Image]) -> Any:
        for _ in range(0, len(images), BATCH):
            queue.start_async({0: pixels})
        queue.wait_all()

    return run


def gemm(device: str, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product, the best of ten."""
    side = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        synchronise(device)
        start = time.perf_counter()
        a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ways(checkpoint: Checkpoint, name: str, device: str, photos: list[Image.Image]) -> Any:
    """Everything that takes part in the race, and what ``auto`` says."""
    runs: dict[str, Run] = {"transformers fp32": naive(checkpoint.folder, name, device)}
    if name == "clip-vit-b-32":
        runs["open_clip fp32"] = open_clip_loop(device)
    for plan in available(device):
        try:
            runs[str(plan)] = build(checkpoint, plan, device, photos).encode_images
        except EncoderError as error:
            print(f"  {plan}: {error}")
    if device == "cpu":
        graphs = sorted(settings.load().cache_dir.glob("exports/*/image.onnx"))
        if graphs and any(plan.runtime == "openvino" for plan in available(device)):
            newest = max(graphs, key=lambda path: path.stat().st_mtime)
            runs["OpenVINO loop f32"] = openvino_loop(newest, "f32")
            runs["OpenVINO loop bf16"] = openvino_loop(newest, "bf16")
    chosen, choice = fastest(checkpoint, photos, device=device)
    runs["auto"] = chosen.encode_images
    return runs, choice


def race(runs: dict[str, Run], photos: list[Image.Image], rounds: int) -> dict[str, float]:
    """Images a second of each, medians over interleaved rounds."""
    times: dict[str, list[float]] = {way: [] for way in runs}
    for turn in range(rounds + 1):
        for way, run in runs.items():
            start = time.perf_counter()
            for at in range(0, len(photos), BATCH):
                run(photos[at : at + BATCH])
            if turn:  # the first one warms up
                times[way].append(time.perf_counter() - start)
    return {way: len(photos) / statistics.median(each) for way, each in times.items()}


def from_jpeg(encode: Run, files: Sequence[Path], rounds: int) -> dict[str, float]:
    """The whole way from bytes with a thread a core, and the share of each step alone."""
    data = [path.read_bytes() for path in files]
    groups = [data[at : at + BATCH] for at in range(0, len(data), BATCH)]
    limit = settings.load().max_pixels

    def whole(group: Sequence[bytes]) -> Any:
        return encode([decode(each, max_pixels=limit).image for each in group])

    walls, decodes = [], []
    with ThreadPoolExecutor(settings.cores()) as pool:
        list(pool.map(whole, groups))
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(whole, groups))
            walls.append(time.perf_counter() - start)
            start = time.perf_counter()
            list(pool.map(lambda group: [decode(x, max_pixels=limit) for x in group], groups))
            decodes.append(time.perf_counter() - start)
    wall, alone = statistics.median(walls), statistics.median(decodes)
    return {"images_per_s": len(data) / wall, "decoding_alone_images_per_s": len(data) / alone}


def photographs(count: int) -> list[Image.Image]:
    """Photos of 640×480 from one that scikit-image brings, cut differently."""
    from skimage import data

    photo = Image.fromarray(data.astronaut()).resize((1600, 1200))
    rng = np.random.default_rng(0)
    cuts = zip(rng.integers(0, 960, count), rng.integers(0, 720, count), strict=True)
    return [photo.crop((int(x), int(y), int(x) + 640, int(y) + 480)) for x, y in cuts]


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    photos = photographs(options.images)
    with tempfile.TemporaryDirectory() as made:
        checkpoint = save(name, Path(made))
        runs, choice = ways(checkpoint, name, options.device, photos)
        rates = race(runs, photos, options.rounds)
        plain = rates["transformers fp32"]
        found: dict[str, Any] = {
            "gflop": NETWORKS[name][1],
            "images_per_s": {way: round(rate, 2) for way, rate in rates.items()},
            "ratio": {way: round(rate / plain, 2) for way, rate in rates.items()},
            "auto": {"says": str(choice), "trials": [asdict(trial) for trial in choice.trials]},
        }
        if options.jpeg:
            found["from_jpeg"] = from_jpeg(runs["auto"], options.jpeg, options.rounds)
    for way, rate in sorted(rates.items(), key=lambda item: item[1]):
        print(f"  {way:24} {rate:8.2f} images/s {rate / plain:6.2f} ×")
    print(f"  auto: {choice}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["clip-vit-b-32", "siglip-base", "dinov2-small"]
    parser.add_argument("names", nargs="*", metavar="NAME", default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--jpeg", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    where = "encoders" if options.device == "cpu" else f"encoders_{options.device.split(':')[0]}"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    found: dict[str, Any] = {
        "machine": {"processor": platform.processor(), "cores": settings.cores()},
        "load": os.getloadavg()[0],
        "gemm_gflop_per_s": {n: round(gemm(options.device, d)) for n, d in dtypes.items()},
        "networks": {},
    }
    if options.device.startswith("cuda"):
        found["machine"]["gpu"] = torch.cuda.get_device_name()
    for name in options.names:
        print(name)
        found["networks"][name] = measure(name, options)
    (RESULTS / f"{where}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
