"""Checkpoints of open_clip against open_clip's own transform, tokenizer and model."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from retrieval.encoders import TextEncoder  # noqa: E402
from retrieval.encoders.build import torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.checkpoints.portable import open_portable  # noqa: E402
from retrieval.encoders.checkpoints.text_models import TEXT_MODELS  # noqa: E402
from retrieval.encoders.export import export  # noqa: E402
from retrieval.encoders.network import NetworkTextEncoder  # noqa: E402
from retrieval.errors import EncoderError, EncoderUnavailable  # noqa: E402
from tests.encoders import open_clip_vocabularies as vocabularies  # noqa: E402
from tests.encoders.open_clip_checkpoints import MODELS, write  # noqa: E402
from tests.encoders.parity import check_equal, unit  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402

pytestmark = pytest.mark.slow

TEXTS = (
    *vocabularies.LINES,
    "A Photo of a SMALL dog, on a beach!",
    "DON'T  stop:\tit's_2 red-cars &amp; 1 house\n",
    "naïve café — 日本 🐕 Ã© “quoted” ﬁn",
    "zebra",
    "",
    "a very long text about a small dog and a red car " * 30,
)
WITH_PATCHES = [name for name in MODELS if name not in ("resnet", "attention_2d")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("open_clip")
    return {name: write(root / name, name) for name in MODELS}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*_):
        raise AssertionError("asked for a name on the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)


def load(folder: Path) -> NetworkTextEncoder:
    encoder = torch_encoder(open_folder(folder), device="cpu")
    assert isinstance(encoder, NetworkTextEncoder)
    return encoder


def reference(folder: Path, tmp_path: Path):
    """open_clip's own model, transform and tokenizer."""
    source = folder
    config = json.loads((folder / "open_clip_config.json").read_text())
    if "hf_model_name" in config["model_cfg"]["text_cfg"]:
        # open_clip asks the hub for this name; a path is the one other thing that it takes.
        source = shutil.copytree(folder, tmp_path / "reference")
        config["model_cfg"]["text_cfg"]["hf_model_name"] = str(source)
        (source / "open_clip_config.json").write_text(json.dumps(config))
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{source}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{source}")


@pytest.mark.parametrize("name", MODELS)
def test_images_equal_open_clips_transform_and_model(name, folders, tmp_path):
    model, transform, _ = reference(folders[name], tmp_path)
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([transform(photo) for photo in varied()]))
    encoder = load(folders[name])
    assert encoder.spec.dim == expected.shape[1]
    assert encoder.spec.library == "open_clip"
    check_equal(f"{name}_images", encoder.encode_images(varied()), unit(expected))


@pytest.mark.parametrize("name", MODELS)
def test_texts_equal_open_clips_tokenizer_and_model(name, folders, tmp_path):
    model, _, tokenize = reference(folders[name], tmp_path)
    encoder = load(folders[name])
    with torch.inference_mode():
        expected = model.encode_text(tokenize(list(TEXTS)))
    assert isinstance(encoder, TextEncoder)
    check_equal(f"{name}_texts", encoder.encode_texts(TEXTS), unit(expected))


@pytest.mark.parametrize("name", ["vit", "siglip", "xlm_roberta", "nllb", "coca", "vit_norm_last"])
def test_token_ids_equal_open_clips(name, folders, tmp_path):
    expected = reference(folders[name], tmp_path)[2](list(TEXTS)).numpy()
    tokenizer = open_folder(folders[name]).tokenizer()
    found = tokenizer.padded(tokenizer.rows(TEXTS))["ids"]
    length = found.shape[1]
    np.testing.assert_array_equal(found, expected[:, :length])
    # What was left out is padding.
    assert len(np.unique(expected[:, length:])) <= 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bert", {"strip_sep_token": True}),
        ("bert", {"clean": "lower"}),
        ("gemma", {"clean": "canonicalize"}),
        (None, {"clean": "whitespace"}),
        (None, {"clean": "canonicalize"}),
    ],
)
def test_token_ids_of_other_tokenizers_equal_open_clips(kind, options, tmp_path):
    folder = write(tmp_path / "vit", "vit")
    config = json.loads((folder / "open_clip_config.json").read_text())
    text = {"tokenizer_kwargs": options, "context_length": 24}
    config["model_cfg"]["text_cfg"] |= text
    if kind is not None:
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = f"somebody/{kind}"
        vocabularies.write(folder, kind)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    expected = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS)).numpy()
    tokenizer = open_folder(folder).tokenizer()
    found = tokenizer.padded(tokenizer.rows(TEXTS))["ids"]
    np.testing.assert_array_equal(found, expected[:, : found.shape[1]])


