"""Layouts of networks of timm, remembered: opening a folder again needs neither torch nor timm."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval import settings
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.files import put
from retrieval.encoders.layout import Layout

_log = logging.getLogger(__name__)


def layout(folder: Path, config: Mapping[str, Any], size: int, name: str | None = None) -> Layout:
    """The layout of a network for square pictures of ``size`` pixels.

    Args:
        folder: the checkpoint.
        config: all that the layout depends on.
        size: of the pictures.
        name: of the network; by default what ``config.json`` of timm in the folder names.

    Raises:
        EncoderUnavailable: if it is not remembered, and torch or timm is not installed.
        EncoderError: if timm does not know or cannot build the network.
    """
    known = json.dumps([config, size, name], sort_keys=True).encode()
    digest = hashlib.blake2b(known, digest_size=16).hexdigest()
    note = settings.load().cache_dir / "layouts" / f"{digest}.json"
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        return Layout(**{**facts, "shape": tuple(facts["shape"])})
    except (OSError, ValueError, TypeError, LookupError):
        pass  # not there yet, or of another version
    require("torch", "timm")
    from retrieval.encoders.towers.timm import layout_of

    found = layout_of(folder, size, name)
    try:
        put(note, json.dumps(asdict(found)).encode())
    except OSError as error:
        _log.warning("cannot remember the layout of %s: %s", folder, error)
    return found
