"""Duplicates, leaks and admission on the command line, up to a plan that is undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.main import app
from retrieval.errors import PlanError, QueryError, SourceError
from tests.planted import COPIES, copies, originals

THRESHOLD = ("--threshold", 0.3)
RUNNER = CliRunner()


def run(*arguments: object, code: int = 0) -> str:
    """What the command prints to stdout; an error of the project is raised as it is."""
    result = RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos and copies, and its collection."""
    root = tmp_path_factory.mktemp("dedup")
    copies(originals(root / "photos"), root / "photos" / "more")
    run("index", root / "photos", "-c", root / "c", "--encoder", "pocket-visual")
    return root


def test_groups_in_json(made):
    found = json.loads(run("dedup", "-c", made / "c", *THRESHOLD, "--json"))
    facts = {"threshold", "space", "fit", "recall", "version", "approximate"}
    assert set(found) == {"groups", "no_vector", "no_thumbnail", *facts}
    assert found["threshold"] == 0.3 and found["space"] == "pocket-visual"
    assert found["fit"] is None and found["recall"] is None
    assert sorted(group["kind"] for group in found["groups"]) == sorted(
        kind for _, kind in COPIES.values()
    )
    seen: set[str] = set()
    for group in found["groups"]:
        assert set(group) == {"kind", "keep", "members"}
        uris = [group["keep"], *(member["uri"] for member in group["members"])]
        assert len(set(uris)) == len(uris) and not set(uris) & seen
        seen |= set(uris)
        for member in group["members"]:
            assert set(member) == {"uri", "score", "kind", "why"} and member["score"] >= 0.3


def test_people_see_what_would_go_and_why(made, tmp_path):
    said = run("dedup", "-c", made / "c", *THRESHOLD, "--sheet", tmp_path / "s.png")
    assert f"{len(COPIES)} groups: {len(COPIES)} images would go" in said
    assert "same bytes" in said and str(made / "photos" / "more" / "half.jpg") in said
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 400


