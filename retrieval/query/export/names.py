"""Names of folders for any text."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

_BAD = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MOST_BYTES = 200


def folder_names(labels: Iterable[str | None], nothing: str) -> dict[str | None, str]:
    """A folder's name for each label, safe on every system; no two labels share one on any.

    A label that can be a name is one. What others become carries a piece of the label's hash where
    it would be another label's, or would differ from it in case or Unicode form only.

    Args:
        labels: any text; None for no label.
        nothing: name for None; a label of that name shares it.
    """
    given = set(labels)
    names: dict[str | None, str] = {None: nothing} if None in given else {}
    texts = sorted(label for label in given if label is not None)
    taken = {one(name) for name in names.values()}
    for text in sorted(texts, key=lambda text: safe(text) != text):
        name = safe(text)
        if one(name) in taken and not (text == nothing and None in given):
            name += "-" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        names[text] = name
        taken.add(one(name))
    return names


def one(name: str) -> str:
    """What names have in common that some system takes for one: case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe(text: str) -> str:
    """``text`` as the name of a visible file: no separators, nothing reserved, never empty."""
    name = _BAD.sub("_", text)
    while len(name.encode()) > _MOST_BYTES:
        name = name[:-1]
    name = name.rstrip(". ")
    if not name or name.startswith(".") or _RESERVED.fullmatch(name):
        name = f"_{name.lstrip('.')}"
    return name
