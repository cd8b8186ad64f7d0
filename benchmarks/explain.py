"""How often an explanation's map is on the thing: words and pictures on photos with known objects.

    python -m benchmarks.explain [--data ../shared/data]

Every photo of coco128 is explained by the name of every category of objects in it, and by those of
its ten nearest photos that share exactly one category with it. The answer is right if the centre of
the strongest place lies in the box (or on the mask) of such an object. ``order`` is the chance that
a place in the box is hotter than one outside. Against it stand a random place, the centre of the
picture, and plain cosines, in which a place's length does not count. ``told apart``: of two
categories in one photo, how often the difference between their maps, each brought to mean 0 and
deviation 1, is greater in the boxes of the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import retrieval
from indexers import ingest
from retrieval.encoders import DenseEncoder
from retrieval.query.explain import View

RESULT = Path(__file__).parent / "results" / "explain.json"
HITS = 5
"""How far down a list of hits people look."""

Places = NDArray[np.bool_]
Heat = NDArray[np.float32]


class Photo:
    """One photo and where its objects are."""

    def __init__(self, image_id: int, path: Path) -> None:
        """Begin without objects."""
        self.image_id, self.path = image_id, path
        self.size = Image.open(path).size
        self.objects: dict[str, list[dict]] = defaultdict(list)

    def places(self, name: str, view: View, heat: Heat) -> tuple[Places, Places]:
        """Which places of the map have their centre in a box, and on a mask, of category ``name``.

        Returns:
            Two arrays of the shape of ``heat``.
        """
        box, mask = Image.new("1", self.size), Image.new("1", self.size)
        for thing in self.objects[name]:
            x, y, width, height = thing["bbox"]
            ImageDraw.Draw(box).rectangle((x, y, x + width, y + height), fill=1)
            for polygon in thing["segmentation"]:
                ImageDraw.Draw(mask).polygon(polygon, fill=1)
        left, top, right, bottom = view.box
        rows, columns = heat.shape
        y = (top + (np.arange(rows) + 0.5) * (bottom - top) / rows).astype(int)
        x = (left + (np.arange(columns) + 0.5) * (right - left) / columns).astype(int)
        return np.asarray(box)[np.ix_(y, x)], np.asarray(mask)[np.ix_(y, x)]


def photos(data: Path, collection: retrieval.Collection) -> list[Photo]:
    """The photos of coco128 with their objects; crowds are left out."""
    facts = json.loads((data / "annotations/instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in facts["categories"]}
    out: dict[int, Photo] = {}
    for image in facts["images"]:
        path = (data / "val2017" / image["file_name"]).resolve()
        found = collection.store.find_uri(str(path))
        assert found is not None
        out[image["id"]] = Photo(found, path)
    for thing in facts["annotations"]:
        if isinstance(thing["segmentation"], list):
            out[thing["image_id"]].objects[names[thing["category_id"]]].append(thing)
    return list(out.values())


def order(heat: Heat, inside: Places) -> float:
    """Chance that a place inside is hotter than one outside."""
    gaps = heat[inside][:, None] - heat[~inside]
    return float(((np.sign(gaps) + 1) / 2).mean())


class Tally:
    """Sums over maps."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)

    def add(self, maps: dict[str, Heat], box: Places, mask: Places) -> None:
        """Count one explanation, unless all or none of its places are in the box."""
        if box.all() or not box.any():
            return
        for name, heat in maps.items():
            best = np.unravel_index(heat.argmax(), heat.shape)
            self.rows[name].append((box[best], mask[best], order(heat, box)))
        self.rows["random place"].append((box.mean(), mask.mean(), 0.5))

    def shares(self) -> dict[str, dict[str, float]]:
        """Means by name."""
        keys = ("in box", "on mask", "order")
        return {
            name: dict(zip(keys, np.mean(rows, axis=0).round(3).tolist(), strict=True))
            for name, rows in self.rows.items()
        }


def centre(shape: tuple[int, ...]) -> Heat:
    """A map that is hottest in the middle."""
    y, x = np.indices(shape)
    return -np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2).astype(np.float32)


