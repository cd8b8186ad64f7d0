"""FAISS on GPUs: built there, kept as a CPU index, and served from all GPUs that are seen."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.vectors.base import Effort, Positions, Rows, VectorIndex
from retrieval.vectors.faiss_cpu import FILE, FaissCpu, faiss_errors
from retrieval.vectors.faiss_install import installation, load_faiss
from retrieval.vectors.faiss_recipe import BLOCK, trained

_MOST = 2_048
"""FAISS's limit on a GPU for neighbours and for probes."""

_MOST_OF_CAGRA = 512


class FaissGpu(FaissCpu):
    """One of ``gpu-flat``, ``gpu-ivf-flat``, ``gpu-ivf-pq`` and ``gpu-cagra``.

    What lies in the folder is an ordinary CPU index (CAGRA's graph as an HNSW of one level), so a
    machine without a GPU opens and searches it too, by :class:`FaissCpu`'s means. One GPU builds;
    all serve, each with its share of the rows, or, of CAGRA, with
    the whole.
    """

    def __init__(self, kind: str) -> None:
        """Keep the name; nothing is imported yet."""
        super().__init__(kind)
        self.incremental = kind != "gpu-cagra"

    def missing(self) -> str | None:
        """Why it cannot be built here and what to install; None if it can."""
        reason = super().missing()
        if reason is not None:
            return reason
        faiss = load_faiss()
        name = installation().distribution
        if not hasattr(faiss, "StandardGpuResources"):
            return f"{name} has no GPU part: pip uninstall -y {name} && pip install faiss-gpu"
        if faiss.get_num_gpus() == 0:
            return (
                f"{name} sees no GPU: check that nvidia-smi lists one, that its driver is as new "
                "as the CUDA that FAISS was built for, and CUDA_VISIBLE_DEVICES"
            )
        if self.kind == "gpu-cagra" and not hasattr(faiss, "GpuIndexCagra"):
            return (
                f"{name} is built without cuVS, which CAGRA needs: conda install -c pytorch "
                "-c nvidia -c rapidsai -c conda-forge faiss-gpu-cuvs"
            )
        return None

    def build(self, rows: Rows, folder: Path) -> None:
        """Train and fill on the first GPU, then write a CPU index of all ``rows``.

        Raises:
            VectorIndexError: if there is no GPU, its memory does not suffice or FAISS refuses, as
                CAGRA does for a few hundred rows.
        """
        reason = self.missing()
        if reason is not None:
            raise VectorIndexError(f"the {self.kind} index cannot be built: {reason}")
        if self.kind == "gpu-flat":
            super().build(rows, folder)
            return
        faiss = load_faiss()
        with faiss_errors(self.kind, "built"):
            resources = faiss.StandardGpuResources()
            made = self._graph if self.kind == "gpu-cagra" else self._filled
            faiss.write_index(made(resources, rows), str(folder / FILE))

    def open(self, folder: Path, rows: Rows) -> VectorIndex:
        """The index in ``folder`` on all GPUs; on the CPU, memory-mapped, where there is none.

        Raises:
            VectorIndexError: if it cannot be opened, or does not fit into the GPUs' memory.
        """
        served = super().open(folder, rows)
        if self.missing() is not None:
            return served
        faiss = load_faiss()
        with faiss_errors(self.kind, "moved to the GPU"):
            options = faiss.GpuMultipleClonerOptions()
            options.shard = self.kind != "gpu-cagra"  # a graph cannot be split, each GPU gets it
            options.useFloat16 = self.kind == "gpu-ivf-pq"  # only its tables
            index = faiss.index_cpu_to_all_gpus(faiss.read_index(str(folder / FILE)), co=options)
        return GpuIndex(self.kind, index, served)

    def _filled(self, resources: Any, rows: Rows) -> Any:
        faiss = load_faiss()
        flat = faiss.GpuIndexFlatIP(resources, rows.shape[1])
        empty = trained(self.kind, rows, clustering=flat)
        options = faiss.GpuClonerOptions()
        options.useFloat16 = self.kind == "gpu-ivf-pq"  # only its tables
        index = faiss.index_cpu_to_gpu(resources, 0, empty, options)
        for block in rows.blocks(BLOCK):
            index.add(block)
        return faiss.index_gpu_to_cpu(index)

    def _graph(self, resources: Any, rows: Rows) -> Any:
        """CAGRA (Ootomo et al., 2023, arXiv 2308.15136): built from all rows at once."""
        faiss = load_faiss()
        index = faiss.GpuIndexCagra(resources, rows.shape[1], faiss.METRIC_INNER_PRODUCT)
        index.train(np.concatenate(list(rows.blocks(BLOCK))))
        return faiss.index_gpu_to_cpu(index)


class GpuIndex:
    """Asks the GPUs, one caller at a time, since their scratch memory is shared.

    GPUs take no selector and at most 2,048 neighbours: searches among allowed rows, and wider ones,
    go to the same index on the CPU.
    """

    def __init__(self, kind: str, index: Any, on_cpu: VectorIndex) -> None:
        """Serve ``index`` on GPUs beside the same one, memory-mapped, ``on_cpu``."""
        self._faiss = load_faiss()
        self._kind = kind
        self._index = index
        self._on_cpu = on_cpu
        self._lock = Lock()

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """Those of the CPU, as far as a GPU goes."""
        most = _MOST_OF_CAGRA if self._kind == "gpu-cagra" else _MOST
        return tuple(effort for effort in self._on_cpu.efforts if effort.probes <= most)

    @property
    def memory_bytes(self) -> int:
        """What the CPU maps and, as large, what the GPUs hold."""
        return 2 * self._on_cpu.memory_bytes

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """As :class:`VectorIndex` says."""
        wanted = max(1, min(k * effort.factor, self._index.ntotal))
        widest = max(wanted, effort.probes)
        most = _MOST_OF_CAGRA if self._kind == "gpu-cagra" else _MOST
        if allowed is not None or widest > most or len(queries) == 0:
            return self._on_cpu.candidates(queries, k, effort, allowed)
        with self._lock:
            parameters = self._parameters(wanted, effort.probes)
            found: Positions = self._index.search(queries, wanted, params=parameters)[1]
        return found

    def _parameters(self, wanted: int, probes: int) -> Any:
        if self._kind == "gpu-flat":
            return None
        if self._kind == "gpu-cagra":
            return self._faiss.SearchParametersCagra(itopk_size=max(probes, wanted))
        return self._faiss.SearchParametersIVF(nprobe=max(1, probes))
