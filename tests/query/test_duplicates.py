"""Duplicates of a collection: groups of real photos, what stays, and what they stand on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import retrieval
from indexers import ingest
from retrieval.errors import EncoderError, QueryError, SourceError, UnknownSpace
from retrieval.query.duplicates.fit import Fit
from retrieval.query.duplicates.labels import read_labels
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures
from tests.planted import COPIES, copies, originals

THRESHOLD = 0.3


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("same")
    paths = originals(root / "photos")
    made = copies(paths, root / "more")
    return root, paths, made


@pytest.fixture(scope="module")
def collection(photos):
    root, _, _ = photos
    for folder in ("photos", "more"):
        ingest(root / folder, root / "c", encoders=["pocket-visual"])
    return retrieval.open(root / "c")


def test_every_planted_copy_is_found_with_its_kind_and_nothing_else(photos, collection):
    _, paths, made = photos
    found = collection.duplicates(threshold=THRESHOLD)
    assert len(found) == len(COPIES)
    for group in found:
        [member] = group.members
        name = next(n for n in COPIES if {group.keep.uri, member.image.uri} & {str(paths[n])})
        assert {group.keep.uri, member.image.uri} == {str(paths[name]), str(made[name])}
        assert group.kind == member.kind == COPIES[name][1] and member.why
        assert THRESHOLD <= member.score <= 1
    kept = {group.keep.uri for group in found}
    assert {str(paths[name]) for name in ("coffee", "coins")} <= kept


def test_the_scores_are_the_exact_cosines(collection):
    found = collection.duplicates(threshold=THRESHOLD)
    for group in found:
        for member in group.members:
            both = [group.keep.image_id, member.image.image_id]
            a, b = collection.store.vectors_of("pocket-visual", both).astype(np.float64)
            assert member.score == pytest.approx(float(a @ b), abs=1e-5)


def test_a_threshold_that_is_fitted_finds_them_too(collection):
    found = collection.duplicates()
    assert isinstance(found.fit, Fit) and found.threshold == found.fit.threshold
    plain = collection.duplicates(threshold=found.threshold)
    assert plain.groups == found.groups and plain.fit is None
    assert {group.kind for group in found} == {"exact", "copy", "edited"}


def test_the_keep_policy_and_the_tiers_are_what_was_asked_for(photos, collection):
    root, _, made = photos
    turned = collection.duplicates(threshold=THRESHOLD, keep=[f"folder:{root / 'more'}"])
    assert {group.keep.uri for group in turned} == set(map(str, made.values()))
    copied = collection.duplicates(threshold=THRESHOLD, tiers=["copy"])
    assert {group.kind for group in copied} == {"copy"} and len(copied) == 2
    some = collection.duplicates(threshold=THRESHOLD, where=f"uri like '{root / 'photos'}/%'")
    assert len(some) == 0


def test_the_plan_says_all(collection):
    table = collection.duplicates(threshold=THRESHOLD).to_arrow()
    assert table.column_names == [
        *("image_id", "uri", "content_hash", "size_bytes", "keep_id", "keep_uri"),
        *("keep_hash", "kind", "score", "why", "collection", "collection_id"),
    ]
    assert table.num_rows == len(COPIES)
    said = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert said["collection_id"] == collection.store.collection_id
    assert said["space"] == "pocket-visual" and said["threshold"] == str(THRESHOLD)
    assert collection.duplicates(threshold=THRESHOLD).to_pandas().shape == (len(COPIES), 12)


def test_labelled_pairs_give_a_threshold(photos, collection, tmp_path):
    _, paths, made = photos
    lines = [f"{paths[name]},{made[name]},yes" for name in COPIES]
    lines += [f"{paths['page']},{paths[name]},no" for name in COPIES]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,same", *lines]))
    fit = collection.fit_labelled(read_labels(tmp_path / "pairs.csv", collection))
    assert fit.source == "labels" and fit.sampled == 2 * len(COPIES)
    assert len(collection.duplicates(threshold=fit)) == len(COPIES)
    assert fit.space == "pocket-visual"
    told = read_labels(tmp_path / "pairs.csv", collection)
    assert collection.fit_labelled([*told, *told, *((b, a, same) for a, b, same in told)]) == fit
    with pytest.raises(QueryError, match="both the same and not"):
        collection.fit_labelled([*told, (told[0][1], told[0][0], False)])
    with pytest.raises(QueryError, match="no image"):
        collection.fit_labelled([("/nowhere.jpg", 0, True)] * 4)


def test_an_error_about_a_labelled_image_names_its_line(photos, collection, tmp_path):
    _, paths, _ = photos
    lines = [
        "a,b,same",
        f"{paths['cat']},{paths['page']},no",
        "",
        f"{paths['cat']},/nowhere.jpg,yes",
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=r"pairs.csv, line 4: no image '/nowhere.jpg'"):
        read_labels(tmp_path / "pairs.csv", collection)


def test_the_same_bytes_are_found_without_vectors_and_without_an_encoder(tmp_path):
    paths = write_pictures(tmp_path / "photos", 4)
    (tmp_path / "photos" / "twin.png").write_bytes(paths[2].read_bytes())
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[ColourEncoder()])
    stranger = retrieval.open(tmp_path / "c")
    found = stranger.duplicates(tiers=["exact"])
    assert [(g.keep.uri, [m.image.uri for m in g.members]) for g in found] == [
        (str(paths[2]), [str(tmp_path / "photos" / "twin.png")])
    ]
    assert found.threshold is None and found.groups[0].kind == "exact"
    assert stranger.duplicates(threshold=0.9999, tiers=["exact", "copy"]).groups == found.groups
    with pytest.raises(EncoderError, match="--threshold NUMBER"):
        stranger.duplicates()


def test_what_makes_no_sense_is_refused(collection):
    for threshold in (1.5, float("nan"), "high", None, True, np.float32(-2)):
        with pytest.raises(QueryError, match="threshold"):
            collection.duplicates(threshold=threshold)
    for tiers in ([], ["same"], "copy"):
        with pytest.raises(QueryError, match="tiers"):
            collection.duplicates(threshold=0.9, tiers=tiers)
    with pytest.raises(QueryError, match="keep rule"):
        collection.duplicates(threshold=0.9, keep=["newest"])
    with pytest.raises(QueryError, match="folder:/nowhere' prefers none"):
        collection.duplicates(threshold=0.9, keep=["folder:/nowhere"])
    with pytest.raises(UnknownSpace):
        collection.duplicates(threshold=0.9, space="nowhere")
    assert collection.duplicates(threshold=np.float32(0.9)).threshold == pytest.approx(0.9)


def test_where_nothing_tells_the_pair_recall_it_is_unknown(photos, tmp_path):
    root, _, _ = photos
    ingest(root / "photos", tmp_path / "c", encoders=["pocket-visual"])
    collection = retrieval.open(tmp_path / "c")
    collection.build_index("pocket-visual", "exact")
    found = collection.duplicates(threshold=0.99, approximate=True)
    assert len(found) == 0 and found.recall is None and found.asked.approximate
    assert not collection.duplicates(threshold=0.99).asked.approximate


def test_what_could_not_be_looked_at_is_counted(photos, tmp_path):
    root, paths, _ = photos
    for folder in ("photos", "more"):
        ingest(root / folder, tmp_path / "c", encoders=["pocket-visual"])
    collection = retrieval.open(tmp_path / "c")
    vector = collection.store.vector_column("pocket-visual")
    for name, column in (("coffee", "thumbnail"), ("rocket", vector), ("cat", vector)):
        blank(collection, collection.store.find_uri(str(paths[name])), column)
    found = collection.duplicates(threshold=THRESHOLD)
    assert found.asked.no_vector == 2 and found.asked.no_thumbnail == 1
    kept = {group.keep.uri for group in found}
    assert len(found) == len(COPIES) - 2 and kept >= {str(paths["coins"])}
    assert collection.duplicates(tiers=["exact"]).asked.no_vector == 0


def blank(collection: retrieval.Collection, image_id: int, column: str) -> None:
    kind = collection.store.rows([image_id], [column]).schema.field(column).type
    facts = {"image_id": pa.array([image_id], pa.int64()), column: pa.array([None], kind)}
    collection.store.update(pa.table(facts))


def test_an_empty_collection_has_none(tmp_path):
    empty = retrieval.open(tmp_path / "c", create=True, encoders=[ColourEncoder()])
    assert len(empty.duplicates()) == 0
    assert empty.duplicates().to_arrow().num_rows == 0