def unit(tokens: Heat) -> Heat:
    """Tokens of length 1."""
    return tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)


def tokens(collection: retrieval.Collection, space: str, picture: Image.Image) -> Heat:
    """Unit tokens of a picture: ``[rows, columns, dim]``."""
    encoder = collection.encoder(space)
    assert isinstance(encoder, DenseEncoder)
    return unit(encoder.encode_patches([picture]).grid(0))


def by_words(collection: retrieval.Collection, all_photos: list[Photo]) -> dict[str, object]:
    """Explain every photo by the names of what is in it."""
    everything, hits, right = Tally(), Tally(), []
    encoder = collection.encoder("pocket-text")
    for photo in all_photos:
        seen = {}
        for name in photo.objects:
            words = encoder.spec.prompt.format(name)
            why = collection.explain(photo.image_id, words)
            box, mask = photo.places(name, why.view, why.heat)
            plain = tokens(collection, "pocket-text", why.view.picture)
            cosines = plain @ encoder.encode_texts([words])[0]
            maps = {"map": why.heat, "cosines": cosines, "centre": centre(why.heat.shape)}
            everything.add(maps, box, mask)
            first = [hit.image.image_id for hit in collection.search(words, k=HITS)]
            if photo.image_id in first:
                hits.add(maps, box, mask)
            seen[name] = (why.heat, box)
        right += told_apart(list(seen.values()))
    return {
        f"among the first {HITS} hits": {"maps": len(hits.rows["map"]), **hits.shares()},
        "all photos": {"maps": len(everything.rows["map"]), **everything.shares()},
        "told apart": {"pairs": len(right), "right": round(float(np.mean(right)), 3)},
    }


def told_apart(seen: list[tuple[Heat, Places]]) -> Iterator[bool]:
    """Of two categories, whether the words move the map to where each of them is."""
    for (one, box), (other, other_box) in combinations(seen, 2):
        here, there = box & ~other_box, other_box & ~box
        if here.any() and there.any():
            moved = (one - one.mean()) / one.std() - (other - other.mean()) / other.std()
            yield bool(moved[here].mean() > moved[there].mean())


def by_pictures(collection: retrieval.Collection, all_photos: list[Photo]) -> dict[str, object]:
    """Explain photos by near ones that share one category with them."""
    tally = Tally()
    by_id = {photo.image_id: photo for photo in all_photos}
    for query in all_photos:
        for hit in collection.search(image_id=query.image_id, k=11)[1:]:
            photo = by_id[hit.image.image_id]
            shared = query.objects.keys() & photo.objects.keys()
            if len(shared) != 1:
                continue
            why = collection.explain(photo.image_id, query_id=query.image_id)
            assert why.query_view
            box, mask = photo.places(*shared, why.view, why.heat)
            ours = tokens(collection, "pocket-visual", why.view.picture)
            asked = tokens(collection, "pocket-visual", why.query_view.picture)
            cosines = (ours @ asked.reshape(-1, asked.shape[-1]).T).max(axis=-1)
            maps = {"map": why.heat, "cosines": cosines, "centre": centre(why.heat.shape)}
            tally.add(maps, box, mask)
    return {"near photos": {"maps": len(tally.rows["map"]), **tally.shares()}}


def show(results: dict[str, dict]) -> None:
    """Print one row a kind of map."""
    table = Table("explained", "by", "maps", "in box", "on mask", "order")
    for name, facts in results.items():
        for kind, row in facts.items():
            if isinstance(row, dict):
                table.add_row(name, kind, str(facts["maps"]), *(f"{v:.2f}" for v in row.values()))
    Console().print(table)
    Console().print("told apart", results["told apart"])


def main() -> None:
    """Measure, print, and write ``benchmarks/results/explain.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data / "coco128"
    with tempfile.TemporaryDirectory() as folder:
        ingest(data / "val2017", f"{folder}/coco.lance")
        collection = retrieval.open(f"{folder}/coco.lance")
        all_photos = photos(data, collection)
        results = by_words(collection, all_photos) | by_pictures(collection, all_photos)
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()
