"""A model hub on loopback: a real HTTP server for the part of the hub's protocol that is used.

Large files live on a second server, to which the first redirects as the hub does to its CDN. What
may go wrong with a repository is a field of :class:`Repository`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin", "tokenizer.json")
Refusal = tuple[int, dict[str, str]]


@dataclass
class Repository:
    """The files of a repository at its one commit, and how its transfers misbehave.

    Attributes:
        files: content by name.
        refuse: status and headers in place of any answer about it.
        refuse_files: the same for its files only, as a gated repository does.
        refuse_large: the same for the second server.
        silent: stages that accept a request and never answer: ``api``, ``head``, ``large``.
        cut: the next transfers of large files end after so many bytes, one each.
        hold_after: every transfer of a large file waits there until ``Hub.go`` is set.
        whole_only: the second server knows no ranges.
        corrupt: large files arrive with one byte changed.
        xet: the hub offers its other protocol too, by headers that its client would follow.
        plain: the listing tells names only, and no checksums, as a simple mirror does.
    """

    files: dict[str, bytes]
    refuse: Refusal | None = None
    refuse_files: Refusal | None = None
    refuse_large: Refusal | None = None
    silent: frozenset[str] = frozenset()
    cut: list[int] = field(default_factory=list)
    hold_after: int | None = None
    whole_only: bool = False
    corrupt: bool = False
    xet: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as the servers saw it."""

    server: str
    method: str
    path: str
    headers: dict[str, str]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.partition("?")[0].rsplit("/", 1)[1]


