"""What the image side learns from: every photo in several views, and the teacher's answers."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from threadpoolctl import threadpool_limits

from retrieval import settings
from retrieval.encoders import Encoder, EncoderSpec, Preprocess
from retrieval.errors import ImageError, SourceError
from retrieval.images import decode
from retrieval.types import Embeddings

SIDE = 113
"""Side of the student's input, pixels: a quarter of the usual 224 px picture's area, and odd."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIEWS_IN_ALL, _MOST_VIEWS = 40_000, 8
_CHUNK = 8

Tell = Callable[[int, int], None]
"""Called with how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of the user's.

    Attributes:
        path: where it is.
        label: its class, if labels were given and know it.
        held_out: whether it is kept from training, to compare student and teacher by.
        size_bytes: size when it was found.
        mtime_ns: time of last change, nanoseconds since the epoch.
    """

    path: str
    label: str | None
    held_out: bool
    size_bytes: int
    mtime_ns: int

    def picture(self) -> Image.Image:
        """Decode it.

        Raises:
            ImageError: if it cannot be decoded.
            OSError: if it cannot be read.
        """
        data = Path(self.path).read_bytes()
        return decode(data, max_pixels=settings.load().max_pixels).image


def preprocess_for(teacher: EncoderSpec) -> Preprocess:
    """The student's preprocessing: small, of the same part of a picture as the teacher sees."""
    theirs = teacher.preprocess
    if not isinstance(theirs, Preprocess):  # sees the whole picture, in whatever shape
        return Preprocess(SIDE, "squash", SIDE, "bilinear", _MEAN, _STD)
    to = round(SIDE * theirs.resize_to / theirs.size)
    return Preprocess(SIDE, theirs.resize, to, "bilinear", _MEAN, _STD, fill=theirs.fill)


class Shelf:
    """Student's pixels and teacher's embeddings of every view of every photo, on disk.

    Attributes:
        views: views of a photo; the first is the photo as it is. Fewer if there are many photos.
        pixels: uint8 ``[views, photos, side, side, 3]``.
        targets: float32 ``[views, photos, dim]``, unit rows; zeros where nothing is yet, NaN for a
            photo that cannot be used.
    """

    def __init__(self, folder: Path, photos: int, dim: int) -> None:
        """Open the arrays in ``folder``, or make them.

        Raises:
            OSError: if the disk has no room for them.
        """
        self.views = min(max(_VIEWS_IN_ALL // photos, 1), _MOST_VIEWS)
        self.pixels = array_on_disk(
            folder / "pixels.npy", np.uint8, (self.views, photos, SIDE, SIDE, 3)
        )
        self.targets = array_on_disk(folder / "targets.npy", np.float32, (self.views, photos, dim))

    def usable(self) -> NDArray[np.bool_]:
        """Which photos the teacher has embedded: bool ``[photos]``."""
        first: NDArray[np.float32] = self.targets[0]
        return np.logical_and(np.isfinite(first).all(axis=1), first.any(axis=1))

    def to_do(self) -> NDArray[np.int64]:
        """Photos that are neither done nor known to be unusable."""
        return np.flatnonzero(~self.targets[0].any(axis=1))


def array_on_disk(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """A memory-mapped array, opened or made of zeros.

    Raises:
        OSError: if the disk has no room for it; writing to it later would kill the process.
    """
    if not path.exists():
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise OSError(
                f"distilling needs {size / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB "
                "are free"
            )
        unfinished = path.with_suffix(".part")
        np.lib.format.open_memmap(unfinished, "w+", kind, shape).flush()
        os.replace(unfinished, path)
    return np.lib.format.open_memmap(path, "r+")


def teach_photos(
    photos: Sequence[Photo],
    shelf: Shelf,
    teacher: Encoder,
    preprocess: Preprocess,
    seed: int,
    *,
    tell: Tell,
    stopped: Callable[[], bool],
) -> None:
    """Fill ``shelf`` with what is missing. Held-out photos get only their first view.

    Raises:
        SourceError: if no photo can be used.
    """
    reasons: list[Exception] = []

    def work(chunk: Sequence[int]) -> None:
        views = {}
        for at in chunk:
            try:
                views[at] = _views(photos[at], at, shelf.views, seed)
            except (ImageError, OSError, MemoryError) as error:
                reasons.append(error)
        answers = _answers(teacher, views, reasons)
        for at in chunk:
            if at not in answers:
                shelf.targets[0, at] = np.nan
                continue
            # The first view comes last: what has it is done.
            for number, picture in reversed(list(enumerate(views[at]))):
                shelf.pixels[number, at] = preprocess.pixels(picture)
                shelf.targets[number, at] = answers[at][number]

    missing = [int(at) for at in shelf.to_do()]
    in_parallel(missing, _CHUNK, work, len(photos), tell=tell, stopped=stopped)
    if not stopped() and not shelf.usable().any():
        reason = f": {reasons[-1]}" if reasons else ""
        raise SourceError(f"not one of the photos could be decoded and embedded{reason}")


def in_parallel(
    items: Sequence[int],
    size: int,
    work: Callable[[Sequence[int]], None],
    total: int,
    *,
    tell: Tell,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Work through ``items`` in chunks, one thread a core, until done or stopped."""
    done = total - len(items)

    def guarded(chunk: Sequence[int]) -> int:
        if stopped():
            return 0
        work(chunk)
        return len(chunk)

    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    pool = ThreadPoolExecutor(settings.cores(), thread_name_prefix="teach")
    with threadpool_limits(1, user_api="blas"):
        try:
            for count in pool.map(guarded, chunks):
                done += count
                tell(done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _views(photo: Photo, at: int, count: int, seed: int) -> list[Image.Image]:
    """The photo as it is and random parts of it, half of them mirrored."""
    picture = photo.picture()
    others = range(1, 1 if photo.held_out else count)
    return [picture, *(_part(picture, random.Random(f"{seed} {at} {n}")) for n in others)]


def _part(picture: Image.Image, chance: random.Random) -> Image.Image:
    """35 to 100 % of the area, at nearly the picture's own aspect ratio."""
    area, ratio = chance.uniform(0.35, 1.0), chance.uniform(0.8, 1.25)
    width = min(max(round(picture.width * (area * ratio) ** 0.5), 1), picture.width)
    height = min(max(round(picture.height * (area / ratio) ** 0.5), 1), picture.height)
    left = chance.randint(0, picture.width - width)
    top = chance.randint(0, picture.height - height)
    part = picture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(part) if chance.random() < 0.5 else part


def _answers(
    teacher: Encoder, views: Mapping[int, list[Image.Image]], reasons: list[Exception]
) -> dict[int, Embeddings]:
    """The teacher's embeddings of all views by photo, without photos that it fails on."""
    if not views:
        return {}
    try:
        rows = teacher.encode_images([picture for each in views.values() for picture in each])
    except Exception as error:  # a teacher of the user's own may raise anything
        if len(views) == 1:
            reasons.append(error)
            return {}
        alone = [_answers(teacher, {at: each}, reasons) for at, each in views.items()]
        return {at: rows for answer in alone for at, rows in answer.items()}
    ends = np.cumsum([len(each) for each in views.values()])[:-1]
    return dict(zip(views, np.split(rows, ends), strict=True))
