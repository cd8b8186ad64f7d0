"""`retrieval anomaly`, as people and scripts get it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import retrieval
from app.main import app
from indexers import ingest
from retrieval.errors import ExportError, QueryError
from tests.encoders_of_tests import ColourEncoder
from tests.query.test_anomaly_collection import NORMAL, plate, plates

KEYS = {
    "uri", "anomaly_score", "threshold", "is_anomaly", "image_score", "heatmap", "overlay",
}  # fmt: skip


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("anomaly")
    folder = plates(place / "photos", 5)
    ingest(folder, place / "c.lance", labels=f"{folder / 'labels.csv'}:label")
    plate(50).save(place / "good.png")
    plate(51, (90, 30)).save(place / "bad.png")
    return place


def test_json_has_what_the_library_says_and_heatmaps_are_on_disk(place, tmp_path):
    asked = [place / "good.png", place / "bad.png"]
    command = ("anomaly", *asked, "-c", place / "c.lance", "--normal", NORMAL, "--tiles", "1")
    out, _ = run(*command, "--json", "--heatmaps", tmp_path / "heat")
    told = json.loads(out)
    found = retrieval.open(place / "c.lance").anomaly(asked, NORMAL, tiles=1)
    assert [set(one) for one in told["results"]] == [KEYS, KEYS] and told["failures"] == []
    for one, expected in zip(told["results"], found, strict=True):
        assert one["anomaly_score"] == expected.anomaly_score
        assert one["threshold"] == expected.threshold and one["uri"] == expected.uri
        np.testing.assert_array_equal(np.load(one["heatmap"]), expected.heatmap)
    assert [one["is_anomaly"] for one in told["results"]] == [False, True]
    assert told["false_alarm_rate"] == pytest.approx(1 / 6) and "at best" in told["note"]
    with Image.open(told["results"][1]["overlay"]) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    hot = pixels[80:160, 320:400].mean(axis=(0, 1))
    cold = pixels[320:, :160].mean(axis=(0, 1))
    assert hot[0] - hot[2] > cold[0] - cold[2] + 50  # red against violet
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == [
        "001-good.npy", "001-good.png", "002-bad.npy", "002-bad.png", "sheet.png",
    ]  # fmt: skip


def test_people_get_a_table_and_are_told_of_bad_pictures(place, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    command = ("anomaly", place / "bad.png", broken, "-c", place / "c.lance", "--tiles", "1")
    out, err = run(*command, "--normal", NORMAL, code=1)
    assert "bad.png" in out and " odd " in out and "broken.png" not in out
    assert "broken.png: " in err and "at best" in err
    told = json.loads(run(*command, "--normal", NORMAL, "--json", code=1)[0])
    assert len(told["results"]) == 1
    assert [Path(one["uri"]).name for one in told["failures"]] == ["broken.png"]


def test_wrong_use_and_encoders_without_places(place, tmp_path, monkeypatch):
    asked = ("anomaly", place / "good.png", "-c", place / "c.lance", "--normal", NORMAL)
    with pytest.raises(QueryError, match="made of patches"):
        run(*asked, "--no-patches", "--heatmaps", tmp_path)
    with pytest.raises(QueryError, match="between 0 and 1"):
        run(*asked, "--false-alarm-rate", "5")
    with pytest.raises(ExportError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        run(*asked, "--tiles", "1", "--heatmaps", tmp_path / "file")
    whole = json.loads(run(*asked, "--no-patches", "--json")[0])["results"][0]
    assert whole["anomaly_score"] == whole["image_score"] and whole["heatmap"] is None
    colours = ColourEncoder()
    ingest(place / "photos", tmp_path / "c", encoders=[colours])
    opened = retrieval.open(tmp_path / "c", encoders=[colours])
    monkeypatch.setattr(retrieval, "open", lambda *_: opened)
    out, err = run(
        "anomaly", place / "good.png", "-c", "x", "--normal", "width > 0",
        "--heatmaps", tmp_path / "heat",
    )  # fmt: skip
    assert "good.png" in out and "only whole pictures" in err
    assert not (tmp_path / "heat").exists()
