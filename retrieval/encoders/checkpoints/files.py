"""The files of a checkpoint folder."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.encoders.files import put
from retrieval.errors import EncoderError

_log = logging.getLogger(__name__)


def weight_files(folder: Path, name: str = "model") -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in a fixed order.

    Raises:
        EncoderError: if there are none, or some that the index names are missing.
    """
    index = folder / f"{name}.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(folder, index.name).get("weight_map", {}).values()))
    else:
        names = [f"{name}.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise EncoderError(
            f"{folder} lacks {', '.join(missing) or 'weights'}; only safetensors are loaded "
            "(save_pretrained of a recent transformers writes them)"
        )
    return tuple(folder / name for name in names)


def weights_hash(files: Sequence[Path], cache_dir: Path) -> str:
    """BLAKE2b-128 over the contents of ``files``, as 32 hex digits.

    Reading gigabytes takes seconds, so a file's digest is kept under ``cache_dir`` and used again
    while its path, size and mtime stay the same.

    Raises:
        EncoderError: if a file's content does not fit the checksum that the hub gave for it.
    """
    digests = [_file_digest(path.resolve(), cache_dir / "digests") for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path, memory: Path) -> str:
    stat = path.stat()
    known = f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(errors="surrogateescape")
    note = memory / hashlib.blake2b(known, digest_size=16).hexdigest()
    if note.is_file() and re.fullmatch(r"[0-9a-f]{32}", text := note.read_text()):
        return text
    digest, checksum = hashlib.blake2b(digest_size=16), hashlib.sha256()
    # The hub's cache names a large file by the SHA-256 of its content.
    promised = path.name if re.fullmatch(r"[0-9a-f]{64}", path.name) else None
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            if promised:
                checksum.update(block)
    if promised and checksum.hexdigest() != promised:
        raise EncoderError(f"{path} is damaged (its SHA-256 differs); delete it and load again")
    try:
        put(note, digest.hexdigest().encode())
    except OSError as error:
        _log.warning("cannot remember the digest of %s: %s", path, error)
    return digest.hexdigest()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of the folder; empty where it is missing, unless it is ``config.json``.

    Raises:
        EncoderError: if it is damaged, or there is no ``config.json``.
    """
    path = folder / name
    if not path.is_file() and name != "config.json":
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"{folder} is no checkpoint folder: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return loaded
