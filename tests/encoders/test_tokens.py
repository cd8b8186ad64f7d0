"""Token ids equal those of each library's own tokenizer, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")
import tokenizers  # noqa: E402

from retrieval.encoders.checkpoints.families import FAMILIES  # noqa: E402
from retrieval.encoders.tokens import Tokenizer  # noqa: E402
from tests.encoders.checkpoints import SENTENCES  # noqa: E402

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
