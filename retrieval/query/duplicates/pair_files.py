"""Pairs on disk, beside the indexes of their space: a cache that goes when they are dropped.

A state is a folder of ``contents.arrow`` (what was compared), ``pairs.arrow`` (what was found) and
``pairs.json``, in a hidden folder that the indexes' own sweeping passes over. It appears in one
move and never changes; of several the newest count, and no byte of one is used before its checksum
was seen to fit. At most two stay: the last that was finished and the one that is at work. A state
is written as a whole, which suits some ten million contents or pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from retrieval import folders
from retrieval.errors import CollectionError
from retrieval.query.duplicates.contents import as_arrow, from_arrow, hashes_of, positions_in
from retrieval.query.duplicates.evidence import METHOD
from retrieval.query.duplicates.kept import Kept
from retrieval.query.indexing import Indexes
from retrieval.store import Store
from retrieval.vectors.index_files import discard

NOTE = "pairs.json"
_CONTENTS, _PAIRS = "contents.arrow", "pairs.arrow"
_TRIES = 3
_log = logging.getLogger(__name__)


class PairFiles:
    """What is kept of one space of a collection. Any number of processes may read and write it."""

    def __init__(self, store: Store, space: str) -> None:
        """Of ``space``, as ``store`` has it at its version."""
        self._store = store
        self._place = Indexes(store).folder(space) / ".pairs"
        self._owner = [store.collection_id, space, *store.space(space).identity]
        self._warned = False

    def load(self) -> list[Kept]:
        """Every state that is whole, newest first; what is damaged is thrown away."""
        for _ in range(_TRIES):
            there = self._there()
            found = [kept for folder in there if (kept := self._loaded(folder)) is not None]
            if found or not there:
                return found
        return []  # each time another process replaced them just then, or none can be used

    def save(self, kept: Kept) -> None:
        """Write a state, in place of those it makes needless; where that cannot be, go without.

        Contents that are gone meanwhile are left out, since a purge must not be undone.
        """
        there = self._there()
        number = 1 + max((_number(folder) for folder in there), default=0)
        folder = self._place / f"{number:012d}-{token_hex(4)}"
        try:
            folders.write(folder, NOTE, lambda inside: self._written(inside, kept))
        except FileNotFoundError as error:  # a purge took the folder away just now
            _log.info("pairs are not kept this time: %s", error)
            return
        except (OSError, CollectionError) as error:
            if not self._warned:
                _log.warning(
                    "pairs cannot be kept in %s, so the next run begins anew: %s%s",
                    self._place,
                    error,
                    folders.advice(error) if isinstance(error, OSError) else "",
                )
            self._warned = True
            return
        for old in there:
            if kept.whole or not self._wanted(old):
                discard(old)
        folders.sweep(self._place)

    def _there(self) -> list[Path]:
        """Folders of states, newest first."""
        try:
            found = [path for path in self._place.iterdir() if not path.name.startswith(".")]
        except OSError:
            return []
        return sorted(found, key=lambda folder: (_number(folder), folder.name), reverse=True)

    def _loaded(self, folder: Path) -> Kept | None:
        try:
            facts = folders.read_note(folder, NOTE)
            if facts["format"] > folders.FORMAT or facts["method"] != METHOD:
                return None
            if facts["owner"] != self._owner:
                return None
            folders.check(folder, facts)
            return _read(folder, facts)
        except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
            if folder.exists():  # not replaced by another process at this moment
                _log.warning("pairs that were kept are damaged and will be found again: %s", error)
                discard(folder)
        except OSError as error:
            _log.warning("pairs that were kept cannot be read now: %s", error)
        return None

    def _wanted(self, folder: Path) -> bool:
        """Whether a state stays beside one that is at work: it is finished, and of this space."""
        try:
            facts = folders.read_note(folder, NOTE)
            return bool(facts["whole"]) and facts["owner"] == self._owner
        except (OSError, ValueError, KeyError):
            return False

    def _written(self, inside: Path, kept: Kept) -> dict[str, Any]:
        import pyarrow as pa

        kept = kept.seen()
        # Whoever purges after this look takes away the folder that is being written to.
        now = self._store.again()
        if now.version != self._store.version:
            living = positions_in(hashes_of(now.known()), kept.keys[:, :16]) >= 0
            at = np.where(living, np.cumsum(living) - 1, -1)
            kept = kept.among(kept.keys[living], at)
        whys = pa.array(kept.whys, pa.string()).dictionary_encode()
        _put(inside / _CONTENTS, {"key": as_arrow(kept.keys)})
        columns = {"a": kept.a, "b": kept.b, "score": kept.scores, "tier": kept.tiers}
        _put(inside / _PAIRS, {**columns, "why": whys})
        return {
            "owner": self._owner,
            "method": METHOD,
            "threshold": kept.threshold,
            "whole": kept.whole,
        }


def _put(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa

    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _columns(path: Path) -> Iterator[Any]:
    """The columns of a file, each in one piece."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    for column in table.columns:
        yield column.combine_chunks()


def _read(folder: Path, facts: dict[str, Any]) -> Kept:
    """A state whose bytes are as they were written."""
    (keys,) = _columns(folder / _CONTENTS)
    a, b, scores, tiers, whys = _columns(folder / _PAIRS)
    words = np.array([*whys.dictionary.to_pylist(), ""], dtype=object)
    return Kept(
        threshold=float(facts["threshold"]),
        whole=bool(facts["whole"]),
        keys=from_arrow(keys),
        a=np.array(a),
        b=np.array(b),
        scores=np.array(scores),
        tiers=np.array(tiers),
        whys=words[np.asarray(whys.indices)],
    )


def _number(folder: Path) -> int:
    number = folder.name.split("-")[0]
    return int(number) if number.isdecimal() else 0
