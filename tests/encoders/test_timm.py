"""Checkpoints of timm against timm's own transform and network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import load_file, save_file  # noqa: E402

from retrieval.encoders.build import torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.export import export  # noqa: E402
from retrieval.encoders.network import NetworkEncoder  # noqa: E402
from retrieval.errors import EncoderError, EncoderUnavailable  # noqa: E402
from tests.encoders.parity import check_equal, unit  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402
from tests.encoders.timm_checkpoints import ARCHITECTURES, write  # noqa: E402

pytestmark = pytest.mark.slow

WITH_PATCHES = [name for name in ARCHITECTURES if name != "two_scales"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("timm")
    return {name: write(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


def load(folder: Path, pooling: str | None = None) -> NetworkEncoder:
    return torch_encoder(open_folder(folder, pooling), device="cpu")


def reference(folder: Path):
    """timm's own network without classifier, and its inputs for the varied photos."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    return model, torch.stack([transform(photo) for photo in varied()])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_equal_timms_transform_and_network(name, folders):
    model, pixels = reference(folders[name])
    with torch.inference_mode():
        expected = model(pixels)
    encoder = load(folders[name])
    assert encoder.spec.dim == expected.shape[1]
    assert encoder.spec.library == "timm"
    check_equal(f"{name}_images", encoder.encode_images(varied()), unit(expected))


@pytest.mark.parametrize("name", WITH_PATCHES)
def test_patches_equal_timms_last_layer(name, folders):
    model, pixels = reference(folders[name])
    with torch.inference_mode():
        features = model.forward_features(pixels)
    if features.ndim == 3:
        features = features[:, model.num_prefix_tokens :]
    elif name != "swin":
        features = features.permute(0, 2, 3, 1)
    encoder = load(folders[name])
    found = encoder.encode_patches(varied())
    rows, columns = found.grids[0]
    assert encoder.spec.patch_px is not None
    assert rows * encoder.spec.patch_px == encoder.spec.preprocess.size
    flat = features.reshape(len(varied()), rows * columns, -1)
    assert found.tokens.shape == tuple(flat.shape)
    width = flat.shape[-1]
    ours = unit(torch.from_numpy(found.tokens.reshape(-1, width)))
    check_equal(f"{name}_patches", ours, unit(flat.reshape(-1, width)))


