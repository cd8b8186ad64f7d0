"""The pocket encoders, loaded once."""

from __future__ import annotations

import pytest

from retrieval.encoders import pocket
from retrieval.encoders.pocket.encoder import PocketText, PocketVisual


@pytest.fixture(scope="session")
def visual() -> PocketVisual:
    encoder = pocket.load("pocket-visual")
    assert isinstance(encoder, PocketVisual)
    return encoder


@pytest.fixture(scope="session")
def text() -> PocketText:
    encoder = pocket.load("pocket-text")
    assert isinstance(encoder, PocketText)
    return encoder
