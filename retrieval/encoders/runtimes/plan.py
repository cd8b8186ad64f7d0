"""In what runtime and precision an encoder runs: names, and what is possible here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

from retrieval.encoders.checkpoints.packages import missing
from retrieval.encoders.runtimes import cpu
from retrieval.errors import EncoderError, EncoderUnavailable

Runtime = Literal["torch", "torch-compile", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

_PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "torch-compile": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32", "bf16", "fp16"),
}
_DEVICES: dict[Runtime, tuple[str, ...]] = {
    "torch": ("cpu", "cuda", "mps", "xpu"),
    "torch-compile": ("cpu", "cuda", "xpu"),
    "onnxruntime": ("cpu", "cuda"),
    "openvino": ("cpu",),
    "tensorrt": ("cuda",),
}
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A runtime and a precision of the image side; texts are always encoded in fp32."""

    runtime: Runtime
    precision: Precision

    def __str__(self) -> str:
        """As :func:`parse` reads it."""
        return f"{self.runtime}-{self.precision}"


FP32 = Plan("torch", "fp32")
_PLANS = {
    str(plan): plan
    for runtime, precisions in _PRECISIONS.items()
    for plan in (Plan(runtime, precision) for precision in precisions)
}
_SHORT = {
    "fp32": FP32,
    "bf16": Plan("torch", "bf16"),
    "fp16": Plan("torch", "fp16"),
    "int8": Plan("onnxruntime", "int8"),
}


def parse(text: str) -> Plan:
    """Read a plan.

    Args:
        text: ``fp32``, ``bf16`` or ``fp16`` (of torch), ``int8`` (of ONNX Runtime), or a runtime
            and its precision, as ``openvino-bf16`` or ``torch-compile-bf16``.

    Raises:
        EncoderError: if there is no such runtime, or it has no such precision.
    """
    plan = _SHORT.get(text) or _PLANS.get(text)
    if plan is None:
        raise EncoderError(
            f"{text!r} is no precision; there are auto, {', '.join(_SHORT)}, and with a runtime "
            f"{', '.join(_PLANS)}"
        )
    return plan


def check(plan: Plan, device: str) -> None:
    """See that a plan can run, without importing what it needs.

    Args:
        plan: the plan.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …

    Raises:
        EncoderUnavailable: if packages are missing, naming them.
        EncoderError: if the runtime cannot use that device.
    """
    if absent := missing(*_packages(plan)):
        raise EncoderUnavailable(
            f"{plan} needs {' and '.join(absent)}: pip install {' '.join(absent)}"
        )
    kind = device.split(":")[0]
    if kind not in _DEVICES[plan.runtime]:
        others = ", ".join(name for name, devices in _DEVICES.items() if kind in devices)
        raise EncoderError(
            f"{plan} does not run on {device}, only on {', '.join(_DEVICES[plan.runtime])}; "
            f"on {device} take a runtime of: {others or 'none'}"
        )
    if plan.runtime == "onnxruntime" and plan.precision == "int8" and kind != "cpu":
        raise EncoderError(f"{plan} is for the CPU; on {device} take fp16 or bf16")
    provider = _PROVIDERS.get("tensorrt" if plan.runtime == "tensorrt" else kind)
    if plan.runtime in ("onnxruntime", "tensorrt") and provider and provider not in _providers():
        raise EncoderUnavailable(
            f"{plan} on {device} needs an onnxruntime with {provider}: pip install onnxruntime-gpu "
            "in place of onnxruntime"
        )


def available(device: str | None = None) -> list[Plan]:
    """The plans that could run here and may be worth a try; an fp32 one is first.

    Only looks at what is installed and what the processor has; whether a plan is faster than
    another, and how exact it is, only a trial can tell.

    Args:
        device: where; by default the best that there is.
    """
    where = device or best_device()
    return [plan for plan in _worth_trying(where.split(":")[0]) if _possible(plan, where)]


def best_device(plan: Plan = FP32) -> str:
    """Where a plan runs fastest: ``cuda``, ``mps`` or ``cpu``."""
    if plan.runtime == "openvino" or plan.precision == "int8":
        return "cpu"
    if plan.runtime == "tensorrt":
        return "cuda"
    if plan.runtime == "onnxruntime":
        # The package names CUDA wherever it was built for it, with or without a GPU.
        card = shutil.which("nvidia-smi") is not None
        return "cuda" if card and _PROVIDERS["cuda"] in _providers() else "cpu"
    if missing("torch"):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _worth_trying(kind: str) -> list[Plan]:
    names = ["fp32", "onnxruntime-fp32"]
    if kind == "cpu":
        names += ["openvino-fp32", "int8", "openvino-int8"]
        if cpu.has_bf16():
            names += ["bf16", "openvino-bf16"]
    else:
        names += ["bf16", "fp16", "tensorrt-fp16"]
    # On a CPU compiling takes minutes and wins nothing over the plain network (benchmarks).
    if kind != "cpu" and cpu.has_compiler():
        names.append("torch-compile-bf16")
    return [parse(name) for name in names]


def _possible(plan: Plan, device: str) -> bool:
    try:
        check(plan, device)
    except EncoderError:
        return False
    return True


def _packages(plan: Plan) -> tuple[str, ...]:
    if plan.runtime in ("torch", "torch-compile"):
        return ("torch",)
    if plan.runtime == "openvino":
        return ("openvino", "nncf") if plan.precision == "int8" else ("openvino",)
    return ("onnxruntime",)


def _providers() -> list[str]:
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found
