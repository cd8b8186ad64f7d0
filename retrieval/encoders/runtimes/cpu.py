"""What the machine has that makes small number formats fast."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

_BF16 = {"avx512_bf16", "amx_bf16", "bf16", "hw.optional.arm.FEAT_BF16"}
_INT8 = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "hw.optional.arm.FEAT_DotProd"}


def has_bf16() -> bool:
    """Whether there are units for bfloat16; without them it is slower than fp32."""
    return bool(_features() & _BF16)


def has_int8() -> bool:
    """Whether there are units that sum products of 8-bit integers without overflow."""
    return bool(_features() & _INT8)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, without which torch cannot compile."""
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl")))


@cache
def _features() -> frozenset[str]:
    """What Linux or macOS calls the processor's features; nothing where neither tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return _sysctl() if platform.system() == "Darwin" else frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _sysctl() -> frozenset[str]:
    try:
        told = subprocess.run(
            ["sysctl", "hw.optional.arm"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    pairs = (line.split(": ") for line in told.stdout.splitlines() if ": " in line)
    return frozenset(name for name, value in pairs if value == "1")
