"""Hidden copies among real photos: `python -m benchmarks.duplicates --data DIR [--originals 500]`.

All photos of `clothing` and the test photos of `flickr8k` in DIR go into one folder, with seven
edited copies of each of 500 of them; everybody gets the same files and says which pairs are the
same picture. Recall is the share of copies that are paired with the photo they were made of;
precision counts all pairs. Ours runs as `retrieval dedup` does, with the threshold that it fits to
the collection by itself. Peers run at the threshold that their documentation gives and at the best
one there is for these files, which nobody knows beforehand: that of the highest recall at a
precision of 0.99. Plain cosine has our vectors. imagededup (`pip install imagededup`) downloads its
network; where that is not possible its CNN method gets EfficientNet-Lite0 through its own
`CustomModel`.

Pairs of photos that a person found to be the same picture stand in `duplicates_same.csv` and count
neither way, for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import retrieval
from benchmarks.duplicates_data import Hidden, hide
from indexers import ingest
from retrieval.query import Collection
from retrieval.query.duplicates.tiers import TIERS

RESULTS = Path(__file__).parent / "results" / "duplicates.json"
SPACE = "pocket-visual"
PRECISION = 0.99

Scored = tuple[NDArray[np.str_], NDArray[np.float64]]
"""Pairs of file names ``[m, 2]``, and how sure of each: higher is surer."""


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="has clothing and flickr8k")
    parser.add_argument("--originals", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        hidden = hide(arguments.data, Path(place) / "photos", arguments.originals)
        print(f"{len(hidden.family)} files, {len(hidden.made)} of them copies", flush=True)
        found = run(hidden, Path(place) / "c")
    report = {"files": len(hidden.family), "copies": len(hidden.made), "contenders": found}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(hidden: Hidden, place: Path) -> dict[str, Any]:
    """Every contender's figures, printed as they come."""
    found: dict[str, Any] = {}

    def show(name: str, seconds: float, **facts: Any) -> None:
        found[name] = {"seconds": round(seconds, 1), **facts}
        print(f"{name:40} {json.dumps(found[name])}", flush=True)

    began = time.perf_counter()
    ingest(hidden.folder, place, encoders=[SPACE])
    embedding = time.perf_counter() - began
    collection = retrieval.open(place)
    began = time.perf_counter()
    pairs, facts = ours(collection)
    show("ours, threshold auto", time.perf_counter() - began, **hidden.measure(pairs), **facts)
    show("ours, embedding and index", embedding)
    scored = cosine(collection)
    show("cosine, best threshold", 0.0, **best(hidden, scored))
    for name, contender in peers(hidden).items():
        began = time.perf_counter()
        scored, usual = contender()
        seconds = time.perf_counter() - began
        usually = hidden.measure(scored[0][scored[1] >= usual])
        show(f"{name}, usual threshold", seconds, threshold=usual, **usually)
        show(f"{name}, best threshold", seconds, **best(hidden, scored))
    return found


def ours(collection: Collection) -> tuple[NDArray[np.str_], dict[str, Any]]:
    """Pairs of the first three tiers, as the fitted threshold has them."""
    from retrieval.query.duplicates.pairs import find_pairs

    fit = collection.duplicates(space=SPACE).fit
    assert fit is not None
    pairs = find_pairs(collection, SPACE, fit.threshold)
    kept = pairs.tiers <= TIERS.index("edited")
    names = _names(collection, pairs.a[kept], pairs.b[kept])
    expected = fit.as_json()
    return names, {"threshold": fit.threshold, "expected": expected, "candidates": len(pairs.a)}


def cosine(collection: Collection, least: float = 0.5) -> Scored:
    """All pairs by the cosine of our vectors."""
    found = list(collection.vectors(SPACE).pairs(least))
    a, b, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _names(collection, a, b), scores.astype(float)


def _names(collection: Collection, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.str_]:
    ids, at = np.unique(np.concatenate([a, b]), return_inverse=True)
    uris = [Path(record.uri).name for record in collection.store.records(ids)]
    return np.array(uris)[at].reshape(2, -1).T


def best(hidden: Hidden, scored: Scored) -> dict[str, Any]:
    """The figures at the threshold of the highest recall that keeps the precision."""
    pairs, scores = scored
    order = np.argsort(-scores, kind="stable")
    judged = hidden.judged(pairs[order])
    true, false = np.cumsum(judged == 1), np.cumsum(judged == 0)
    last = np.append(np.diff(scores[order]) != 0, True)
    good = np.flatnonzero(last & (true >= PRECISION * (true + false)))
    if not len(good):
        return {"threshold": None, "note": f"no threshold has a precision of {PRECISION}"}
    cut = float(scores[order][good[-1]])
    return {"threshold": round(cut, 4), **hidden.measure(pairs[scores >= cut])}


def peers(hidden: Hidden) -> dict[str, Callable[[], tuple[Scored, float]]]:
    """What imagededup finds, each with its usual threshold; nothing where it is not installed."""
    try:
        from imagededup.methods import CNN, PHash
    except ImportError:
        print("  imagededup is not here: pip install imagededup")
        return {}

    def phash() -> tuple[Scored, float]:
        found = PHash(verbose=False).find_duplicates(
            image_dir=hidden.folder, max_distance_threshold=20, scores=True
        )
        pairs, distances = _scored(found)
        return (pairs, -distances), -10.0

    def cnn() -> tuple[Scored, float]:
        method = CNN(verbose=False, model_config=_lite0())
        found = method.find_duplicates(
            image_dir=hidden.folder, min_similarity_threshold=0.6, scores=True
        )
        return _scored(found), 0.9

    return {"imagededup PHash": phash, "imagededup CNN (EfficientNet-Lite0)": cnn}


def _lite0() -> Any:
    """The trunk of the pocket encoders as imagededup takes networks."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from imagededup.utils import CustomModel
    from torchvision import transforms

    from retrieval.encoders.pocket import weights

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights.find(), weights_only=True))

    class Pooled(torch.nn.Module):
        name = "efficientnet-lite0"

        def __init__(self) -> None:
            super().__init__()
            self.trunk = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.trunk.extract_features(pixels).mean((2, 3))

    steps = [
        transforms.Resize((256, 256)),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    return CustomModel(Pooled.name, Pooled(), transforms.Compose(steps))


def _scored(found: dict[str, list[tuple[str, float]]]) -> Scored:
    pairs = {
        tuple(sorted((name, other))): float(score)
        for name, others in found.items()
        for other, score in others
    }
    return np.array(list(pairs), dtype=str).reshape(-1, 2), np.array(list(pairs.values()))


if __name__ == "__main__":
    main()
