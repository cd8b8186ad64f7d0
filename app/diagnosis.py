"""The checks behind `retrieval doctor`."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec

from retrieval.errors import RetrievalError

Finding = dict[str, str]

_OPTIONAL = {
    # distribution: (module, what it is for)
    "torch": ("torch", "encoders from a model hub: pip install torch transformers"),
    "transformers": ("transformers", "DINOv2, CLIP, SigLIP and more: pip install transformers"),
    "timm": ("timm", "encoders of timm: pip install timm"),
    "open_clip_torch": ("open_clip", "encoders of open_clip: pip install open_clip_torch"),
    "openvino": ("openvino", "faster encoders on many CPUs: pip install openvino nncf"),
    "pillow-heif": ("pillow_heif", "HEIC photos: pip install pillow-heif"),
    "pandas": ("pandas", "results as pandas frames: pip install pandas"),
}


def diagnose(collection: str | None = None) -> list[Finding]:
    """Check the installation and, where named, a collection.

    Returns:
        Findings with ``name``, ``state`` (``ok``, ``missing`` where it is optional, ``broken``)
        and ``says``, which names the repair where there is something to repair.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        ("faiss", _faiss),
        ("pocket encoders", _pocket),
        ("precisions", _precisions),
        ("cache", _cache),
    ]
    if collection is not None:
        checks.append(("collection", lambda: _collection(collection)))
    findings = [_run(name, check) for name, check in checks]
    for distribution, (module, gives) in _OPTIONAL.items():
        found = find_spec(module) is not None
        says = metadata.version(distribution) if found else f"only for {gives}"
        findings.append({"name": distribution, "state": "ok" if found else "missing", "says": says})
    return findings


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return {"name": name, "state": "ok", "says": check()}
    except (RetrievalError, OSError) as error:
        return {"name": name, "state": "broken", "says": str(error)}


def _faiss() -> str:
    from retrieval.vectors.faiss_install import installation

    found = installation()
    return f"{found.distribution} {found.version}, {found.gpus} GPUs"


def _pocket() -> str:
    import numpy as np
    from PIL import Image

    from retrieval.encoders import TextEncoder, load
    from retrieval.errors import EncoderError

    encoder = load("pocket-text")
    if not isinstance(encoder, TextEncoder):
        raise EncoderError("pocket-text has no text side")
    image = encoder.encode_images([Image.new("RGB", (64, 64), "red")])[0]
    text = encoder.encode_texts(["a red square"])[0]
    return f"encode images and text (dim {image.size}, cosine {float(np.dot(image, text)):.2f})"


def _precisions() -> str:
    from retrieval.encoders.runtimes.plan import available

    return f"--precision auto would try {', '.join(map(str, available()))}"


def _cache() -> str:
    import tempfile

    from retrieval import settings

    folder = settings.load().cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return f"{folder} can be written"


def _collection(path: str) -> str:
    import retrieval
    from retrieval.errors import CollectionError

    collection = retrieval.open(path)
    checked, lost = collection.self_test()
    if lost:
        raise CollectionError(
            f"{len(lost)} of {checked} images do not find themselves, as {lost[0]}: "
            "index the folder again"
        )
    return f"{len(collection)} images; {checked} of {checked} tried find themselves first"
