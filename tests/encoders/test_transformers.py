"""The transformers runtime against the library's own processors and models."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from retrieval import encoders  # noqa: E402
from retrieval.encoders import DenseEncoder, TextEncoder  # noqa: E402
from retrieval.encoders.build import torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.checkpoints.families import FAMILIES as ROWS  # noqa: E402
from retrieval.encoders.network import NetworkEncoder  # noqa: E402
from retrieval.encoders.tokens import Tokenizer  # noqa: E402
from retrieval.errors import EncoderError, EncoderUnavailable  # noqa: E402
from tests.encoders.checkpoints import FAMILIES, SENTENCES, siglip  # noqa: E402

pytestmark = pytest.mark.slow

TEXTS = (
    *SENTENCES,
    "A Photo of a SMALL dog, on a beach!",
    "zebra",
    "  two   red cars\n",
    "naïve café — 日本 🐕",
    "",
    "a very long text about a small dog and a red car " * 30,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name) for name, write in FAMILIES.items()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Photos in sizes whose resized sides leave every remainder for the centre crop."""
    data = pytest.importorskip("skimage.data")
    photo = Image.fromarray(data.astronaut())
    gray = Image.fromarray(data.camera()).convert("RGB")
    sizes = [(512, 512), (33, 47), (640, 481), (1999, 1501), (90, 1000), (1000, 90)]
    sizes += [(300, 331), (331, 300), (200, 237), (31, 29), (7, 3), (1, 1)]
    resized = [photo.resize(size, Image.Resampling.LANCZOS) for size in sizes]
    return [*resized, gray, gray.resize((411, 600))]


def load(folder: Path) -> NetworkEncoder:
    return torch_encoder(open_folder(folder), device="cpu")


def reference_processor(name: str, folder: Path):
    module, kind = {
        "dinov2": ("bit.image_processing_pil_bit", "BitImageProcessorPil"),
        "clip": ("clip.image_processing_pil_clip", "CLIPImageProcessorPil"),
    }.get(name, ("siglip.image_processing_pil_siglip", "SiglipImageProcessorPil"))
    return getattr(pytest.importorskip(f"transformers.models.{module}"), kind).from_pretrained(
        folder
    )


def unit(rows) -> np.ndarray:
    rows = rows.numpy().astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_equal(name: str, ours: np.ndarray, reference: np.ndarray) -> None:
    cosine = (ours * reference).sum(axis=1)
    print(
        f"{name}: max abs diff {np.abs(ours - reference).max():.1e}, 1 - cos {1 - cosine.min():.1e}"
    )
    assert cosine.min() >= 0.99999, cosine
    # Different inputs give different vectors, or equality would show nothing.
    assert (reference @ reference.T).min() < 0.99


@pytest.mark.parametrize("name", FAMILIES)
def test_images_equal_the_library_processor_and_model(name, folders, pictures):
    encoder = load(folders[name])
    inputs = reference_processor(name, folders[name])(images=pictures, return_tensors="pt")
    model = tf.AutoModel.from_pretrained(folders[name]).eval()
    with torch.inference_mode():
        if name == "dinov2":
            reference = model(**inputs).last_hidden_state[:, 0]
        else:
            reference = model.get_image_features(**inputs).pooler_output
    ours = encoder.encode_images(pictures)
    assert ours.dtype == np.float32
    check_equal(f"{name}_images", ours, unit(reference))


def reference_ids(name: str, folder: Path):
    if name == "clip":
        tokenizer = tf.AutoTokenizer.from_pretrained(folder)
        return dict(tokenizer(list(TEXTS), padding=True, truncation=True, max_length=77))
    if name == "siglip2":
        # The class whose lower-casing the published checkpoints' own tokenizer class forgets.
        tokenizer = tf.Siglip2Tokenizer.from_pretrained(folder)
        end = tokenizer.eos_token_id
    else:
        tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        end = tokenizer.convert_tokens_to_ids("</s>")
    rows = [
        [*ids[:63], end] for ids in tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
    ]
    pad = 0 if name == "siglip2" else end
    return {"input_ids": [row + [pad] * (64 - len(row)) for row in rows]}


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_texts_equal_the_library_tokenizer_and_model(name, folders):
    encoder = load(folders[name])
    assert isinstance(encoder, TextEncoder)
    inputs = {key: torch.tensor(rows) for key, rows in reference_ids(name, folders[name]).items()}
    model = tf.AutoModel.from_pretrained(folders[name]).eval()
    with torch.inference_mode():
        reference = model.get_text_features(**inputs).pooler_output
    check_equal(f"{name}_texts", encoder.encode_texts(TEXTS), unit(reference))


def test_siglip_tokens_equal_the_sentencepiece_tokenizer(tmp_path):
    """The published SigLIP comes with a SentencePiece model; tokenizer.json is its translation."""
    sentencepiece = pytest.importorskip("sentencepiece")
    import tokenizers

    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES * 4))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        add_dummy_prefix=False,
        remove_extra_whitespaces=True,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    reference = tf.SiglipTokenizer(str(tmp_path / "spiece.model"))
    pieces = reference.sp_model
    vocab = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=pieces.unk_id()))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    fast.add_special_tokens(["</s>"])
    fast.save(str(tmp_path / "tokenizer.json"))
    texts = [text for text in TEXTS if text.isascii()]
    rows = reference(texts, padding="max_length", truncation=True, max_length=64)["input_ids"]
    assert ROWS["siglip"].text is not None
    tokenizer = Tokenizer(tmp_path, ROWS["siglip"].text, context=64)
    ours = tokenizer.padded(tokenizer.rows(texts))["ids"]
    np.testing.assert_array_equal(ours, np.asarray(rows))


