"""What runs a network: one file a runtime, all behind one small protocol."""

from retrieval.encoders.runtimes.graph import Graph

__all__ = ["Graph"]