def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def configured(folder: Path, **parts: dict[str, object]) -> Path:
    """Change fields of ``model_cfg`` and its parts."""
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for part, changes in parts.items():
        if part == "model_cfg":
            config["model_cfg"] |= changes
        else:
            config["model_cfg"][part] |= changes
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", WITH_PATCHES)
def test_places_lie_in_the_space_of_embeddings(name, folders, tmp_path):
    """Each place is what the model's own head gives for a picture that has this place only."""
    model, transform, _ = reference(folders[name], tmp_path)
    photos = varied()[:6]
    visual = model.visual
    with torch.inference_mode():
        pixels = torch.stack([transform(photo) for photo in photos])
        if hasattr(visual, "trunk"):
            features = visual.trunk.forward_features(pixels)
            if features.ndim == 4:
                features = features.permute(0, 2, 3, 1)
                alone = features.reshape(-1, 1, 1, features.shape[-1]).permute(0, 3, 1, 2)
            else:
                features = features[:, visual.trunk.num_prefix_tokens :]
                alone = features.reshape(-1, 1, features.shape[-1])
            expected = visual.head(visual.trunk.forward_head(alone))
        else:
            tokens = visual.transformer(visual._embeds(pixels))[:, 1:]
            alone = tokens.reshape(-1, 1, tokens.shape[-1])
            if visual.attn_pool is not None:
                alone = visual.attn_pool(alone)
            expected = visual.ln_post(alone)[:, 0] @ visual.proj
    encoder = load(folders[name])
    found = encoder.encode_patches(photos)
    rows, columns = found.grids[0]
    assert rows * encoder.spec.patch_px == columns * encoder.spec.patch_px
    assert rows * encoder.spec.patch_px == encoder.spec.preprocess.size
    assert found.tokens.shape == (6, rows * columns, encoder.spec.dim)
    ours = unit(torch.from_numpy(found.tokens.reshape(-1, encoder.spec.dim)))
    check_equal(f"{name}_patches", ours, unit(expected))


@pytest.mark.parametrize("name", ["resnet", "attention_2d"])
def test_sides_whose_places_cannot_be_told_apart_give_none(name, folders):
    encoder = load(folders[name])
    assert encoder.spec.patch_px is None
    with pytest.raises(EncoderError, match="no patch tokens"):
        encoder.encode_patches(varied()[:1])


def test_branches_fused_for_inference_change_nothing(folders, tmp_path):
    model, transform, _ = reference(folders["mobileclip"], tmp_path)
    pixels = torch.stack([transform(photo) for photo in varied()])
    fused = open_folder(folders["mobileclip"]).towers().image
    before = sum(p.numel() for p in model.visual.parameters())
    assert sum(p.numel() for p in fused.parameters()) < before
    with torch.inference_mode():
        expected, found = model.encode_image(pixels), fused(pixels)
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() <= 1e-5


