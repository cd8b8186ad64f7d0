"""Pictures become network inputs as Pillow-based transforms make them, whatever their size."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.encoders.naflex import NaFlex, preprocess_of
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import EncoderError
from tests.encoders.photos import varied
from tests.pictures import picture

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LEVELS = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
POCKET = Preprocess(224, "shortest", 224, "bicubic", *IMAGENET)
DINOV2 = Preprocess(224, "shortest", 256, "bicubic", *IMAGENET, centre="floor")
SIGLIP = Preprocess(224, "squash", 224, "bicubic", *HALF)
DEIT = Preprocess(224, "squash", 256, "bicubic", *HALF, centre="floor")
BORDERS = Preprocess(224, "longest", 224, "lanczos", *HALF, fill=(124, 116, 104))
FRAMED = Preprocess(256, "shortest", 224, "bilinear", *HALF, centre="floor", fill=(9, 8, 7))
ALL = [POCKET, DINOV2, SIGLIP, DEIT, BORDERS, FRAMED]
SMALL = [replace(how, size=how.size // 8, resize_to=how.resize_to // 8) for how in ALL]
IDS = ["pocket", "dinov2", "siglip", "deit", "borders", "framed"]


def test_the_hash_of_existing_collections_stays() -> None:
    known = {
        POCKET: "88d321ece830b146",
        DINOV2: "5834caa1dd8da058",
        Preprocess(224, "shortest", 224, "bicubic", *CLIP, centre="floor"): "c1f56fd6d68055c2",
        SIGLIP: "a47ced081bd9d952",
        replace(SIGLIP, interpolation="bilinear"): "9d2eacad2f279a95",
    }
    for preprocess, digest in known.items():
        assert preprocess.hash == digest


def test_every_field_is_part_of_the_hash() -> None:
    others = {
        "size": 225,
        "resize": "longest",
        "resize_to": 225,
        "interpolation": "box",
        "mean": HALF[0],
        "std": HALF[0],
        "centre": "floor",
        "fill": (0, 0, 1),
        "resize_in": "float",
    }
    assert others.keys() == asdict(POCKET).keys()
    hashes = {replace(POCKET, **{name: value}).hash for name, value in others.items()}
    assert len(hashes | {POCKET.hash}) == len(others) + 1


@pytest.mark.parametrize(
    ("preprocess", "size", "target", "start"),
    [
        (POCKET, (640, 480), (298, 224), (37, 0)),
        (POCKET, (600, 301), (446, 224), (111, 0)),
        (POCKET, (301, 600), (224, 446), (0, 111)),
        (POCKET, (300, 303), (224, 226), (0, 1)),
        (POCKET, (100, 101), (224, 226), (0, 1)),
        (POCKET, (448, 454), (224, 227), (0, 2)),
        (replace(POCKET, centre="floor"), (448, 454), (224, 227), (0, 1)),
        (DINOV2, (640, 480), (341, 256), (58, 16)),
        (SIGLIP, (640, 480), (224, 224), (0, 0)),
        (DEIT, (640, 480), (256, 256), (16, 16)),
        (BORDERS, (640, 480), (224, 168), (0, -28)),
        (BORDERS, (480, 639), (168, 224), (-28, 0)),
        (BORDERS, (640, 473), (224, 166), (0, -29)),
        (BORDERS, (640, 477), (224, 167), (0, -28)),
        (BORDERS, (1000, 1), (224, 1), (0, -111)),
        (FRAMED, (640, 480), (298, 224), (21, -16)),
        (replace(FRAMED, size=257), (480, 480), (224, 224), (-17, -17)),
        (replace(FRAMED, size=257, centre="round"), (480, 480), (224, 224), (-16, -16)),
    ],
)
def test_the_whole_picture_is_resized_and_its_centre_shown(preprocess, size, target, start) -> None:
    image = picture(7, size)
    resized = np.asarray(image.resize(target, Image.Resampling[preprocess.interpolation.upper()]))
    expected = np.empty((preprocess.size, preprocess.size, 3), dtype=np.uint8)
    expected[:] = preprocess.fill
    left, top = start
    seen = resized[max(top, 0) :, max(left, 0) :][: preprocess.size, : preprocess.size]
    top, left = max(-top, 0), max(-left, 0)
    expected[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    assert (preprocess.pixels(image) == expected).all()


@pytest.mark.parametrize("preprocess", ALL, ids=IDS)
def test_a_batch_is_its_pictures_normalised(preprocess) -> None:
    images = varied()
    before = [image.tobytes() for image in images[:5]]
    pixels = preprocess.inputs(images)["pixels"]
    assert pixels.shape == (len(images), 3, preprocess.size, preprocess.size)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    for row, image in zip(pixels, images, strict=True):
        levels = preprocess.pixels(image).transpose(2, 0, 1).astype(np.float64) / 255
        mean, std = (np.asarray(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
        assert abs(row - (levels - mean) / std).max() < 1e-6
        assert (preprocess.inputs([image])["pixels"][0] == row).all()
    assert [image.tobytes() for image in images[:5]] == before


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    which=st.integers(0, len(SMALL) - 1),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    resize_in=st.sampled_from(["uint8", "float"]),
)
@settings(deadline=None)
def test_a_flat_picture_of_any_size_stays_flat(size, which, colour, resize_in) -> None:
    preprocess = replace(SMALL[which], resize_in=resize_in)
    pixels = preprocess.pixels(Image.new("RGB", size, colour))
    assert pixels.shape == (preprocess.size, preprocess.size, 3)
    shown = (abs(pixels - np.float32(colour)) < 1e-3).all(axis=2)
    border = (pixels == np.float32(preprocess.fill)).all(axis=2)
    assert (shown | border).all()
    assert shown.any()
    # What is shown is one rectangle, centred within a pixel.
    for axis in (0, 1):
        [places] = np.nonzero((shown & ~border).any(axis=axis))
        if len(places):
            assert np.ptp(places) + 1 == len(places)
            assert abs(places[0] - (preprocess.size - 1 - places[-1])) <= 1


@given(length=st.integers(1, 20_000), thickness=st.integers(1, 3), tall=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_strip_of_any_length_gives_an_input(length, thickness, tall) -> None:
    size = (thickness, length) if tall else (length, thickness)
    for preprocess in SMALL:
        pixels = preprocess.inputs([picture(length, size)])["pixels"]
        assert np.isfinite(pixels).all()


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_a_long_strip_costs_little_memory(size) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (DINOV2.pixels(image) == (200, 100, 50)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # of 4 GB


@pytest.mark.parametrize("tall", [False, True])
def test_a_strip_is_shown_as_if_it_were_resized_whole(tall) -> None:
    strip = varied()[4].crop((0, 60, 600, 63)).resize((2400, 12))
    strip = strip.transpose(Image.Transpose.ROTATE_90) if tall else strip
    whole = (224, 44_800) if tall else (44_800, 224)
    start = (0, 22_288) if tall else (22_288, 0)
    box = (*start, start[0] + 224, start[1] + 224)
    expected = np.asarray(strip.resize(whole, Image.Resampling.BICUBIC).crop(box))
    gap = abs(POCKET.pixels(strip).astype(int) - expected)
    assert gap.max() <= 3
    assert gap.mean() < 0.2


def test_float_differs_from_whole_levels_by_rounding_only() -> None:
    rounded = replace(SIGLIP, interpolation="bilinear")
    for image in varied():
        exact = replace(rounded, resize_in="float").pixels(image)
        assert exact.dtype == np.float32
        # Pillow rounds after each of its two passes.
        assert abs(exact - rounded.pixels(image)).max() <= 1.01
    assert (exact % 1 != 0).mean() > 0.5


@pytest.mark.parametrize("resize", ["squash", "shortest", "longest"])
def test_a_large_photo_in_float_is_resized_as_a_whole(resize) -> None:
    image = varied()[0].resize((1501, 1103))
    how = replace(BORDERS, resize=resize, resize_in="float")
    target = {"squash": (224, 224), "shortest": (304, 224), "longest": (224, 165)}[resize]
    green = image.getchannel(1).convert("F").resize(target, Image.Resampling.LANCZOS)
    left, top = (int((side - 224) / 2) for side in target)
    expected = np.full((224, 224), how.fill[1], dtype=np.float32)
    seen = np.asarray(green)[:, left : left + 224]
    expected[-top : len(seen) - top] = seen
    assert abs(how.pixels(image)[:, :, 1] - expected).max() < 1e-3


def test_pictures_that_are_not_rgb_are_converted_as_when_decoded() -> None:
    photo = varied()[0]
    gray, see_through = photo.convert("L"), photo.copy()
    see_through.putalpha(0)
    pixels = POCKET.inputs([gray, see_through])["pixels"]
    assert (pixels[0] == POCKET.inputs([gray.convert("RGB")])["pixels"][0]).all()
    assert (POCKET.pixels(see_through) == 255).all()


def test_no_pictures_give_an_empty_batch() -> None:
    assert POCKET.inputs([])["pixels"].shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    "preprocess",
    [*ALL, replace(BORDERS, resize_in="float"), NaFlex(16, 256, "bilinear", *CLIP)],
)
def test_json_and_back_is_the_same(preprocess) -> None:
    back = preprocess_of(json.loads(json.dumps(asdict(preprocess))))
    assert back == preprocess
    assert back.hash == preprocess.hash


FACTS = asdict(POCKET)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, "lacks size, resize, resize_to, interpolation, mean, std"),
        ({"max_patches": 256}, "lacks patch_px"),
        ({**FACTS, "scale": 1}, "no field scale"),
        ({**FACTS, "resize": "stretch"}, "resize 'stretch': it is one of shortest, longest"),
        ({**FACTS, "interpolation": ["box"]}, "interpolation ['box']"),
        ({**FACTS, "size": 0}, "size 0"),
        ({**FACTS, "size": 224.0}, "size 224.0"),
        ({**FACTS, "resize_to": True}, "resize_to True"),
        ({**FACTS, "mean": [0.5]}, "mean [0.5]"),
        ({**FACTS, "mean": [math.nan, 0, 0]}, "mean [nan, 0, 0]"),
        ({**FACTS, "std": [0.5, 0.5, 0.0]}, "std [0.5, 0.5, 0.0]"),
        ({**FACTS, "fill": [0, 0, 256]}, "fill [0, 0, 256]"),
        ({**FACTS, "fill": "black"}, "fill 'black'"),
    ],
)
def test_facts_that_make_no_sense_are_refused_by_name(facts, sentence) -> None:
    with pytest.raises(EncoderError) as caught:
        preprocess_of(facts)
    assert sentence in str(caught.value)
