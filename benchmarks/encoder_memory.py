"""Whether memory stays flat while an encoder works for long.

    python -m benchmarks.encoder_memory [--minutes 10] [--network clip-vit-b-32] [PLAN…]

A full-size network with random weights encodes pictures of ever other sizes and batches, image
and patches in turn, the plans sharing the time. Resident memory is read every few seconds; the
figure that counts is the growth from the median of the second quarter (all that is made once is
made by then) to the median of the last.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.encoders import RESULTS, save
from retrieval.encoders.build import build
from retrieval.encoders.runtimes.plan import parse


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def run(folder: Path, network: str, plan: str, seconds: float) -> dict[str, Any]:
    encoder = build(save(network, folder), parse(plan))
    rng = np.random.default_rng(0)
    readings: list[float] = []
    encoded, end, next_reading = 0, time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        sides = rng.integers(40, 900, (int(rng.integers(1, 12)), 2))
        pictures = [Image.effect_noise((int(w), int(h)), 60).convert("RGB") for w, h in sides]
        encoder.encode_images(pictures)
        if encoded % 5 == 0:
            encoder.encode_patches(pictures[:2])
        encoded += len(pictures)
        if time.monotonic() > next_reading:
            readings.append(resident_mb())
            next_reading = time.monotonic() + 2
    quarter = len(readings) // 4
    early = statistics.median(readings[quarter : 2 * quarter])
    late = statistics.median(readings[-quarter:])
    found = {
        "seconds": seconds,
        "images": encoded,
        "resident_mb": round(late),
        "growth_mb": round(late - early, 1),
        "readings": len(readings),
    }
    print(plan, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plans", nargs="*", metavar="PLAN", default=["fp32", "int8"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--network", default="clip-vit-b-32")
    options = parser.parse_args()
    seconds = options.minutes * 60 / len(options.plans)
    results = {}
    for plan in options.plans:
        with tempfile.TemporaryDirectory() as made:
            results[plan] = run(Path(made), options.network, plan, seconds)
    found = {"network": options.network, "plans": results}
    (RESULTS / "encoder_memory.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
