"""Files of the cache: there whole or not at all, whoever writes them at once."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from retrieval.folders import STALE_AFTER_S


def put(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one move, making its folder; nothing is left of a failure.

    A reader sees the old content or the new, never a part, even when several processes write at
    once or one is killed. What a killed one left behind goes away at a later call.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes that were killed."""
    limit = time.time() - STALE_AFTER_S
    for old in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # another process may have removed it first
            if old.stat().st_mtime < limit:
                old.unlink()
