"""`retrieval encoders`, as a person reads it in a terminal and a script reads it as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.encoder_facts import in_words
from app.encoder_list import PURPOSES
from app.main import app
from retrieval.encoders import EncoderSpec, specs
from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import EncoderError, EncoderUnavailable, UnknownEncoder
from tests.test_house import HEAVY

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object, columns: int = 120) -> str:
    given = ["encoders", *map(str, arguments)]
    result = CliRunner().invoke(
        app, given, catch_exceptions=False, env={"COLUMNS": str(columns), "RETRIEVAL_ENCODERS": ""}
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def starts(out: str) -> list[str]:
    """The first words of all lines that are not indented."""
    return [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")]


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_every_encoder_has_its_line_and_no_line_is_wider_than_the_terminal(columns):
    out = run(columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    assert sorted(word for word in starts(out) if word in specs()) == sorted(specs())
    said = " ".join(out.split())
    for spec in specs().values():
        assert " ".join(spec.summary.split()) in said
        assert not spec.terms or spec.terms in said


def test_columns_stand_under_each_other():
    lines = run().splitlines()
    at = {word: lines[0].index(word) + len(word) for word in ("dim", "MB", "cost")}
    row = next(line for line in lines if line.startswith("dinov2-base "))
    assert row[: at["dim"]].endswith(" 768") and row[: at["MB"]].endswith(" 346")
    assert row[: at["cost"]].endswith(" 3.8×")
    assert lines[0].index("licence") == row.index("Apache-2.0")
    assert lines[0].index("good for") == row.index("better duplicates")


def test_encoders_stand_under_what_they_are_for():
    heading, under = "", {}
    for line in run().split("\ncost: ")[0].splitlines()[1:]:
        heading = line.rstrip(":") if line.endswith(":") else heading
        under[line.split()[0] if line.strip() else ""] = heading
    assert {under[name] for name in specs()} == set(PURPOSES)
    assert under["pocket-text"] == "Nothing to download"
    assert under["dinov2-small"] == under["mae-base"] == "What looks alike"
    assert under["clip-vit-b-32"] == under["siglip-base"] == "Words, English"
    assert under["siglip2-base"] == under["altclip"] == "Words in other languages"


def test_marks_tell_who_must_read_on():
    rows = {line.split()[0]: line for line in run().splitlines() if line.strip()}
    for name, spec in specs().items():
        assert (f"{spec.licence}*" in rows[name]) == bool(spec.terms), name
        assert ("(gated)" in rows[name]) == spec.gated, name


def test_the_default_of_a_new_collection_is_named(monkeypatch):
    assert "pocket-visual + pocket-text" in " ".join(run().split())
    monkeypatch.setenv("RETRIEVAL_ENCODERS", "dinov3-base")
    result = CliRunner().invoke(app, ["encoders"])
    assert "takes dinov3-base unless" in result.stdout


def test_advice_names_encoders_that_there_are():
    advice = run().split("Which to choose:")[1]
    words = {word.strip(",;().") for word in advice.split()}
    named = {
        word for word in words if word.startswith(("dino", "siglip", "clip-", "laion", "meta"))
    }
    assert len(named) >= 5 and named <= set(specs())


def test_json_holds_every_field():
    listed = json.loads(run("--json"))["encoders"]
    assert [row["name"] for row in listed] == list(specs())
    assert all(set(row) == {field.name for field in fields(EncoderSpec)} for row in listed)


@pytest.mark.parametrize("name", specs())
def test_a_name_tells_all_about_one(name):
    spec, out = specs()[name], run(name, columns=80)
    said = " ".join(out.split())
    assert said.startswith(f"{name}: {spec.family}; {spec.summary}")
    for fact in (str(spec.dim), spec.source, spec.revision, spec.licence, spec.terms):
        assert fact in said
    assert f"--encoder {name}" in said and "px" in said
    assert ("prompt" in said) == ("text" in spec.modalities)
    assert ("accept the terms" in said) == spec.gated
    assert all(len(line) <= 80 for line in out.splitlines()[1:])


def test_show_and_the_bare_name_are_the_same():
    assert run("show", "dinov2-base") == run("dinov2-base")
    facts = json.loads(run("dinov2-base", "--json"))
    assert facts == json.loads(run("--json", "dinov2-base"))
    assert facts["encoder"]["source"] == "facebook/dinov2-base"
    assert isinstance(facts["missing"], list)


def test_what_is_missing_is_named(monkeypatch):
    from retrieval.encoders.checkpoints import packages

    monkeypatch.setattr(packages, "_there", lambda name: name in ("torch", "transformers"))
    facts = json.loads(run("datacomp-b-32", "--json"))
    assert facts["missing"] == ["open_clip_torch", "huggingface_hub"]
    assert "pip install open_clip_torch huggingface_hub" in run("datacomp-b-32")
    assert json.loads(run("pocket-text", "--json"))["missing"] == []


def test_a_portable_folder_needs_nothing_whatever_it_was_made_of(tmp_path, monkeypatch):
    from retrieval.encoders import specs
    from retrieval.encoders.checkpoints import packages
    from retrieval.encoders.checkpoints.portable import save_portable

    monkeypatch.setattr(packages, "_there", lambda name: False)
    save_portable(
        tmp_path / "student",
        specs()["dinov2-small"],
        "0" * 32,
        lambda folder: (folder / "image.onnx").write_bytes(b"graph") and None,
    )
    assert json.loads(run(tmp_path / "student", "--json"))["missing"] == []
    assert "nothing: all is here" in run(tmp_path / "student")


def test_a_class_of_ones_own_is_from_no_registry(tmp_path, monkeypatch):
    (tmp_path / "onesown.py").write_text(
        "class Mine:\n    def encode_images(self, images):\n        return [[1, 2]] * len(images)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "your own class" in run("onesown:Mine")


def test_another_pooling_is_told(tmp_path):
    facts = json.loads(run("dinov2-small:cls+mean", "--json"))["encoder"]
    assert (facts["name"], facts["dim"]) == ("dinov2-small:cls+mean", 768)
    assert "generalised mean" in run("dinov2-small:gem")
    with pytest.raises(EncoderError, match="its own pooling"):
        run("siglip2-base:mean")
    with pytest.raises(EncoderError, match="leave out :mean"):
        run("pocket-visual:mean")


def test_a_folder_is_told_without_reading_its_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 48}')
    cut = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(cut))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    out = run(tmp_path)
    assert "48 numbers" in out and "a local folder" in out and "huggingface_hub" not in out


def test_a_hub_repository_tells_its_facts_later():
    with pytest.raises(EncoderUnavailable, match="after the download"):
        run("someone/something")
    with pytest.raises(EncoderUnavailable, match="the catalogue has it as dinov2-base"):
        run("facebook/dinov2-base")
    with pytest.raises(UnknownEncoder, match="dinov2-base"):
        run("dinov2-bas")


CLIP = ((0.5, 0.25, 0.125), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("preprocess", "says"),
    [
        (Preprocess(224, "shortest", 256, "bicubic", *CLIP), "shorter side to 256 px (bicubic), "),
        (Preprocess(224, "squash", 224, "bilinear", *CLIP), "both sides to 224 px (bilinear), "),
        (Preprocess(224, "squash", 256, "bilinear", *CLIP), "then the centre of 224 × 224; mean"),
        (Preprocess(224, "longest", 224, "bicubic", *CLIP), "borders up to 224 × 224; mean"),
        (NaFlex(16, 256, "bilinear", *CLIP), "at most 256 patches of 16 px"),
        (NaFlex(16, 256, "bilinear", *CLIP), "mean 0.5 0.25 0.125, deviation 0.5"),
    ],
)
def test_preprocessing_in_words(preprocess, says):
    assert says in in_words(preprocess)


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"]])
def test_help_has_an_example_and_pays_for_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['retrieval', 'encoders', *{!r}]\n"
        "from app.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({{m.split('.')[0] for m in sys.modules}} & {!r}))"
    ).format(arguments, HEAVY | {"numpy", "PIL"})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip().splitlines()[-1] == "LOADED"
    assert "Example: retrieval encoders" in done.stdout
