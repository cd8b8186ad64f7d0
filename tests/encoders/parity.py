"""Comparing embeddings with a reference's."""

from __future__ import annotations

import os

import numpy as np


def unit(rows) -> np.ndarray:
    """Rows of a tensor, float64, of unit length."""
    rows = rows.detach().numpy().astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_equal(name: str, ours: np.ndarray, reference: np.ndarray) -> None:
    """Both give the same unit rows, cosine ≥ 0.99999; prints how far they are apart.

    With ``PARITY_REPORT`` in the environment the line is also added to the file of that name.
    """
    cosine = (ours * reference).sum(axis=1)
    apart = np.abs(ours - reference).max()
    line = f"{name}: {len(ours)} rows, max abs diff {apart:.1e}, 1 - cos {1 - cosine.min():.1e}"
    print(line)
    if report := os.environ.get("PARITY_REPORT"):
        with open(report, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    assert cosine.min() >= 0.99999, cosine
    # Different inputs give different vectors, or equality would show nothing.
    assert (reference @ reference.T).min() < 0.99
