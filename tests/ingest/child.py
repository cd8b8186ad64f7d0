"""One ingest run in a process of its own, small commits, so that a kill hits many places."""

from __future__ import annotations

import sys

from indexers import ingest
from retrieval.encoders import load


def main(folder: str, collection: str) -> None:
    for name in ("pocket-visual", "pocket-text"):
        load(name)
    print("ready", flush=True)
    ingest(folder, collection, batch_size=4, commit_rows=6, workers=2, prune=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