class Hub:
    """Two servers, the repositories that they serve, and a log of what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.log: list[Asked] = []
        self.go = threading.Event()
        self._servers = [self._serve("hub", _Front), self._serve("cdn", _Large)]
        front, large = (server.server_port for server, _ in self._servers)
        # Two names, because the client takes servers of one name for the same.
        self.endpoint, self.cdn = f"http://127.0.0.1:{front}", f"http://localhost:{large}"

    def add(self, name: str, files: dict[str, bytes], **troubles: object) -> Repository:
        """Put a repository there."""
        self.repositories[name] = Repository(files, **troubles)  # type: ignore[arg-type]
        return self.repositories[name]

    def transfers(self, name: str) -> list[Asked]:
        """The requests for a large file's content."""
        return [asked for asked in self.log if asked.server == "cdn" and asked.name == name]

    def close(self) -> None:
        """Let waiting answers go and stop."""
        self.go.set()
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()

    def _serve(self, label: str, handler: type) -> tuple[ThreadingHTTPServer, threading.Thread]:
        bound = type("Handler", (handler,), {"hub": self, "label": label})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        return server, thread


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    label: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.log.append(Asked(self.label, self.command, self.path, _lower(self.headers)))
        try:
            self.handle_path([unquote(part) for part in urlsplit(self.path).path[1:].split("/")])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET

    def handle_path(self, parts: list[str]) -> None:
        raise NotImplementedError

    def answer(
        self, status: int, body: object = b"", headers: dict[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def never_answer(self) -> None:
        self.hub.go.wait(120)
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""


class _Front(_Handler):
    """The hub itself: what it knows about repositories, and their small files."""

    def handle_path(self, parts: list[str]) -> None:
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name = "/".join(parts[:2])
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.answer(401, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
        elif repository.refuse:
            status, headers = repository.refuse
            self.answer(status, {"error": "refused"}, headers)
        elif ("api" if api else "head") in repository.silent:
            self.never_answer()
        elif len(parts) > 3 and parts[3] not in ("main", COMMIT):
            self.answer(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        elif api and "tree" in parts:
            self.answer(200, [_entry(file, repository) for file in repository.files])
        elif api:
            siblings = [_sibling(file, repository) for file in repository.files]
            self.answer(200, {"id": name, "sha": COMMIT, "siblings": siblings})
        else:
            self._resolve(name, "/".join(parts[4:]), repository)

    def _resolve(self, name: str, file: str, repository: Repository) -> None:
        content = repository.files.get(file)
        if repository.refuse_files:
            self.answer(repository.refuse_files[0], b"", repository.refuse_files[1])
        elif content is None:
            self.answer(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
        elif not file.endswith(LARGE):
            headers = {"ETag": f'"{git_sha1(content)}"', "X-Repo-Commit": COMMIT}
            self.answer(200, content, headers)
        else:
            sha256 = hashlib.sha256(content).hexdigest()
            headers = {
                "Location": f"{self.hub.cdn}/{name}/{file}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{sha256}"',
            }
            if repository.xet:
                headers["X-Xet-Hash"] = hashlib.sha256(b"xet" + content).hexdigest()
                headers["X-Xet-Refresh-Route"] = f"{self.hub.endpoint}/api/models/{name}/xet"
            self.answer(302, b"", headers)


class _Large(_Handler):
    """Where large files come from, with ranges."""

    def handle_path(self, parts: list[str]) -> None:
        repository = self.hub.repositories["/".join(parts[:2])]
        content = repository.files["/".join(parts[2:])]
        if repository.refuse_large:
            self.answer(repository.refuse_large[0], b"", repository.refuse_large[1])
            return
        if "large" in repository.silent:
            self.never_answer()
            return
        if repository.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if repository.whole_only:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._send(content[start:], repository)

    def _send(self, content: bytes, repository: Repository) -> None:
        if repository.cut:
            content = content[: repository.cut.pop(0)]
            self.close_connection = True
        held = repository.hold_after
        if held is not None and not self.hub.go.is_set():
            self.wfile.write(content[:held])
            self.hub.go.wait(120)
            content = content[held:]
        self.wfile.write(content)


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def git_sha1(content: bytes) -> str:
    """The name that Git gives to a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(name: str, repository: Repository) -> dict[str, object]:
    """One file in the answer about a repository."""
    content = repository.files[name]
    if repository.plain:
        return {"rfilename": name}
    found: dict[str, object] = {"rfilename": name, "size": len(content)}
    found["blobId"] = git_sha1(content)
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return found


def _entry(name: str, repository: Repository) -> dict[str, object]:
    """One file in the listing of a repository's tree."""
    content = repository.files[name]
    found: dict[str, object] = {"type": "file", "path": name, "size": len(content)}
    found["oid"] = git_sha1(content)
    if name.endswith(LARGE) and not repository.plain:
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        if repository.xet:
            found["xetHash"] = hashlib.sha256(b"xet" + content).hexdigest()
    return found


# Fetches in a process of its own, because the client reads its settings at import.
_FETCH = """
import json, sys
from pathlib import Path
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.hub import fetch, resolved_revision
from retrieval.errors import EncoderError
answers = []
cache = Path(sys.argv[1])
for call in json.loads(sys.argv[2]):
    try:
        folder = fetch(**call)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        weights = [path for path in files if path.suffix in (".safetensors", ".onnx")]
        answers.append({
            "folder": str(folder),
            "commit": resolved_revision(folder),
            "files": [path.relative_to(folder).as_posix() for path in files],
            "hash": weights_hash(weights, cache),
        })
    except EncoderError as error:
        answers.append({"error": type(error).__name__ + ": " + str(error)})
json.dump(answers, sys.stdout)
"""


def command(home: Path, *calls: str | dict[str, object]) -> list[str]:
    """The program that makes these calls of ``fetch`` and hashes what it got."""
    plain = [{"source": call} if isinstance(call, str) else call for call in calls]
    return [sys.executable, "-c", _FETCH, str(home / "digests"), json.dumps(plain)]


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Where that program looks for the hub and keeps its cache."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "*"}
    return {**plain, **settings, **more}


def fetch(
    home: Path, endpoint: str, *calls: str | dict[str, object], **more: str
) -> list[dict[str, Any]]:
    """What the calls answer; the limit only guards against hanging for good."""
    done = subprocess.run(
        command(home, *calls),
        env=environment(home, endpoint, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers
