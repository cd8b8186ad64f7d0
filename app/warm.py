"""Finding a warm server and asking it. Needs nothing but the standard library."""

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
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"retrieval-{os.getuid()}" / f"{name}.sock"


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


def ask(question: Question) -> dict[str, Any] | None:
    """The answer of a warm server, or None where there is none that can give it.

    Collections in a bucket are not asked for: their credentials belong to this process.

    Raises:
        RetrievalError: if the server says that the question has no answer.
    """
    if not hasattr(socket, "AF_UNIX") or "://" in question["collection"]:
        return None
    path = socket_path()
    if not is_private(path.parent):
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(str(path))
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
