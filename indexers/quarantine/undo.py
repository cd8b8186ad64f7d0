"""Bringing back what a plan took away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indexers.quarantine.files import finish, move
from indexers.quarantine.journal import Entry, Journal, all_columns, alone
from indexers.quarantine.plan import QuarantineReport, quarantine_of
from retrieval.errors import PlanError
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.uris import uri_of

if TYPE_CHECKING:
    import pyarrow as pa


def undo(
    path: str | os.PathLike[str],
    collection: Collection,
    *,
    tell: Callable[[int, int], None] | None = None,
) -> QuarantineReport:
    """Put the files of a plan back where they were, and their rows back into the collection.

    Files come back with their bytes, times and permissions, rows with their ids and vectors; also
    after an ``apply`` or an ``undo`` that was killed. What is at a file's place now is never
    overwritten: that file stays in quarantine and is reported. When all is back, the quarantine is
    removed and the plan can be applied again; undoing what was not applied does nothing.

    Args:
        path: of the plan.
        collection: the one that the plan was made for.
        tell: called with the number of files that are done, and of all.

    Returns:
        What came back. An image that was indexed again meanwhile keeps its newer row, which is told
        among what was refused; its file is back.

    Raises:
        PlanError: if there is no plan, or it is another collection's.
        CollectionError: if rows cannot be written; call again when they can.
    """
    place = Path(os.path.abspath(path))
    folder = quarantine_of(place)
    if not place.exists() and not folder.exists():
        raise PlanError(f"there is no plan {place}")
    report = QuarantineReport()
    with alone(place.parent):
        journal = Journal(folder)
        if not journal.facts:
            journal.forget()
            return report
        if journal.facts["collection_id"] != collection.store.collection_id:
            raise PlanError(
                f"{place} is a plan for another collection than {collection.uri}; "
                f"what it took away is in {folder}"
            )
        journal.sweep()
        back: set[int] = set()
        for number, entry in enumerate(journal.entries.values(), 1):
            if reason := _restored(journal, entry, report):
                report.refused.append((entry.uri, reason))
            else:
                back.add(entry.image_id)
            if tell is not None:
                tell(number, len(journal.entries))
        _put_back(journal, collection.store.again(), set(back), report)
        if len(back) == len(journal.entries):
            journal.forget()
    collection.store.refresh()
    return report


def _restored(journal: Journal, entry: Entry, report: QuarantineReport) -> str | None:
    """Bring one file back; why it could not be done, or None."""
    where, path = journal.hidden(entry), entry.path
    if not os.path.lexists(where):
        if os.path.lexists(path) or entry.image_id not in journal.done:
            return None
        return "neither at its place nor in quarantine"
    try:
        size = os.lstat(where).st_size
        if os.path.lexists(path):
            if not finish(where, path, entry.content_hash):
                return f"something else is at its place; it stays in quarantine: {uri_of(where)}"
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            move(where, path, journal.parts(entry)[1], entry.content_hash)
    except OSError as error:
        return (
            f"cannot be moved back: {error.strerror or error}; it is in quarantine: {uri_of(where)}"
        )
    report.restored += 1
    report.bytes += size
    return None


def _put_back(journal: Journal, store: Store, ids: set[int], report: QuarantineReport) -> None:
    """Insert the saved rows of ``ids`` that the collection lacks."""
    import pyarrow as pa

    known = store.known().select(["image_id", "uri"])
    for rows in journal.saved_rows():
        saved = dict(zip(rows["image_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
        wanted = {image_id: uri for image_id, uri in saved.items() if image_id in ids}
        ids.difference_update(wanted)  # older files hold older rows of them
        lacking = _lacking(store, known, rows, wanted, report)
        chosen = rows.filter(pa.array([image_id in lacking for image_id in saved], pa.bool_()))
        store.upsert(_fitting(chosen, store))


def _lacking(
    store: Store, known: pa.Table, rows: pa.Table, wanted: dict[int, str], report: QuarantineReport
) -> set[int]:
    """Those of the ``wanted`` rows that can be put back; the others are told of."""
    import pyarrow as pa
    import pyarrow.compute as pc

    uris, ids = pa.array([*wanted.values()], pa.string()), pa.array([*wanted], pa.int64())
    same = pc.or_(pc.is_in(known["uri"], uris), pc.is_in(known["image_id"], ids))
    there = known.filter(same).to_pydict()
    owner = dict(zip(there["uri"], there["image_id"], strict=True))
    uri_of = dict(zip(there["image_id"], there["uri"], strict=True))
    again = {i: owner[uri] for i, uri in wanted.items() if uri in owner}
    times = store.rows(list(again.values()), ["ingested_at"])["ingested_at"].to_pylist()
    before = dict(zip(rows["image_id"].to_pylist(), rows["ingested_at"].to_pylist(), strict=True))
    for (image_id, now), time in zip(again.items(), times, strict=True):
        if (now, time) != (image_id, before[image_id]):  # else it never left, or is back already
            reason = "indexed again meanwhile: its newer row is kept"
            report.refused.append((wanted[image_id], reason))
    lost = {i: uri_of[i] for i in wanted if i not in again and i in uri_of}
    for image_id, uri in lost.items():
        reason = f"its id is the one of {uri} now: index its folder to find it again"
        report.refused.append((wanted[image_id], reason))
    return wanted.keys() - again.keys() - lost.keys()


def _fitting(rows: pa.Table, store: Store) -> pa.Table:
    """``rows`` without the columns that the collection has no more, or has otherwise."""
    now = store.rows([], all_columns(store)).schema
    return rows.select([f.name for f in rows.schema if f in list(now)])
