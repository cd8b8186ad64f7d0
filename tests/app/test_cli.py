"""The command line as a person or a script uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import retrieval
from app.main import app
from retrieval.errors import CollectionNotFound, QueryError, RetrievalError
from tests.pictures import write_pictures

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = 12
KEYS = {"added", "updated", "skipped", "removed", "failed", "encoded", "seconds"}


def run(*arguments: object) -> str:
    """What the command prints to stdout; an error of the project is raised as it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "photos with spaces and a long name"
    write_pictures(folder, PHOTOS, suffix=".jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    return folder


@pytest.fixture(scope="module")
def collection(photos, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "c.lance"
    run("index", photos, "-c", path)
    return path


def test_index_reports_numbers_and_the_second_run_skips(photos, tmp_path):
    first = json.loads(run("index", photos, "-c", tmp_path / "c", "--json"))
    assert set(first) == KEYS and all(isinstance(v, int | float) for v in first.values())
    assert (first["added"], first["failed"], first["encoded"]) == (PHOTOS, 1, PHOTOS)
    second = json.loads(run("index", photos, "-c", tmp_path / "c", "--json"))
    assert (second["added"], second["skipped"], second["encoded"]) == (0, PHOTOS, 0)


def test_a_new_collection_says_what_it_uses_and_how_to_switch(photos, tmp_path):
    done = process("index", photos, "-c", tmp_path / "c")
    assert done.returncode == 0
    assert "pocket-visual + pocket-text" in done.stderr and "--encoder" in done.stderr
    assert f"{PHOTOS} added" in done.stdout and "--failures" in done.stderr
    again = process("index", photos, "-c", tmp_path / "c")
    assert "--encoder" not in again.stderr


def test_search_prints_whole_paths_however_narrow_the_terminal(photos, collection):
    wanted = str(photos / "0003.jpg")
    done = process(
        "search", "-c", collection, "--image", wanted, env={**os.environ, "COLUMNS": "40"}
    )
    first = done.stdout.splitlines()[1]
    assert first.endswith(wanted) and first.split()[:2] == ["1", "1.000"]


def test_search_answers_in_json_and_in_paths(photos, collection):
    wanted = str(photos / "0003.jpg")
    answer = json.loads(run("search", "-c", collection, "--image", wanted, "-k", 3, "--json"))
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    best = answer["hits"][0]
    assert set(best) == {"rank", "score", "relevance", "image_id", "uri", "label", "metadata"}
    assert best["uri"] == wanted and "verdict" in answer
    by_id = run("search", "-c", collection, "--id", best["image_id"], "-k", 1, "--paths")
    assert by_id == wanted + "\n"
    words = json.loads(run("search", "a red car", "-c", collection, "--not", "a dog", "--json"))
    assert len(words["hits"]) == 10 and words["space"] == "pocket-text"


def test_search_with_filter_space_and_mixture(photos, collection):
    out = json.loads(
        run(
            *("search", "a picture", "-c", collection, "--image", photos / "0001.jpg"),
            *("--where", "uri like '%000_.jpg' and width > 10", "--space", "pocket-text", "--json"),
        )
    )
    assert len(out["hits"]) == 10 and out["space"] == "pocket-text"


def test_a_contact_sheet_is_a_picture(collection, tmp_path):
    run("search", "anything", "-c", collection, "--sheet", tmp_path / "s.png", "-k", 7)
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 500


def test_a_sheet_that_cannot_be_written_costs_no_answer(collection, tmp_path):
    done = process("search", "x", "-c", collection, "--sheet", tmp_path / "no" / "s.png", "--paths")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 10
    assert done.stderr.startswith("error: ")
    both = process("search", "x", "-c", collection, "--json", "--paths")
    assert both.returncode == 1 and "choose one" in both.stderr
    early = process("search", "x", "-c", collection, "--sheet", "sheet.foo")
    assert early.returncode == 1 and "sheet.foo" in early.stderr


def test_settings_that_make_no_sense_are_named(photos, tmp_path):
    for value in ("abc", "0", "-5"):
        env = {**os.environ, "RETRIEVAL_MAX_PIXELS": value}
        done = process("index", photos, "-c", tmp_path / "c", env=env)
        assert done.returncode == 1 and "RETRIEVAL_MAX_PIXELS" in done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "c").exists()


def test_a_closed_pipe_and_the_version_are_no_matter(collection):
    command = f"{sys.executable} -m app search x -c '{collection}' --paths | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr
    assert run("--version") == f"retrieval {retrieval.__version__}\n"


def test_non_utf8_names_come_out_as_the_bytes_they_are(tmp_path):
    folder = tmp_path / "odd"
    (path,) = write_pictures(folder, 1)
    odd = os.path.join(os.fsencode(folder), b"caf\xe9.png")
    try:
        os.rename(path, odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    run("index", folder, "-c", tmp_path / "c")
    command = [sys.executable, "-m", "app", "search", "-c", str(tmp_path / "c"), "--image"]
    done = subprocess.run([*command, odd, "--paths"], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == odd + b"\n"
    shown = process("search", "x", "-c", tmp_path / "c")
    assert "caf%E9.png" in shown.stdout


def test_status_counts_and_lists_failures(photos, collection):
    facts = json.loads(run("status", "-c", collection, "--where", "width = 40", "--json"))
    assert (facts["images"], facts["failures"], facts["matching"]) == (PHOTOS, 1, PHOTOS)
    assert {s["name"]: s["vectors"] for s in facts["spaces"]} == {
        "pocket-visual": PHOTOS,
        "pocket-text": PHOTOS,
    }
    assert "broken.jpg" in run("status", "-c", collection, "--failures")
    assert "pocket-text" in run("status", "-c", collection)


def test_delete_needs_a_choice_and_takes_only_that(photos, tmp_path):
    path = tmp_path / "c"
    run("index", photos, "-c", path)
    with pytest.raises(QueryError, match="say what to delete"):
        run("delete", "-c", path)
    with pytest.raises(QueryError, match="42"):
        run("delete", "-c", path, "--id", 42, "--yes")
    where = ("--where", "uri like '%/0001.jpg'")
    asked = CliRunner().invoke(app, ["delete", "-c", str(path), *where, "--json"])
    assert asked.exit_code == 1 and len(retrieval.open(path)) == PHOTOS
    out = run("delete", "-c", path, *where, "--json", "--yes")
    assert json.loads(out)["removed"] == 1
    some = retrieval.open(path).search("x", k=1)[0].image.image_id
    assert "1 removed, purged, 10 left" in run("delete", "-c", path, "--id", some, "--purge", "-y")
    command = ["delete", "-c", str(path), "--where", "width > 0"]
    asked = CliRunner().invoke(app, command, input="n\n")
    assert asked.exit_code == 1 and len(retrieval.open(path)) == 10


def test_encoders_and_doctor_tell_what_there_is(collection):
    known = json.loads(run("encoders", "--json"))["encoders"]
    assert {"pocket-visual", "pocket-text", "siglip2-base"} <= {spec["name"] for spec in known}
    table = run("encoders")
    assert "dinov2-base" in table and "research" in table
    health = json.loads(run("doctor", "-c", collection, "--json"))
    assert health["ok"], health
    assert "find themselves" in run("doctor", "-c", collection)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "x", "-c", "nowhere.lance"], "nowhere.lance"),
        (["index", "", "-c", "new.lance"], "empty"),
        (["index", "no/such/folder", "-c", "new.lance"], "no/such/folder"),
        (["index", ".", "-c", "new.lance", "--encoder", "cliip"], "cliip"),
        (["index", ".", "-c", "new.lance", "--encoder", "siglip2-base"], "pocket-text"),
    ],
)
def test_errors_are_one_line_on_stderr_and_exit_with_1(tmp_path, arguments, says):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new.lance").exists()


