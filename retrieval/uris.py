"""Paths as text that survives a round trip.

A path that is valid UTF-8 is its own uri. POSIX file names are bytes, though, and some are not
valid UTF-8: those become ``file://`` URLs with the odd bytes percent-encoded.
"""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FILE = "file://"


def uri_of(path: str | os.PathLike[str]) -> str:
    """The uri of an absolute path; undecodable bytes arrive as surrogates (``os.fsdecode``)."""
    text = os.fspath(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _FILE + quote_from_bytes(os.fsencode(text))
    return text


def path_of(uri: str) -> str | None:
    """The path behind ``uri``, or None where it is a URL of another scheme."""
    if uri.startswith(_FILE):
        return os.fsdecode(unquote_to_bytes(uri[len(_FILE) :]))
    return None if "://" in uri else uri
