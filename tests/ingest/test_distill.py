"""What distillation does around the training: what it takes, holds out, keeps, and measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexers.distill import distill
from indexers.distill.agreement import images_agree, labels_agree, overlap, top, words_agree
from indexers.distill.material import gather
from indexers.distill.photos import SIDE, Photo, Shelf, array_on_disk, preprocess_for, teach_photos
from indexers.distill.texts import Caption, read_captions, teach_texts, texts_to_learn
from indexers.distill.workplace import Workplace
from indexers.labels import labels_from
from indexers.sources import FolderSource
from retrieval.encoders import EncoderSpec, Preprocess
from retrieval.encoders.base import unit_rows
from retrieval.errors import EncoderError, ModalityError, SourceError
from tests.encoders_of_tests import ColourEncoder, FragileEncoder
from tests.pictures import write_pictures

ROOT = Path(__file__).resolve().parents[2]


def rows(*vectors: tuple[float, ...]) -> np.ndarray:
    return unit_rows(np.array(vectors, dtype=np.float32))


def write_csv(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def gathered(folder: Path, labels: str | None = None, captions: list[Caption] | None = None):
    source = FolderSource(folder)
    return gather([source], labels_from(labels), captions or [], 0, with_texts=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, 40)
    return folder


# What is held out


def test_a_tenth_is_held_out_at_random_and_always_the_same(photos):
    first, second = gathered(photos), gathered(photos)
    assert first.photos == second.photos
    assert sum(photo.held_out for photo in first.photos) == 4
    assert first.unseen == second.unseen
    assert not {each.text for each in first.unseen} & set(first.learn)


def test_the_split_of_the_labels_decides_where_there_is_one(photos, tmp_path):
    lines = [f"{photos}/{n:04d}.png,{n % 3},{'test' if n < 5 else 'train'}" for n in range(40)]
    table = write_csv(tmp_path / "labels.csv", "file,kind,split", *lines)
    found = gathered(photos, f"{table}:kind").photos
    assert [photo.held_out for photo in found] == [True] * 5 + [False] * 35
    assert [photo.label for photo in found[:4]] == ["0", "1", "2", "0"]


def test_a_caption_goes_with_its_photo(photos, tmp_path):
    table = write_csv(
        tmp_path / "captions.csv",
        "image,split,caption",
        "0003.png,test,a shy  marmot",
        "0004.png,test,two of them",
        "0005.png,train,a loud marmot",
        "away.png,train,gone but still words",
        "away.png,test,unheard words",
        "0006.png,train,",
    )
    found = gathered(photos, captions=read_captions(table))
    assert [at for at, photo in enumerate(found.photos) if photo.held_out] == [3, 4]
    assert [(each.text, each.photo) for each in found.unseen] == [
        ("a shy marmot", 3),
        ("two of them", 4),
    ]
    assert {"a loud marmot", "gone but still words"} <= set(found.learn)
    assert not {"a shy marmot", "two of them", "unheard words"} & set(found.learn)


def test_a_name_that_two_photos_have_says_nothing(photos, tmp_path):
    write_pictures(tmp_path / "a", 25)
    write_pictures(tmp_path / "b", 25, start=24)
    captions = [
        Caption(str(tmp_path / "no" / "0024.png"), "which one", held_out=True),
        Caption(str(tmp_path / "no" / "0001.png"), "this one", held_out=True),
        Caption(str(tmp_path / "b" / "0024.png"), "that one", held_out=True),
    ]
    found = gathered(tmp_path, captions=captions)
    held_out = [photo.path for photo in found.photos if photo.held_out]
    assert held_out == [str(tmp_path / "a" / "0001.png"), str(tmp_path / "b" / "0024.png")]


# Bad input


def test_too_few_photos_are_refused_with_numbers(tmp_path):
    write_pictures(tmp_path, 12)
    with pytest.raises(SourceError, match="10 photos to learn from and 2 held out"):
        gathered(tmp_path)
    with pytest.raises(SourceError, match="0 photos"):
        distill(ColourEncoder(), tmp_path / "0001.png", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_captions_for_a_teacher_without_words_are_refused_before_anything_is_written(
    photos, tmp_path
):
    table = write_csv(tmp_path / "captions.csv", "file,caption", "0001.png,a marmot")
    with pytest.raises(ModalityError, match="pocket-visual has no text side"):
        distill("pocket-visual", photos, tmp_path / "out", captions=table)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"file,text\n1.png,hello\n", "needs the columns 'file' and 'caption'; it has: file, text"),
        (b"caption\nhello\n", "needs the columns"),
        (b"file,caption\n1.png,\n", "holds no caption"),
        (b"", "needs the columns"),
        (b"\xff\xfe\x00\x01\x02", "cannot be read"),
    ],
)
def test_captions_that_are_none_are_refused(tmp_path, content, complaint):
    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(SourceError, match=complaint):
        read_captions(tmp_path / "captions.csv")


def test_captions_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere\.csv"):
        read_captions(tmp_path / "nowhere.csv")


def test_without_torch_the_fix_is_named_and_nothing_written(photos, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from indexers.distill import distill\n"
        "from retrieval.errors import InstallError\n"
        "from tests.encoders_of_tests import ColourEncoder\n"
        "try: distill(ColourEncoder(), *sys.argv[1:])\n"
        "except InstallError as error: print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(photos), str(tmp_path / "out")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "pip install torch" in out.stdout
    assert not list(tmp_path.glob("out*"))


def test_a_disk_without_room_is_told_before_it_is_filled(tmp_path):
    with pytest.raises(OSError, match=r"needs 1000000000\.0 GB"):
        array_on_disk(tmp_path / "large.npy", np.uint8, (10**9, 10**9))
    assert not list(tmp_path.iterdir())


# The student's folder


def test_a_folder_takes_one_student(tmp_path):
    plan = {"teacher": "pocket-visual", "weights": "1", "data": "2", "epochs": 8, "seed": 0}
    place = Workplace(tmp_path / "out", plan)
    assert place.report() is None
    Workplace(tmp_path / "out", dict(plan))
    with pytest.raises(EncoderError, match=r"out\.training belongs .* of other epochs and seed"):
        Workplace(tmp_path / "out", {**plan, "epochs": 9, "seed": 1})
    place.clear()
    Workplace(tmp_path / "out", {**plan, "seed": 1})


def test_other_people_s_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EncoderError, match="not an empty folder"):
        Workplace(tmp_path, {})
    with pytest.raises(EncoderError, match="not an empty folder"):
        Workplace(tmp_path / "notes.txt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# What the teacher answers


def photo(path: Path, *, held_out: bool = False) -> Photo:
    return Photo(str(path), None, held_out, 0, 0)


def taught(photos: list[Photo], folder: Path, teacher: ColourEncoder, stop_after: int = 999):
    folder.mkdir(exist_ok=True)
    shelf = Shelf(folder, len(photos), teacher.spec.dim)
    done: list[int] = []
    teach_photos(
        photos,
        shelf,
        teacher,
        preprocess_for(teacher.spec),
        0,
        tell=lambda now, total: done.append(now),
        stopped=lambda: len(done) >= stop_after,
    )
    return shelf, done


def test_the_shelf_holds_what_student_and_teacher_see(photos, tmp_path):
    teacher = ColourEncoder()
    files = sorted(photos.iterdir())[:20]
    shelf, _ = taught([photo(path, held_out=path is files[0]) for path in files], tmp_path, teacher)
    assert shelf.pixels.shape == (shelf.views, 20, SIDE, SIDE, 3) and shelf.views > 1
    pictures = [Image.open(path).convert("RGB") for path in files]
    np.testing.assert_array_equal(shelf.targets[0], teacher.encode_images(pictures))
    np.testing.assert_array_equal(
        shelf.pixels[0], [preprocess_for(teacher.spec).pixels(picture) for picture in pictures]
    )
    assert shelf.usable().all()
    assert np.allclose(np.linalg.norm(shelf.targets[1:, 1:], axis=2), 1)
    assert not shelf.targets[1:, 0].any()  # a held-out photo is only seen as it is
    similar = (shelf.targets[1:, 1:] * shelf.targets[0, 1:]).sum(axis=2)
    assert 0.2 < similar.mean() < 0.999  # parts of the same photos


def test_photos_that_cannot_be_used_cost_only_themselves(photos, tmp_path):
    files = sorted(photos.iterdir())[:24]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    odd = tmp_path / "odd.png"
    Image.new("RGB", (33, 44), (200, 10, 10)).save(odd)

    everything = [photo(path) for path in (*files[:5], broken, *files[5:], odd)]
    shelf, done = taught(everything, tmp_path, FragileEncoder((33, 44)))
    assert np.flatnonzero(~shelf.usable()).tolist() == [5, 25]
    assert len(shelf.to_do()) == 0 and done[-1] == 26


def test_photos_of_which_none_can_be_used_are_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"not one of the photos .*no picture format"):
        taught([photo(tmp_path / "a.png")], tmp_path, ColourEncoder())


def test_a_stopped_teacher_goes_on_where_it_was(photos, tmp_path):
    files = [photo(path) for path in sorted(photos.iterdir())]
    taught(files, tmp_path / "clean", ColourEncoder())
    shelf, _ = taught(files, tmp_path / "stopped", ColourEncoder(), stop_after=1)
    left = len(shelf.to_do())
    assert 0 < left < 40
    shelf, done = taught(files, tmp_path / "stopped", ColourEncoder())
    assert done[0] > 40 - left and len(done) < 5
    for name in ("pixels.npy", "targets.npy"):
        clean = (tmp_path / "clean" / name).read_bytes()
        assert (tmp_path / "stopped" / name).read_bytes() == clean


def test_texts_are_answered_once(tmp_path):
    class Counting(ColourEncoder):
        asked = 0

        def encode_texts(self, texts):
            Counting.asked += len(texts)
            return super().encode_texts(texts)

    words = ["red", "green", "blue"]
    tell, never = (lambda done, total: None), (lambda: False)
    for _ in range(2):
        found = teach_texts(words, Counting(), tmp_path, tell=tell, stopped=never)
        np.testing.assert_array_equal(found, ColourEncoder().encode_texts(words))
    assert Counting.asked == 3


def test_the_student_sees_what_its_teacher_sees():
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    spec = ColourEncoder.spec

    def seen(preprocess: Preprocess | None) -> tuple[str, int, int]:
        found = preprocess_for(EncoderSpec(**{**facts(spec), "preprocess": preprocess}))
        return found.resize, found.resize_to, found.size

    assert seen(Preprocess(224, "shortest", 256, "bicubic", mean, std)) == (
        "shortest", round(SIDE * 256 / 224), SIDE,
    )  # fmt: skip
    assert seen(Preprocess(224, "squash", 224, "bicubic", mean, std)) == ("squash", SIDE, SIDE)
    assert seen(None) == ("squash", SIDE, SIDE)


def facts(spec: EncoderSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_texts_to_learn_are_distinct_and_come_from_the_seed():
    captions = ["Zwei Murmeltiere im Schnee", "a marmot eats grass near the tent"]
    first = texts_to_learn(captions, ["T-Shirt"], seed=1)
    assert first == texts_to_learn(captions, ["T-Shirt"], seed=1)
    assert first != texts_to_learn(captions, ["T-Shirt"], seed=2)
    assert len(set(first)) == len(first) > 20_000
    assert {*captions, "t-shirt", "murmeltiere", "dog"} <= set(first)
    assert any(text.startswith("a photo of") for text in first)


# The figures


def test_neighbours_are_counted_by_hand():
    gallery = rows((1, 0), (0.9, 0.1), (0, 1), (-1, 0))
    assert top(gallery, gallery, own=True)[:, 0].tolist() == [1, 0, 1, 2]
    assert top(gallery[:1], gallery)[0].tolist() == [0, 1, 2, 3]
    assert overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 9], [4, 3]])) == 0.75


def test_the_same_space_agrees_and_a_turned_one_agrees_on_neighbours_only():
    rng = np.random.default_rng(0)
    theirs = unit_rows(rng.normal(size=(60, 8)))
    assert images_agree(theirs, theirs) == pytest.approx({"cosine": 1.0, "overlap_at_10": 1.0})
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    turned = images_agree(unit_rows(theirs @ turn), theirs)
    assert turned["overlap_at_10"] == 1.0 and turned["cosine"] < 0.5
    other = images_agree(unit_rows(rng.normal(size=(60, 8))), theirs)
    assert other["overlap_at_10"] == pytest.approx(10 / 59, abs=0.06)


def test_labels_are_judged_in_each_space_by_itself():
    known, unseen = rows(*[(1, 0), (0, 1)] * 20), rows((1, 0.1), (0.1, 1))
    figures = labels_agree((known, known), ["a", "b"] * 20, (unseen[::-1], unseen), ["a", "b"])
    assert figures == {"student": 0.0, "teacher": 1.0}


def test_captions_that_find_their_photo_are_counted():
    photos = rows(*np.eye(12))
    texts = photos[:3]
    wrong = texts[[0, 2, 1]]
    figures = words_agree((wrong, texts), (photos, photos), [0, 1, None])
    assert figures["hit_rate_at_10_teacher"] == 1.0
    assert figures["cosine"] == pytest.approx(1 / 3)
    alone = words_agree((texts, texts), (photos, photos), [None] * 3)
    assert alone == pytest.approx({"cosine": 1.0, "overlap_at_10": 1.0})


def test_the_pocket_words_are_english_words():
    from indexers.distill.texts import _english

    words = _english()
    assert len(words) > 10_000 and {"dog", "bicycle", "snow"} <= set(words)
