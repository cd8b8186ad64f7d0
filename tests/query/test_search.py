"""What a search answers: by words, picture, id, vector, mixtures, filters."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import retrieval
from indexers import ingest
from retrieval import Term
from retrieval.errors import (
    CollectionError,
    CollectionNotFound,
    FilterError,
    ImageError,
    ModalityError,
    QueryError,
    UnknownSpace,
)
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture, write_pictures

PHOTOS = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder / "train", PHOTOS // 2)
    write_pictures(folder / "test", PHOTOS // 2, start=PHOTOS // 2)
    for colour in ("red", "green", "blue", "white"):
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture(scope="module")
def collection(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "c.lance"
    ingest(photos, path, encoders=[ColourEncoder()], labels="folder")
    return retrieval.open(path, encoders=[ColourEncoder()])


def names(hits) -> list[str]:
    return [hit.image.uri.rsplit("/", 1)[1] for hit in hits]


def test_every_image_finds_itself_first(collection, photos):
    for path in sorted(photos.rglob("*.png")):
        by_path = collection.search(image=path)[0]
        assert by_path.image.uri == str(path) and by_path.rank == 1
        assert by_path.score == pytest.approx(1.0, abs=1e-5)
        by_id = collection.search(image_id=by_path.image.image_id)[0]
        assert by_id.image == by_path.image
    assert collection.self_test(sample=1000) == (PHOTOS + 4, [])


def test_the_self_test_tries_each_space_on_the_images_that_are_in_it(photos, tmp_path):
    class Second(ColourEncoder):
        from dataclasses import replace

        spec = replace(ColourEncoder.spec, name="second")

    ingest(photos, tmp_path / "c", encoders=[ColourEncoder()])
    ingest(photos / "test", tmp_path / "c", encoders=[ColourEncoder(), Second()])
    assert retrieval.open(tmp_path / "c").self_test(sample=1000) == (PHOTOS + 4, [])


def test_words_find_what_they_name(collection):
    for colour in ("red", "green", "blue", "white"):
        assert names(collection.search(colour, k=1)) == [f"{colour}.png"]


def test_scores_are_the_exact_cosines_of_all_images_in_order(collection):
    hits = collection.search("red", k=1000)
    assert len(hits) == PHOTOS + 4
    vector = ColourEncoder().encode_texts(["red"])[0].astype(np.float64)
    stored = collection.store.vectors_of("colour", [h.image.image_id for h in hits])
    np.testing.assert_allclose([h.score for h in hits], stored @ vector, atol=1e-6)
    assert [h.rank for h in hits] == list(range(1, len(hits) + 1))
    assert all(a.score >= b.score for a, b in pairwise(hits))


def test_an_image_may_be_a_path_bytes_a_picture_or_an_array(collection, photos):
    path = photos / "train" / "0003.png"
    opened = Image.open(path)
    for image in (path, str(path), path.read_bytes(), opened, np.asarray(opened)):
        assert collection.search(image=image)[0].image.uri == str(path)


def test_mixed_queries_are_the_weighted_sum_of_unit_vectors(collection):
    encoder = ColourEncoder()
    red, blue = encoder.encode_texts(["red", "blue"]).astype(np.float64)
    some = collection.search(image=picture(4))[0].image.image_id
    third = collection.store.vectors_of("colour", [some])[0].astype(np.float64)
    wanted = 2 * red - 0.5 * blue + third
    wanted /= np.linalg.norm(wanted)
    hits = collection.search(
        terms=[Term("red", weight=2), Term(image_id=some)], negative=["blue"], k=8
    )
    stored = collection.store.vectors_of("colour", [h.image.image_id for h in hits])
    np.testing.assert_allclose([h.score for h in hits], stored @ wanted, atol=1e-6)
    by_vector = collection.search(vector=7.5 * wanted, k=8)
    assert names(by_vector) == names(hits)


def test_a_negative_pushes_its_images_down(collection):
    def rank(hits):
        return names(hits).index("red.png")

    plain = collection.search("white", k=1000)
    pushed = collection.search("white", negative=["red"], k=1000)
    assert rank(pushed) > rank(plain)


def test_filters_keep_only_what_they_say(collection):
    hits = collection.search("red", where="label = 'train' and width = 40", k=1000)
    assert len(hits) == PHOTOS // 2 and {h.image.label for h in hits} == {"train"}
    assert len(collection.search("red", where="label = 'nothing'")) == 0
    with pytest.raises(FilterError, match="labl"):
        collection.search("red", where="labl = 'train'")


def test_questions_without_an_answer_are_clear_errors(collection):
    with pytest.raises(QueryError, match="empty"):
        collection.search()
    with pytest.raises(QueryError, match="empty"):
        collection.search("  ")
    with pytest.raises(QueryError, match="k is at least 1"):
        collection.search("red", k=0)
    with pytest.raises(QueryError, match="12345"):
        collection.search(image_id=12345)
    with pytest.raises(QueryError, match="9223372036854775808"):
        collection.search(image_id=2**63)
    with pytest.raises(QueryError, match=r"shape \[3\].*dim 49"):
        collection.search(vector=np.ones(3))
    with pytest.raises(QueryError, match="finite"):
        collection.search(vector=np.full(49, np.nan))
    with pytest.raises(QueryError, match="zero"):
        collection.search(vector=np.zeros(49))
    with pytest.raises(QueryError, match="cancel"):
        collection.search("red", negative=[Term("red", weight=-1)])
    with pytest.raises(UnknownSpace, match="the spaces are colour"):
        collection.search("red", space="clip")
    with pytest.raises(ImageError):
        collection.search(image=b"no picture")
    with pytest.raises(QueryError, match="text and image"):
        Term(text="a", image=b"b")
    with pytest.raises(QueryError, match="lists"):
        collection.search("red", negative="blue")
    with pytest.raises(QueryError, match="string"):
        collection.search(5)
    with pytest.raises(QueryError, match="numbers"):
        collection.search(vector=[[1], [2, 3]])
    with pytest.raises(QueryError, match="dim 49"):
        collection.neighbors(np.ones((1, 3), np.float32), "colour", k=1)
    with pytest.raises(CollectionNotFound):
        retrieval.open("/nowhere/at/all.lance")
    with pytest.raises(CollectionError, match="empty"):
        retrieval.open("")


def test_k_may_be_larger_than_any_memory(collection):
    assert len(collection.search("red", k=10**12)) == PHOTOS + 4


def test_words_in_a_space_without_words_name_the_way_out(photos, tmp_path):
    class Mute(ColourEncoder):
        from dataclasses import replace

        spec = replace(ColourEncoder.spec, name="mute", modalities=("image",))

    ingest(photos, tmp_path / "c", encoders=[Mute(), ColourEncoder()])
    both = retrieval.open(tmp_path / "c", encoders=[Mute(), ColourEncoder()])
    assert both.search("red").space == "colour"
    assert both.search(image=photos / "red.png").space == "mute"
    with pytest.raises(ModalityError, match="colour"):
        both.search("red", space="mute")
    ingest(photos, tmp_path / "d", encoders=[Mute()])
    with pytest.raises(ModalityError, match="--encoder"):
        retrieval.open(tmp_path / "d", encoders=[Mute()]).search("red")


def test_half_precision_costs_little_and_images_still_find_themselves(photos, tmp_path):
    path = tmp_path / "half"
    ingest(photos, path, encoders=[ColourEncoder()], dtype="float16")
    half = retrieval.open(path, encoders=[ColourEncoder()])
    assert half.spaces["colour"].dtype == "float16"
    assert half.self_test(sample=1000) == (PHOTOS + 4, [])
    exact = ColourEncoder().encode_images([Image.open(photos / "red.png").convert("RGB")])[0]
    for hit in half.search("red", k=5):
        with Image.open(hit.image.uri) as opened:
            stored = ColourEncoder().encode_images([opened.convert("RGB")])[0]
        assert hit.score == pytest.approx(float(stored @ exact), abs=1e-3)


def test_an_empty_collection_answers_with_nothing(tmp_path):
    empty = retrieval.open(tmp_path / "c", create=True, encoders=[ColourEncoder()])
    hits = empty.search("red")
    assert len(hits) == 0 and hits.to_arrow().num_rows == 0
    assert empty.search("red", where="width > 3").to_pandas().empty


def test_answers_convert_to_arrow_and_pandas(collection):
    hits = collection.search("red", k=3)
    table = hits.to_arrow()
    assert table.column("rank").to_pylist() == [1, 2, 3]
    assert table.column("uri").to_pylist() == [h.image.uri for h in hits]
    frame = hits.to_pandas()
    assert list(frame["image_id"]) == [h.image.image_id for h in hits]
    empty = collection.search("red", where="width = 1").to_arrow()
    assert empty.schema == table.schema


def test_a_write_is_found_by_the_next_search_and_a_delete_never_again(photos, tmp_path):
    path = tmp_path / "c"
    ingest(photos / "train", path, encoders=[ColourEncoder()])
    reader = retrieval.open(path, encoders=[ColourEncoder()])
    assert len(reader.search("red", k=1000)) == PHOTOS // 2
    ingest(photos, path, encoders=[ColourEncoder()])
    assert names(reader.search("red", k=1)) == ["red.png"]
    gone = reader.search("red", k=1)[0].image.image_id
    writer = retrieval.open(path)
    assert writer.delete([gone]) == 1
    assert gone not in [h.image.image_id for h in reader.search("red", k=1000)]


def test_searching_while_others_write_is_always_consistent(photos, tmp_path):
    path = tmp_path / "c"
    ingest(photos, path, encoders=[ColourEncoder()])
    reader = retrieval.open(path, encoders=[ColourEncoder()])
    done = threading.Event()
    wrong: list[Exception] = []

    def look() -> None:
        while not done.is_set():
            try:
                hits = reader.search("red", k=5)
                assert len(hits) == 5 and reader.status()["images"] >= len(hits)
            except Exception as error:
                wrong.append(error)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for each in lookers:
        each.start()
    writer = retrieval.open(path, encoders=[ColourEncoder()])
    for image_id in [h.image.image_id for h in reader.search("blue", k=15)]:
        writer.delete([image_id])
        ingest(photos / "train", writer)
    done.set()
    for each in lookers:
        each.join()
    assert not wrong
    assert len(reader) == len(writer)
    fresh = retrieval.open(path, encoders=[ColourEncoder()]).search("red", k=1000)
    assert names(reader.search("red", k=1000)) == names(fresh)


def test_a_deleted_image_leaves_no_failure_and_after_a_purge_no_trace(tmp_path):
    (path,) = write_pictures(tmp_path / "in", 1, suffix=".SECRET.png")
    ingest(tmp_path / "in", tmp_path / "c", encoders=[ColourEncoder()])
    path.write_bytes(b"broken")
    ingest(tmp_path / "in", tmp_path / "c", encoders=[ColourEncoder()])
    collection = retrieval.open(tmp_path / "c")
    collection.delete(collection.store.ids(), purge=True)
    for file in (tmp_path / "c").rglob("*"):
        assert file.is_dir() or b"SECRET" not in file.read_bytes()


def test_an_encoder_is_loaded_again_for_another_precision_only(collection):
    opened = retrieval.open(collection.uri)
    loaded = []

    def load(name: str) -> ColourEncoder:
        loaded.append(ColourEncoder())
        return loaded[-1]

    first = opened.encoder("colour", load)
    assert opened.encoder("colour", load, precision="fp32") is first
    quick = opened.encoder("colour", load, precision="int8")
    assert quick is loaded[1] and opened.encoder("colour", load) is quick
    assert opened.encoder("colour", load, precision="int8") is quick
    assert opened.encoder("colour", load, precision="fp32") is loaded[2]
    opened.use(own := ColourEncoder())
    assert opened.encoder("colour", load, precision="int8") is own