@pytest.mark.parametrize(
    "name", ["vit_quick_gelu", "mobileclip", "siglip", "coca", "xlm_roberta", "resnet"]
)
def test_sides_can_be_exported(name, folders, tmp_path):
    report = export(open_folder(folders[name]), tmp_path / "onnx")
    with_patches = ["image", "patches", "text"] if name in WITH_PATCHES else ["image", "text"]
    assert [each.tower for each in report.parity] == with_patches
    assert min(each.min_cosine for each in report.parity) >= 0.99999
    # Texts of all lengths, one by one too.
    exported, texts = open_portable(report.folder), load(folders[name]).encode_texts(TEXTS)
    np.testing.assert_allclose(exported.encode_texts(TEXTS), texts, atol=1e-5)
    np.testing.assert_allclose(exported.encode_texts(TEXTS[3:4]), texts[3:4], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_sides_share_no_weights(name, folders):
    """The image side may then run in another precision."""
    towers = open_folder(folders[name]).towers()
    assert towers.text is not None
    images = {id(weight) for weight in towers.image.parameters()}
    assert not images & {id(weight) for weight in towers.text.parameters()}
    towers.image.to(torch.bfloat16)
    assert {weight.dtype for weight in towers.text.parameters()} == {torch.float32}


def test_short_texts_are_not_padded_to_the_context(folders):
    """A causal text side does not look behind the end: four tokens instead of 77."""
    for name, length in {"vit": 4, "xlm_roberta": 8, "mobileclip": 77, "siglip": 64}.items():
        tokenizer = open_folder(folders[name]).tokenizer()
        ids = tokenizer.padded(tokenizer.rows(["a dog"]))["ids"]
        assert ids.shape[1] <= length if length < 10 else ids.shape[1] == length


def test_spec_has_the_facts_of_the_folder(folders):
    spec = load(folders["siglip"]).spec
    model = open_clip.create_model(f"local-dir:{folders['siglip']}")
    assert spec.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert spec.logit_bias == pytest.approx(model.logit_bias.item())
    assert (spec.family, spec.pooling, spec.prompt) == (
        "SigLIP",
        "attention",
        "this is a photo of {}",
    )
    assert load(folders["vit"]).spec.logit_bias is None
    assert load(folders["mobileclip"]).spec.family == "MobileCLIP"
    assert load(folders["coca"]).spec.family == "CoCa"


def test_lists_of_none_give_no_rows(folders):
    encoder = load(folders["vit"])
    assert encoder.encode_images([]).shape == (0, 40)
    assert encoder.encode_texts([]).shape == (0, 40)


def test_text_that_has_no_utf8_form_is_encoded(folders):
    """As a file name may carry; open_clip's own tokenizer fails on it."""
    assert load(folders["vit"]).encode_texts(["a dog\udce9"]).shape == (1, 40)


def test_words_and_pictures_keep_their_own_pooling(folders):
    with pytest.raises(EncoderError, match=r"its own pooling .*leave out :cls"):
        open_folder(folders["vit"], "cls")


def test_published_text_models_need_no_configuration_in_the_folder(tmp_path, monkeypatch, folders):
    folder = copied(folders["xlm_roberta"], tmp_path)
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"copy config.json of some/text into it"):
        load(folder)
    monkeypatch.setitem(TEXT_MODELS, "some/text", facts)
    expected = load(folders["xlm_roberta"]).encode_texts(TEXTS)
    np.testing.assert_array_equal(load(folder).encode_texts(TEXTS), expected)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_published_text_models_are_built_as_described(name):
    """On no memory: only that transformers and open_clip understand the description."""
    from open_clip.hf_configs import arch_dict
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**TEXT_MODELS[name])
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert config.model_type in arch_dict
    encoder = model.encoder
    assert len(getattr(encoder, "layer", None) or encoder.layers) in (12, 24)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"vision_cfg": {"image_size": [64, 32]}}, "only squares"),
        ({"vision_cfg": {"wings": 2}}, "cannot build .*wings"),
        ({"vision_cfg": {"width": 96}}, "another network"),
        ({"model_cfg": {"text_cfg": None}}, "no model_cfg with embed_dim"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:a/b"}}, "got from elsewhere"),
        ({"vision_cfg": {"timm_model_name": "vit_of_tomorrow"}}, "newer timm"),
        ({"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}, "trust_remote_code"),
        ({"text_cfg": {"tokenizer_kwargs": {"reduction_mask": "random"}}}, "reduction_mask"),
        ({"text_cfg": {"hf_tokenizer_name": "a/b"}}, "no tokenizer.json"),
    ],
)
def test_config_that_cannot_be_followed_is_refused(parts, message, folders, tmp_path):
    folder = configured(copied(folders["vit"], tmp_path), **parts)
    with pytest.raises(EncoderError, match=message):
        load(folder)


def test_code_of_a_text_model_is_not_run(folders, tmp_path):
    folder = copied(folders["xlm_roberta"], tmp_path)
    facts = json.loads((folder / "config.json").read_text())
    facts["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(EncoderError, match="never run"):
        load(folder)


def test_damaged_weights_are_refused(folders, tmp_path):
    folder = copied(folders["vit"], tmp_path)
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)


def test_weights_that_lack_layers_are_refused_not_made_up(folders, tmp_path):
    folder = copied(folders["siglip"], tmp_path)
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    del state["text.ln_final.weight"]
    save_file(state, weights)
    with pytest.raises(EncoderError, match=r"text\.ln_final\.weight"):
        load(folder)


def test_pickled_weights_are_not_loaded(folders, tmp_path):
    folder = copied(folders["vit"], tmp_path)
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(EncoderError, match="only safetensors are loaded"):
        load(folder)


def test_missing_open_clip_names_the_package(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(EncoderUnavailable, match="pip install open_clip_torch"):
        load(folders["vit"])


def test_tokenizer_needs_no_import_of_open_clip(folders):
    """So that an encoder exported to ONNX starts without torch."""
    code = (
        "import sys; from pathlib import Path; from retrieval.encoders.checkpoints import *;"
        "tokenizer = open_folder(Path(sys.argv[1])).tokenizer(); print(tokenizer.rows(['a dog']));"
        "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folders["vit"]], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[[49406, 320, 1929, 49407]]\n", done.stderr


def test_missing_ftfy_matters_only_where_it_is_needed(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    tokenizer = open_folder(folders["vit"]).tokenizer()
    assert len(tokenizer.rows(["a small dog"])[0]) == 5
    with pytest.raises(EncoderUnavailable, match="pip install ftfy"):
        tokenizer.rows(["café"])
