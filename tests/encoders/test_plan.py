"""Names of runtimes and precisions, and what is possible here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retrieval.encoders.runtimes import cpu
from retrieval.encoders.runtimes.plan import FP32, Plan, available, check, parse
from retrieval.errors import EncoderError, EncoderUnavailable


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("fp32", FP32),
        ("bf16", Plan("torch", "bf16")),
        ("fp16", Plan("torch", "fp16")),
        ("int8", Plan("onnxruntime", "int8")),
        ("onnxruntime-fp32", Plan("onnxruntime", "fp32")),
        ("openvino-bf16", Plan("openvino", "bf16")),
        ("torch-compile-bf16", Plan("torch-compile", "bf16")),
        ("tensorrt-fp16", Plan("tensorrt", "fp16")),
    ],
)
def test_names_are_read_and_written(text, plan):
    assert parse(text) == plan
    assert parse(str(plan)) == plan


@pytest.mark.parametrize("text", ["", "fp64", "int4", "torch", "torch-int8", "jax-fp32", "-bf16"])
def test_wrong_names_are_told_the_right_ones(text):
    with pytest.raises(EncoderError, match=r"int8.*openvino-bf16"):
        parse(text)


@pytest.mark.parametrize(
    ("plan", "device", "said"),
    [
        ("openvino-bf16", "cuda", "does not run on cuda, only on cpu"),
        ("tensorrt-fp16", "cpu", "take a runtime of: torch"),
        ("torch-compile-bf16", "mps", "does not run on mps"),
        ("int8", "cuda:1", "take fp16 or bf16"),
    ],
)
def test_impossible_plans_name_a_way_out(plan, device, said, monkeypatch):
    monkeypatch.setattr("retrieval.encoders.runtimes.plan.missing", lambda *_: [])
    with pytest.raises(EncoderError, match=said):
        check(parse(plan), device)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EncoderUnavailable, match="pip install openvino nncf"):
        check(parse("openvino-int8"), "cpu")
    assert not [plan for plan in available("cpu") if plan.runtime == "openvino"]


def test_providers_that_are_not_built_in_are_named():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(EncoderUnavailable, match="onnxruntime-gpu"):
        check(parse("onnxruntime-fp32"), "cuda")


def test_what_is_available_starts_with_fp32_and_is_possible():
    plans = available("cpu")
    assert plans[0].precision == "fp32"
    assert Plan("onnxruntime", "int8") in plans
    assert len(set(plans)) == len(plans)
    for plan in plans:
        check(plan, "cpu")


def test_bf16_is_tried_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    assert not [plan for plan in available("cpu") if plan.precision == "bf16"]


def test_looking_is_cheap():
    code = (
        "import sys\n"
        "from retrieval.encoders.runtimes.plan import available\n"
        "available('cpu')\n"
        "print(*sorted({'torch', 'onnxruntime', 'openvino', 'nncf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
