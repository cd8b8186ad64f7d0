"""What a weights file contains, as a hash, and whether it is what the hub promised."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from retrieval.encoders.files import put
from retrieval.errors import EncoderError

_log = logging.getLogger(__name__)


def weights_hash(files: Sequence[Path], cache_dir: Path) -> str:
    """BLAKE2b-128 over the contents of ``files``, as 32 hex digits.

    Reading gigabytes takes seconds, so a file's digest is kept under ``cache_dir`` and used again
    while its path, size and mtime stay the same. The same reading compares a file of the hub's
    cache with the checksum that the hub gave for it; one that differs is removed from that cache,
    so that the next try downloads it again.

    Args:
        files: in a fixed order; paths as the checkpoint folder gives them, links not followed,
            because the links tell the checksum.
        cache_dir: where digests are remembered.

    Raises:
        EncoderError: if a file's content does not fit its checksum.
    """
    digests = [_file_digest(path, cache_dir / "digests") for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path, memory: Path) -> str:
    stat, blob = path.stat(), _blob(path)
    promised = blob.name if blob else ""
    facts = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{promised}"
    key = hashlib.blake2b(facts.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    note = memory / key
    if known := _recall(note):
        return known
    digest = hashlib.blake2b(digest_size=16)
    checksum = _checksum(promised, stat.st_size) if blob else None
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            if checksum:
                checksum.update(block)
    if blob and checksum and checksum.hexdigest() != promised:
        blob.unlink(missing_ok=True)
        raise EncoderError(
            f"{path} was damaged: its content does not fit the checksum that the hub gave for it. "
            "It has been removed; load the encoder again to download it again"
        )
    try:
        put(note, digest.hexdigest().encode())
    except OSError as error:
        _log.warning("cannot remember the digest of %s: %s", path, error)
    return digest.hexdigest()


def _recall(note: Path) -> str | None:
    """The digest in a note; None if there is none or it is damaged."""
    try:
        content = note.read_bytes()
    except OSError:
        return None
    return content.decode() if re.fullmatch(rb"[0-9a-f]{32}", content) else None


def _blob(path: Path) -> Path | None:
    """The file of the hub's cache that ``path`` leads to, whose name is its checksum.

    A link at a time, not to the end: in caches of newer clients ``blobs/SHA256`` may itself be a
    link into a store that is named by another hash.
    """
    while True:
        named = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", path.name)
        if named and path.parent.name == "blobs" and path.parent.parent.name.startswith("models--"):
            return path
        if not path.is_symlink():
            return None
        path = Path(os.path.normpath(path.parent.resolve() / path.readlink()))


def _checksum(promised: str, size: int) -> hashlib._Hash:
    """The hash that the hub names a file by: SHA-256 of a large one, Git's SHA-1 of a small one."""
    if len(promised) == 40:
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.sha256()
