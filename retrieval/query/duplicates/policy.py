"""Which of several images of the same thing stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.uris import path_of

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT = ("resolution", "size", "oldest")
"""Most pixels, then the largest file, then the oldest."""

COLUMNS = (
    "image_id", "uri", "content_hash", "width", "height", "size_bytes", "captured_at", "mtime_ns",
    "split",
)  # fmt: skip
"""What the rules look at."""
NAMED = ("uri", "split")
"""What those look at that name a folder or a split."""

_Key = NDArray[Any]
_LAST = np.iinfo(np.int64).max


def preferred(rows: pa.Table, rules: Sequence[str] = DEFAULT) -> NDArray[np.int64]:
    """Positions of ``rows``, the image that stays before all others first.

    Args:
        rows: of the columns :data:`COLUMNS`.
        rules: in order of weight: ``resolution`` (most pixels), ``size`` (largest file),
            ``oldest`` (by the camera's time, else the file's), ``folder:PATH`` (below that folder)
            and ``split:NAME``. What they do not settle is settled by :data:`DEFAULT`, then by uri
            and id.

    Raises:
        QueryError: naming the rules there are, if one is none of them.
    """
    by_name = np.argsort(np.asarray(rows["uri"].to_pylist(), dtype=object), kind="stable")
    name_rank = np.empty(len(rows), dtype=np.int64)
    name_rank[by_name] = np.arange(len(rows))
    settling = [rule for rule in DEFAULT if rule not in rules]
    keys = [key(rows) for key in check_rules(rules) + check_rules(settling)]
    return np.lexsort([rows["image_id"].to_numpy(), name_rank, *reversed(keys)])


def check_rules(rules: Sequence[str]) -> list[Callable[[pa.Table], _Key]]:
    """What each rule sorts by, ascending.

    Raises:
        QueryError: naming the rules there are, if one is none of them.
    """
    if isinstance(rules, str):
        raise QueryError(f"keep is a list of rules: [{rules!r}]")
    return [_rule(rule) for rule in rules]


def check_preferring(rules: Sequence[str], rows: pa.Table) -> None:
    """See that each folder and split of the rules is that of some image.

    Args:
        rules: as for :func:`preferred`.
        rows: of all images that take part, of the columns :data:`NAMED`.

    Raises:
        QueryError: naming the rule that prefers none.
    """
    for rule, key in zip(rules, check_rules(rules), strict=True):
        if ":" in rule and len(rows) and key(rows).all():
            raise QueryError(
                f"keep rule {rule!r} prefers none of the {len(rows):,} images: see `retrieval "
                "status` for the splits there are, and give a folder that was indexed"
            )


def _rule(rule: str) -> Callable[[pa.Table], _Key]:
    plain = {"resolution": _fewest_pixels, "size": _smallest, "oldest": _time}
    name, colon, value = rule.partition(":")
    if not colon and name in plain:
        return plain[name]
    if value and name == "folder":
        return lambda rows: _outside(rows, value)
    if value and name == "split":
        return lambda rows: np.array([split != value for split in rows["split"].to_pylist()], bool)
    raise QueryError(
        f"no keep rule {rule!r}; there are resolution, size, oldest, folder:PATH and split:NAME"
    )


def _fewest_pixels(rows: pa.Table) -> _Key:
    width, height = (_whole(rows, name) for name in ("width", "height"))
    return -(width * height)


def _smallest(rows: pa.Table) -> _Key:
    return -_whole(rows, "size_bytes")


def _time(rows: pa.Table) -> _Key:
    """Nanoseconds; the camera's clock is taken for UTC."""
    import pyarrow as pa

    captured = rows["captured_at"].cast(pa.timestamp("us")).cast(pa.int64())
    seen = np.asarray(captured.fill_null(0), dtype=np.int64) * 1000
    written = np.asarray(rows["mtime_ns"].cast("int64").fill_null(_LAST), dtype=np.int64)
    return np.where(np.asarray(captured.is_valid(), dtype=bool), seen, written)


def _outside(rows: pa.Table, folder: str) -> _Key:
    whole = folder if "://" in folder else os.path.abspath(os.path.expanduser(folder))
    below = whole.rstrip("/") + "/"
    places = ((path_of(uri), uri) for uri in rows["uri"].to_pylist())
    return np.array([not (path or uri).startswith(below) for path, uri in places], dtype=bool)


def _whole(rows: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(rows[name].cast("int64").fill_null(0), dtype=np.int64)
