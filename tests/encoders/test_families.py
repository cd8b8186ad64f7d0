"""The table of families against transformers' own configurations, and networks without a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from retrieval.encoders.base import EncoderSpec  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.checkpoints.families import FAMILIES as ROWS  # noqa: E402
from retrieval.errors import EncoderError  # noqa: E402
from tests.encoders.checkpoints import BACKBONES, FAMILIES  # noqa: E402
from tests.encoders.checkpoints.saving import cut, processor, save, square  # noqa: E402

pytestmark = pytest.mark.slow


def empty(folder: Path, kind: str) -> Path:
    """A checkpoint that says no more than its type, as if all were as its class assumes."""
    folder.mkdir()
    nested = {} if ROWS[kind].text is None else {"vision_config": {}, "text_config": {}}
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **nested}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    if kind.startswith("siglip2"):
        processor("Siglip2").save_pretrained(folder)
    else:
        square(side=224).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ROWS)
def test_defaults_are_those_of_the_configuration_class(kind, tmp_path):
    spec = open_folder(empty(tmp_path / kind, kind)).spec
    if kind == "metaclip_2_vision_model":  # no Auto class knows it
        config = tf.MetaClip2VisionConfig()
    else:
        config = tf.AutoConfig.for_model(kind)
    vision = getattr(config, "vision_config", config)
    width = vision.hidden_sizes[-1] if kind == "dinov3_convnext" else vision.hidden_size
    projected = "projection" in spec.pooling
    assert spec.dim == (config.projection_dim if projected else width)
    assert spec.patch_px == (32 if kind == "dinov3_convnext" else vision.patch_size)
    if spec.modalities == ("image", "text"):
        tokens = min(config.text_config.max_position_embeddings, ROWS[kind].text.context)
        assert f"{tokens} tokens" in spec.tokenizer
    if hasattr(vision, "num_register_tokens"):
        assert vision.num_register_tokens == ROWS[kind].registers


def test_row_that_takes_one_size_says_which(tmp_path):
    for kind, row in ROWS.items():
        folder = empty(tmp_path / kind, kind)
        square(side=192).save_pretrained(folder)
        if row.side_px is None and not kind.startswith("siglip2"):
            assert open_folder(folder).spec.preprocess.size == 192
            continue
        with pytest.raises(EncoderError, match="correct one of the two"):
            open_folder(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_spec_is_complete(name, tmp_path):
    spec = open_folder(FAMILIES[name](tmp_path / name)).spec
    assert isinstance(spec, EncoderSpec)
    assert spec.family
    assert spec.prompt.count("{}") == 1
    assert bool(spec.tokenizer) == ("text" in spec.modalities)
    assert "{" not in spec.tokenizer


def test_old_configurations_have_their_sizes_under_another_name(tmp_path):
    folder = empty(tmp_path / "old", "clip")
    old = {"vision_config": None, "vision_config_dict": {"patch_size": 14}, "projection_dim": 768}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **old}))
    spec = open_folder(folder).spec
    assert (spec.patch_px, spec.dim) == (14, 768)


def test_siglip_of_many_languages_is_told_by_its_vocabulary(tmp_path):
    folder = empty(tmp_path / "many", "siglip")
    assert "English" in open_folder(folder).spec.tokenizer
    config = {"model_type": "siglip", "text_config": {"vocab_size": 250_000}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "more than 100 languages" in open_folder(folder).spec.tokenizer


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "bert"}, "type 'bert', which is no image encoder"),
        ({"model_type": "detr", "use_timm_backbone": False}, "no image encoder"),
        ({"model_type": "yolos"}, "type 'yolos', which is no image encoder"),
        ({"model_type": "blip-2"}, "gives no tokens"),
        ({"model_type": "videomae"}, "gives no tokens"),
        ({"model_type": "sam2_vision_model"}, "from which no embedding can be made"),
        ({"model_type": "no_such_type"}, "cannot open it"),
    ],
)
def test_what_is_no_backbone_is_refused(config, sentence, tmp_path):
    folder = empty(tmp_path / "odd", "vit")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=sentence):
        open_folder(folder)


def test_backbone_that_takes_no_such_size_is_refused(tmp_path):
    folder = empty(tmp_path / "chinese", "vit")
    (folder / "config.json").write_text('{"model_type": "chinese_clip_vision_model"}')
    assert open_folder(folder).spec.pooling == "pooler"
    square(side=192).save_pretrained(folder)
    with pytest.raises(EncoderError, match="no tokens for pictures of 192 px"):
        open_folder(folder)


def test_backbones_have_a_cls_token_or_not(tmp_path):
    beit = BACKBONES["beit"](tmp_path / "beit")
    assert open_folder(beit, "cls").spec.pooling == "cls"
    swin = BACKBONES["swin"](tmp_path / "swin")
    assert open_folder(swin, "gem").spec.pooling == "gem"
    with pytest.raises(EncoderError, match="Swin has no CLS token"):
        open_folder(swin, "cls+mean")


def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path):
    folder = empty(tmp_path / "remote", "vit")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    classes = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": classes}))
    with pytest.raises(EncoderError, match="cannot open it"):
        open_folder(folder)
    assert not (tmp_path / "ran").exists()


def test_pooler_that_the_file_lacks_is_not_made_up(tmp_path):
    config = tf.DPTConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
    )
    resizing = cut("CLIP")
    with_pooler = save(tmp_path / "with", tf.DPTModel, config, resizing)
    without = save(tmp_path / "without", tf.DPTForDepthEstimation, config, resizing)
    assert open_folder(with_pooler).spec.pooling == "pooler"
    assert open_folder(without).spec.pooling == "mean"
    assert open_folder(without).towers().image is not None