def test_errors_belong_to_one_tree(tmp_path):
    with pytest.raises(CollectionNotFound) as caught:
        run("status", "-c", tmp_path / "none")
    assert isinstance(caught.value, RetrievalError)


def test_ctrl_c_commits_what_is_done_and_the_next_run_goes_on(tmp_path):
    folder, path = tmp_path / "many", tmp_path / "c"
    write_pictures(folder, 1500)
    command = [sys.executable, "-m", "app", "index", str(folder), "-c", str(path), "--json"]
    command += ["--workers", "1"]  # many cores would be done before the signal
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    while child.poll() is None and not (path / "manifest.lance").exists():
        time.sleep(0.05)
    time.sleep(0.6)  # past the start, far from the end
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130 and "interrupted" in err, err
    first = json.loads(out)
    assert 0 < first["added"] < 1500
    assert len(retrieval.open(path)) == first["added"]
    rest = json.loads(run("index", folder, "-c", path, "--dry-run", "--json"))
    assert (rest["skipped"], rest["added"]) == (first["added"], 1500 - first["added"])


@pytest.mark.parametrize("command", [c.name for c in app.registered_commands])
def test_every_command_has_help_with_an_example_and_is_documented(command):
    assert "Example:" in run(command, "--help")
    docs = (ROOT / "README.md").read_text() + (ROOT / "docs" / "cli.md").read_text()
    assert f"retrieval {command}" in docs
