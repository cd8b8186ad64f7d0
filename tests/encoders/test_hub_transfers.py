"""Large files from a hub: broken transfers go on, damage is found, processes share one download."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.encoders.hub_server import COMMIT, Asked, Hub, command, environment, fetch

pytest.importorskip("huggingface_hub")

MB = 1_000_000
WEIGHTS = np.random.default_rng(0).bytes(12 * MB)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {
    "config.json": b'{"model_type": "dinov2"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
}
SLACK = 1 << 16
"""The client may hold so much of what arrived when it is killed."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


def blobs(home: Path) -> Path:
    return home / "hub" / "models--org--big" / "blobs"


def ranges(hub: Hub) -> list[str | None]:
    return [asked.headers.get("range") for asked in hub.transfers("model.safetensors")]


def wait_for(condition: Callable[[], bool]) -> None:
    """The limit only guards against waiting for good."""
    limit = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def start(home: Path, hub: Hub) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(home, "org/big"), env=environment(home, hub.endpoint), stdout=subprocess.PIPE
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def answer_of(process: subprocess.Popen[bytes]) -> dict[str, object]:
    out, _ = process.communicate(timeout=120)
    [answer] = json.loads(out)
    return answer


def is_whole(home: Path, answer: dict[str, object]) -> bool:
    """The weights are there, as promised, and nothing else of them is."""
    assert "error" not in answer, answer
    there = [path for path in blobs(home).iterdir() if path.stat().st_size > 1000]
    assert [path.name for path in there] == [SHA256]
    weights = Path(str(answer["folder"])) / "model.safetensors"
    return weights.read_bytes() == WEIGHTS


def test_a_transfer_that_breaks_off_goes_on_at_once(hub, tmp_path):
    hub.add("org/big", FILES, cut=[7 * MB, 3 * MB])
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert is_whole(tmp_path, answer)
    assert ranges(hub) == [None, f"bytes={7 * MB}-", f"bytes={10 * MB}-"]


@pytest.mark.slow
def test_a_transfer_that_was_given_up_goes_on_at_the_next_try(hub, tmp_path):
    hub.add("org/big", FILES, cut=[5 * MB, 0, 0, 0])
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert "broke off after 5.0 of 12.0 MB" in answer["error"]
    assert "goes on from there" in answer["error"]
    hub.log.clear()
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert is_whole(tmp_path, answer)
    assert ranges(hub) == [f"bytes={5 * MB}-"]


@pytest.mark.slow
def test_a_transfer_whose_process_was_killed_goes_on_in_the_next(hub, tmp_path):
    hub.add("org/big", FILES, hold_after=5 * MB)
    partial = blobs(tmp_path) / f"{SHA256}.incomplete"
    killed, waiting = start(tmp_path, hub), None
    try:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 5 * MB - SLACK)
        # A second process waits for the first and takes over where that one was killed.
        waiting = start(tmp_path, hub)
        wait_for(lambda: len([a for a in hub.log if _about_weights(a)]) == 2)
        stop(killed)
        hub.go.set()
        assert is_whole(tmp_path, answer_of(waiting))
    finally:
        for process in filter(None, (killed, waiting)):
            stop(process)
    first, second = ranges(hub)
    assert first is None
    assert second is not None
    assert 5 * MB - SLACK < int(second.removeprefix("bytes=").removesuffix("-")) <= 5 * MB


def _about_weights(asked: Asked) -> bool:
    return asked.method == "HEAD" and asked.name == "model.safetensors"


def test_a_server_without_ranges_begins_again(hub, tmp_path):
    hub.add("org/big", FILES, cut=[5 * MB], whole_only=True)
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert is_whole(tmp_path, answer)
    assert len(ranges(hub)) == 2


def test_what_arrives_damaged_is_not_kept(hub, tmp_path):
    repository = hub.add("org/big", FILES, corrupt=True)
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert "model.safetensors (12.0 MB) arrived damaged" in answer["error"]
    assert "try again" in answer["error"]
    assert not [path for path in blobs(tmp_path).iterdir() if path.stat().st_size > 1000]
    repository.corrupt = False
    [answer] = fetch(tmp_path, hub.endpoint, "org/big")
    assert is_whole(tmp_path, answer)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5 * MB, 13 * MB])
def test_a_partial_file_of_something_else_does_not_stay(hub, tmp_path, size):
    hub.add("org/big", FILES)
    blobs(tmp_path).mkdir(parents=True)
    (blobs(tmp_path) / f"{SHA256}.incomplete").write_bytes(bytes(size))
    answers = fetch(tmp_path, hub.endpoint, "org/big", "org/big")
    assert ("arrived damaged" in answers[0].get("error", "")) == (size < len(WEIGHTS))
    assert is_whole(tmp_path, answers[1])


@pytest.mark.slow
def test_a_file_that_rots_in_the_cache_is_downloaded_again(hub, tmp_path):
    hub.add("org/big", FILES)
    [good] = fetch(tmp_path, hub.endpoint, "org/big")
    (blobs(tmp_path) / SHA256).write_bytes(bytes(12 * MB))
    rotten, again = fetch(tmp_path, hub.endpoint, "org/big", "org/big")
    assert "was damaged" in rotten["error"]
    assert again == good
    assert is_whole(tmp_path, again)


@pytest.mark.slow
def test_six_processes_download_it_once(hub, tmp_path):
    hub.add("org/big", FILES, hold_after=5 * MB)
    processes = [start(tmp_path, hub) for _ in range(6)]
    try:
        wait_for(lambda: len([a for a in hub.log if _about_weights(a)]) == 6)
        hub.go.set()
        answers = [answer_of(process) for process in processes]
    finally:
        for process in processes:
            stop(process)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["commit"] == COMMIT
    assert is_whole(tmp_path, answers[0])
    assert ranges(hub) == [None]
    small = [asked for asked in hub.log if asked.method == "GET" and asked.name == "config.json"]
    assert len(small) == 1
    assert len(list((tmp_path / "digests" / "digests").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("place", ["terminal", "silenced terminal", "pipe"])
def test_progress_appears_on_a_terminal_only(hub, tmp_path, place):
    hub.add("org/big", FILES)
    settings = environment(tmp_path, hub.endpoint)
    if place == "silenced terminal":
        settings["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    ours, theirs = os.pipe() if place == "pipe" else os.openpty()
    if place != "pipe":
        termios.tcsetwinsize(theirs, (24, 120))
    done = subprocess.run(
        command(tmp_path, "org/big"), env=settings, stdout=subprocess.PIPE, stderr=theirs,
        timeout=120, check=True,
    )  # fmt: skip
    os.close(theirs)
    shown = _all_of(ours)
    os.close(ours)
    json.loads(done.stdout)
    if place == "terminal":
        assert "model.safetensors: 100%" in shown
        assert "12.0M/12.0M" in shown
        assert re.search(r"[kMG]B/s", shown)
    else:
        assert shown == ""


def _all_of(descriptor: int) -> str:
    """What was written there; a terminal whose other end is closed is an error, not an end."""
    blocks = []
    try:
        while block := os.read(descriptor, 1 << 16):
            blocks.append(block)
    except OSError:
        pass
    return b"".join(blocks).decode()
