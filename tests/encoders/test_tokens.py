"""Token ids equal those of each library's own tokenizer, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")
import tokenizers  # noqa: E402

from retrieval.encoders.checkpoints.families import FAMILIES  # noqa: E402
from retrieval.encoders.tokens import Tokenizer  # noqa: E402
from retrieval.errors import EncoderError  # noqa: E402
from tests.encoders.checkpoints import ALIGNED, SENTENCES  # noqa: E402

pytestmark = pytest.mark.slow

RULE = FAMILIES["siglip"].text
TEXTS = (*SENTENCES, "A Photo of a SMALL dog, on a beach!", "  two   red cars\n", "", "dog " * 99)


@pytest.fixture
def pieces(tmp_path) -> Path:
    """A folder with a SentencePiece model, as the published SigLIP has it."""
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES * 4))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        add_dummy_prefix=False,
        remove_extra_whitespaces=True,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    return tmp_path


def expected(folder: Path) -> np.ndarray:
    reference = tf.SiglipTokenizer(str(folder / "spiece.model"))
    return np.asarray(
        reference(list(TEXTS), padding="max_length", truncation=True, max_length=64)["input_ids"]
    )


def ids(folder: Path) -> np.ndarray:
    tokenizer = Tokenizer(folder, RULE, context=64)
    return tokenizer.padded(tokenizer.rows(TEXTS))["ids"]


def test_siglip_tokens_equal_the_sentencepiece_tokenizer(pieces):
    """Of a tokenizer.json that was translated by hand, as on the hub."""
    model = tf.SiglipTokenizer(str(pieces / "spiece.model")).sp_model
    vocab = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=model.unk_id()))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    fast.add_special_tokens(["</s>"])
    fast.save(str(pieces / "tokenizer.json"))
    np.testing.assert_array_equal(ids(pieces), expected(pieces))


def test_old_vocabularies_become_a_tokenizer_json_as_the_error_says(pieces):
    with pytest.raises(EncoderError, match=r"T5Tokenizer.from_pretrained\(folder\)"):
        ids(pieces)
    tf.T5Tokenizer.from_pretrained(pieces).save_pretrained(pieces)
    np.testing.assert_array_equal(ids(pieces), expected(pieces))


@pytest.mark.parametrize(("name", "kind"), [("clip", "CLIP"), ("chinese_clip", "Bert")])
def test_so_do_those_of_other_families(name, kind, tmp_path):
    folder = ALIGNED[name](tmp_path / name)
    before = Tokenizer(folder, FAMILIES[name].text, 50).rows(TEXTS)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    if kind == "Bert":
        (folder / "vocab.txt").write_text("\n".join(sorted(model["vocab"], key=model["vocab"].get)))
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [" ".join(pair) for pair in model["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=f"{kind}Tokenizer"):
        Tokenizer(folder, FAMILIES[name].text, 50)
    getattr(tf, f"{kind}Tokenizer").from_pretrained(folder).save_pretrained(folder)
    assert Tokenizer(folder, FAMILIES[name].text, 50).rows(TEXTS) == before


def test_tokenizer_of_another_family_is_refused(tmp_path):
    folder = ALIGNED["clip"](tmp_path / "clip")
    with pytest.raises(EncoderError, match="belongs to another family"):
        Tokenizer(folder, RULE, 64)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match="cannot be read"):
        Tokenizer(folder, RULE, 64)