def test_a_large_group_is_told_in_short(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.linear_gradient("L").save(tmp_path / "photos" / f"{number:02}.png")
    run("index", tmp_path / "photos", "-c", tmp_path / "c", "--encoder", "pocket-visual")
    said = run("dedup", "-c", tmp_path / "c", "--tier", "exact")
    assert said.count("same bytes") == 8 and "and 3 more" in said


def test_the_fitted_threshold_comes_with_its_figures(made):
    found = json.loads(run("dedup", "-c", made / "c", "--json"))
    assert found["fit"]["threshold"] == found["threshold"] and found["fit"]["recall"]["value"] > 0
    fit = json.loads(run("evaluate", "dedup", "-c", made / "c", "--json"))
    assert fit["threshold"] == found["threshold"] and fit["seed"] != found["fit"]["seed"]
    table = run("evaluate", "dedup", "-c", made / "c", *THRESHOLD)
    assert "threshold 0.300" in table and "flip" in table and "expected precision" in table


def test_labels_give_the_threshold(made, tmp_path):
    lines = ["a,b,same"]
    for name, (copy, _) in COPIES.items():
        photos = made / "photos"
        lines.append(f"{photos / name}.jpg,{photos / 'more' / copy},yes")
        lines.append(f"{photos / name}.jpg,{photos / 'page.jpg'},no")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    given = ("dedup", "-c", made / "c", "--labelled", tmp_path / "pairs.csv")
    found = json.loads(run(*given, "--json"))
    assert found["fit"]["source"] == "labels" and len(found["groups"]) == len(COPIES)
    with pytest.raises(QueryError, match="choose one"):
        run(*given, *THRESHOLD)
    (tmp_path / "pairs.csv").write_text("a,b,same\nx,y,perhaps\n")
    with pytest.raises(SourceError, match="line 2"):
        run(*given)


def test_a_plan_is_applied_and_undone(made, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(made / "photos", root / "photos")
    run("index", root / "photos", "-c", root / "c", "--encoder", "pocket-visual")
    before = {path: path.read_bytes() for path in (root / "photos").rglob("*.jpg")}
    plan = ("dedup", "-c", root / "c", "--plan", root / "plan.parquet")
    run(*plan, *THRESHOLD)
    assert {path: path.read_bytes() for path in (root / "photos").rglob("*.jpg")} == before
    moved = json.loads(run(*plan, "--apply", "--json"))
    assert moved["moved"] == len(COPIES) and not moved["refused"]
    assert moved["quarantine"] == str(root / "plan.parquet.quarantine")
    with pytest.raises(PlanError, match="undo it first"):  # before anything is compared
        run(*plan, "--space", "none")
    assert len(list((root / "photos").rglob("*.jpg"))) == len(before) - len(COPIES)
    assert json.loads(run("dedup", "-c", root / "c", *THRESHOLD, "--json"))["groups"] == []
    back = run(*plan, "--undo")
    assert f"{len(COPIES)} restored" in back
    assert {path: path.read_bytes() for path in (root / "photos").rglob("*.jpg")} == before
    result = RUNNER.invoke(app, [str(a) for a in (*plan, "--apply")])
    assert f"they are in {root / 'plan.parquet.quarantine'}" in result.stderr.replace("\n", "")
    run(*plan, "--undo")
    again = json.loads(run("dedup", "-c", root / "c", *THRESHOLD, "--json"))
    assert len(again["groups"]) == len(COPIES)


def test_wrong_use_is_refused_before_any_work(made, tmp_path):
    dedup = ("dedup", "-c", made / "c")
    for wrong in (["--apply"], ["--undo"], ["--plan", "p", "--apply", "--undo"]):
        with pytest.raises(QueryError, match="--plan FILE"):
            run(*dedup, *wrong)
    for wrong in (
        ["--where", "width > 9"],
        ["--tier", "exact"],
        ["--keep", "size"],
        [*THRESHOLD],
        ["--labelled", "pairs.csv"],
        ["--space", "x"],
        ["--sheet", "s.png"],
        ["--approximate"],
    ):
        for action in ("--apply", "--undo"):
            with pytest.raises(QueryError, match=wrong[0]):
                run(*dedup, "--plan", "p", action, *wrong)
    for wrong in (["--threshold", "high"], ["--keep", "newest"], ["--tier", "same"]):
        with pytest.raises(QueryError):
            run(*dedup, *wrong)
    with pytest.raises(QueryError, match="sheet"):
        run(*dedup, "--sheet", tmp_path / "s.txt")


def test_a_leak_check_of_two_kinds_is_refused(made):
    with pytest.raises(QueryError, match="choose one"):
        run("leaks", "-c", made / "c", "--between", "nonsense", "--against", made / "c")


def test_leaks_fail_a_pipeline_when_there_are_more_than_allowed(made, tmp_path):
    photos = made / "photos"
    run("index", photos / "more", "-c", tmp_path / "b", "--encoder", "pocket-visual")
    where = ("--where", f"uri like '{photos}/%'")
    given = ("leaks", "-c", made / "c", "--against", tmp_path / "b", *THRESHOLD, *where)
    found = json.loads(run(*given, "--fail-over", 1000, "--json"))
    assert {"leaks", "threshold", "space", "fit", "version"} <= set(found)
    leaked = {(leak["a"], leak["b"]) for leak in found["leaks"]}
    for name, (copy, _) in COPIES.items():
        assert (str(photos / f"{name}.jpg"), str(photos / "more" / copy)) in leaked
    result = RUNNER.invoke(app, [str(a) for a in (*given, "--fail-over", 0)])
    assert result.exit_code == 1 and f"{len(leaked)} leaks are more than the 0" in result.output
    parted = ("leaks", "-c", made / "c", "--between", "width", "--fail-over", 0)
    assert "no leaks" in run(*parted, "--tier", "exact")
    run(*given, "--sheet", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 400


def test_every_command_is_documented():
    told = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
    for command in ("dedup", "leaks", "check", "evaluate dedup"):
        assert f"`retrieval {command}" in told
