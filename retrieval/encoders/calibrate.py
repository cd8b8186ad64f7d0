"""Quantise a graph with NNCF, as a process of its own: ``python -m … GRAPH FEEDS.npz OUT.xml``.

The package prints to standard output, replaces the logger class of the whole process and keeps
hundreds of megabytes; here all of that ends with the work.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from retrieval.encoders.runtimes.openvino import package


def main() -> None:
    """Read ``[n, …]`` of every input, and let each of the n be an example."""
    graph, feeds, out = map(Path, sys.argv[1:])
    openvino, nncf = package("openvino"), package("nncf")
    with np.load(feeds) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(given.values())))
    examples = [{name: rows[at : at + 1] for name, rows in given.items()} for at in range(count)]
    quantised = nncf.quantize(
        openvino.Core().read_model(graph),
        nncf.Dataset(examples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=count,
    )
    openvino.save_model(quantised, out, compress_to_fp16=False)


if __name__ == "__main__":
    main()
