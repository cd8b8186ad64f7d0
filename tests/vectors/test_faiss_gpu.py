"""FAISS on GPUs: what is said where there is none, and, where there is one, what it answers."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest

from retrieval.errors import VectorIndexError
from retrieval.vectors import faiss_gpu
from retrieval.vectors.base import Effort
from retrieval.vectors.faiss_cpu import FILE, FaissCpu
from retrieval.vectors.faiss_gpu import FaissGpu, GpuIndex
from retrieval.vectors.faiss_install import load_faiss
from tests.vectors.clusters import clustered, recall, rescored, truth

faiss = pytest.importorskip("faiss")
KINDS = ("gpu-flat", "gpu-ivf-flat", "gpu-ivf-pq", "gpu-cagra")
HAS_GPU_PART = hasattr(faiss, "StandardGpuResources")


@pytest.mark.skipif(HAS_GPU_PART, reason="the FAISS here has a GPU part")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_gpu_part_it_says_what_to_install(kind, tmp_path) -> None:
    reason = FaissGpu(kind).missing()
    assert (
        reason == "faiss-cpu has no GPU part: pip uninstall -y faiss-cpu && pip install faiss-gpu"
    )
    with pytest.raises(VectorIndexError, match=f"{kind}.*no GPU part"):
        FaissGpu(kind).build(clustered(100, 8).rows, tmp_path)


@pytest.mark.parametrize(
    ("gpus", "cuvs", "kind", "said"),
    [
        (0, True, "gpu-flat", "sees no GPU.*nvidia-smi.*CUDA_VISIBLE_DEVICES"),
        (0, False, "gpu-cagra", "sees no GPU"),
        (1, False, "gpu-cagra", "without cuVS.*faiss-gpu-cuvs"),
        (1, False, "gpu-ivf-pq", None),
        (2, True, "gpu-cagra", None),
    ],
)
def test_what_is_missing_is_told_apart(gpus, cuvs, kind, said, monkeypatch) -> None:
    """Only the parts of FAISS that the answer rests on are made up."""
    parts = {"StandardGpuResources": object, "get_num_gpus": lambda: gpus}
    if cuvs:
        parts["GpuIndexCagra"] = object
    monkeypatch.setattr(faiss_gpu, "load_faiss", lambda: types.SimpleNamespace(**parts))
    reason = FaissGpu(kind).missing()
    if said is None:
        assert reason is None
    else:
        assert reason is not None
        assert re.search(said, reason)


@pytest.mark.skipif(HAS_GPU_PART, reason="the FAISS here has a GPU part")
@pytest.mark.parametrize(
    "kind", ["gpu-flat", "gpu-ivf-flat", pytest.param("gpu-ivf-pq", marks=pytest.mark.slow)]
)
def test_a_machine_without_gpu_serves_what_a_gpu_built(kind, tmp_path) -> None:
    """The file of a GPU kind is a CPU index: made on the CPU here, it is the same structure."""
    data = clustered(11_000, 64, queries=24)
    FaissCpu(kind).build(data.rows, tmp_path)
    index = FaissGpu(kind).open(tmp_path, data.rows)
    for allowed in (None, np.arange(11_000) % 4 == 0):
        found = index.candidates(data.queries, 10, index.efforts[-1], allowed)
        wanted = truth(data.rows, data.queries, 10, allowed)
        assert recall(rescored(data.rows, data.queries, found, 10), wanted) >= 0.99


def test_what_a_gpu_cannot_do_goes_to_the_cpu(tmp_path) -> None:
    """A selector, or more neighbours than its kernels take; here both sides are CPU indexes."""
    data = clustered(3_000, 32, queries=8)
    FaissCpu("gpu-flat").build(data.rows, tmp_path)
    on_cpu = FaissCpu("gpu-flat").open(tmp_path, data.rows)
    index = GpuIndex("gpu-flat", load_faiss().read_index(str(tmp_path / FILE)), on_cpu)
    allowed = np.arange(3_000) % 3 == 0
    for k, mask in ((10, None), (10, allowed), (2_500, None), (2_500, allowed)):
        found = index.candidates(data.queries, k, Effort(0, 1), mask)
        wanted = truth(data.rows, data.queries, k, mask)
        assert recall(rescored(data.rows, data.queries, found, k), wanted) == 1.0


@pytest.mark.parametrize("dim", [37, 64, 384, 512, 768, 1152])
def test_product_codes_fit_the_dimension_and_the_chip(dim) -> None:
    from retrieval.vectors.faiss_recipe import describe

    index = faiss.index_factory(dim, describe("gpu-ivf-pq", dim, 100_000))
    assert dim % index.pq.M == 0 and index.pq.nbits == 8 and index.pq.M <= 64


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_it_finds_what_the_oracle_finds(kind, tmp_path) -> None:
    backend = FaissGpu(kind)
    reason = backend.missing()
    if reason is not None:
        pytest.skip(reason)
    data = clustered(50_000, 64, queries=100)
    backend.build(data.rows, tmp_path)
    served = backend.open(tmp_path, data.rows), FaissCpu(kind).open(tmp_path, data.rows)
    assert isinstance(served[0], GpuIndex)
    for allowed in (None, np.arange(50_000) % 4 == 0):
        wanted = truth(data.rows, data.queries, 10, allowed)
        for index in served:
            found = index.candidates(data.queries, 10, served[0].efforts[-1], allowed)
            assert recall(rescored(data.rows, data.queries, found, 10), wanted) >= 0.99
