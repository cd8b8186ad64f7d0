"""A class of the user's own: one method is enough to index and search."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.encoders import Encoder, TextEncoder, load, resolve
from retrieval.errors import EncoderError, SpaceMismatch, UnknownEncoder

ONE_METHOD = """
    import numpy as np

    class Mine:
        def encode_images(self, images):
            return [np.asarray(image.resize((2, 2))).ravel().tolist() for image in images]
"""
RED, BLUE = Image.new("RGB", (20, 30), "red"), Image.new("RGB", (9, 9), "blue")


@pytest.fixture
def module(tmp_path, monkeypatch) -> Iterator[Path]:
    """A module ``mine.py`` in the current folder."""
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(ONE_METHOD))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    sys.modules.pop("mine", None)


def test_one_method_is_enough_to_index_and_search(module, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    RED.save(photos / "red.png")
    BLUE.save(photos / "blue.png")
    report = ingest(photos, tmp_path / "c.lance", encoders=["mine:Mine"])
    assert (report.added, report.failed) == (2, 0)
    hits = retrieval.open(tmp_path / "c.lance").search(image=RED)
    assert hits[0].image.uri.endswith("red.png")
    assert hits[0].score == pytest.approx(1)


def test_rows_get_unit_length_and_none_gives_none(module):
    encoder = load("mine:Mine")
    assert isinstance(encoder, Encoder)
    assert not isinstance(encoder, TextEncoder)
    rows = encoder.encode_images([RED, BLUE])
    assert (rows.shape, rows.dtype) == ((2, 12), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert encoder.encode_images([]).shape == (0, 12)


def test_another_version_of_the_class_is_another_encoder(module, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    RED.save(photos / "red.png")
    ingest(photos, tmp_path / "c.lance", encoders=["mine:Mine"])
    module.write_text(module.read_text().replace("(2, 2)", "(2, 3)"))
    del sys.modules["mine"]
    import linecache

    linecache.clearcache()
    with pytest.raises(SpaceMismatch, match="another encoder"):
        ingest(photos, tmp_path / "c.lance")


class Worded:
    """Has words and says its own version."""

    weights_hash = "seven"
    prompt = "a picture of {}"

    def encode_images(self, images):
        return np.ones((len(images), 3))

    def encode_texts(self, texts):
        return np.full((len(texts), 3), 2.0)


def test_what_an_object_has_is_used():
    encoder = resolve(Worded())
    assert isinstance(encoder, TextEncoder)
    assert encoder.weights_hash == "seven"
    assert encoder.spec.prompt == "a picture of {}"
    np.testing.assert_allclose(encoder.encode_texts(["x"]), encoder.encode_images([RED]))
    assert resolve(encoder) is encoder


class _Gives:
    weights_hash = "g"

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def encode_images(self, images):
        return self.rows


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.ones(3), r"array \(3,\) for 1 inputs"),
        (np.ones((2, 3)), r"array \(2, 3\) for 1 inputs"),
        ([["a", "b"]], "did not give numbers"),
    ],
)
def test_wrong_answers_are_refused(rows, sentence):
    with pytest.raises(EncoderError, match=sentence):
        resolve(_Gives(rows))


def test_zero_rows_and_changing_widths_are_refused():
    given = _Gives(np.ones((1, 3)))
    encoder = resolve(given)
    given.rows = np.zeros((1, 3))
    with pytest.raises(EncoderError, match="zero or not finite"):
        encoder.encode_images([RED])
    given.rows = np.ones((1, 4))
    with pytest.raises(EncoderError, match="4 numbers, not 3"):
        encoder.encode_images([RED])


def test_what_cannot_be_an_encoder_says_why(module):
    with pytest.raises(UnknownEncoder, match="no class Yours"):
        load("mine:Yours")
    with pytest.raises(UnknownEncoder, match="no module nowhere"):
        load("nowhere:Mine")
    with pytest.raises(EncoderError, match="no method encode_images"):
        resolve(object())  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="made without arguments"):
        load("tests.encoders.test_own:_Gives")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise ValueError('odd')", "mine cannot be imported: ValueError: odd"),
        ("class Mine: pass\nMine.nothing", "mine cannot be imported: AttributeError"),
        ("def f(:", "mine cannot be imported: SyntaxError"),
        (
            "class Mine:\n    def encode_images(self, images): return {}['no']",
            "cannot encode a gray picture: KeyError: 'no'",
        ),
    ],
)
def test_what_fails_in_ones_own_code_is_told_in_one_line(module, source, sentence):
    module.write_text(source)
    with pytest.raises(EncoderError, match=sentence):
        load("mine:Mine")
