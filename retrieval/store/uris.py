"""Where a collection lies: a local directory or an object-store URI, as one normal text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def normalize(uri: str | os.PathLike[str]) -> str:
    """An absolute path without ``~``, or the object-store URI without a trailing slash.

    ``file://`` URLs become paths, so that one place has one name.
    """
    text = os.fspath(uri)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif is_remote(text):
        return text.rstrip("/")
    return os.path.abspath(Path(text).expanduser())


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names an object store and not a local directory."""
    return _SCHEME.match(uri) is not None and not uri.startswith("file://")


def table_uri(uri: str, table: str) -> str:
    """Where the LanceDB directory layout puts ``table``; ``uri`` must be normal."""
    return f"{uri}/{table}.lance" if is_remote(uri) else os.path.join(uri, f"{table}.lance")


def entries(uri: str, storage_options: Mapping[str, str] | None = None) -> set[str]:
    """Names directly inside ``uri``; empty where there is no such place.

    Raises:
        OSError: if the place cannot be listed, as a file where a directory was meant.
    """
    if not is_remote(uri):
        return set(os.listdir(uri)) if os.path.lexists(uri) else set()
    from lance.file import LanceFileSession

    options = dict(storage_options) if storage_options else None
    listed = LanceFileSession(uri, storage_options=options).list_with_delimiter()
    return {
        name.rstrip("/").rsplit("/", 1)[-1] for name in (*listed.objects, *listed.common_prefixes)
    }
