"""From a checkpoint to a running encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.network import NetworkEncoder, NetworkTextEncoder
from retrieval.encoders.runtimes import Graph

if TYPE_CHECKING:
    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.runtimes.torch import Precision


def torch_encoder(
    checkpoint: Checkpoint,
    *,
    device: str | None = None,
    precision: Precision = "fp32",
    compiled: bool = False,
) -> NetworkEncoder:
    """Run a checkpoint in torch.

    Args:
        checkpoint: what to run.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the first of these that is there.
        precision: of the image side; texts are always encoded in fp32.
        compiled: whether ``torch.compile`` makes the image side faster before it first runs.

    Returns:
        A :class:`~retrieval.encoders.network.NetworkTextEncoder` where there is a text side. Its
        spec has the logit scale and bias that the weights hold.

    Raises:
        EncoderUnavailable: if torch or the library of the checkpoint is not installed.
        EncoderError: if the weights are damaged.
    """
    require("torch")
    from retrieval.encoders.runtimes.torch import TorchGraph, best_device

    where = device or best_device()
    digest = checkpoint.weights_hash
    towers = checkpoint.towers()
    by_name = dict(towers)
    spec = replace(checkpoint.spec, logit_scale=towers.logit_scale, logit_bias=towers.logit_bias)
    image = TorchGraph(towers.image, where, precision, compiled=compiled)

    def open_graph(name: str) -> Graph:
        if name == "image":
            return image
        return TorchGraph(by_name[name], where, "fp32" if name == "text" else precision)

    if checkpoint.tokenizer is None:
        return NetworkEncoder(spec, digest, image.runtime, open_graph)
    tokenizer = checkpoint.tokenizer()
    return NetworkTextEncoder(spec, digest, image.runtime, open_graph, tokenizer)
