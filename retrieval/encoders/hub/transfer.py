"""Downloading large files into the hub client's own cache, going on where a try broke off.

The client itself begins again: it writes every download to a new temporary name and drops it on
failure, because a shared one was corrupted on filesystems without working locks
(huggingface_hub#4196, #4228). Here the name stays the same and the SHA-256 of the whole is checked
before it counts, so that a lock that does not hold costs a second try, never a wrong file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.hub.reasons import MAKE_ROOM, full, megabytes, no_room
from retrieval.errors import EncoderUnavailable

ANSWER_TIMEOUT_S = 5.0
"""The longest wait for the hub's word about one thing."""
_FRUITLESS_TRIES = 3
"""So many connections in a row that bring nothing end a download that had begun."""


@dataclass(frozen=True, slots=True)
class Part:
    """One large file to download.

    Attributes:
        name: in the repository.
        url: where from; it may lead on to another server.
        sha256: of its content, as the hub promises.
        size_bytes: of the whole.
        blob: where it belongs.
    """

    name: str
    url: str
    sha256: str
    size_bytes: int
    blob: Path

    @property
    def partial(self) -> Path:
        """Where it grows."""
        return self.blob.with_name(f"{self.sha256}.incomplete")

    @property
    def missing_bytes(self) -> int:
        """What is still to come."""
        return 0 if self.blob.exists() else max(0, self.size_bytes - size_of(self.partial))


def repository(source: str) -> Path:
    """The folder of a repository in the client's cache: ``blobs``, ``refs``, ``snapshots``."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"


def parts_of(source: str, commit: str, names: Iterable[str]) -> list[Part]:
    """Ask the hub about each file; those that it does not keep by SHA-256 are left out.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: if the hub refuses.
        Exception: of the HTTP client, if the hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    parts = []
    for name in names:
        url = hf_hub_url(source, name, revision=commit)
        told = get_hf_file_metadata(url, timeout=ANSWER_TIMEOUT_S)
        if told.size is not None and re.fullmatch(r"[0-9a-f]{64}", told.etag or ""):
            blob = repository(source) / "blobs" / told.etag
            parts.append(Part(name, url, told.etag, told.size, blob))
    return parts


def make_room(source: str, parts: Sequence[Part]) -> None:
    """Make the cache's folders, and refuse before the first byte what the disk cannot hold.

    Raises:
        EncoderUnavailable: naming what is needed, where, and what is free.
        OSError: if the cache cannot be written.
    """
    home = repository(source)
    for folder in (home / "blobs", _locks(home)):
        folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(part.missing_bytes for part in parts), shutil.disk_usage(home).free
    if needed > free:
        raise full(source, needed, home.parent, free)


def pull(part: Part) -> None:
    """Download one file, unless it is there or another process brings it meanwhile.

    The lock is the client's own, so that other programs that fetch the same file wait too.

    Raises:
        EncoderUnavailable: if the disk is full or the content is not what was promised.
        huggingface_hub.errors.HfHubHTTPError: if the hub refuses.
        Exception: of the HTTP client, if the transfer broke off and made no progress since.
    """
    from huggingface_hub.utils import WeakFileLock

    with WeakFileLock(_locks(part.blob.parents[1]) / f"{part.sha256}.lock"):
        if part.blob.exists():
            return
        try:
            _fill(part)
        except OSError as error:
            if not no_room(error):
                raise
            part.partial.unlink(missing_ok=True)
            raise EncoderUnavailable(
                f"{part.name} ({megabytes(part.size_bytes)} MB) does not fit in "
                f"{part.blob.parent} ({error.strerror}): {MAKE_ROOM}"
            ) from error
        with part.partial.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != part.sha256:
            part.partial.unlink()
            raise EncoderUnavailable(
                f"{part.name} ({megabytes(part.size_bytes)} MB) arrived damaged: its SHA-256 is "
                "not what the hub promised. It has been removed; try again, and if it happens "
                "again, look for a proxy or a mirror that changes files."
            )
        os.replace(part.partial, part.blob)


def _fill(part: Part) -> None:
    """Let the partial file grow to its size, over as many connections as it takes."""
    from huggingface_hub import errors
    from huggingface_hub.utils import tqdm

    with part.partial.open("ab") as file:
        if file.tell() > part.size_bytes:
            file.truncate(0)
    fruitless = _FRUITLESS_TRIES - 1  # the first connection must bring something
    bar = tqdm(
        desc=part.name, total=part.size_bytes, initial=size_of(part.partial),
        unit="B", unit_scale=True, disable=None,
    )  # fmt: skip
    with bar:
        while (before := size_of(part.partial)) < part.size_bytes:
            broke: Exception = EncoderUnavailable(f"{part.url} ended before its last byte")
            try:
                _go_on(part, before, bar)
            except errors.HfHubHTTPError:
                raise
            except errors.HTTPError as error:
                broke = error
            fruitless = 0 if size_of(part.partial) > before else fruitless + 1
            if fruitless == _FRUITLESS_TRIES:
                raise _given_up(part, broke)
            if size_of(part.partial) < part.size_bytes:
                time.sleep(1)


def _given_up(part: Part, error: Exception) -> Exception:
    """What to say of a transfer that broke off; ``error`` itself where it never began."""
    have = size_of(part.partial)
    if not have:
        return error
    return EncoderUnavailable(
        f"the download of {part.name} broke off after {megabytes(have)} of "
        f"{megabytes(part.size_bytes)} MB ({error}): try again, it goes on from there."
    )


def _go_on(part: Part, start: int, bar: Any) -> None:
    """One connection: write what comes behind what is there."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", part.url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        with part.partial.open("ab") as file:
            if response.status_code != 206:  # this server cannot begin in the middle
                file.truncate(0)
                bar.reset()
            for block in response.iter_raw():
                file.write(block)
                bar.update(len(block))


def _locks(home: Path) -> Path:
    return home.parent / ".locks" / home.name


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
