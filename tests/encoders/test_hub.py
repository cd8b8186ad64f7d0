"""Getting checkpoints from a hub: a real HTTP server that speaks just enough of its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": json.dumps({"model_type": "dinov2", "hidden_size": 48}).encode(),
    "preprocessor_config.json": b"{}",
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "pytorch_model.bin": b"a pickle nobody wants",
    "modeling_custom.py": b"raise SystemExit('remote code ran')",
}
# Runs the fetches in a process of its own, because the client reads its settings at import.
SCRIPT = """
import json, sys
from retrieval.encoders.hub import fetch
from retrieval.errors import EncoderUnavailable
answers = {}
for source in sys.argv[1:]:
    source, _, revision = source.partition("@")
    try:
        answers[source] = str(fetch(source, revision or "main"))
    except EncoderUnavailable as error:
        answers[source] = "unavailable: " + str(error)
json.dump(answers, sys.stdout)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers by the repository's name."""

    asked: list[str]
    closing: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "/org/hangs" in self.path:
            self.closing.wait(60)
        elif "/org/unknown" in self.path:
            self._answer(401, {}, {"X-Error-Code": "RepoNotFound"})
        elif "/org/private" in self.path:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif "/org/gated" in self.path and "/resolve/" in self.path:
            self._answer(403, {}, {"X-Error-Code": "GatedRepo"})
        elif "/org/forbidden" in self.path:
            self._answer(403, {"error": "no"})
        elif "/org/broken" in self.path:
            self._answer(500, {"error": "out of order"})
        elif "/revision/nowhere" in self.path:
            self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif "/api/models/" in self.path and "/tree/" in self.path:
            self._answer(200, [entry(name) for name in names_of(self.path)])
        elif "/api/models/" in self.path:
            name = self.path.split("/api/models/")[1].split("/revision")[0]
            self._answer(200, {"id": name, "sha": COMMIT, "siblings": []})
        else:
            self._file(FILES[self.path.rsplit("/", 1)[1]])

    do_HEAD = do_GET

    def _file(self, content: bytes) -> None:
        etag = hashlib.sha256(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""


def names_of(path: str) -> list[str]:
    if "/org/pickled" in path:
        return [name for name in FILES if not name.endswith(".safetensors")]
    return list(FILES)


def entry(name: str) -> dict[str, object]:
    content = FILES[name]
    oid = hashlib.sha1(content).hexdigest()
    found: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": oid}
    if name.endswith((".safetensors", ".bin")):
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return found


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, list[str]]]:
    """The server's address, and the paths it was asked for."""
    handler = type("Handler", (Hub,), {"asked": [], "closing": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    handler.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(home: Path, endpoint: str, *sources: str, **environment: str) -> dict[str, str]:
    """What the fetches answer; the limit only guards against hanging for good."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *sources],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def test_downloads_safetensors_once_and_never_pickles_or_code(hub, tmp_path):
    endpoint, asked = hub
    folder = Path(fetch(tmp_path, endpoint, "org/good")["org/good"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    asked.clear()
    assert fetch(tmp_path, endpoint, "org/good")["org/good"] == str(folder)
    assert asked == []
    offline = fetch(tmp_path, endpoint, "org/good", HF_HUB_OFFLINE="1")
    assert offline["org/good"] == str(folder)
    pinned = fetch(tmp_path, endpoint, f"org/good@{COMMIT}")
    assert pinned["org/good"] == str(folder)


def test_every_refusal_says_what_to_do(hub, tmp_path):
    expected = {
        "org/unknown": "no repository org/unknown",
        "org/private": "no repository org/private",
        "org/gated": "accept its terms",
        "org/forbidden": "accept its terms",
        "org/broken": "answered 500",
        "org/pickled": "no usable weights",
        "org/hangs": "cannot get org/hangs",
        "not a repository/name/at all": "is not a repository name",
    }
    answers = fetch(tmp_path, hub[0], *expected, "org/good@nowhere")
    for source, sentence in expected.items():
        assert answers[source].startswith("unavailable: "), answers[source]
        assert sentence in answers[source]
    assert "no revision 'nowhere'" in answers["org/good"]


def test_hub_that_refuses_connections(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        answer = fetch(tmp_path, endpoint, "org/good")["org/good"]
    assert f"cannot get org/good from the model hub at {endpoint}" in answer
    assert "pocket" in answer


def test_hub_whose_name_does_not_resolve(tmp_path):
    answer = fetch(tmp_path, "https://hub.invalid", "org/good")["org/good"]
    assert "cannot get org/good from the model hub at https://hub.invalid" in answer


def test_offline_switch_is_respected(hub, tmp_path):
    endpoint, asked = hub
    asked.clear()
    answer = fetch(tmp_path, endpoint, "org/other", HF_HUB_OFFLINE="1")["org/other"]
    assert "HF_HUB_OFFLINE" in answer
    assert asked == []


def test_missing_client_names_the_extra(monkeypatch):
    from retrieval.encoders.hub import fetch as fetch_here
    from retrieval.errors import EncoderUnavailable

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EncoderUnavailable, match="pip install huggingface_hub"):
        fetch_here("org/good")
