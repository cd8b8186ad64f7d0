"""The warm server: collections and encoders stay in memory for the next `retrieval search`."""

from __future__ import annotations

import json
import logging
import os
import socketserver
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import retrieval
from app.output import hits_as_json
from app.question import Question, absolute, answer
from app.warm import connect, is_private, socket_path
from retrieval import Collection
from retrieval.errors import RetrievalError

_log = logging.getLogger(__name__)
_KEPT = 8
_LONGEST_PATH = 100  # of a Unix socket, by the narrowest of the systems


class Shelf:
    """The collections asked last, by path; one that was made anew at its path is opened anew."""

    def __init__(self) -> None:
        """Hold none yet."""
        self._lock = threading.Lock()
        self._open: dict[str, tuple[tuple[int, int], Collection]] = {}

    def get(self, path: str) -> Collection:
        """The collection at ``path``, as it is on disk now."""
        with self._lock:
            mark, collection = self._open.get(path, (None, None))
            now = _birth_mark(path)
            if collection is None or mark != now:
                collection = retrieval.open(path)
            self._open.pop(path, None)
            self._open[path] = (now, collection)
            while len(self._open) > _KEPT:
                self._open.pop(next(iter(self._open)))
            return collection


class WarmServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers one question a connection, each in a thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, collections: Sequence[str]) -> None:
        """Listen, with ``collections`` opened and their encoders loaded.

        Raises:
            RetrievalError: if a server is there already, or its folder is not private.
        """
        self.path = _free_socket()
        self.shelf = Shelf()
        self.last_asked = time.monotonic()
        for path in collections:
            if "://" in path:
                raise RetrievalError(f"{path}: collections in a bucket are searched without it")
            _warm_up(self.shelf.get(absolute(path)))
        super().__init__(str(self.path), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what a client did that nobody understands; the client searches by itself."""
        _log.warning("a question was not answered", exc_info=True)

    def serve_until_idle(self, idle_s: float) -> None:
        """Answer until nobody asked for ``idle_s`` seconds."""
        self.timeout = min(1.0, idle_s)
        while time.monotonic() - self.last_asked < idle_s:
            self.handle_request()

    def server_close(self) -> None:
        """Stop listening and take the socket away."""
        self.path.unlink(missing_ok=True)
        super().server_close()


class _Handler(socketserver.StreamRequestHandler):
    server: WarmServer

    def handle(self) -> None:
        self.server.last_asked = time.monotonic()
        line = self.rfile.readline()
        if not line.strip():
            return
        question: Question = json.loads(line)
        try:
            hits = answer(self.server.shelf.get(question["collection"]), question)
            reply: dict[str, object] = {"answer": hits_as_json(hits)}
        except (RetrievalError, OSError) as error:
            reply = {"error": str(error)}
        self.wfile.write(json.dumps(reply, default=str).encode() + b"\n")


def _birth_mark(path: str) -> tuple[int, int]:
    """What changes when a collection is deleted and made again at the same path."""
    try:
        facts = os.stat(os.path.join(path, "manifest.lance"))
    except OSError:
        return (0, 0)
    return (facts.st_ino, facts.st_ctime_ns)


def _free_socket() -> Path:
    path = socket_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(path.parent):
        raise RetrievalError(f"{path.parent} belongs to others or is open to them: remove it")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise RetrievalError(
            f"{path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter one"
        )
    if _is_listened_to(path):
        raise RetrievalError("a warm server is running already: searches find it")
    path.unlink(missing_ok=True)
    return path


def _is_listened_to(path: Path) -> bool:
    try:
        connect(path).close()
    except OSError:  # nobody there, or a socket that a killed server left
        return False
    return True


def _warm_up(collection: Collection) -> None:
    """Load what the first search by words and the first by picture would load."""
    from retrieval.encoders import TextEncoder

    for name in collection.spaces:
        encoder = collection.encoder(name)
        if isinstance(encoder, TextEncoder):
            collection.search("warm", space=name, k=1)