@pytest.mark.parametrize("name", ["dinov2_registers", "convnext", "swin"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean", "gem"])
def test_another_pooling_works_on_the_tokens(name, pooling, folders):
    if "cls" in pooling and name != "dinov2_registers":
        with pytest.raises(EncoderError, match="no CLS token; leave out :cls"):
            load(folders[name], pooling)
        return
    encoder = load(folders[name], pooling)
    tokens = load(folders[name]).encode_patches(varied()).tokens
    expected = {
        "mean": tokens.mean(axis=1),
        "gem": np.clip(tokens, 1e-6, None).__pow__(3).mean(axis=1) ** (1 / 3),
    }
    if "cls" in pooling:
        model, pixels = reference(folders[name])
        with torch.inference_mode():
            expected["cls"] = model.forward_features(pixels)[:, 0].numpy()
        expected["cls+mean"] = np.concatenate([expected["cls"], expected["mean"]], axis=1)
    assert encoder.spec.pooling == pooling
    assert encoder.spec.dim == expected[pooling].shape[1]
    ours = encoder.encode_images(varied())
    np.testing.assert_allclose(ours, unit(torch.from_numpy(expected[pooling])), atol=1e-5)


def test_a_network_of_several_scales_has_its_own_pooling_only(folders):
    assert load(folders["two_scales"]).spec.patch_px is None
    with pytest.raises(EncoderError, match="gives no patches; leave out :mean"):
        load(folders["two_scales"], "mean")


def test_parts_fused_for_inference_change_nothing(folders):
    """FastViT's branches become one convolution each: fewer weights, equal numbers."""
    model, pixels = reference(folders["fastvit"])
    fused = open_folder(folders["fastvit"]).towers().image
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.inference_mode():
        expected, found = model(pixels), fused(pixels)
    relative = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max()
    assert relative <= 1e-5


@pytest.mark.parametrize("name", ["vit", "dinov3", "siglip", "convnext", "fastvit", "swin"])
def test_networks_can_be_exported(name, folders, tmp_path):
    report = export(open_folder(folders[name]), tmp_path / "onnx")
    assert [each.tower for each in report.parity] == ["image", "patches"]
    assert min(each.min_cosine for each in report.parity) >= 0.99999


def test_facts_come_from_the_folder(folders):
    spec = load(folders["eva02"]).spec
    assert (spec.family, spec.pooling, spec.licence) == ("EVA-02", "mean", "mit")
    assert load(folders["siglip"]).spec.pooling == "attention"
    assert load(folders["convnext"]).spec.family == "ConvNeXt"


def test_a_folder_without_classifier_is_read_too(tmp_path):
    folder = write(tmp_path / "vit", "vit", num_classes=0)
    model, pixels = reference(folder)
    with torch.inference_mode():
        expected = unit(model(pixels))
    np.testing.assert_allclose(load(folder).encode_images(varied()), expected, atol=1e-5)


def test_config_of_older_timm_without_a_part_of_its_own_is_read(folders, tmp_path):
    folder = copy(folders["vit"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"]["depth"] == 2
    flat = {"architecture": config["architecture"], **config["pretrained_cfg"]}
    (folder / "config.json").write_text(json.dumps(flat))
    # Without model_args it is the whole network, which has more layers than the file.
    with pytest.raises(EncoderError, match=r"another network|lacks weights"):
        load(folder)
    assert open_folder(folder).spec.dim == 192


def copy(folder: Path, tmp_path: Path) -> Path:
    new = tmp_path / "copy"
    new.mkdir()
    for file in folder.iterdir():
        (new / file.name).write_bytes(file.read_bytes())
    return new


def configured(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= changes.pop("pretrained_cfg", {})
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained_cfg": {"input_size": [3, 64, 32]}}, "only RGB squares"),
        ({"pretrained_cfg": {"input_size": [1, 64, 64]}}, "only RGB squares"),
        ({"architecture": "vit_of_tomorrow"}, "cannot build .*vit_of_tomorrow.* newer timm"),
        ({"model_args": {"checkpoint_path": "weights.pth"}}, "cannot build .*checkpoint_path"),
        ({"model_args": {"features_only": True}}, "cannot build"),
        ({"model_args": {"depth": 2, "embed_dim": 96, "img_size": 64}}, "another network"),
    ],
)
def test_config_that_cannot_be_followed_is_refused(changes, message, folders, tmp_path):
    folder = configured(copy(folders["vit"], tmp_path), **changes)
    with pytest.raises(EncoderError, match=message):
        load(folder)


def test_damaged_weights_are_refused(folders, tmp_path):
    folder = copy(folders["vit"], tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)


def test_weights_of_another_network_are_refused(folders, tmp_path):
    folder = copy(folders["vit"], tmp_path)
    weights = (folders["resnet"] / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(EncoderError, match=r"another network|lacks weights"):
        load(folder)


@pytest.mark.parametrize(("change", "message"), [("norm.weight", "lacks"), (None, "has unknown")])
def test_weights_must_fit_exactly(change, message, folders, tmp_path):
    folder = copy(folders["vit"], tmp_path)
    state = load_file(folder / "model.safetensors")
    if change is None:
        change, state["reg_token"] = "reg_token", torch.zeros(1, 4, 48)
    else:
        del state[change]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=f"{message}.*{change}"):
        load(folder)


def test_pickled_weights_are_not_loaded(folders, tmp_path):
    folder = copy(folders["vit"], tmp_path)
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="only safetensors are loaded"):
        load(folder)


def test_missing_timm_names_the_package(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EncoderUnavailable, match="pip install timm"):
        load(folders["vit"])


def test_facts_once_read_need_neither_torch_nor_timm(folders, tmp_path, monkeypatch):
    """So that an encoder exported to ONNX starts without them."""
    spec = open_folder(folders["swin"]).spec
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = open_folder(folders["swin"])
    assert found.spec == spec
    with pytest.raises(EncoderUnavailable, match="pip install torch timm"):
        found.towers()
    [note] = (tmp_path / "cache" / "layouts").iterdir()
    note.write_text("{")
    with pytest.raises(EncoderUnavailable, match="pip install torch timm"):
        open_folder(folders["swin"])


def test_no_pictures_give_no_rows(folders):
    encoder = load(folders["convnext"])
    assert encoder.encode_images([]).shape == (0, 48)
    assert encoder.encode_images([Image.new("RGB", (9, 200), "red")]).shape == (1, 48)
