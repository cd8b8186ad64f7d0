"""Pictures of their own shape as patches: the grid, the order, the padding, the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.encoders.naflex import NaFlex
from tests.encoders.photos import varied

HALF = (0.5, 0.5, 0.5)
SIGLIP2 = NaFlex(16, 256, "bilinear", HALF, HALF)
UNEVEN = NaFlex(14, 100, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIDES = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((512, 512), (16, 16)),
        ((640, 480), (14, 18)),
        ((480, 640), (18, 14)),
        ((10_000, 100), (2, 128)),
        ((7, 3), (10, 24)),
        ((1, 1), (7, 7)),  # a picture is enlarged a hundred times at most
    ],
)
def test_the_grid_is_that_of_the_reference(size, grid) -> None:
    assert SIGLIP2.grid(*size) == grid


@given(width=SIDES, height=SIDES)
@settings(deadline=None)
def test_a_grid_fits_and_keeps_the_shape(width, height) -> None:
    rows, columns = SIGLIP2.grid(width, height)
    assert 1 <= rows * columns <= 256
    # One scale for both sides, each rounded up to a whole patch.
    least = max((rows - 1) / height, (columns - 1) / width)
    most = min(rows / height, columns / width)
    assert least <= most * (1 + 1e-9) or 1 in (rows, columns)


@pytest.mark.parametrize("naflex", [SIGLIP2, UNEVEN])
def test_patches_are_the_resized_picture_row_by_row(naflex) -> None:
    images = varied()
    inputs = naflex.inputs(images)
    side = naflex.patch_px
    assert inputs["pixels"].shape == (len(images), naflex.max_patches, side * side * 3)
    assert inputs["pixels"].dtype == np.float32
    assert inputs["mask"].dtype == inputs["shapes"].dtype == np.int64
    for row, image in enumerate(images):
        rows, columns = inputs["shapes"][row]
        target = (int(columns) * side, int(rows) * side)
        resized = image.resize(target, Image.Resampling[naflex.interpolation.upper()])
        at = 0
        for top in range(0, target[1], side):
            for left in range(0, target[0], side):
                tile = resized.crop((left, top, left + side, top + side))
                expected = (np.asarray(tile) / 255 - naflex.mean) / naflex.std
                assert abs(inputs["pixels"][row, at] - expected.ravel()).max() < 1e-6
                at += 1
        assert inputs["mask"][row].tolist() == [1] * at + [0] * (naflex.max_patches - at)
        assert not inputs["pixels"][row, at:].any()


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    images = varied()[:6]
    together = SIGLIP2.inputs(images)
    for row, image in enumerate(images):
        for name, array in SIGLIP2.inputs([image]).items():
            assert (array[0] == together[name][row]).all()


def test_no_pictures_give_an_empty_batch() -> None:
    shapes = {name: array.shape for name, array in SIGLIP2.inputs([]).items()}
    assert shapes == {"pixels": (0, 256, 768), "mask": (0, 256), "shapes": (0, 2)}


def test_size_is_that_of_a_square_picture() -> None:
    assert SIGLIP2.size == 256
    assert UNEVEN.size == 140


@pytest.mark.slow
@pytest.mark.parametrize("naflex", [SIGLIP2, UNEVEN])
def test_inputs_equal_those_of_the_reference(naflex) -> None:
    pytest.importorskip("transformers")
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    reference = Siglip2ImageProcessorPil(
        patch_size=naflex.patch_px,
        max_num_patches=naflex.max_patches,
        resample=Image.Resampling[naflex.interpolation.upper()],
        image_mean=list(naflex.mean),
        image_std=list(naflex.std),
    )(list(varied()), return_tensors="np")
    inputs = naflex.inputs(varied())
    assert abs(inputs["pixels"] - reference["pixel_values"]).max() < 1e-6
    assert (inputs["mask"] == reference["pixel_attention_mask"]).all()
    assert (inputs["shapes"] == reference["spatial_shapes"]).all()


@pytest.mark.slow
def test_the_torch_version_of_the_reference_rounds_otherwise() -> None:
    pytest.importorskip("torchvision")
    from transformers import Siglip2ImageProcessor

    reference = Siglip2ImageProcessor()(list(varied()), return_tensors="np")
    inputs = SIGLIP2.inputs(varied())
    levels = abs(inputs["pixels"] - reference["pixel_values"]) * 127.5
    assert levels.max() < 1.01
    assert (inputs["shapes"] == reference["spatial_shapes"]).all()


@pytest.mark.slow
@given(width=SIDES, height=SIDES, patch_px=st.integers(1, 32), most=st.integers(1, 1024))
@settings(deadline=None, max_examples=500)
def test_grids_equal_those_of_the_reference(width, height, patch_px, most) -> None:
    pytest.importorskip("transformers")
    from transformers.models.siglip2.image_processing_pil_siglip2 import (
        get_image_size_for_max_num_patches,
    )

    grid = NaFlex(patch_px, most, "bilinear", HALF, HALF).grid(width, height)
    size = get_image_size_for_max_num_patches(height, width, patch_px, most)
    assert tuple(side * patch_px for side in grid) == size
