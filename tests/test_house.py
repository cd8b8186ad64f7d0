"""The rules of the house: which room may import which, and who pays for heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "api": {"indexers", "retrieval"},
    "app": {"indexers", "retrieval"},
    "indexers": {"retrieval"},
    "retrieval": set(),
}
_BASE = {"errors", "folders", "settings", "types", "uris"}
INNER = {
    "errors": set(),
    "types": {"errors"},
    "settings": {"errors"},
    "uris": {"errors"},
    "folders": set(),
    "images": _BASE,
    "encoders": _BASE | {"images"},
    "store": _BASE,
    "vectors": _BASE,
    "query": _BASE | {"images", "encoders", "store", "vectors"},
}
HEAVY = {
    "cv2", "faiss", "huggingface_hub", "lance", "lancedb", "onnx", "onnxruntime", "open_clip",
    "openvino", "pandas", "pyarrow", "ray", "safetensors", "sklearn", "skimage", "streamlit",
    "timm", "tokenizers", "torch", "torchvision", "transformers", "umap",
}  # fmt: skip
HEAVY_AT_TOP = {
    "indexers/distill/training", "retrieval/query/classify/estimators",
    "retrieval/encoders/pocket/train", "retrieval/encoders/towers",
}  # fmt: skip
"""Folders that may import torch at module level, since only functions that need it import them."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module, *, top_only: bool = False) -> Iterator[str]:
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def test_rooms_import_in_one_direction() -> None:
    for name, tree in sources():
        room = name.split("/")[0]
        for target in imported(tree):
            top = target.split(".")[0]
            if top in ROOMS:
                assert top == room or top in ROOMS[room], f"{name} imports {target}"


def test_the_library_imports_in_one_direction() -> None:
    for name, tree in sources():
        parts = name.removesuffix(".py").split("/")
        if parts[0] != "retrieval" or parts[1] == "__init__":
            continue
        for target in imported(tree):
            if target.startswith("retrieval."):
                inner = target.split(".")[1]
                assert inner == parts[1] or inner in INNER[parts[1]], f"{name} imports {target}"


def test_modules_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for name, tree in sources():
        module = name.removesuffix(".py").replace("/", ".")
        graph[module] = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                graph[module].add(node.module)
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    for name, tree in sources():
        if any(name.startswith(folder) for folder in HEAVY_AT_TOP):
            continue
        heavy = {target.split(".")[0] for target in imported(tree, top_only=True)} & HEAVY
        assert not heavy, f"{name} imports {heavy} for everybody who imports it"


@pytest.mark.parametrize("arguments", [["--help"], ["index", "--help"], ["search", "--help"]])
def test_help_pays_for_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['retrieval', *{!r}]\n"
        "from app.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({{m.split('.')[0] for m in sys.modules}} & {!r}))"
    ).format(arguments, HEAVY | {"numpy", "PIL"})
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip().splitlines()[-1] == "LOADED"
    assert "Example" in out.stdout or arguments == ["--help"]


def test_files_and_functions_stay_small() -> None:
    for name, tree in sources():
        assert len((ROOT / name).read_text("utf-8").splitlines()) <= 400, name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 70, f"{name}:{node.name}"
