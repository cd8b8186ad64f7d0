"""What the collection already holds, in the form that an ingest run asks for it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from retrieval.store import Store
from retrieval.uris import path_of

_ID_BITS = 53


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the collection, as far as an ingest run needs it."""

    image_id: int
    uri: str
    content_hash: str
    size_bytes: int
    mtime_ns: int
    missing: tuple[str, ...]
    """Spaces in which the row has no vector yet."""


class KnownImages:
    """The rows of a collection by uri and by content."""

    def __init__(self, rows: Iterable[Known] = ()) -> None:
        """Index ``rows``."""
        self.by_uri = {row.uri: row for row in rows}
        self._ids = {row.image_id for row in self.by_uri.values()}
        self._by_hash: dict[str, list[Known]] = defaultdict(list)
        for row in sorted(self.by_uri.values(), key=lambda row: row.uri):
            if not row.missing:
                self._by_hash[row.content_hash].append(row)
        self._claimed: set[int] = set()

    @classmethod
    def of(cls, store: Store) -> KnownImages:
        """Read what ``store`` holds."""
        return cls(_rows(store))

    def has_content(self, content_hash: str) -> bool:
        """Whether a complete row has this content, so that its vectors can be used again."""
        return content_hash in self._by_hash

    def claim_moved(self, content_hash: str) -> Known | None:
        """A row of this content whose file is gone, given out once."""
        for row in self._by_hash[content_hash]:
            if row.image_id not in self._claimed and vanished(row.uri):
                self._claimed.add(row.image_id)
                return row
        return None

    def same_content(self, content_hash: str) -> Known:
        """A row of this content, there or gone."""
        return self._by_hash[content_hash][0]

    def claimed(self, row: Known) -> bool:
        """Whether ``row`` lives on at another uri."""
        return row.image_id in self._claimed

    def new_id(self, uri: str) -> int:
        """An id for a uri that has none.

        It depends on the uri alone, so that an interrupted run and a clean one, or two runs at
        once, give the same. 53 bits survive JSON readers that hold numbers as doubles. An id
        that is taken, by chance or by an image that moved away from this uri, is hashed on.
        """
        salt = 0
        while True:
            text = f"{salt}\0{uri}".encode()
            digest = hashlib.blake2b(text, digest_size=8).digest()
            image_id = int.from_bytes(digest, "big") >> (64 - _ID_BITS)
            if image_id not in self._ids:
                self._ids.add(image_id)
                return image_id
            salt += 1


def vanished(uri: str) -> bool:
    """Whether the file behind ``uri`` is certainly gone (not merely out of reach)."""
    path = path_of(uri)
    if path is None:
        return False
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _rows(store: Store) -> Iterator[Known]:
    names = list(store.spaces)
    for batch in store.known().to_batches():
        columns = batch.to_pydict()
        for row in range(batch.num_rows):
            yield Known(
                image_id=columns["image_id"][row],
                uri=columns["uri"][row],
                content_hash=columns["content_hash"][row],
                size_bytes=columns["size_bytes"][row],
                mtime_ns=columns["mtime_ns"][row],
                missing=tuple(name for name in names if not columns[f"embedded:{name}"][row]),
            )