def test_batches_threads_and_order_change_nothing(folders, pictures):
    encoder = load(folders["clip"])
    many = pictures * 6
    whole = encoder.encode_images(many)
    single = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(whole, np.tile(single, (6, 1)), atol=1e-5)
    texts = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[1:2]), texts[1:2], atol=1e-5)

    answers: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: encoder.encode_images(pictures)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers.values():
        np.testing.assert_allclose(answer, single, atol=1e-5)
    assert len(answers) == 4
    norms = np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_nothing_gives_no_rows(folders):
    encoder = load(folders["siglip"])
    assert encoder.encode_images([]).shape == (0, encoder.spec.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.spec.dim)


def test_batch_that_does_not_fit_is_halved_until_it_does(folders, pictures):
    checkpoint = open_folder(folders["dinov2"])
    towers = checkpoint.towers()
    encoder = torch_encoder(replace(checkpoint, towers=lambda: towers), device="cpu")
    expected = encoder.encode_images(pictures)
    sizes: list[int] = []

    def full(_module, args):
        sizes.append(len(args[0]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("no memory left for so many")

    hook = towers.image.register_forward_pre_hook(full)
    np.testing.assert_allclose(encoder.encode_images(pictures), expected, atol=1e-5)
    assert sizes[:4] == [14, 7, 3, 3]
    hook.remove()

    def never(_module, _args):
        raise torch.OutOfMemoryError("no memory left at all")

    towers.image.register_forward_pre_hook(never)
    with pytest.raises(EncoderError, match="no memory left at all"):
        encoder.encode_images(pictures)


def test_spec_of_the_loaded_encoder_has_the_logits_of_the_weights(folders):
    spec = load(folders["siglip2"]).spec
    model = tf.AutoModel.from_pretrained(folders["siglip2"])
    assert spec.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert spec.logit_bias == pytest.approx(model.logit_bias.item())
    assert load(folders["dinov2"]).spec.logit_scale is None


def test_visual_encoder_has_no_text_side(folders):
    assert not isinstance(load(folders["dinov2"]), TextEncoder)


def test_damaged_weights_are_refused(tmp_path):
    folder = siglip(tmp_path / "siglip")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)
    weights.write_bytes(b"\xff" * 64)
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)


def test_weights_that_lack_layers_are_refused_not_made_up(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = siglip(tmp_path / "siglip")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "post_layernorm.weight" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="post_layernorm"):
        load(folder)


def test_weights_that_are_not_numbers_are_an_error(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = siglip(tmp_path / "siglip")
    weights = load_file(folder / "model.safetensors")
    nan = {name: np.full_like(value, np.nan) for name, value in weights.items()}
    save_file(nan, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="finite"):
        load(folder).encode_images([Image.new("RGB", (40, 40))])


def test_missing_torch_names_the_package(folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(EncoderUnavailable, match="pip install torch"):
        load(folders["dinov2"])


@pytest.mark.parametrize("name", FAMILIES)
def test_patches_equal_the_library_tokens(name, folders, pictures):
    encoder = load(folders[name])
    assert isinstance(encoder, DenseEncoder)
    inputs = reference_processor(name, folders[name])(images=pictures, return_tensors="pt")
    model = tf.AutoModel.from_pretrained(folders[name]).eval()
    with torch.inference_mode():
        if name == "dinov2":
            reference = model(**inputs).last_hidden_state[:, 1:]
        elif name == "clip":
            tokens = model.vision_model(**inputs).last_hidden_state[:, 1:]
            reference = model.visual_projection(model.vision_model.post_layernorm(tokens))
        else:
            tokens = model.vision_model(**inputs).last_hidden_state
            heads = [model.vision_model.head(tokens[:, [at]]) for at in range(tokens.shape[1])]
            reference = torch.stack(heads, dim=1)
    found = encoder.encode_patches(pictures)
    assert found.tokens.shape == tuple(reference.shape)
    assert encoder.spec.patch_px == 8
    assert found.grid(0).shape == (4, 4, reference.shape[-1])
    ours = found.tokens.reshape(-1, reference.shape[-1])
    ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    check_equal(f"{name}_patches", ours, unit(reference.reshape(-1, reference.shape[-1])))


@pytest.mark.parametrize("pooling", ["mean", "cls+mean", "gem"])
def test_another_pooling_can_be_asked_for(pooling, folders, pictures):
    encoder = encoders.load(f"{folders['dinov2']}:{pooling}")
    tokens = load(folders["dinov2"]).encode_patches(pictures).tokens
    if pooling == "gem":
        expected = np.clip(tokens, 1e-6, None).__pow__(3).mean(axis=1) ** (1 / 3)
    else:
        expected = tokens.mean(axis=1)
    ours = encoder.encode_images(pictures)
    if pooling == "cls+mean":
        assert encoder.spec.dim == 2 * tokens.shape[-1]
        ours = ours[:, tokens.shape[-1] :]
        ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert encoder.spec.pooling == pooling
    assert encoder.spec.name.endswith(f":{pooling}")


def test_words_and_pictures_keep_their_own_pooling(folders):
    with pytest.raises(EncoderError, match="its own pooling"):
        encoders.load(f"{folders['clip']}:gem")
