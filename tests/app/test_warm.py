"""A warm server is found, gives the answers that a cold search gives, and never stale ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import retrieval
from indexers import ingest
from tests.pictures import write_pictures

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "app", *map(str, arguments)]


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )


class Warm:
    """A running server, and environments in which a search finds it or does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.collection = folder / "c"
        write_pictures(self.photos, 12)
        ingest(self.photos, self.collection)
        self.cold = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "nobody")}
        # A search that finds the server needs no lance; one that does not find it would fail here.
        (folder / "poison").mkdir()
        (folder / "poison" / "lance.py").write_text("raise ImportError('not warm')")
        self.serving = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        self.warm = {**self.serving, "PYTHONPATH": str(folder / "poison")}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command("warm", "-c", self.collection, *arguments),
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.serving,
        )
        assert child.stderr and "warm" in child.stderr.readline()
        return child

    def hits(self, environment: dict[str, str], *arguments: object) -> list[dict]:
        done = run(environment, "search", "-c", self.collection, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["hits"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Iterator[Warm]:
    # Socket paths are short by law, pytest's folders are long.
    folder = Path(tmp_path_factory.mktemp("w", numbered=True))
    short = Path("/tmp") / f"retrieval-test-{os.getpid()}"
    short.symlink_to(folder)
    made = Warm(short)
    server = made.start()
    yield made
    server.terminate()
    server.communicate()
    short.unlink()


def test_warm_and_cold_searches_give_the_same(warm):
    image = warm.photos / "0003.png"
    for question in (
        ["a red car"],
        ["a red car", "--not", "a dog", "-k", 3],
        ["--image", image],
        ["--image", os.path.relpath(image, ROOT), "--where", "width = 40"],
        ["--id", retrieval.open(warm.collection).store.find_uri(os.path.realpath(image))],
    ):
        assert warm.hits(warm.warm, *question) == warm.hits(warm.cold, *question)
    table = run(warm.warm, "search", "x", "-c", warm.collection, "-k", 2).stdout
    assert table == run(warm.cold, "search", "x", "-c", warm.collection, "-k", 2).stdout
    paths = run(warm.warm, "search", "--image", image, "-c", warm.collection, "--paths").stdout
    assert paths.splitlines()[0] == os.path.realpath(image)


@pytest.mark.parametrize(
    "question", [["--id", 1], ["x", "--where", "nothing = 1"], ["x", "--space", "y"], []]
)
def test_errors_read_the_same(warm, question):
    asked = ["search", "-c", warm.collection, *question]
    cold, hot = run(warm.cold, *asked), run(warm.warm, *asked)
    assert (hot.returncode, hot.stdout, hot.stderr) == (cold.returncode, "", cold.stderr)
    assert hot.returncode == 1 and hot.stderr.startswith("error: ")


def test_what_is_written_or_made_anew_is_seen_at_once(warm):
    first = warm.hits(warm.warm, "x", "-k", 1)[0]["image_id"]
    retrieval.open(warm.collection).delete([first])
    assert first not in [hit["image_id"] for hit in warm.hits(warm.warm, "x", "-k", 100)]
    shutil.rmtree(warm.collection)
    write_pictures(warm.folder / "others", 2, start=50)
    ingest(warm.folder / "others", warm.collection)
    assert len(warm.hits(warm.warm, "x", "-k", 100)) == 2
    shutil.rmtree(warm.collection)
    gone = run(warm.warm, "search", "x", "-c", warm.collection)
    assert gone.returncode == 1 and "no collection" in gone.stderr
    ingest(warm.photos, warm.collection)


def test_there_is_one_server_and_an_idle_one_ends(warm, tmp_path):
    second = run(warm.serving, "warm")
    assert second.returncode == 1 and "running already" in second.stderr

    other = {**warm.serving, "RETRIEVAL_MAX_PIXELS": "1000000"}
    child = subprocess.Popen(
        command("warm", "--idle", 0.02), env=other, cwd=ROOT, stderr=subprocess.DEVNULL
    )
    folder = warm.folder / f"retrieval-{os.getuid()}"
    while child.poll() is None and len(list(folder.iterdir())) < 2:
        time.sleep(0.02)
    assert child.wait(timeout=60) == 0
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_ended_takes_its_socket_away(warm, number):
    other = {**warm.serving, "RETRIEVAL_MAX_PIXELS": "2000000"}
    child = subprocess.Popen(
        command("warm"), env=other, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    folder = warm.folder / f"retrieval-{os.getuid()}"
    assert child.stderr and str(child.pid) in child.stderr.readline()
    assert len(list(folder.iterdir())) == 2
    child.send_signal(number)
    child.communicate(timeout=60)
    assert child.returncode == 0 and len(list(folder.iterdir())) == 1


def test_a_path_too_long_for_a_socket_names_the_cure(warm):
    refused = run({**warm.serving, "XDG_RUNTIME_DIR": f"{warm.folder}/{'x' * 120}"}, "warm")
    assert refused.returncode == 1 and "XDG_RUNTIME_DIR" in refused.stderr


def test_a_folder_that_others_can_enter_is_not_trusted(warm, tmp_path):
    base = warm.folder / "shared"
    (base / f"retrieval-{os.getuid()}").mkdir(parents=True)
    (base / f"retrieval-{os.getuid()}").chmod(0o755)
    refused = run({**warm.serving, "XDG_RUNTIME_DIR": str(base)}, "warm")
    assert refused.returncode == 1 and "open to" in refused.stderr
