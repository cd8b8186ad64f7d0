"""The catalogue: every row complete, and in agreement with what the libraries say themselves."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.encoders import EncoderSpec, specs
from retrieval.encoders.catalogue import FILE, read
from retrieval.encoders.checkpoints import families, open_folder
from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.names import parse
from retrieval.errors import EncoderError
from tests.encoders.test_preprocess_config import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "onnxruntime", "onnx", "tokenizers", "huggingface_hub"}
HUB = {name: spec for name, spec in specs().items() if "/" in spec.source}
LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}
# open_clip's name of the network, and its tag of the weights.
OPEN_CLIP = {
    "clip-vit-b-16": ("ViT-B-16", "openai"),
    "clip-vit-l-14-336": ("ViT-L-14-336", "openai"),
    "datacomp-b-32": ("ViT-B-32-256", "datacomp_s34b_b86k"),
    "mobileclip-s1": ("MobileCLIP-S1", "datacompdr"),
    "mobileclip-s2": ("MobileCLIP-S2", "datacompdr"),
    "mobileclip-b": ("MobileCLIP-B", "datacompdr"),
    "mobileclip2-s0": ("MobileCLIP2-S0", "dfndr2b"),
    "mobileclip2-s2": ("MobileCLIP2-S2", "dfndr2b"),
    "mobileclip2-b": ("MobileCLIP2-B", "dfndr2b"),
    "pe-core-b-16": ("PE-Core-B-16", "meta"),
    "pe-core-l-14-336": ("PE-Core-L-14-336", "meta"),
}
# Read by transformers, but open_clip lists them too.
OPEN_CLIP_TOO = {
    "laion-b-32": ("ViT-B-32", "laion2b_s34b_b79k"),
    "laion-l-14": ("ViT-L-14", "laion2b_s32b_b82k"),
    "laion-h-14": ("ViT-H-14", "laion2b_s32b_b79k"),
}
ROW = """
[preprocess]
own = { size = 4, resize = "squash", resize_to = 4, interpolation = "box", mean = [0, 0, 0], std = [1, 1, 1] }
[[family]]
family = "Own"
modalities = ["image"]
preprocess = "own"
pooling = "cls"
licence = "MIT"
[[family.encoder]]
name = "mine"
dim = 8
source = "me/mine"
revision = "main"
size_mb = 1
summary = "none better"
"""  # noqa: E501


def test_reading_the_catalogue_is_light():
    code = "import sys, retrieval.encoders as e; e.specs(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_those_without_a_download_come_first_and_every_family_is_there():
    names = list(specs())
    assert names[:2] == ["pocket-visual", "pocket-text"]
    found = {spec.family for spec in HUB.values()}
    assert found >= {
        "DINOv2", "DINOv3", "MAE", "I-JEPA", "EVA-02", "ViT", "AIMv2", "CLIP", "MobileCLIP",
        "SigLIP", "SigLIP 2", "MetaCLIP 2",
    }  # fmt: skip
    assert len({spec.source for spec in HUB.values()}) == len(HUB)


@pytest.mark.parametrize("spec", specs().values(), ids=specs())
def test_row_is_complete(spec: EncoderSpec):
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", spec.name)
    assert parse(spec.name).kind == "name"
    assert spec.dim > 0 and spec.size_mb > 0
    assert spec.licence and spec.summary and spec.family
    assert spec.prompt.count("{}") == 1
    assert not spec.summary.endswith(".") and not spec.terms.endswith(".")
    assert spec.preprocess is not None


@pytest.mark.parametrize("spec", HUB.values(), ids=HUB)
def test_hub_row_says_where_it_comes_from_and_what_it_reads(spec: EncoderSpec):
    assert parse(spec.source).kind == "hub"
    assert re.fullmatch(r"[0-9a-f]{40}|refs/pr/\d+|main", spec.revision)
    assert spec.library in ("transformers", "timm", "open_clip")
    assert spec.gflops is not None and spec.gflops > 0
    if "text" in spec.modalities:
        assert re.fullmatch(r"\w+, \d+ tokens, .*(English|Chinese|languages)", spec.tokenizer)
    else:
        assert (spec.tokenizer, spec.prompt, spec.logit_scale) == ("", "{}", None)
    assert spec.patch_px is None or spec.patch_px < spec.preprocess.size
    if isinstance(spec.preprocess, NaFlex):
        assert spec.patch_px == spec.preprocess.patch_px


def test_revisions_that_are_pinned_belong_to_one_encoder():
    pinned = [spec.revision for spec in HUB.values() if len(spec.revision) == 40]
    assert len(set(pinned)) == len(pinned) > len(HUB) / 2


def test_what_may_not_be_used_freely_says_so():
    free = {"Apache-2.0", "MIT"}
    for spec in HUB.values():
        assert spec.licence in free or spec.terms, spec.name
        assert spec.gated == (spec.family == "DINOv3")


@pytest.mark.parametrize(
    "spec", [s for s in HUB.values() if s.library == "transformers"], ids=lambda s: s.name
)
def test_row_agrees_with_the_family_that_opens_it(spec: EncoderSpec):
    def says(family: families.Family) -> bool:
        pattern = re.escape(family.reads).replace(re.escape("{}"), r"(\d+)")
        reads = re.fullmatch(pattern, spec.tokenizer)
        few = reads and (family.text is None or int(reads[1]) <= family.text.context)
        return bool(few) and (family.pooling, family.prompt) == (spec.pooling, spec.prompt)

    rows = [
        *families.FAMILIES.values(), families.SIGLIP2, families.SIGLIP_MULTILINGUAL,
    ]  # fmt: skip
    same = [row for row in rows if (row.label, row.modalities) == (spec.family, spec.modalities)]
    assert any(map(says, same))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("dinov2-small", "dinov2"),
        ("dinov3-small", "dinov3"),
        ("clip-vit-b-32", "clip"),
        ("siglip-base", "siglip"),
        ("siglip2-base-naflex", "naflex"),
    ],
)
def test_preprocessing_is_that_of_published_checkpoints(name, published):
    assert specs()[name].preprocess == PUBLISHED[published][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, spec in HUB.items() if spec.library == "timm"])
def test_row_is_what_timm_s_checkpoint_is_opened_as(name, tmp_path):
    timm = pytest.importorskip("timm")
    spec = specs()[name]
    published = timm.get_pretrained_cfg(spec.source.removeprefix("timm/"))
    network = timm.create_model(published.architecture, num_classes=0)
    config = {
        "architecture": published.architecture,
        "num_classes": 0,
        "num_features": network.num_features,
        "global_pool": network.global_pool,
        "pretrained_cfg": {k: v for k, v in published.to_dict().items() if v is not None},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert facts_of(tmp_path, "model.safetensors") == facts(spec)
    assert published.hf_hub_id == spec.source
    assert LICENCES[published.license] == spec.licence


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN_CLIP)
def test_row_is_what_open_clip_s_checkpoint_is_opened_as(name, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    network, tag = OPEN_CLIP[name]
    published = open_clip.pretrained.get_pretrained_cfg(network, tag)
    parts = ("mean", "std", "interpolation", "resize_mode")
    config = {
        "model_cfg": open_clip.get_model_config(network),
        "preprocess_cfg": {part: published[part] for part in parts},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert facts_of(tmp_path, "open_clip_model.safetensors") == facts(specs()[name])
    assert published["hf_hub"].rstrip("/") == specs()[name].source


def facts_of(folder: Path, weights: str) -> dict:
    """What a folder is opened as; its weights are not looked at for that."""
    (folder / weights).write_bytes((2).to_bytes(8, "little") + b"{}")
    return facts(open_folder(folder).spec)


def facts(spec: EncoderSpec) -> dict:
    same = (
        "family", "dim", "modalities", "preprocess", "pooling", "patch_px", "tokenizer", "prompt",
        "library",
    )  # fmt: skip
    return {name: getattr(spec, name) for name in same}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN_CLIP_TOO)
def test_row_of_transformers_agrees_with_open_clip_s_table(name):
    open_clip = pytest.importorskip("open_clip")
    spec, (network, tag) = specs()[name], OPEN_CLIP_TOO[name]
    published = open_clip.pretrained.get_pretrained_cfg(network, tag)
    config = open_clip.get_model_config(network)
    assert published["hf_hub"].rstrip("/") == spec.source
    assert (config["embed_dim"], config["vision_cfg"]["patch_size"]) == (spec.dim, spec.patch_px)
    assert tuple(published["mean"]) == spec.preprocess.mean
    assert tuple(published["std"]) == spec.preprocess.std
    assert published["resize_mode"] == spec.preprocess.resize


def test_every_row_of_open_clip_is_compared_with_its_table():
    assert {name for name, spec in HUB.items() if spec.library == "open_clip"} == set(OPEN_CLIP)


@pytest.mark.slow
def test_work_and_size_are_those_of_the_architecture():
    for package in ("torch", "transformers", "timm", "open_clip"):
        pytest.importorskip(package)
    path = ROOT / "benchmarks" / "encoder_flops.py"
    found = importlib.util.spec_from_file_location("encoder_flops", path)
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert set(script.MAKE) == set(HUB)
    for name in ("dinov2-small", "dinov3-convnext-tiny", "clip-vit-b-16", "siglip2-base"):
        spec = specs()[name]
        gflops, size_mb, dim = script.count(name)
        assert (round(gflops, 1), dim) == (spec.gflops, spec.dim)
        assert size_mb - 1 < spec.size_mb < size_mb + 70  # and the tokenizer


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("dim = 8", "dim = "), "no TOML"),
        (("dim = 8", ""), "mine: .*lacks dim"),
        (("dim = 8", "dim = '8'"), "mine: .*dim"),
        (("dim = 8", "dim = 8\nsize = 4"), "mine: .*size"),
        (('preprocess = "own"', 'preprocess = "other"'), "mine: .*'other'"),
        (('preprocess = "own"', ""), "mine: .*None"),
        (('resize = "squash"', 'resize = "bend"'), "mine: .*bend"),
        (('["image"]', '["sound"]'), "mine: .*modalities"),
        (('name = "mine"', ""), "without a name"),
        (("summary", "[[family.encoder]]\nname = 'mine'\nsummary"), "mine"),
    ],
)
def test_faulty_catalogue_names_the_encoder_and_the_fault(change, says):
    assert ROW.count(change[0]) >= 1
    with pytest.raises(EncoderError, match=says):
        read(ROW.replace(*change, 1))


def test_encoders_share_what_their_family_says_and_may_override_it():
    (mine,) = read(ROW)
    assert (mine.pooling, mine.licence, mine.preprocess.mean) == ("cls", "MIT", (0.0, 0.0, 0.0))
    other = ROW + ROW[ROW.index("[[family.encoder]]") :].replace("mine", "yours")
    yours = read(other + 'licence = "BSD"\npooling = "mean"\n')[1]
    assert (yours.pooling, yours.licence, yours.family) == ("mean", "BSD", "Own")
    with pytest.raises(EncoderError, match="mine twice"):
        read(ROW + ROW[ROW.index("[[family.encoder]]") :])


def test_the_file_is_beside_the_code_that_reads_it():
    assert read(FILE.read_text("utf-8")) == tuple(HUB.values())
