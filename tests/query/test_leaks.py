"""Leaks between splits and collections, and whether a new picture is already there."""

from __future__ import annotations

import csv
import itertools
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.errors import QueryError, SpaceMismatch
from retrieval.query.duplicates.leaks import _across
from retrieval.query.duplicates.transforms import TRANSFORMS
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures
from tests.planted import COPIES, copies, originals

THRESHOLD = 0.3
held = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("leaks")
    paths = originals(root / "photos")
    return root, paths, copies(paths, root / "more")


@pytest.fixture(scope="module")
def parted(photos):
    """Originals are in train but the cat; copies in test but the one of the coins."""
    root, paths, made = photos
    with (root / "splits.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "what", "split"])
        for path in (*paths.values(), *made.values()):
            split = "" if path == paths["cat"] else "train" if path in paths.values() else "test"
            name = path.relative_to(root).as_posix()
            rows.writerow([name, "x", "train" if path == made["coins"] else split])
    for folder in ("photos", "more"):
        labels = f"{root / 'splits.csv'}:what"
        ingest(root / folder, root / "c", encoders=["pocket-visual"], labels=labels)
    return retrieval.open(root / "c")


def test_leaks_between_splits_are_all_found_and_none_invented(photos, parted):
    _, paths, made = photos
    found = parted.leaks(threshold=THRESHOLD)
    expected = {
        frozenset((str(paths[n]), str(made[n]))) for n in COPIES if n not in ("cat", "coins")
    }
    assert {frozenset((leak.a.uri, leak.b.uri)) for leak in found} == expected
    assert len(found) == len(expected)
    for leak in found:
        assert leak.sides == (leak.a.split, leak.b.split) == ("test", "train")
        assert leak.kind in ("copy", "edited") and leak.score >= THRESHOLD and leak.why
    assert found.to_arrow().num_rows == len(found.to_pandas()) == len(expected)


def test_only_pairs_that_can_leak_are_looked_at(photos, tmp_path):
    """Train has 7 contents, test 2 copies of these, one of the same bytes; others have no split."""
    root, paths, made = photos
    for folder in ("photos", "more"):
        ingest(root / folder, tmp_path / "c", encoders=["pocket-visual"])
    collection = retrieval.open(tmp_path / "c")
    splits = {paths[name]: "train" for name in paths} | {
        made["cat"]: "test",
        made["coffee"]: "test",
    }
    ids = {path: collection.store.find_uri(str(path)) for path in splits}
    facts = {"image_id": pa.array(ids.values(), pa.int64()), "split": list(splits.values())}
    collection.store.update(pa.table(facts))
    told: list[tuple[int, int]] = []
    found = collection.leaks(threshold=-1, tell=lambda *done: told.append(done))
    assert [leak.kind for leak in found] == ["exact", "copy"]
    # All 11 contents are compared; looked at are the copy with the 7, and the cat with 6 of these.
    assert told[-1] == (11 + 13, 11 + 13)
    again = collection.duplicates(threshold=-1, tell=lambda *done: told.append(done))
    assert len(again) == len(COPIES)
    assert told[-1] == (11 + 55 - 13, 11 + 55 - 13)


def test_any_column_parts_but_one_that_parts_nothing(parted):
    found = parted.leaks("size_bytes", threshold=THRESHOLD)
    assert {leak.kind for leak in found} == {"copy", "edited"}
    with pytest.raises(QueryError, match="only the value 'x'"):
        parted.leaks("label", threshold=THRESHOLD)
    with pytest.raises(QueryError, match="no values"):
        parted.leaks(threshold=THRESHOLD, where="split is null")
    with pytest.raises(QueryError, match="no column 'fold'"):
        parted.leaks("fold", threshold=THRESHOLD)


def test_leaks_between_collections(photos, tmp_path):
    root, paths, made = photos
    ingest(root / "photos", tmp_path / "a", encoders=["pocket-visual"])
    ingest(root / "more", tmp_path / "b", encoders=["pocket-visual"])
    ours, theirs = retrieval.open(tmp_path / "a"), retrieval.open(tmp_path / "b")
    found = ours.leaks(against=theirs, threshold=THRESHOLD)
    assert {(leak.a.uri, leak.b.uri, leak.kind) for leak in found} == {
        (str(paths[name]), str(made[name]), kind) for name, (_, kind) in COPIES.items()
    }
    assert found.pairs[0].kind == "exact" and found.pairs[0].sides == (ours.uri, theirs.uri)
    only = ours.leaks(against=theirs, tiers=["exact"])
    assert [leak.b.uri for leak in only] == [str(made["cat"])]


def test_images_of_the_same_bytes_are_named_once_each(tmp_path):
    one = write_pictures(tmp_path / "a", 1)[0]
    for folder, count in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(count):
            shutil.copy(one, tmp_path / folder / f"twin{number}.png")
        ingest(tmp_path / folder, tmp_path / "c" / folder, encoders=[ColourEncoder()])
    left, right = (retrieval.open(tmp_path / "c" / folder) for folder in ("a", "b"))
    found = left.leaks(against=right, tiers=["exact"])
    assert len(found) == 3
    assert len({leak.a.uri for leak in found}) == len({leak.b.uri for leak in found}) == 3


def test_a_check_of_nothing_is_refused(photos, parted, tmp_path):
    root, _, _ = photos
    empty = retrieval.open(tmp_path / "empty", create=True, encoders=["pocket-visual"])
    ingest(root / "more", tmp_path / "b", encoders=["pocket-visual"])
    other = retrieval.open(tmp_path / "b")
    for tiers in (["exact"], ["exact", "copy"]):
        given = {"threshold": THRESHOLD, "tiers": tiers}
        for left, right in ((parted, empty), (empty, parted)):
            with pytest.raises(QueryError, match=f"nothing to compare: {empty.uri} has no images"):
                left.leaks(against=right, **given)
        with pytest.raises(QueryError, match=f"nothing to compare: {other.uri} has no images"):
            parted.leaks(against=other, where="split = 'train'", **given)
        with pytest.raises(QueryError, match="are one collection"):
            parted.leaks(against=retrieval.open(parted.uri), **given)
        with pytest.raises(QueryError, match="choose one"):
            parted.leaks("split", against=other, **given)


def test_the_threshold_of_two_collections_serves_both(photos, tmp_path):
    root, _, _ = photos
    for folder in ("photos", "more"):
        ingest(root / folder, tmp_path / folder, encoders=["pocket-visual"])
    left, right = (retrieval.open(tmp_path / folder) for folder in ("photos", "more"))
    fits = [place.fit_threshold() for place in (left, right)]
    found = left.leaks(against=right)
    assert found.fit in fits and found.threshold == min(fit.threshold for fit in fits)
    assert len(found) == len(COPIES)


@given(held, held, st.booleans())
def test_all_that_leak_are_named_and_not_each_with_each(mine, others, same_content):
    ids = itertools.count()
    ours, theirs = (
        {v: list(itertools.islice(ids, n)) for v, n in h.items()} for h in (mine, others)
    )
    theirs = ours if same_content else theirs
    found = _across(ours, theirs)
    value_of = {image: value for side in (ours, theirs) for value in side for image in side[value]}
    for (a, b), (low, high) in found.items():
        assert (low, high) == (value_of[a], value_of[b]) and low < high
    named = {image for pair in found for image in pair}
    for mine, others in ((ours, theirs), (theirs, ours)):
        for value, images in mine.items():
            if set(others) - {value}:
                assert named >= set(images)
    assert len(found) <= len(value_of)


def test_a_new_picture_is_known_or_it_is_new(photos, parted, tmp_path):
    _, paths, made = photos
    other = retrieval.open(tmp_path / "c", create=True, encoders=["pocket-visual"])
    blank = Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8))
    pictures = [made["cat"], Image.open(made["rocket"]), paths["page"].read_bytes(), blank]
    known, turned, packed, new = other.check(pictures, against=[parted], threshold=THRESHOLD)
    assert known.found and known.best.kind == "exact"
    assert {match.image.uri for match in known.matches} == {str(paths["cat"]), str(made["cat"])}
    assert turned.best.image.uri == str(made["rocket"]) and turned.best.collection == parted.uri
    assert {m.image.uri for m in turned.matches} == {str(paths["rocket"]), str(made["rocket"])}
    assert packed.best.why == "same bytes" and packed.best.score == 1
    assert not new.found and new.best is None


