"""The start-up check of FAISS: exactly one distribution, and one that works.

Every FAISS distribution installs the module ``faiss``. With two of them the last one installed
wins silently, and removing one leaves an empty namespace that still imports, so neither pip nor
``import faiss`` notices.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from types import ModuleType

from retrieval.errors import InstallError

_DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")
_REPAIR = (
    "pip uninstall -y {names} && pip install --force-reinstall 'faiss-cpu' "
    "(or 'faiss-gpu' on a machine with CUDA)"
)


@dataclass(frozen=True, slots=True)
class FaissInstall:
    """The one FAISS that is installed."""

    distribution: str
    version: str
    gpus: int


def load_faiss() -> ModuleType:
    """Import FAISS after checking that exactly one working distribution is installed.

    Raises:
        InstallError: if there is none, more than one, or a broken one; names the repair.
    """
    names = _installed()
    if not names:
        raise InstallError("FAISS is not installed: pip install 'retrieval[cpu]' (or [gpu])")
    repair = _REPAIR.format(names=" ".join(names))
    if len(names) > 1:
        both = " and ".join(names)
        raise InstallError(f"{both} are both installed and overwrite each other. Repair: {repair}")
    try:
        import faiss
    except ImportError as error:
        raise InstallError(f"{names[0]} does not import ({error}). Repair: {repair}") from error
    if not hasattr(faiss, "IndexFlatL2"):
        raise InstallError(f"the module faiss of {names[0]} is an empty shell. Repair: {repair}")
    module: ModuleType = faiss
    return module


def installation() -> FaissInstall:
    """Facts about the one FAISS that is installed.

    Raises:
        InstallError: as :func:`load_faiss`.
    """
    module = load_faiss()
    (name,) = _installed()
    gpus = int(module.get_num_gpus()) if hasattr(module, "get_num_gpus") else 0
    return FaissInstall(name, metadata.version(name), gpus)


def _installed() -> list[str]:
    found = []
    for name in _DISTRIBUTIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found
