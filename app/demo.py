"""The demonstration: real photos, indexed and searched, with a picture of the answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from retrieval.errors import InstallError

_SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png"),
    *("motorcycle_left.png", "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg"),
)
_SKLEARN = ("china.jpg", "flower.jpg")
_COPIED = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "china", "flower")


def gather(folder: Path) -> Path:
    """Put the photos that scikit-image and scikit-learn carry into ``folder``, with some copies.

    The copies are resized, recompressed and cropped, as they lie about in any real collection.
    A second call changes nothing.

    Raises:
        InstallError: if those packages are not here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in _sources():
        if not (folder / source.name).exists():
            shutil.copy2(source, folder / source.name)
    copies = folder / "copies"
    copies.mkdir(exist_ok=True)
    for name in _COPIED:
        original = next(folder.glob(f"{name}.*"))
        with Image.open(original) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        half = picture.resize((width // 2, height // 2))
        crop = picture.crop((width // 10, height // 10, width * 9 // 10, height * 9 // 10))
        _save_once(half, copies / f"{name}_resized.png")
        _save_once(picture, copies / f"{name}_recompressed.jpg")
        _save_once(crop, copies / f"{name}_cropped.jpg")
    return folder


def _save_once(picture: Image.Image, path: Path) -> None:
    if not path.exists():
        picture.save(path, quality=30)


def _sources() -> Iterator[Path]:
    for package, subfolder, names in (
        ("skimage", "data", _SKIMAGE),
        ("sklearn", "datasets/images", _SKLEARN),
    ):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InstallError(
                "the demo's photos come with scikit-image and scikit-learn: "
                "pip install scikit-image scikit-learn, or name a folder of your own"
            )
        here = Path(spec.submodule_search_locations[0]) / subfolder
        yield from (here / name for name in names if (here / name).exists())