def test_bytes_are_known_without_the_encoder(tmp_path):
    paths = write_pictures(tmp_path / "photos", 3)
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[ColourEncoder()])
    [known] = retrieval.open(tmp_path / "c").check([paths[1]])
    assert known.best is not None and known.best.image.uri == str(paths[1])


def test_spaces_of_other_encoders_are_not_compared(tmp_path):
    class Other(ColourEncoder):
        weights_hash = "other"

    write_pictures(tmp_path / "photos", 2)
    ingest(tmp_path / "photos", tmp_path / "a", encoders=[ColourEncoder()])
    ingest(tmp_path / "photos", tmp_path / "b", encoders=[Other()])
    ours = retrieval.open(tmp_path / "a", encoders=[ColourEncoder()])
    theirs = retrieval.open(tmp_path / "b")
    with pytest.raises(SpaceMismatch):
        ours.leaks(against=theirs, threshold=0.5)
    with pytest.raises(SpaceMismatch):
        ours.check([Image.new("RGB", (9, 9))], against=[theirs], threshold=0.5)


@pytest.mark.slow
def test_forty_planted_leaks_in_clothing_are_all_found_and_none_invented(shared_data, tmp_path):
    source = shared_data("clothing")
    folder = tmp_path / "images"
    shutil.copytree(source / "images", folder)
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    rng = np.random.default_rng(40)
    planted = {}
    for number, at in enumerate(rng.choice(len(train), 40, replace=False).tolist()):
        name = list(TRANSFORMS)[number % len(TRANSFORMS)]
        original, leaked = tmp_path / train[at]["file"], folder / f"leaked-{number:02}.png"
        with Image.open(original) as picture:
            TRANSFORMS[name](picture.convert("RGB"), rng).save(leaked)
        rows.append({**train[at], "file": f"images/{leaked.name}", "split": "test"})
        planted[frozenset((str(original), str(leaked)))] = name
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    labels = f"{tmp_path / 'labels.csv'}:label"
    ingest(folder, tmp_path / "c", encoders=["pocket-visual"], labels=labels)
    found = retrieval.open(tmp_path / "c").leaks()
    pairs = {frozenset((leak.a.uri, leak.b.uri)) for leak in found}
    missed = [name for pair, name in planted.items() if pair not in pairs]
    invented = pairs - set(planted)
    assert not missed and not invented
