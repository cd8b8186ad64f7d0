"""Memory banks: the tokens of normal pictures, kept in the collection beside a space's indexes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import folders
from retrieval.encoders import Encoder
from retrieval.errors import QueryError, SpaceMismatch
from retrieval.query.anomaly.patches import PatchMap, coreset, nearest_distances, share_of, top_mean
from retrieval.query.anomaly.tiling import Places, places
from retrieval.query.indexing import Indexes
from retrieval.store import Store
from retrieval.types import Embeddings, ImageRecord, Space
from retrieval.vectors.tiles import Tell

Read = Callable[[int], Image.Image | None]
"""Gives the normal picture of a number; None if it is gone."""

KEEP = 5_000
METHOD = 1
"""Of what is in a bank. One that was made by another is made anew."""
_NOTE = "bank.json"
_TURNS = tuple(Image.Transpose[f"ROTATE_{angle}"] for angle in (90, 180, 270))
_MOST_BANKS = 8
_MOST_HELD, _LEAST_HELD, _HELD_BYTES = 200, 20, 256 << 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a bank is made.

    Attributes:
        tiles: squares along the shorter side of a picture; see :func:`~.tiling.tile_boxes`.
        rotate: whether the normal pictures count in their four quarter turns.
        keep: most tokens; None for all.
        seed: of the coreset.
    """

    tiles: int = 3
    rotate: bool = False
    keep: int | None = KEEP
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no bank."""
        if self.tiles < 1:
            raise QueryError(f"a picture has 1 tile or more along its side, not {self.tiles}")
        if self.keep is not None and self.keep < 1:
            raise QueryError(f"a memory bank keeps 1 token or more, not {self.keep}")


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """What normal pictures look like, place by place.

    Attributes:
        tokens: float32 ``[n, width]``, unit rows.
        owners: int64 ``[n]``: number of the normal picture that each is from.
        held_out: float64 ``[h]``: scores of up to 200 normal pictures, each without its own tokens.
        recipe: how it was made.
    """

    tokens: Embeddings
    owners: NDArray[np.int64]
    held_out: NDArray[np.float64]
    recipe: Recipe

    def compare(self, encoder: Encoder, picture: Image.Image) -> PatchMap:
        """How odd the places of an RGB picture are.

        Raises:
            EncoderError: if the encoder fails.
        """
        seen = places(encoder, picture, self.recipe.tiles)
        far = nearest_distances(seen.rows, self.tokens)
        return PatchMap(far.reshape(seen.tokens.shape[:-1]), seen.boxes, seen.size)


def make_bank(
    encoder: Encoder, pictures: int, read: Read, recipe: Recipe, tell: Tell | None = None
) -> MemoryBank:
    """A bank of normal pictures.

    Args:
        encoder: tells what is where.
        pictures: how many there are, 1 or more.
        read: gives them.
        recipe: how to make it.
        tell: called with the number of pictures that are done, and of all; then with tokens.

    Raises:
        EncoderError: if the encoder does not tell what is where, or fails.
        QueryError: if all pictures are gone.
    """
    blocks: list[Embeddings] = []
    held: dict[int, Places] = {}
    sample: set[int] = set()
    for number in range(pictures):
        picture = read(number)
        if picture is None:
            blocks.append(np.empty((0, 0), dtype=np.float32))
            continue
        seen = places(encoder, picture, recipe.tiles)
        if not sample:
            room = min(_MOST_HELD, max(_LEAST_HELD, _HELD_BYTES // seen.tokens.nbytes))
            sample = set(np.linspace(0, pictures - 1, min(room, pictures)).astype(int).tolist())
        if number in sample:
            held[number] = seen
        turned = [picture.transpose(turn) for turn in _TURNS] if recipe.rotate else []
        rows = [seen.rows, *(places(encoder, each, recipe.tiles).rows for each in turned)]
        seed = recipe.seed + number
        blocks.append(share_of(np.concatenate(rows), pictures, recipe.keep, seed))
        if tell is not None:
            tell(number + 1, pictures)
    if not any(map(len, blocks)):
        raise QueryError(
            f"the files of all {pictures} normal images are gone or changed: index again, or "
            "compare whole pictures only"
        )
    tokens, owners = coreset(blocks, recipe.keep, recipe.seed, tell)
    held_out = [
        top_mean(nearest_distances(seen.rows, tokens, owners=owners, without=number))
        for number, seen in held.items()
        if (owners != number).any()
    ]
    return MemoryBank(tokens, owners, np.array(held_out, dtype=np.float64), recipe)


def save_bank(bank: MemoryBank, folder: Path, space: Space, facts: dict[str, Any]) -> None:
    """Write a bank in one move, in place of what is there.

    Args:
        bank: what to keep.
        folder: where.
        space: whose encoder made it; another one will be refused.
        facts: what else to note of it.

    Raises:
        OSError: if it cannot be written.
    """

    def make(inside: Path) -> dict[str, Any]:
        for name in ("tokens", "owners", "held_out"):
            np.save(inside / f"{name}.npy", getattr(bank, name), allow_pickle=False)
        made = {"method": METHOD, "encoder": list(space.identity), "recipe": asdict(bank.recipe)}
        return {**made, **facts}

    folders.write(folder, _NOTE, make)


def open_bank(folder: Path, space: Space) -> tuple[MemoryBank, dict[str, Any]]:
    """Read a bank, and what :func:`save_bank` noted of it.

    Raises:
        SpaceMismatch: if another encoder made it.
        OSError: if there is none.
        ValueError: if it is damaged, or of another version.
    """
    facts = folders.read_note(folder, _NOTE)
    if facts["format"] != folders.FORMAT or facts.get("method") != METHOD:
        raise ValueError(f"the memory bank in {folder} is of another version")
    if facts["encoder"] != list(space.identity):
        raise SpaceMismatch(
            f"the memory bank in {folder} was made by the encoder {facts['encoder']}, and the "
            f"space {space.name!r} is of {list(space.identity)}: their tokens cannot be compared. "
            "Remove that folder, and the bank is made anew"
        )
    folders.check(folder, facts)
    tokens, owners, held_out = (
        np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in ("tokens", "owners", "held_out")
    )
    return MemoryBank(tokens, owners, held_out, Recipe(**facts["recipe"])), facts


def kept_bank(
    store: Store,
    space: Space,
    normal: str,
    normals: Sequence[ImageRecord],
    recipe: Recipe,
    make: Callable[[], MemoryBank | None],
) -> MemoryBank | None:
    """The bank of a collection for a filter: as it was kept, while that is true, else a new one.

    Args:
        store: of the collection.
        space: whose encoder makes it.
        normal: the filter.
        normals: the images that it gives now.
        recipe: how to make it.
        make: makes it; a bank that is not to be kept is None.

    Raises:
        SpaceMismatch: if another encoder made what is kept.
    """
    asked = json.dumps([normal, asdict(recipe)], sort_keys=True)
    name = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
    folder = Indexes(store).folder(space.name) / f".bank-{name}"
    now = {"collection": store.collection_id, "normals": _digest(normals)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        bank, facts = open_bank(folder, space)
        if all(facts.get(key) == value for key, value in now.items()):
            return bank
    made = make()
    if made is not None:
        facts = {**now, "normal": normal, "images": len(normals), "version": store.version}
        with contextlib.suppress(OSError):  # a bank that cannot be kept is made again
            _keep(made, folder, store, space, facts)
    return made


def _keep(
    bank: MemoryBank, folder: Path, store: Store, space: Space, facts: dict[str, Any]
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folders.turn(folder):
        store.refresh()
        ids = store.ids(facts["normal"])
        if _digest(store.records(ids)) != facts["normals"]:
            return  # changed meanwhile: what was purged must not come back
        save_bank(bank, folder, space, facts)
        banks = sorted(folder.parent.glob(".bank-*"), key=lambda path: -path.stat().st_mtime_ns)
        for old in banks[_MOST_BANKS:]:
            shutil.rmtree(old, ignore_errors=True)


def _digest(normals: Sequence[ImageRecord]) -> str:
    """Of ids and contents of images in any order."""
    told = sorted([record.image_id, record.content_hash] for record in normals)
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
