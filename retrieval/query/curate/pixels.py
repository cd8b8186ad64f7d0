"""Quality facts of all images of a collection as columns; only what changed is measured again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.query.curate.quality import FACTS, ISSUES, issues, measure
from retrieval.store import Store
from retrieval.store.made import Provenance
from retrieval.vectors.tiles import Tell

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 512  # thumbnails held at a time
COLUMNS = (*FACTS, "issues")


def write_quality(store: Store, tell: Tell | None) -> int:
    """Bring the quality columns up to date; how many images were measured.

    An image without a thumbnail has none of them but ``aspect``.

    Raises:
        CollectionError: as :meth:`retrieval.store.made.MadeColumns.write`.
    """
    import pyarrow as pa

    rules = {name: told for name, (told, _) in ISSUES.items()}
    provenance = Provenance("quality", parameters={"issues": rules}, version=store.version)
    kinds = [*[pa.float64()] * len(FACTS), pa.string()]
    schema = pa.schema([("image_id", pa.int64()), *zip(COLUMNS, kinds, strict=True)])
    store.made.check(schema.remove(0))
    kept = _kept(store, provenance)
    known = np.empty(0, np.int64) if kept is None else kept["image_id"].to_numpy()
    wanted = np.setdiff1d(store.ids(), known)
    if len(wanted) == 0 and kept is not None:
        return 0
    rows = list(_measured(store, wanted, tell))
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    new = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)
    store.made.write(
        new if kept is None else pa.concat_tables([new, kept.cast(schema)]), provenance
    )
    return len(wanted)


def _kept(store: Store, wanted: Provenance) -> pa.Table | None:
    """The values that are as they would be measured now; None where the columns are not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    made = store.made.columns()
    there = [made[name] for name in COLUMNS if name in made]
    same = [p.version for p in there if p.parameters == wanted.parameters and p.version > 0]
    if len(same) < len(COLUMNS) or not {*COLUMNS} <= {*store.columns().names}:
        return None
    rows = store.made.read(COLUMNS)
    changed = pa.array(store.changed(min(same)))
    return rows.filter(pc.invert(pc.is_in(rows["image_id"], changed)))


def _measured(store: Store, ids: NDArray[np.int64], tell: Tell | None) -> Iterator[tuple[Any, ...]]:
    """``image_id``, the facts and the issues of each image."""
    with ThreadPoolExecutor(settings.cores(), thread_name_prefix="quality") as pool:
        for start in range(0, len(ids), _BLOCK):
            some = ids[start : start + _BLOCK]
            sizes = store.rows(some, ["image_id", "width", "height"]).to_pylist()
            packed = store.thumbnails(some)
            yield from pool.map(_facts, sizes, [packed.get(row["image_id"]) for row in sizes])
            if tell is not None:
                tell(start + len(some), len(ids))


def _facts(row: dict[str, Any], packed: bytes | None) -> tuple[Any, ...]:
    size = (row["width"], row["height"]) if row["width"] and row["height"] else None
    if packed is None:
        empty = [None] * (len(FACTS) - 1)
        return (row["image_id"], *empty, size and size[0] / size[1], None)
    quality = measure(packed, size)
    return (row["image_id"], *astuple(quality), issues(quality))
