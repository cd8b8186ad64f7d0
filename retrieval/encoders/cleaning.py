"""What is done to a text before it is cut into tokens, as in each network's training."""

from __future__ import annotations

import html
import re
import string
from typing import Literal

from retrieval.errors import EncoderUnavailable

Clean = Literal["none", "lower", "canonical", "web", "web-lower", "web-canonical"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cleaned(text: str, how: Clean) -> str:
    """Clean a text.

    Args:
        text: what a person wrote.
        how: ``none``; ``lower`` for lower case; ``canonical`` also without ASCII punctuation and
            repeated blanks. With ``web-`` before it, as open_clip does to captions from the web:
            wrongly decoded characters are mended, HTML entities replaced and blanks collapsed
            first, and underscores then count as blanks.

    Raises:
        EncoderUnavailable: if ftfy, which mends the characters, is needed and not installed.
    """
    if how == "none":
        return text
    if how.startswith("web"):
        text = _mended(text)
        if how == "web":
            return text
        text = text.replace("_", " ") if how == "web-canonical" else text
    text = text.lower()
    if how.endswith("canonical"):
        text = re.sub(r"\s+", " ", text.translate(_PUNCTUATION)).strip()
    return text


def _mended(text: str) -> str:
    """The steps of open_clip's ``basic_clean`` and ``whitespace_clean``."""
    if not text.isascii() or not text.isprintable() or "&" in text:
        try:
            import ftfy
        except ImportError as error:
            raise EncoderUnavailable(
                "this encoder reads texts that are not plain ASCII with ftfy: pip install ftfy"
            ) from error
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())
