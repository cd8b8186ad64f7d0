"""The start-up check of FAISS: never two distributions, and one that works.

Every FAISS distribution installs the module ``faiss``. With two of them the last one installed
wins silently, and removing one leaves an empty namespace that still imports, so neither pip nor
``import faiss`` notices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
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


def guard() -> str | None:
    """Check at start-up, without importing FAISS, that at most one distribution is here.

    Returns:
        Its name, or None where there is none: exact search works without.

    Raises:
        InstallError: if there are two, or an empty shell; names the repair.
    """
    names = _installed()
    repair = _REPAIR.format(names=" ".join(names) or "faiss-cpu faiss-gpu")
    if len(names) > 1:
        both = " and ".join(names)
        raise InstallError(f"{both} are both installed and overwrite each other. Repair: {repair}")
    module = find_spec("faiss")
    if names and module is None:
        raise InstallError(f"{names[0]} is installed without its module. Repair: {repair}")
    if module is not None and module.origin is None:
        raise InstallError(f"the module faiss is an empty shell. Repair: {repair}")
    return names[0] if names else None


def load_faiss() -> ModuleType:
    """Import FAISS after checking that exactly one working distribution is installed.

    Raises:
        InstallError: if there is none, more than one, or a broken one; names the repair.
    """
    name = guard()
    if name is None:
        raise InstallError("FAISS is not installed: pip install faiss-cpu (or faiss-gpu)")
    repair = _REPAIR.format(names=name)
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # RuntimeError: a library of CUDA is missing
        raise InstallError(f"{name} does not import ({error}). Repair: {repair}") from error
    if not hasattr(faiss, "IndexFlatL2"):
        raise InstallError(f"the module faiss of {name} is an empty shell. Repair: {repair}")
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


@contextmanager
def threads(faiss: ModuleType, count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads when called from this Python thread; others keep theirs."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _installed() -> list[str]:
    found = []
    for name in _DISTRIBUTIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found
