"""Real photos with copies of some of them, each of a known kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

NAMES = ("astronaut", "camera", "cat", "coffee", "coins", "page", "rocket")
COPIES = {
    "cat": ("again.jpg", "exact"),
    "coffee": ("half.jpg", "copy"),
    "astronaut": ("packed.jpg", "copy"),
    "rocket": ("mirrored.jpg", "edited"),
    "coins": ("cropped.jpg", "edited"),
}
"""Of which photo, its file's name, and the tier of the two."""


def originals(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jpg" for name in NAMES}
    for name, path in paths.items():
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB").save(path, quality=95)
    return paths


def copies(paths: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Copies of some photos, by the photo's name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: folder / file for name, (file, _) in COPIES.items()}
    shutil.copy(paths["cat"], made["cat"])
    whole = {}
    for name in made:
        with Image.open(paths[name]) as picture:
            whole[name] = picture.convert("RGB")
    width, height = whole["coffee"].size
    whole["coffee"].resize((width // 2, height // 2)).save(made["coffee"], quality=90)
    whole["astronaut"].save(made["astronaut"], quality=30)
    ImageOps.mirror(whole["rocket"]).save(made["rocket"], quality=90)
    width, height = whole["coins"].size
    box = (width // 10, height // 10, width * 9 // 10, height * 9 // 10)
    whole["coins"].crop(box).save(made["coins"], quality=90)
    return made
