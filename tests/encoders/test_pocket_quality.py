"""Whether the pocket encoders find what a person would accept, on photos never trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.encoders.pocket.encoder import PocketText, PocketVisual
from retrieval.encoders.pocket.train import evaluate

DataFolder = Callable[[str], Path]


def test_plain_queries_find_what_they_name(text: PocketText, shared_data: DataFolder) -> None:
    top = evaluate.coco_top(text, shared_data("coco128"))
    assert len(top) >= 10
    missed = [query for query, best in top.items() if not any(good for _, good in best)]
    first = [query for query, best in top.items() if best[0][1]]
    good = [good for best in top.values() for _, good in best]
    assert missed == []
    assert len(first) >= 0.6 * len(top)
    assert sum(good) >= 0.55 * len(good)


@pytest.mark.slow
def test_captions_find_their_photos(text: PocketText, shared_data: DataFolder) -> None:
    figures = evaluate.text_to_image(text, shared_data("flickr8k"))
    assert figures["hit_rate_at_1"] >= 0.20
    assert figures["hit_rate_at_5"] >= 0.47
    assert figures["hit_rate_at_10"] >= 0.60


@pytest.mark.slow
def test_catalogue_photos_are_told_apart(
    visual: PocketVisual, text: PocketText, shared_data: DataFolder
) -> None:
    figures = evaluate.clothing(visual, text, shared_data("clothing"))
    assert figures["knn_accuracy"] >= 0.70
    assert figures["zero_shot_accuracy"] >= 2.5 * figures["majority_class_share"]
    for copy in ("half_size", "jpeg_30", "crop_90"):
        assert figures[f"copy_found_first_{copy}"] >= 0.98
