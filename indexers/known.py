"""What the collection already holds, in the form that an ingest run asks for it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
            self._by_hash[row.content_hash].append(row)
        self._claimed: set[int] = set()

    @classmethod
    def of(cls, store: Store, spaces: Sequence[str]) -> KnownImages:
        """Read what ``store`` holds, and what it lacks of ``spaces`` (it may not have one yet)."""
        return cls(_rows(store, spaces))

    def has_content(self, content_hash: str) -> bool:
        """Whether a complete row has this content, so that its vectors can be used again."""
        return self.same_content(content_hash) is not None

    def claim_moved(self, content_hash: str) -> Known | None:
        """A row of this content whose file is gone, given out once."""
        for row in self._by_hash.get(content_hash, ()):
            if row.image_id not in self._claimed and vanished(row.uri):
                self._claimed.add(row.image_id)
                return row
        return None

    def same_content(self, content_hash: str) -> Known | None:
        """A complete row of this content, its file there or gone."""
        rows = self._by_hash.get(content_hash, ())
        return next((row for row in rows if not row.missing), None)

    def forget_content(self, row: Known) -> None:
        """Remember that ``row`` is about to hold other content."""
        rows = self._by_hash.get(row.content_hash, ())
        # A new list: worker threads may be looking at the old one.
        self._by_hash[row.content_hash] = [each for each in rows if each is not row]

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
    """Whether there is certainly no file behind ``uri`` any more (not merely out of reach).

    A folder or a symbolic link in its place is none: neither would be taken for a picture.
    """
    path = path_of(uri)
    if path is None:
        return False
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _rows(store: Store, spaces: Sequence[str]) -> Iterator[Known]:
    there = set(store.spaces)
    for batch in store.known().to_batches():
        columns = batch.to_pydict()
        for row in range(batch.num_rows):
            yield Known(
                image_id=columns["image_id"][row],
                uri=columns["uri"][row],
                content_hash=columns["content_hash"][row],
                size_bytes=columns["size_bytes"][row],
                mtime_ns=columns["mtime_ns"][row],
                missing=tuple(
                    name
                    for name in spaces
                    if name not in there or not columns[f"embedded:{name}"][row]
                ),
            )
