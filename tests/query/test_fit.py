"""A fitted threshold finds known copies, and says what it may be expected to do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.errors import EncoderError, QueryError
from retrieval.query.duplicates.fit import (
    DEFAULT,
    GRID,
    Fit,
    Rehearsal,
    affordable,
    choose,
    fit_labelled,
    judge,
)
from retrieval.query.duplicates.fitting import fit_all, fit_threshold
from retrieval.query.shares import wilson
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures

TIERS = ("exact", "copy", "edited")


def rehearsal(scores, false=(), candidates=None, verified=True, alone=None) -> Rehearsal:
    made = np.array(scores, dtype=np.float32)
    few = np.zeros(len(GRID)) if candidates is None else candidates
    names = [f"edit {i}" for i in range(made.shape[1])]
    checked = np.broadcast_to(np.asarray(verified), made.shape)
    strangers = np.array(false, dtype=np.float32)
    return Rehearsal(names, made, checked, strangers, len(made) if alone is None else alone, few)


def test_it_is_the_highest_that_finds_nearly_all_without_strangers():
    copies = np.linspace(0.8, 0.999, 1000).reshape(-1, 2)
    threshold, note = choose(rehearsal(copies))
    assert threshold == pytest.approx(0.8, abs=0.002) and not note
    crowded, note = choose(rehearsal(copies, false=[0.85] * 100))
    assert crowded == pytest.approx(0.851, abs=0.002) and crowded > 0.85 and not note


def test_it_leaves_few_enough_pairs_to_look_at():
    candidates = np.where(GRID < 0.9, 51.0, 50.0)
    threshold, _ = choose(rehearsal([[0.5, 0.95]] * 30, candidates=candidates))
    assert threshold == 0.95
    assert affordable(np.full(len(GRID), 1e6)).sum() == 1


def test_it_says_so_where_nothing_is_precise_or_nothing_is_found():
    _, note = choose(rehearsal([[0.5]] * 30, false=[0.7] * 50))
    assert "precision" in note
    _, note = choose(rehearsal([[0.5]] * 30, verified=False))
    assert "none of the copies" in note
    threshold, note = choose(seen := rehearsal([[0.5]] * 30, alone=0))
    assert threshold == 0.5 and "more than once" in note
    assert judge(seen, threshold, TIERS, 0, note).precision is None


def test_few_images_give_the_lowest_that_can_be_afforded():
    threshold, note = choose(rehearsal([[0.9]] * 29))
    assert threshold == 0 and note == "fitted to 29 images only"
    threshold, note = choose(rehearsal([[0.9]]))
    assert threshold == 0 and note == "fitted to 1 image only"
    assert choose(rehearsal([[0.9]] * 29, false=[0.4]))[0] == pytest.approx(0.401)
    assert choose(rehearsal([[0.9]] * 29, false=[0.7]))[0] == DEFAULT
    dear = np.where(GRID < 0.8, 51.0, 50.0)
    assert choose(rehearsal([[0.9]] * 29, candidates=dear))[0] == 0.8
    assert choose(rehearsal([[0.9]] * 30)) == (0.9, "")


def test_the_figures_are_what_was_seen():
    seen = rehearsal([[0.9, 0.6], [0.8, 0.4]], false=[0.7, 0.55])
    fit = judge(seen, 0.6, TIERS, 3, "")
    assert fit.recall is not None and fit.precision is not None
    assert fit.recall.value == 0.75 and fit.precision.value == pytest.approx(1.5 / 2.5)
    assert [fit.by_transform[f"edit {i}"].value for i in (0, 1)] == [1.0, 0.5]
    half = judge(rehearsal([[0.9, 0.6], [0.8, 0.4]], false=[0.7], alone=1), 0.6, TIERS, 3, "")
    assert half.precision is not None and half.precision.value == pytest.approx(0.75 / 1.75)
    assert (
        fit.candidates_per_image == 0
        and judge(seen, -0.1, TIERS, 3, "").candidates_per_image is None
    )
    assert Fit.of_json(json.loads(json.dumps(fit.as_json()))) == fit


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=30, max_size=60),
    st.lists(st.floats(0, 1, width=32), max_size=30),
)
def test_no_finer_threshold_would_be_better(copies, strangers):
    threshold, note = choose(rehearsal([[score] for score in copies], false=strangers))
    grid = GRID.astype(np.float32)
    right, wrong = (
        (np.array(scores, dtype=np.float32)[:, None] >= grid).sum(axis=0)
        for scores in (copies, strangers)
    )
    precise = right >= 0.99 * np.maximum(right + wrong, 1)
    [at] = np.flatnonzero(threshold == GRID)
    if not note:
        assert precise[at]
        assert right[at] >= right[precise].max() - 0.005 * len(copies)
        better = precise & (right >= right[precise].max() - 0.005 * len(copies))
        assert not better[at + 1 :].any()


@given(st.floats(0, 1), st.integers(1, 1000))
def test_an_interval_holds_its_share(share, count):
    found = wilson(share, count)
    assert 0 <= found.low <= share <= found.high <= 1
    assert (
        found.high - found.low
        <= wilson(share, max(1, count // 2)).high - wilson(share, max(1, count // 2)).low + 1e-9
    )


def test_labels_give_the_threshold_with_the_best_f1():
    scores = [0.9, 0.8, 0.75, 0.7, 0.6, 0.5]
    fit = fit_labelled(scores, [1, 1, 1, 0, 0, 0])
    assert fit.threshold == 0.75 and fit.source == "labels" and fit.sampled == 6
    assert fit.recall is not None and fit.precision is not None
    assert fit.recall.value == pytest.approx(2 / 3)  # 0.75 alone is not found by the others' 0.8
    assert fit.precision.value == 1.0
    checked = fit_labelled(scores, [1, 1, 1, 0, 0, 0], verified=[1, 1, 1, 0, 0, 1])
    assert checked.threshold == 0.75


def test_labels_of_which_none_can_be_found_are_refused():
    told = [1, 1, 0, 0]
    with pytest.raises(QueryError, match="none of the 2 pairs that are labelled the same"):
        fit_labelled([0.9, 0.8, 0.7, 0.6], told, verified=[0, 0, 1, 1])
    with pytest.raises(QueryError, match="label others"):
        fit_labelled([-0.9, -0.8, 0.7, 0.6], told)


def test_too_few_labels_are_refused():
    for same in ([1, 0, 1], [1, 1, 1, 1], [0] * 9, []):
        with pytest.raises(QueryError, match="too few"):
            fit_labelled([0.5] * len(same), same)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    root = tmp_path_factory.mktemp("fit")
    write_pictures(root / "photos", 30)
    ingest(root / "photos", root / "c", encoders=["pocket-visual"])
    return retrieval.open(root / "c")


def test_a_collection_is_fitted_to_its_own_images(collection):
    told: list[tuple[int, int]] = []
    fit = fit_threshold(
        collection,
        "pocket-visual",
        tiers=TIERS,
        sample=6,
        tell=lambda done, total: told.append((done, total)),
    )
    assert fit.sampled == 6 and fit.recall is not None and fit.threshold in GRID
    assert set(fit.by_transform) >= {"resize", "jpeg", "crop", "flip"}
    assert (6, 6) in told and told[-1][0] == told[-1][1]
    again = fit_threshold(
        collection, "pocket-visual", tiers=TIERS, sample=6, tell=lambda *_: pytest.fail("kept")
    )
    assert again == fit
    lower = fit_threshold(collection, "pocket-visual", tiers=TIERS, sample=6, at=0.0)
    assert lower.recall is not None and lower.recall.value >= fit.recall.value


def test_a_fit_to_one_photo_still_finds_its_crop(tmp_path):
    photo = Image.fromarray(skimage.data.coffee())
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "coffee.png")
    ingest(tmp_path / "photos", tmp_path / "c", encoders=["pocket-visual"])
    one = retrieval.open(tmp_path / "c")
    assert "1 image only" in one.fit_threshold().note
    width, height = photo.size
    crop = photo.crop((0, 0, width * 8 // 10, height * 8 // 10))
    [told] = one.check([crop])
    assert told.best is not None and told.best.kind == "edited"


def test_a_fit_serves_several_collections(collection, tmp_path):
    write_pictures(tmp_path / "photos", 2)
    ingest(tmp_path / "photos", tmp_path / "c", encoders=["pocket-visual"])
    few = retrieval.open(tmp_path / "c")
    ours = fit_threshold(collection, "pocket-visual", tiers=TIERS)
    theirs = fit_threshold(few, "pocket-visual", tiers=TIERS)
    assert ours.sampled == 30 and theirs.sampled == 2 and theirs.threshold < ours.threshold
    for places in ([few, collection], [collection, few], [collection]):
        assert fit_all(places, "pocket-visual", tiers=TIERS) == ours
    assert fit_all([few], "pocket-visual", tiers=TIERS) == theirs


def test_copies_tell_nothing_of_scenes(collection):
    scene = fit_threshold(collection, "pocket-visual", tiers=("scene",))
    assert scene.threshold == fit_threshold(collection, "pocket-visual", tiers=TIERS).threshold
    assert scene.precision is scene.recall is None and not scene.by_transform
    assert "copies tell nothing of scene" in scene.note and scene.tiers == ("scene",)


def test_a_sample_of_none_is_refused(collection):
    for sample in (0, -1):
        with pytest.raises(QueryError, match="sample of one image or more"):
            collection.fit_threshold(sample=sample)


def test_a_fit_is_for_its_space_only(collection):
    fit = fit_threshold(collection, "pocket-visual", tiers=TIERS)
    assert fit.space == "pocket-visual"
    other = replace(fit, space="dinov2-base")
    with pytest.raises(QueryError, match="fitted to the cosines of 'dinov2-base'"):
        collection.duplicates(space="pocket-visual", threshold=other)
    assert collection.duplicates(threshold=fit).space == "pocket-visual"


def test_a_collection_without_pictures_gets_a_default_and_a_note(tmp_path):
    empty = retrieval.open(tmp_path / "c", create=True, encoders=[ColourEncoder()])
    fit = fit_threshold(empty, "colour", tiers=TIERS)
    assert 0 < fit.threshold < 1 and fit.recall is None and fit.note


def test_without_its_encoder_the_way_out_is_named(tmp_path):
    write_pictures(tmp_path / "photos", 3)
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[ColourEncoder()])
    stranger = retrieval.open(tmp_path / "c")
    with pytest.raises(EncoderError, match="--threshold NUMBER"):
        fit_threshold(stranger, "colour", tiers=TIERS)
