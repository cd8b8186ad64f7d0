"""The guard against two FAISS distributions, on real site-packages folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.vectors.faiss_install import installation, load_faiss

ASK = (
    "from retrieval.vectors.faiss_install import load_faiss\n"
    "from retrieval.errors import InstallError\n"
    "try: load_faiss(); print('fine')\n"
    "except InstallError as error: print(error)\n"
)


def distribution(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def ask(*folders: Path) -> str:
    code = f"import sys; sys.path[:0] = {[str(f) for f in folders]!r}\n{ASK}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.strip()


def test_the_one_that_is_installed_works():
    assert hasattr(load_faiss(), "IndexFlatIP")
    assert installation().distribution in ("faiss-cpu", "faiss-gpu")


@pytest.mark.parametrize("other", ["faiss-gpu", "faiss-gpu-cu12"])
def test_a_second_one_is_an_error_that_names_both_and_the_repair(tmp_path, other):
    distribution(tmp_path, other)
    says = ask(tmp_path)
    assert "faiss-cpu" in says and other in says
    assert "pip uninstall" in says and "--force-reinstall" in says


def test_an_empty_shell_left_by_an_uninstall_is_told(tmp_path):
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").touch()
    assert "empty shell" in ask(tmp_path)


def test_a_bare_folder_left_by_an_uninstall_is_told(tmp_path):
    (tmp_path / "faiss").mkdir()
    code = (
        "import sys, importlib.util\n"
        "from retrieval.vectors import faiss_install\n"
        f"sys.path[:] = [{str(tmp_path)!r}]\n"
        "try: faiss_install.guard(); print('fine')\n"
        "except faiss_install.InstallError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "empty shell" in out.stdout


def test_opening_a_collection_checks_before_anything_is_made(tmp_path):
    distribution(tmp_path / "site", "faiss-gpu")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import retrieval\n"
        "from retrieval.errors import InstallError\n"
        f"try: retrieval.open({str(tmp_path / 'c')!r}, create=True)\n"
        "except InstallError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "faiss-gpu" in out.stdout and not (tmp_path / "c").exists()
