"""Draw the README's picture again: `make demo`, then `python docs/images/make.py`.

It takes only photos whose licence allows to show them here; the README beside names their authors.
"""

from __future__ import annotations

from pathlib import Path

import retrieval
from app.sheet import contact_sheet, stack

HERE = Path(__file__).parent
WHERE = "uri not like '%motorcycle%'"


def main() -> None:
    """Write demo.jpg beside this file."""
    collection = retrieval.open("demo-out/photos.lance")
    answers = {
        f"“{words}”": collection.search(words, k=5, where=WHERE)
        for words in ("a cat", "a cup of coffee")
    }
    flower = collection.store.find_uri(str(Path("demo-out/photos/flower.jpg").resolve()))
    answers["like flower.jpg"] = collection.search(image_id=flower, k=5, where=WHERE)
    parts = [contact_sheet(collection, hits, title) for title, hits in answers.items()]
    stack(parts).save(HERE / "demo.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
