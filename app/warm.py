"""Finding a warm server and asking it, with nothing heavy imported."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import retrieval
from app.question import Question
from retrieval import __version__, settings
from retrieval.errors import RetrievalError

_CONNECT_TIMEOUT_S = 0.2
_ANSWER_TIMEOUT_S = 60.0


def socket_path() -> Path:
    """Where the warm server of this user and these settings listens.

    The folder belongs to the user alone; the name holds the version and the settings, so that a
    server that would answer otherwise is not found.
    """
    kind = repr((__version__, _code_mark(), sys.prefix, settings.load()))
    name = hashlib.blake2b(kind.encode(), digest_size=8).hexdigest()
    return socket_folder() / f"{name}.sock"


def socket_folder() -> Path:
    """Where the warm servers of this user listen."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"retrieval-{os.getuid()}"


def _code_mark() -> tuple[str, int]:
    """Where the library lies and when it last changed: an upgrade must not meet an old server."""
    files = Path(retrieval.__file__).parent.rglob("*")
    return retrieval.__file__, max(
        path.stat().st_mtime_ns for path in files if path.suffix in (".py", ".safetensors", ".json")
    )


def is_private(folder: Path) -> bool:
    """Whether ``folder`` is a real folder of this user that nobody else can enter."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return facts.st_uid == os.getuid() and (facts.st_mode & 0o170077) == 0o040000


def connect(path: Path) -> socket.socket:
    """A connection to the server at ``path``; OSError where nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_TIMEOUT_S)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def ask(question: Question) -> dict[str, Any] | None:
    """The answer of a warm server, or None where there is none that can give it.

    Collections in a bucket are not asked for: their credentials belong to this process.

    Raises:
        RetrievalError: if the server says that the question has no answer.
    """
    if not hasattr(socket, "AF_UNIX") or "://" in question["collection"]:
        return None
    if not is_private(socket_folder()):
        return None
    try:
        with connect(socket_path()) as connection:
            connection.settimeout(_ANSWER_TIMEOUT_S)
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline() or b"{}")
    except (OSError, ValueError):
        return None  # nobody listens, or it died over this question: ask ourselves
    if "error" in reply:
        raise RetrievalError(reply["error"])
    found: dict[str, Any] | None = reply.get("answer")
    return found
