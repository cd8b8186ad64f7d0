"""Getting checkpoints from a hub: what is taken, and what is said when it cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.encoders.hub.choice import choose, why_none
from tests.encoders.hub_server import COMMIT, Hub, command, environment, fetch

pytest.importorskip("huggingface_hub")

TRANSFORMERS = b'{"model_type": "dinov2"}'
TIMM = b'{"architecture": "vit_base_patch16_clip_224"}'
EMPTY = (2).to_bytes(8, "little") + b"{}"
GOOD = {
    "config.json": TRANSFORMERS,
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": EMPTY,
}
JUNK = {
    "pytorch_model.bin": b"a pickle nobody wants",
    "modeling_custom.py": b"raise SystemExit('remote code ran')",
    "README.md": b"# Hello",
}
ONNX = {"onnx/model.onnx": b"graph", "onnx/model.onnx_data": b"tensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


FACTS = {"config.json", "preprocessor_config.json", "tokenizer.json"}
BOTH = {"model.safetensors", "open_clip_model.safetensors", "open_clip_config.json", *FACTS}
SHARDS = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
TOWERS = {"onnx/vision_model.onnx", "onnx/text_model.onnx"}
PORTABLE = {"encoder.json", "image.onnx", "text.onnx", "tokenizer.json"}
CASES = {
    "transformers": (FACTS | {"model.safetensors"}, FACTS | {"model.safetensors"}),
    "shards": (
        FACTS | SHARDS | {"model.safetensors.index.json"},
        FACTS | SHARDS | {"model.safetensors.index.json"},
    ),
    "whole-and-shards": (
        FACTS | SHARDS | {"model.safetensors.index.json", "model.safetensors"},
        FACTS | {"model.safetensors"},
    ),
    "open_clip": (
        {"open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"},
        {"open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"},
    ),
    "transformers-and-open_clip": (BOTH, FACTS | {"model.safetensors"}),
    "no-safetensors": (
        FACTS | {"onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model.onnx_data_1"},
        FACTS | {"onnx/model.onnx", "onnx/model.onnx_data_1"},
    ),
    "towers": (FACTS | TOWERS | {"onnx/model.onnx"}, FACTS | TOWERS),
    "both-kinds": (FACTS | TOWERS | {"model.safetensors"}, FACTS | {"model.safetensors"}),
    "portable": (
        PORTABLE | {"image.onnx.data", "model.safetensors", "config.json"},
        PORTABLE | {"image.onnx.data"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_kind_of_weights_is_chosen(case):
    names, expected = CASES[case]
    choice = choose(names | set(JUNK), ("safetensors", "onnx"), lambda: False)
    assert choice is not None
    assert set(choice.files) == expected
    assert len(choice.files) == len(expected)


def test_the_caller_says_which_kinds_it_can_run():
    names = FACTS | TOWERS | {"model.safetensors"}
    choice = choose(names, ("onnx",), lambda: False)
    assert choice is not None
    assert set(choice.weights) == TOWERS
    assert choose(FACTS | {"model.safetensors"}, ("onnx",), lambda: False) is None
    assert "pip install torch" in why_none(FACTS | {"model.safetensors"}, ("onnx",))
    assert choose(FACTS | TOWERS, ("safetensors",), lambda: False) is None
    assert "ONNX files only" in why_none(FACTS | TOWERS, ("safetensors",))


def test_both_towers_of_open_clip_rather_than_timm_s_image_tower_alone():
    choice = choose(BOTH, ("safetensors",), lambda: True)
    assert choice is not None
    assert choice.weights == ("open_clip_model.safetensors",)
    assert "config.json" not in choice.facts


def test_a_copy_is_downloaded_once_and_then_used_without_the_hub(hub, tmp_path):
    hub.add("org/good", {**GOOD, **JUNK, **ONNX}, xet=True)
    [first] = fetch(tmp_path, hub.endpoint, "org/good")
    assert first["files"] == sorted(GOOD)
    assert first["commit"] == COMMIT
    hub.log.clear()
    pinned = {"source": "org/good", "revision": COMMIT}
    assert fetch(tmp_path, hub.endpoint, "org/good", pinned) == [first, first]
    assert fetch(tmp_path, hub.endpoint, "org/good", HF_HUB_OFFLINE="1") == [first]
    assert hub.log == []


def test_prebuilt_onnx_where_it_is_wanted_or_the_only_kind(hub, tmp_path):
    hub.add("org/both", {**GOOD, **ONNX})
    hub.add("org/graphs", {"config.json": TRANSFORMERS, **ONNX})
    both, graphs = fetch(
        tmp_path, hub.endpoint, {"source": "org/both", "wanted": ["onnx"]}, "org/graphs"
    )
    facts = set(GOOD) - {"model.safetensors"}
    assert both["files"] == sorted(facts | set(ONNX))
    assert graphs["files"] == sorted({"config.json", *ONNX})
    hub.log.clear()
    assert fetch(tmp_path, hub.endpoint, "org/both", "org/graphs") == [both, graphs]
    assert hub.log == []


def test_the_configuration_tells_timm_from_transformers(hub, tmp_path):
    clip = {"open_clip_config.json": b"{}", "open_clip_model.safetensors": EMPTY}
    hub.add("org/timm", {**GOOD, **clip, "config.json": TIMM})
    hub.add("org/laion", {**GOOD, **clip})
    timm, laion = fetch(tmp_path, hub.endpoint, "org/timm", "org/laion")
    assert {*clip, "tokenizer.json"} <= set(timm["files"])
    assert "model.safetensors" not in timm["files"]
    assert laion["files"] == sorted(GOOD)
    hub.log.clear()
    assert fetch(tmp_path, hub.endpoint, "org/timm", "org/laion") == [timm, laion]
    assert hub.log == []


def test_what_another_program_left_is_completed(hub, tmp_path):
    hub.add("org/good", GOOD)
    other = (
        "from huggingface_hub import hf_hub_download\n"
        "for name in ('config.json', 'model.safetensors'): hf_hub_download('org/good', name)"
    )
    settings = environment(tmp_path, hub.endpoint)
    subprocess.run([sys.executable, "-c", other], env=settings, check=True, capture_output=True)
    lame = {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for trouble in lame:
        [answer] = fetch(tmp_path, hub.endpoint, "org/good", **trouble)
        assert answer["files"] == ["config.json", "model.safetensors"]
    [whole] = fetch(tmp_path, hub.endpoint, "org/good")
    assert whole["files"] == sorted(GOOD)
    assert len(hub.transfers("model.safetensors")) == 1


def test_every_refusal_says_what_to_do(hub, tmp_path):
    def code(status: int, text: str) -> tuple[int, dict[str, str]]:
        return status, {"X-Error-Code": text}

    hub.add("org/private", GOOD, refuse=code(404, "RepoNotFound"))
    hub.add("org/gated", GOOD, refuse_files=code(403, "GatedRepo"))
    hub.add("org/anonymous", GOOD, refuse_files=code(401, "GatedRepo"))
    hub.add("org/forbidden", GOOD, refuse=(403, {}))
    expired = {"X-Error-Message": "Invalid credentials in Authorization header"}
    hub.add("org/expired", GOOD, refuse=(401, expired))
    hub.add("org/busy", GOOD, refuse=(429, {"Retry-After": "17"}))
    hub.add("org/broken", GOOD, refuse=(500, {}))
    hub.add("org/overloaded", GOOD, refuse_large=(503, {}))
    hub.add("org/pickled", {"config.json": TRANSFORMERS, **JUNK})
    hub.add("org/words", {"README.md": b"# Hello", "model.safetensors": EMPTY})
    expected = {
        "org/unknown": "no repository org/unknown",
        "org/private": "no repository org/private",
        "org/gated": "accept its terms",
        "org/anonymous": "accept its terms",
        "org/forbidden": "forbids org/forbidden (403)",
        "org/expired": "does not accept your token",
        "org/busy": "Try again in 17 s",
        "org/broken": "answered 500",
        "org/overloaded": "answered 503",
        "org/pickled": "pickled (pytorch_model.bin)",
        "org/words": "no config.json",
        "not a repository/name/at all": "is not a repository name",
    }
    hub.add("org/good", GOOD)
    nowhere = {"source": "org/good", "revision": "nowhere"}
    *answers, wrong = fetch(tmp_path, hub.endpoint, *expected, nowhere)
    for answer, sentence in zip(answers, expected.values(), strict=True):
        assert answer["error"].startswith("EncoderUnavailable: ")
        assert sentence in answer["error"]
    assert "no revision 'nowhere'" in wrong["error"]
    assert hub.transfers("pytorch_model.bin") == []


@pytest.mark.parametrize(("stage", "requests"), [("api", 1), ("head", 2), ("large", 5)])
def test_a_server_that_accepts_and_never_answers(hub, tmp_path, stage, requests):
    hub.add("org/hole", GOOD, silent=frozenset({stage}))
    [answer] = fetch(tmp_path, hub.endpoint, "org/hole", HF_HUB_DOWNLOAD_TIMEOUT="1")
    silent = hub.cdn if stage == "large" else hub.endpoint
    assert f"cannot get org/hole from the model hub at {silent}" in answer["error"]
    assert len(hub.log) == requests  # nothing was tried twice


def test_a_hub_that_refuses_connections(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        [answer] = fetch(tmp_path, endpoint, "org/good")
    assert f"cannot get org/good from the model hub at {endpoint}" in answer["error"]
    assert "pocket" in answer["error"]


def test_a_hub_whose_name_does_not_resolve(tmp_path):
    [answer] = fetch(tmp_path, "https://hub.invalid", "org/good")
    assert "cannot get org/good from the model hub at https://hub.invalid" in answer["error"]


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_offline_switch_is_respected(hub, tmp_path, switch):
    hub.add("org/good", GOOD)
    [answer] = fetch(tmp_path, hub.endpoint, "org/good", **{switch: "1"})
    assert "HF_HUB_OFFLINE" in answer["error"]
    assert hub.log == []


def test_the_token_goes_to_the_hub_only_and_nothing_else_is_told(hub, tmp_path):
    hub.add("org/good", GOOD)
    fetch(tmp_path, hub.endpoint, "org/good", HF_TOKEN="hf_secret")
    for asked in hub.log:
        assert asked.headers.get("authorization") == (
            "Bearer hf_secret" if asked.server == "hub" else None
        )
        assert "torch" not in asked.headers["user-agent"]
        assert "org/good" in asked.path
    [token] = {a.headers.get("authorization") for a in hub.log if a.server == "hub"}
    assert token == "Bearer hf_secret"


def test_a_mirror_that_lists_names_only(hub, tmp_path):
    hub.add("org/good", GOOD, plain=True)
    [answer] = fetch(tmp_path, hub.endpoint, "org/good")
    assert answer["files"] == sorted(GOOD)


def test_a_cache_in_another_place(hub, tmp_path):
    hub.add("org/good", GOOD)
    place = str(tmp_path / "elsewhere")
    [answer] = fetch(tmp_path, hub.endpoint, "org/good", HF_HUB_CACHE=place)
    assert answer["folder"].startswith(place)


def test_missing_client_names_the_package(monkeypatch):
    from retrieval.encoders.hub import fetch as fetch_here
    from retrieval.errors import EncoderUnavailable

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EncoderUnavailable, match="pip install huggingface_hub"):
        fetch_here("org/good")


def test_only_a_hub_s_folder_has_a_resolved_revision(tmp_path):
    from retrieval.encoders.hub import resolved_revision

    assert resolved_revision(tmp_path) is None
    assert resolved_revision(tmp_path / "snapshots" / "main") is None
    assert resolved_revision(tmp_path / "snapshots" / COMMIT) == COMMIT


BIG = {**GOOD, "model.safetensors": bytes(20_000_000)}


def test_too_small_a_disk_is_told_before_the_download(hub, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = 'mount -t tmpfs -o size=9m none $0 && exec "$@"'
    probe = ["unshare", "-rm", "sh", "-c", mount, str(small)]
    if not shutil.which("unshare") or subprocess.run([*probe, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    hub.add("org/big", BIG)
    done = subprocess.run(
        [*probe, *command(tmp_path, "org/big")],
        env=environment(small, hub.endpoint), capture_output=True, text=True, check=True,
    )  # fmt: skip
    [answer] = json.loads(done.stdout)
    assert "org/big needs 20.0 MB in " in answer["error"]
    assert f"in {small}/hub, where 9.4 MB are free" in answer["error"]
    assert "HF_HOME" in answer["error"]
    assert hub.transfers("model.safetensors") == []


def test_a_file_that_does_not_fit_leaves_nothing(hub, tmp_path):
    hub.add("org/big", BIG)
    limited = ["sh", "-c", 'ulimit -f 10000; exec "$@"', "sh"]  # in blocks of 512 or 1,024 bytes
    done = subprocess.run(
        [*limited, *command(tmp_path, "org/big")],
        env=environment(tmp_path, hub.endpoint), capture_output=True, text=True, check=True,
    )  # fmt: skip
    [answer] = json.loads(done.stdout)
    assert "model.safetensors (20.0 MB) does not fit in " in answer["error"]
    assert "HF_HOME" in answer["error"]
    assert list(tmp_path.rglob("*.incomplete")) == []


@pytest.mark.parametrize("kind", ["a-file", "closed"])
def test_a_cache_that_cannot_be_written(hub, tmp_path, kind):
    hub.add("org/good", GOOD)
    home = tmp_path / "home"
    if kind == "a-file":
        home.write_bytes(b"")
    else:
        home.mkdir(mode=0o500)
        if os.access(home, os.W_OK):
            home = Path("/sys")  # nobody, not even root, makes a folder there
            if not home.is_dir():
                pytest.skip("needs a folder that this user cannot write to")
    [answer] = fetch(home, hub.endpoint, "org/good")
    assert "cannot write org/good to " in answer["error"]
    assert "set HF_HOME to a folder" in answer["error"]
