"""Lost colour."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from operators import Grayscale, GrayscaleSpec, Rng
from operators.errors import ShapeError
from operators.testing import check_operator


@settings(max_examples=8)
@given(channels=st.integers(1, 5), volume=st.booleans())
def test_the_mean_of_any_channels_passes_the_battery(channels: int, volume: bool) -> None:
    shape = (channels, 2, 3, 4) if volume else (channels, 3, 4)
    operator = Grayscale(shape)
    check_operator(operator)
    x = Rng([0]).rand(shape)
    assert torch.allclose(operator(x), x.mean(1, keepdim=True), atol=1e-6)


def test_luma_is_that_of_pillow() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    operator = Grayscale((3, 9, 8), "luma")
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    assert np.abs(255 * operator(x)[0, 0].numpy() - grey).max() <= 0.51
    check_operator(operator)


def test_grey_pictures_are_read_from_one_channel_or_three() -> None:
    spec = GrayscaleSpec(weights="luma")
    grey = Rng([0]).rand((1, 5, 6))
    assert spec.image_shape((1, 5, 6)) == spec.image_shape((3, 5, 6)) == (3, 5, 6)
    operator = spec.build((3, 5, 6))
    assert torch.allclose(operator.data_from_image(grey.expand(-1, 3, -1, -1)), grey, atol=1e-6)
    assert torch.equal(operator.data_from_image(grey), grey)
    # a grey picture explains itself
    assert torch.allclose(operator(operator.guess(grey)), grey, atol=1e-6)


def test_luma_of_other_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match="red, green and blue"):
        GrayscaleSpec(weights="luma").usable_shape((2, 8, 8))
    with pytest.raises(ShapeError, match="with channels"):
        GrayscaleSpec().build((8, 8))
