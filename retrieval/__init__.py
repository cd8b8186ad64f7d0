"""Search your own images by words, by example and by id.

>>> import retrieval
>>> collection = retrieval.open("photos.lance")            # doctest: +SKIP
>>> collection.search("a red car", k=5)                    # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.query import Collection, Ranking, Term
    from retrieval.query import open_collection as open
    from retrieval.query.anomaly.detector import AnomalyDetector
    from retrieval.query.classify.estimators import KNNClassifier
    from retrieval.query.zero_shot.classifier import ZeroShotClassifier
    from retrieval.types import Hit, Hits, ImageRecord, Neighbors, Space

__version__ = "0.1.0"
__all__ = [
    "AnomalyDetector",
    "Collection",
    "Hit",
    "Hits",
    "ImageRecord",
    "KNNClassifier",
    "Neighbors",
    "Ranking",
    "Space",
    "Term",
    "ZeroShotClassifier",
    "__version__",
    "open",
]

_HOMES = {
    "AnomalyDetector": ("retrieval.query.anomaly.detector", "AnomalyDetector"),
    "Collection": ("retrieval.query", "Collection"),
    "KNNClassifier": ("retrieval.query.classify.estimators", "KNNClassifier"),
    "Ranking": ("retrieval.query", "Ranking"),
    "Term": ("retrieval.query", "Term"),
    "ZeroShotClassifier": ("retrieval.query.zero_shot.classifier", "ZeroShotClassifier"),
    "open": ("retrieval.query", "open_collection"),
} | {
    name: ("retrieval.types", name) for name in ("Hit", "Hits", "ImageRecord", "Neighbors", "Space")
}


def __dir__() -> list[str]:
    """Also the names that are imported when they are first used."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import public names when they are first used, so that ``import retrieval`` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'retrieval' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value
