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
from collections.abc import Callable, Iterator, Sequence
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
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="ours, or a peer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        hidden = hide(arguments.data, Path(place) / "photos", arguments.originals)
        print(f"{len(hidden.family)} files, {len(hidden.made)} of them copies", flush=True)
        found: dict[str, Any] = {}
        report = {"files": len(hidden.family), "copies": len(hidden.made), "contenders": found}
        for name, facts in run(hidden, Path(place) / "c", arguments.only):
            found[name] = facts
            print(f"{name:40} {json.dumps(facts)}", flush=True)
    if arguments.only and RESULTS.exists():
        report["contenders"] = json.loads(RESULTS.read_text("utf-8"))["contenders"] | found
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(hidden: Hidden, place: Path, only: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every contender's figures."""

    def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        began = time.perf_counter()
        return call(), {"seconds": round(time.perf_counter() - began, 1)}

    if not only or "ours" in only:
        _, took = timed(lambda: ingest(hidden.folder, place, encoders=[SPACE]))
        yield "ours, embedding", took
        collection = retrieval.open(place)
        (pairs, facts), took = timed(lambda: ours(collection))
        yield "ours, threshold auto", took | hidden.measure(pairs) | facts
        yield "cosine, best threshold", best(hidden, cosine(collection))
    for name, contender in peers(hidden).items():
        if not only or name in only:
            (scored, usual), took = timed(contender)
            found = hidden.measure(scored[0][scored[1] >= usual])
            yield f"{name}, usual threshold", took | {"threshold": usual} | found
            yield f"{name}, best threshold", best(hidden, scored)


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
            image_dir=hidden.folder, min_similarity_threshold=0.8, scores=True
        )
        return _scored(found), 0.9

    return {"imagededup PHash": phash, "imagededup CNN": cnn}


def _lite0() -> Any:
    """The pooled features of the pocket encoders' trunk as imagededup takes networks."""
    import torch
    from imagededup.utils import CustomModel
    from torchvision import transforms

    from retrieval import settings
    from retrieval.encoders.pocket import graph
    from retrieval.encoders.runtimes.onnx import OnnxGraph

    trunk = OnnxGraph(graph.graph_bytes(settings.load().cache_dir), threads=settings.cores())

    class Pooled(torch.nn.Module):
        name = "efficientnet-lite0"

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            [found] = trunk.run({"pixels": pixels.numpy()}, ["features"])
            return torch.from_numpy(found[:, : graph.POOLED])

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
