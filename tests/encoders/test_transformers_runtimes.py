"""Every family of transformers in every runtime and precision, against fp32 in torch."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from retrieval.encoders import TextEncoder
from retrieval.encoders.build import build, torch_encoder
from retrieval.encoders.checkpoints import open_folder
from retrieval.encoders.runtimes.plan import parse
from tests.encoders.checkpoints import BACKBONES, FAMILIES, SENTENCES
from tests.encoders.photos import varied

pytestmark = pytest.mark.slow

# Least cosine of a picture. Of bf16 and int8 not the precision is tested here, which depends on
# the weights, but that nothing falls apart.
PLANS = {
    "onnxruntime-fp32": 0.99999,
    "openvino-fp32": 0.99999,
    "torch-bf16": 0.999,
    "openvino-bf16": 0.999,
    "onnxruntime-int8": 0.9,
}
# Their random weights make numbers of ten digits, of which bf16 has two.
UNTAMED = ("levit", "efficientnet")
# Averages over a window that is larger than the map, which OpenVINO refuses.
NOT_IN_OPENVINO = ("efficientnet",)


@pytest.mark.parametrize("name", [*FAMILIES, *BACKBONES])
def test_every_runtime_gives_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    pictures = [picture for picture in varied() if max(picture.size) < 600]
    checkpoint = open_folder({**FAMILIES, **BACKBONES}[name](tmp_path / name))
    reference = torch_encoder(checkpoint, device="cpu")
    expected = reference.encode_images(pictures)
    places = reference.encode_patches(pictures[:2]).tokens
    for plan, least in PLANS.items():
        if plan.startswith("openvino") and (name in NOT_IN_OPENVINO or not find_spec("openvino")):
            continue
        if name in UNTAMED and not plan.endswith("fp32"):
            continue
        encoder = build(checkpoint, parse(plan), "cpu")
        assert encoder.runtime == plan.replace("-", "-cpu-")
        found = encoder.encode_images(pictures)
        cosine = (found * expected).sum(axis=1).min()
        print(f"{name} {plan}: 1 - cos {1 - cosine:.1e}")
        assert cosine >= least, plan
        if least > 0.9999:
            tokens = encoder.encode_patches(pictures[:2]).tokens
            np.testing.assert_allclose(tokens, places, atol=1e-4 * abs(places).max())
    if isinstance(reference, TextEncoder):
        encoder = build(checkpoint, parse("onnxruntime-fp32"), "cpu")
        assert isinstance(encoder, TextEncoder)
        texts = reference.encode_texts(SENTENCES)
        np.testing.assert_allclose(encoder.encode_texts(SENTENCES), texts, atol=1e-5)
