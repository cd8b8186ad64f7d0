"""Ready ONNX graphs, laid out as hubs have them, against the same checkpoint in torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")
pytest.importorskip("skimage.data")

from retrieval.encoders import TextEncoder, load  # noqa: E402
from retrieval.encoders.build import build, torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.runtimes.plan import parse  # noqa: E402
from retrieval.errors import EncoderError  # noqa: E402
from tests.encoders.checkpoints import FAMILIES, SENTENCES  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402

pytestmark = pytest.mark.slow

FACTS = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
VISUAL = ("dinov2", "vit", "dinov3_vit", "siglip_vision")
ALIGNED = ("clip", "siglip", "siglip2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    root = tmp_path_factory.mktemp("ready")

    def both(name: str) -> tuple[Path, Path]:
        """The checkpoint, and the same with graphs in place of its weights."""
        folder, ready = root / name, root / f"{name}-onnx"
        if not ready.exists():
            FAMILIES[name](folder)
            (ready / "onnx").mkdir(parents=True)
            for file in FACTS:
                if (folder / file).is_file():
                    shutil.copy(folder / file, ready / file)
            write_graphs(folder, ready / "onnx", name in ALIGNED)
        return folder, ready

    return both


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


class Named(torch.nn.Module):
    """A model of transformers that gives only what is asked for, as a tuple."""

    def __init__(self, model, given: str, gives: list[str], project=None) -> None:
        super().__init__()
        self.model, self.given, self.gives = model, given, gives
        self.project = project or torch.nn.Identity()

    def forward(self, tensor: torch.Tensor):
        found = self.model(**{self.given: tensor})
        return tuple(self.project(getattr(found, name)) for name in self.gives)


def write_graphs(folder: Path, out: Path, aligned: bool) -> None:
    """What the scripts of hubs write: the names of transformers, all outputs."""
    whole = tf.AutoModel.from_pretrained(folder).eval()
    config = whole.config
    if not aligned:
        write(whole, "pixel_values", ["last_hidden_state", "pooler_output"], out / "model.onnx")
        return
    vision, text = out / "vision_model.onnx", out / "text_model.onnx"
    if config.model_type == "clip":
        embeds = whole.visual_projection, whole.text_projection
        write(whole.vision_model, "pixel_values", ["image_embeds"], vision, embeds[0])
        write(whole.text_model, "input_ids", ["text_embeds"], text, embeds[1])
    else:
        names = ["last_hidden_state", "pooler_output"]
        write(whole.vision_model, "pixel_values", names, vision)
        write(whole.text_model, "input_ids", names, text)


def write(
    model: torch.nn.Module,
    given: str,
    gives: list[str],
    path: Path,
    project: torch.nn.Module | None = None,
) -> None:
    model = Named(model.eval(), given, ["pooler_output"] if project else gives, project)
    if given == "pixel_values":
        example = torch.randn(2, 3, 32, 32)
        axes = {given: {0: "batch", 2: "height", 3: "width"}}
    else:
        example = torch.randint(3, 20, (2, 64))
        axes = {given: {0: "batch", 1: "sequence"}}
    axes |= {name: {0: "batch"} for name in gives}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=[given],
            output_names=gives,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


@pytest.mark.parametrize("name", [*VISUAL, *ALIGNED])
def test_ready_graphs_give_what_the_weights_give(name, folders):
    folder, ready = folders(name)
    reference = torch_encoder(open_folder(folder), device="cpu")
    encoder = load(str(ready))
    assert encoder.runtime == "onnxruntime-cpu-fp32"
    assert encoder.spec.dim == reference.spec.dim
    assert encoder.spec.pooling == reference.spec.pooling
    assert encoder.spec.preprocess == reference.spec.preprocess
    expected = reference.encode_images(varied())
    np.testing.assert_allclose(encoder.encode_images(varied()), expected, atol=1e-5)
    if name in ALIGNED:
        assert isinstance(encoder, TextEncoder)
        assert isinstance(reference, TextEncoder)
        texts = [*SENTENCES, "zebra", "two red cars " * 40]
        expected = reference.encode_texts(texts)
        np.testing.assert_allclose(encoder.encode_texts(texts), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "dinov3_vit"])
def test_visual_graphs_give_patches_and_other_poolings(name, folders):
    folder, ready = folders(name)
    reference = torch_encoder(open_folder(folder, "cls+mean"), device="cpu")
    encoder = load(f"{ready}:cls+mean")
    expected = reference.encode_images(varied())
    np.testing.assert_allclose(encoder.encode_images(varied()), expected, atol=1e-5)
    expected = reference.encode_patches(varied()).tokens
    np.testing.assert_allclose(encoder.encode_patches(varied()).tokens, expected, atol=1e-4)


def test_aligned_graphs_give_no_patches(folders):
    """They lie in another space than the embeddings there."""
    encoder = load(str(folders("clip")[1]))
    assert encoder.spec.patch_px is None
    with pytest.raises(EncoderError, match="no patch tokens"):
        encoder.encode_patches(varied())


@pytest.mark.parametrize("plan", ["int8", "openvino-fp32"])
def test_ready_graphs_run_in_other_ways_too(plan, folders):
    if plan.startswith("openvino"):
        pytest.importorskip("openvino")
    found = open_folder(folders("dinov2")[1])
    expected = build(found).encode_images(varied())
    rows = build(found, parse(plan)).encode_images(varied())
    assert (rows * expected).sum(axis=1).min() > (0.995 if plan == "int8" else 0.999999)
    with pytest.raises(EncoderError, match="torch does not run"):
        build(found, parse("bf16"))


def test_weights_come_first_unless_torch_is_missing(folders, tmp_path, monkeypatch):
    folder, ready = folders("dinov2")
    shutil.copytree(folder, tmp_path / "both")
    shutil.copytree(ready / "onnx", tmp_path / "both" / "onnx")
    assert open_folder(tmp_path / "both").spec.library == "transformers"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert open_folder(tmp_path / "both").spec.library == "onnx"


def test_neither_torch_nor_transformers_is_needed(folders):
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from PIL import Image\n"
        "from retrieval.encoders import load\n"
        "encoder = load(sys.argv[1])\n"
        "print(encoder.encode_images([Image.new('RGB', (50, 40), 'red')]).shape)\n"
        "print(encoder.encode_texts(['a dog', 'two red cars']).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders("clip")[1])],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.split("\n")[:2] == ["(1, 40)", "(2, 40)"]


def changed(ready: Path, to: Path, **facts: object) -> Path:
    shutil.copytree(ready, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **facts}))
    return to


def test_what_cannot_be_read_is_named(folders, tmp_path):
    visual, aligned = folders("dinov2")[1], folders("clip")[1]
    other = changed(visual, tmp_path / "other", model_type="wav2vec2")
    with pytest.raises(EncoderError, match="'wav2vec2'"):
        load(str(other))
    wide = load(str(changed(visual, tmp_path / "wide", hidden_size=96)))
    with pytest.raises(EncoderError, match=r"rows of \(48,\), not of 96"):
        wide.encode_images(varied()[:1])
    half = changed(aligned, tmp_path / "half")
    (half / "onnx" / "text_model.onnx").unlink()
    with pytest.raises(EncoderError, match="text side"):
        load(str(half))
    joint = changed(aligned, tmp_path / "joint")
    (joint / "onnx" / "text_model.onnx").rename(joint / "onnx" / "vision_model.onnx")
    shutil.copy(aligned / "onnx" / "text_model.onnx", joint / "onnx" / "text_model.onnx")
    with pytest.raises(EncoderError, match="not image_embeds or pooler_output"):
        load(str(joint))
