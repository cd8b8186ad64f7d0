"""How two pictures are compared: which edits are seen through, and which likeness is not one."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from skimage import data

from retrieval.images import thumbnail
from retrieval.query.duplicates.evidence import Evidence, Look, compare, look
from retrieval.query.duplicates.tiers import TIERS
from retrieval.query.duplicates.transforms import TRANSFORMS

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
TOLD = {
    "resize": ("copy", "re-encoded"),
    "jpeg": ("copy", "re-encoded"),
    "crop": ("edited", "crop of 6"),
    "flip": ("edited", "mirrored"),
    "rotate": ("edited", "rotated 5°"),
    "brightness": ("edited", "brightness changed"),
    "watermark": ("edited", "overlay on "),
}


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    return {name: Image.fromarray(getattr(data, name)()) for name in NAMES}


def seen(picture: Image.Image) -> Look:
    """As a collection sees it: by its thumbnail."""
    return look(Image.open(io.BytesIO(thumbnail(picture.convert("RGB")))))


def edited(name: str, picture: Image.Image, seed: int = 0) -> Image.Image:
    return TRANSFORMS[name](picture, np.random.default_rng(seed))


def page(seed: int) -> Image.Image:
    """A page of a form: the same layout, other words."""
    rng = np.random.default_rng(seed)
    paper = Image.new("RGB", (1000, 1400), "white")
    draw = ImageDraw.Draw(paper)
    draw.rectangle((80, 60, 920, 130), fill=(40, 60, 140))
    for top in range(180, 1300, 40):
        words = ("".join(rng.choice(list("etaoinshr"), rng.integers(2, 9))) for _ in range(9))
        draw.text((80, top), " ".join(words), "black", font_size=26)
    return paper


def dotted(x: int, y: int) -> Image.Image:
    sheet = Image.new("RGB", (300, 300), "white")
    sheet.paste((0, 0, 0), (x, y, x + 14, y + 14))
    return sheet


def test_all_transforms_are_told() -> None:
    assert set(TOLD) == set(TRANSFORMS)


@pytest.mark.parametrize(("photo", "name"), list(product(NAMES, TOLD)))
def test_an_edit_is_seen_through_and_named(photos, photo: str, name: str) -> None:
    found = compare(seen(photos[photo]), seen(edited(name, photos[photo])))
    tier, why = TOLD[name]
    assert (found.tier, found.why[: len(why)]) == (tier, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: edited("flip", edited("crop", p)), "mirrored, crop of 6"),
        (lambda p: p.convert("L"), "gray"),
        (lambda p: p.transpose(Image.Transpose.ROTATE_90), "rotated 90°"),
        (lambda p: ImageOps.flip(p), "mirrored, rotated 180°"),
        (lambda p: p.resize((224, 224 * p.height // p.width * 2 // 3)), "stretched"),
        (lambda p: ImageOps.expand(p, p.width // 10, "white"), "crop of "),
        (lambda p: Image.merge("RGB", p.split()[::-1]), "colours changed"),
        (lambda p: p.crop((12, 9, p.width, p.height)), "crop of 9"),
        (lambda p: edited("brightness", edited("jpeg", edited("crop", p))), "crop of 6"),
    ],
)
@pytest.mark.parametrize("photo", NAMES[:3])
def test_other_edits_are_seen_through(photos, photo: str, change, why: str) -> None:
    found = compare(seen(photos[photo]), seen(change(photos[photo])))
    assert (found.tier, found.why[: len(why)]) == ("edited", why)


def test_different_photos_have_only_their_vectors(photos) -> None:
    looks = [seen(photo) for photo in photos.values()]
    for a, b in combinations(looks, 2):
        assert compare(a, b).tier == "concept"


def test_two_views_of_a_scene_are_not_one_shot() -> None:
    left, right = (Image.fromarray(one) for one in data.stereo_motorcycle()[:2])
    assert compare(seen(left), seen(right)).tier == "scene"


def test_texts_in_one_layout_are_not_one_page() -> None:
    assert compare(seen(page(1)), seen(page(2))).tier in ("scene", "concept")
    assert compare(seen(page(1)), seen(edited("jpeg", page(1)))).tier == "copy"


def test_white_sheets_with_different_small_things_differ() -> None:
    first = dotted(100, 100)
    assert compare(seen(first), seen(dotted(170, 200))).tier == "concept"
    assert compare(seen(first), seen(Image.new("RGB", (300, 300), "white"))).tier == "concept"
    assert compare(seen(first), seen(edited("resize", first))).tier == "copy"


DEGENERATE = {
    "dot": Image.new("RGB", (1, 1)),
    "line": Image.effect_noise((3, 2000), 50),
    "other line": Image.effect_noise((2000, 3), 90),
    "red": Image.new("RGB", (200, 150), (150, 0, 0)),
    "green": Image.new("RGB", (200, 150), (0, 77, 0)),
    "white": Image.new("RGB", (300, 300), "white"),
    "gray": Image.new("L", (300, 200), 128),
    "clear": Image.new("RGBA", (20, 20)),
    "wide": Image.new("1", (5000, 2)),
}


def test_degenerate_pictures_equal_themselves_and_nothing_else() -> None:
    looks = {name: look(picture) for name, picture in DEGENERATE.items()}
    assert all(compare(one, one).tier == "copy" for one in looks.values())
    for a, b in combinations(looks, 2):
        assert compare(looks[a], looks[b]).tier == "concept", (a, b)


@st.composite
def pictures(draw) -> Image.Image:
    width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread, grain = draw(st.integers(1, 255)), draw(st.integers(1, 30))
    coarse = rng.integers(0, spread + 1, (-(-height // grain), -(-width // grain), 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


@given(pictures())
@settings(max_examples=60, deadline=None)
def test_a_picture_is_a_copy_of_itself(picture: Image.Image) -> None:
    assert compare(look(picture), look(picture)) == Evidence("copy", "re-encoded")


@given(pictures(), pictures())
@settings(max_examples=60, deadline=None)
def test_the_order_of_two_does_not_matter(first: Image.Image, second: Image.Image) -> None:
    a, b = look(first), look(second)
    assert compare(a, b) == compare(b, a)
    assert compare(a, b).tier in TIERS[1:]


def test_answers_depend_neither_on_threads_nor_on_the_hosts_chance(photos) -> None:
    pairs = [
        (one, edited(name, one, seed))
        for seed, one in enumerate(photos.values())
        for name in ("crop", "rotate", "watermark")
    ]
    state = (cv2.getNumThreads(), threading.active_count())

    def answer(pair: tuple[Image.Image, Image.Image]) -> Evidence:
        return compare(seen(pair[0]), seen(pair[1]))

    expected = [answer(pair) for pair in pairs]
    for seed, threads in ((1, 1), (2, 4)):
        cv2.setRNGSeed(seed)
        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(answer, pairs)) == expected
    assert (cv2.getNumThreads(), threading.active_count()) == state


def test_a_look_is_small_and_the_picture_stays_as_it_is(photos) -> None:
    for photo in photos.values():
        before = photo.tobytes()
        found = look(photo)
        assert found.nbytes <= 64_000
        assert photo.tobytes() == before
        assert found.descriptors.dtype == np.uint8
        assert len(found.points) == len(found.descriptors)


@pytest.mark.slow
def test_edits_of_real_photos_are_found_and_their_likes_are_not(shared_data) -> None:
    """The figures of docs/duplicates.md, on a sample."""
    files = sorted(shared_data("clothing").rglob("*.jpg"))[::7]
    photos = [Image.open(file).convert("RGB") for file in files]
    looks = [seen(photo) for photo in photos]
    for name in TRANSFORMS:
        found = [
            compare(looks[i], seen(edited(name, photos[i], i))).tier in ("copy", "edited")
            for i in range(0, len(photos), 4)
        ]
        assert np.mean(found) >= 0.95, name
    small = np.stack([one.color.ravel() for one in looks]).astype(float)
    small -= small.mean(axis=1, keepdims=True)
    alike = small @ small.T / np.outer(*[np.linalg.norm(small, axis=1)] * 2)
    first, second = np.nonzero(np.triu(alike, 1) > np.quantile(alike, 0.99))
    assert len(first) > 300
    told = [compare(looks[i], looks[j]).tier for i, j in zip(first, second, strict=True)]
    assert sum(tier in ("copy", "edited") for tier in told) <= 2  # the data hold a few real ones
