"""What derived spaces cost and gain: `python -m benchmarks.derived DATA`.

Indexes the photos of `clothing` in DATA with pocket-visual and with the pooled features that it is
made of, derives spaces, and prints for each the accuracy of 20 weighted neighbours (T = 0.07) of
test photos among training photos, that over ten folds of all photos, and the share of the base's
ten nearest training photos that are still among the ten nearest.
Axes are fitted to all photos, never to labels.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import retrieval
from indexers import ingest
from retrieval.encoders import load
from retrieval.encoders.base import unit_rows
from retrieval.encoders.pocket import graph
from retrieval.encoders.pocket.encoder import PocketVisual
from retrieval.encoders.pocket.train.evaluate import knn_accuracy
from retrieval.query import Collection


class Pooled(PocketVisual):
    """The backbone's pooled features as they are."""

    spec = replace(PocketVisual.spec, name="pooled", dim=graph.POOLED, pooling="mean")

    def project(self, features: np.ndarray) -> np.ndarray:
        """Unit rows ``[n, 1280]`` of the trunk's features."""
        return unit_rows(features[:, : graph.POOLED])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that has clothing")
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 64, 32])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, photos = Path(folder) / "c", arguments.data / "clothing"
        labels = f"{photos / 'labels.csv'}:label"
        visual = load("pocket-visual")
        encoders = [visual, Pooled(visual.trunk)]
        ingest(photos, place, encoders=encoders, labels=labels, include=["*.jpg"], workers=1)
        for encoder in encoders:
            measure(retrieval.open(place), encoder.spec.name, arguments.dims)


def measure(collection: Collection, base: str, dims: list[int]) -> None:
    """Derive, and print a line for each space."""
    sides = [collection.store.ids(f"split {sign} 'test'") for sign in ("!=", "=")]
    labels = [np.array([record.label for record in collection.store.records(ids)]) for ids in sides]
    print(f"{len(sides[0])} training and {len(sides[1])} test photos")
    true = nearest(collection, base, sides)
    names = [base]
    for dim in dims:
        for kind in ("pca", "whiten", "truncate"):
            names.append(collection.derive(base, kind, dim).name)
    for name in names:
        known, asked = (collection.store.vectors_of(name, ids) for ids in sides)
        accuracy = knn_accuracy(known, labels[0], asked, labels[1])
        found = nearest(collection, name, sides)
        kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, found, strict=True)])
        folds = cross_validated(np.vstack([known, asked]), np.concatenate(labels))
        print(f"{name:25}  test {accuracy:.3f}  folds {folds:.3f}  nearest ten kept {kept:.3f}")


def cross_validated(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean accuracy over ten folds, the same ones every time."""
    fold = np.random.default_rng(0).permutation(len(vectors)) % 10
    return float(
        np.mean(
            [
                knn_accuracy(
                    vectors[fold != n], labels[fold != n], vectors[fold == n], labels[fold == n]
                )
                for n in range(10)
            ]
        )
    )


def nearest(collection: Collection, space: str, sides: list[np.ndarray]) -> np.ndarray:
    """Positions of the ten nearest training photos of each test photo."""
    known, asked = (collection.store.vectors_of(space, ids) for ids in sides)
    return np.argsort(-(asked @ known.T), axis=1)[:, :10]


if __name__ == "__main__":
    main()
