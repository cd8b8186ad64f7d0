"""What the shipped pocket encoders reach on photos they were not trained on.

``python -m retrieval.encoders.pocket.train.evaluate ../shared/data --json FILE`` measures the
installed artefact through its public interface and prints every figure.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.pocket import load
from retrieval.encoders.pocket.encoder import PocketText, PocketVisual
from retrieval.types import Embeddings

Figures = dict[str, float]

COCO_QUERIES: dict[str, tuple[str, ...]] = {
    "a dog": ("dog",),
    "furniture": ("chair", "couch", "bed", "dining table"),
    "a red car": ("car",),
    "someone playing a sport": (
        "sports ball",
        "tennis racket",
        "baseball bat",
        "baseball glove",
        "frisbee",
        "skateboard",
        "surfboard",
        "snowboard",
        "skis",
    ),
    "food on a table": (
        "pizza",
        "sandwich",
        "cake",
        "hot dog",
        "bowl",
        "broccoli",
        "carrot",
        "donut",
    ),
    "a train": ("train",),
    "an elephant": ("elephant",),
    "a man on a skateboard": ("skateboard",),
    "a kitchen": ("oven", "refrigerator", "sink", "microwave"),
    "a giraffe": ("giraffe",),
    "a cat": ("cat",),
    "people in the snow": ("skis", "snowboard"),
    "a vehicle": ("car", "truck", "bus", "train", "motorcycle", "airplane", "boat", "bicycle"),
    "an animal": (
        "dog",
        "cat",
        "horse",
        "sheep",
        "cow",
        "elephant",
        "bear",
        "zebra",
        "giraffe",
        "bird",
    ),
    "a teddy bear": ("teddy bear",),
    "an airplane in the sky": ("airplane",),
}
"""Plain queries, and the COCO categories of which a good answer shows at least one."""


def photo_features(
    encoder: PocketText | PocketVisual, files: Sequence[Path]
) -> NDArray[np.float32]:
    """Trunk features ``[n, 2280]`` of photos on disk."""

    def one(file: Path) -> NDArray[np.float32]:
        with Image.open(file) as image:
            return encoder.trunk.features([image.convert("RGB")])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(one, files)))


def knn_accuracy(
    known: Embeddings,
    labels: Sequence[str],
    unknown: Embeddings,
    truth: Sequence[str],
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of ``unknown`` that its k nearest of ``known`` name rightly, weighted by softmax."""
    names, index = np.unique(np.asarray(labels), return_inverse=True)
    scores = unknown @ known.T
    nearest = np.argsort(-scores, axis=1)[:, :k]
    weight = np.exp(np.take_along_axis(scores, nearest, axis=1) / temperature)
    votes = np.zeros((len(unknown), len(names)))
    for column in range(k):
        np.add.at(votes, (np.arange(len(unknown)), index[nearest[:, column]]), weight[:, column])
    return float(np.mean(names[votes.argmax(axis=1)] == np.asarray(truth)))


def text_to_image(encoder: PocketText, folder: Path) -> Figures:
    """Hit rates of the captions of Flickr8k's test photos among these photos."""
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    names = list(dict.fromkeys(row["image"] for row in rows))
    images = encoder.project(photo_features(encoder, [folder / "images" / name for name in names]))
    texts = encoder.encode_texts([row["caption"] for row in rows])
    own = np.array([names.index(row["image"]) for row in rows])
    scores = texts @ images.T
    rank = (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)
    return {f"hit_rate_at_{k}": float(np.mean(rank < k)) for k in (1, 5, 10)}


def clothing(visual: PocketVisual, text: PocketText, folder: Path) -> Figures:
    """Labels of the ``clothing`` test photos by neighbours and by name, and copies found again."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = [folder / row["file"] for row in rows]
    features = photo_features(visual, files)
    labels = np.array([row["label"] for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    looks = visual.project(features)
    names = np.unique(labels)
    prompts = [text.spec.prompt.format(name.lower()) for name in names]
    guess = (text.project(features[test]) @ text.encode_texts(prompts).T).argmax(axis=1)
    figures = {
        "knn_accuracy": knn_accuracy(looks[~test], labels[~test], looks[test], labels[test]),
        "zero_shot_accuracy": float(np.mean(names[guess] == labels[test])),
        "majority_class_share": float(max(np.mean(labels[test] == name) for name in names)),
    }
    chosen = np.flatnonzero(test)[:200]
    for name, change in _COPIES.items():
        copies = [change(Image.open(files[i]).convert("RGB")) for i in chosen]
        scores = visual.encode_images(copies) @ looks.T
        figures[f"copy_found_first_{name}"] = float(np.mean(scores.argmax(axis=1) == chosen))
        own = scores[np.arange(len(chosen)), chosen]
        figures[f"copy_cosine_5th_percentile_{name}"] = float(np.percentile(own, 5))
    scores = looks[chosen] @ looks.T
    scores[np.arange(len(chosen)), chosen] = -1.0
    figures["nearest_other_cosine_median"] = float(np.median(scores.max(axis=1)))
    return figures


def _recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image) -> Image.Image:
    dx, dy = round(image.width * 0.05), round(image.height * 0.05)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


_COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half_size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "jpeg_30": _recompressed,
    "crop_90": _cropped,
}


def coco_top(encoder: PocketText, folder: Path, k: int = 3) -> dict[str, list[tuple[str, bool]]]:
    """For every plain query the best ``k`` photos: file name, and whether a person would nod."""
    facts = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    category = {row["id"]: row["name"] for row in facts["categories"]}
    shown: dict[int, set[str]] = {row["id"]: set() for row in facts["images"]}
    for row in facts["annotations"]:
        shown[row["image_id"]].add(category[row["category_id"]])
    ids = [row["id"] for row in facts["images"]]
    files = [folder / "val2017" / row["file_name"] for row in facts["images"]]
    images = encoder.project(photo_features(encoder, files))
    scores = encoder.encode_texts(list(COCO_QUERIES)) @ images.T
    out: dict[str, list[tuple[str, bool]]] = {}
    for (query, wanted), row in zip(COCO_QUERIES.items(), scores, strict=True):
        best = np.argsort(-row)[:k]
        out[query] = [(files[i].name, bool(shown[ids[i]].intersection(wanted))) for i in best]
    return out


def measure(data: Path) -> dict[str, Figures]:
    """All figures, by data set.

    Args:
        data: the folder that holds ``flickr8k``, ``clothing`` and ``coco128``.
    """
    visual, text = load("pocket-visual"), load("pocket-text")
    if not isinstance(visual, PocketVisual) or not isinstance(text, PocketText):
        raise TypeError("the pocket encoders have changed places")
    top = coco_top(text, data / "coco128")
    return {
        "flickr8k": text_to_image(text, data / "flickr8k"),
        "clothing": clothing(visual, text, data / "clothing"),
        "coco128_share_of_top_3": {
            query: float(np.mean([good for _, good in best])) for query, best in top.items()
        },
        "coco128": {
            "first_hit_right": float(np.mean([best[0][1] for best in top.values()])),
            "share_of_top_3_right": float(np.mean([[g for _, g in b] for b in top.values()])),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with flickr8k, clothing and coco128")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args(arguments)
    figures = measure(options.data)
    rounded = {
        name: {key: round(value, 4) for key, value in part.items()}
        for name, part in figures.items()
    }
    report = json.dumps(rounded, indent=2)
    sys.stdout.write(report + "\n")
    if options.json:
        options.json.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
