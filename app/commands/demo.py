"""`retrieval demo`: the main job on real photos."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.output import console, hits_as_json, note, print_hits, progress_bar

if TYPE_CHECKING:
    from retrieval import Collection, Hits

_WORDS = ("a cat", "a cup of coffee", "a motorcycle", "a flower")
_ANY_WORDS = ("a person", "an animal", "food", "a building")


def demo(
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="A folder of your own photos.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the demo's files go.")] = Path("demo-out"),
) -> None:
    """Index photos, search them by words, by example and by id, and draw the answers.

    Without IMAGES it takes the photos that scikit-image and scikit-learn carry.

    Example: `retrieval demo ~/Pictures`
    """
    from app.demo import gather
    from app.sheet import contact_sheet, stack

    say = console().print
    folder = images or gather(out / "photos")
    # Two folders of one name are two collections.
    mark = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=4).hexdigest()
    path = out / (f"{folder.resolve().name}-{mark}.lance" if images else "photos.lance")
    say(f"1. Index {folder} into {path}")
    collection = _index(folder, path)
    if not len(collection):
        note("there is no picture in that folder")
        raise typer.Exit(1)
    say("\n2. Search by words")
    sheets = []
    for words in _ANY_WORDS if images else _WORDS:
        hits = collection.search(words, k=5)
        _show(f'search "{words}"', path, hits)
        sheets.append((words, hits))
    say("\n3. Search by example: copies of a picture come first")
    example = sheets[0][1][0].image
    hits = collection.search(image_id=example.image_id, k=5)
    _show(f"search --id {example.image_id}", path, hits)
    sheets.append((f"like {Path(example.uri).name}", hits))
    say("\n4. Search in a part of the collection")
    where = "format = 'JPEG' and width >= 300"
    hits = collection.search(sheets[0][0], where=where, k=5)
    _show(f'search "{sheets[0][0]}" --where "{where}"', path, hits)
    sheet = out / "contact-sheet.png"
    stack([contact_sheet(collection, hits, title) for title, hits in sheets]).save(sheet)
    say(f"\n5. Look at it: {sheet}")
    say("\nNow your own photos:")
    say("  retrieval index ~/Pictures -c my.lance")
    say('  retrieval search "a dog on the beach" -c my.lance --sheet dogs.png')
    note("the retrieval command is in .venv/bin; `retrieval --help` lists everything")


def _index(folder: Path, path: Path) -> Collection:
    import sys

    import retrieval
    from indexers import ingest
    from indexers.sources import FolderSource

    source = FolderSource(folder)
    with progress_bar([source], sys.stderr.isatty()) as watch:
        report = ingest(source, path, watch=watch)
    console().print(
        f"   {report.added} added, {report.skipped} skipped, {report.failed} failed "
        f"in {report.seconds:.1f} s"
    )
    return retrieval.open(path)


def _show(command: str, path: Path, hits: Hits) -> None:
    console().print(f"\n$ retrieval {command} -c {path} -k 5")
    print_hits(hits_as_json(hits))
