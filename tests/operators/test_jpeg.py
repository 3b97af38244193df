"""JPEG against Pillow's encoder and decoder, and the projection onto what a file leaves open."""

import io
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from operators import Jpeg, JpegSpec, Rng
from operators.errors import ShapeError
from operators.jpeg import quantisation_table
from operators.testing import check_operator


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    with Image.open(str(files("assets") / "images" / "astronaut.png")) as image:
        return image.convert(mode).crop((40, 30, 40 + width, 30 + height))


def tensor(image: Image.Image) -> torch.Tensor:
    """(1, C, H, W) in unit range."""
    planes = np.array(image, np.float64)
    return torch.from_numpy(planes.reshape(*planes.shape[:2], -1) / 255).permute(2, 0, 1)[None]


def compressed(image: Image.Image, quality: int, subsampling: int = 0) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)


@settings(max_examples=10)
@given(quality=st.integers(1, 100))
def test_tables_are_those_of_libjpeg(quality: int) -> None:
    tables = compressed(picture(16, 16), quality).quantization
    for number, plane in enumerate(("luma", "chroma")):
        assert quantisation_table(plane, quality).flatten().tolist() == tables[number]  # type: ignore[arg-type]


def blocks(plane: torch.Tensor) -> torch.Tensor:
    """The largest number in every block of 8x8, (rows, columns)."""
    return torch.nn.functional.max_pool2d(plane[None, None].double(), 8, ceil_mode=True)[0, 0]


@pytest.mark.parametrize(("quality", "share"), [(5, 0.97), (10, 0.97), (30, 0.95), (75, 0.7), (95, 0.6)])
@pytest.mark.parametrize(("height", "width"), [(128, 120), (61, 75)])
def test_grey_pictures_equal_pillow_to_rounding(quality: int, share: float, height: int, width: int) -> None:
    image = picture(height, width, "L")
    x, expected = tensor(image), tensor(compressed(image, quality))
    found = Jpeg((1, height, width), quality).double()(x)
    # where the file's pixels are clipped, ours are not
    gap = blocks(255 * (found.clamp(0, 1) - expected)[0, 0].abs())
    # integer arithmetic decides otherwise where a coefficient lies half-way between two levels, and these are closer
    # together at high quality
    assert float((gap < 1.01).double().mean()) > share
    assert float(gap.median()) < 0.8


@pytest.mark.parametrize(("subsampling", "number"), [("4:4:4", 0), ("4:2:0", 2)])
@pytest.mark.parametrize("quality", [5, 10, 30, 75, 95])
@pytest.mark.parametrize(("height", "width"), [(128, 112), (61, 75), (9, 34)])
def test_colours_are_near_pillow(subsampling: str, number: int, quality: int, height: int, width: int) -> None:
    # a file's colours are rounded to 8 bits before they are compressed, ours are not
    image = picture(height, width)
    x, expected = tensor(image), tensor(compressed(image, quality, number).convert("RGB"))
    found = Jpeg((3, height, width), quality, subsampling).double()(x)  # type: ignore[arg-type]
    gap = 255 * (found.clamp(0, 1) - expected).abs()
    assert float(gap.mean()) < 1.3
    assert float(gap.median()) < 0.8
    assert float((gap > 4).double().mean()) < 0.055


@pytest.mark.parametrize(("subsampling", "number"), [("4:4:4", 0), ("4:2:0", 2)])
@pytest.mark.parametrize("quality", [5, 20, 60])
def test_a_pillow_file_is_read_back_to_its_coefficients(subsampling: str, number: int, quality: int) -> None:
    # a soft picture of middling colours, of which nothing is clipped
    draw = np.random.default_rng(0).uniform(90, 160, (5, 7, 3)).astype(np.uint8)
    image = Image.fromarray(draw).resize((112, 80), Image.Resampling.BICUBIC)
    expected = tensor(compressed(image, quality, number).convert("RGB"))
    operator = Jpeg((3, 80, 112), quality, subsampling).double()  # type: ignore[arg-type]
    again = operator(operator.project(expected, expected))
    gap = 255 * (again - expected).abs()
    assert float(gap.mean()) < 0.55
    assert float((gap > 3).double().mean()) < 0.002


@settings(max_examples=8)
@given(
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:0"]),
    channels=st.sampled_from([1, 3]),
    rows=st.integers(1, 2),
    columns=st.integers(1, 2),
)
def test_whole_blocks_pass_the_battery(quality: int, subsampling: str, channels: int, rows: int, columns: int) -> None:
    spec = JpegSpec.model_validate({"quality": quality, "subsampling": subsampling})
    check_operator(spec.build(spec.usable_shape((channels, 16 * rows + 3, 16 * columns + 5))))


def test_single_precision_stays_in_its_cells() -> None:
    for quality in (5, 50, 90):
        operator = Jpeg((3, 64, 80), quality)
        y, z = operator(Rng([0]).rand((3, 64, 80))), Rng([1]).rand((3, 64, 80))
        assert torch.allclose(operator(operator.project(z, y)), y, atol=1e-5)


def test_projection_is_the_nearest_in_luma_and_chroma() -> None:
    # of an image moved in one coefficient of luma alone, the projection undoes just what is too much
    operator = Jpeg((1, 8, 8), 50).double()
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    wave = torch.cos(torch.pi / 8 * (torch.arange(8) + 0.5)).double().expand(8, 8)
    wave = wave / wave.norm()
    step = float(quantisation_table("luma", 50)[0, 1]) / 255
    for size, left in ((0.4, 0.4), (0.9, 0.499), (-3.0, -0.499)):
        moved = operator.project(x + size * step * wave, operator(x))
        assert torch.allclose(moved, x + left * step * wave, atol=1e-9)


def test_any_size_is_near_its_data_after_projection() -> None:
    x, z = tensor(picture(37, 53)), Rng([1], dtype=torch.float64).rand((3, 37, 53))
    operator = Jpeg((3, 37, 53), 30).double()
    gap = (operator(operator.project(z, operator(x))) - operator(x)).abs()
    # exact in whole blocks, but for the interpolation of colours next to the last ones
    assert float(gap[..., :30, :46].max()) < 1e-2
    assert float(gap.mean()) < 0.1 * float((operator(z) - operator(x)).abs().mean())


def test_the_slope_is_that_without_rounding() -> None:
    operator = Jpeg((3, 16, 16), 20, "4:4:4").double()
    rng = Rng([0], dtype=torch.float64)
    _, pullback = operator.vjp(rng.rand((3, 16, 16)))
    v = rng.randn((3, 16, 16))
    assert torch.allclose(pullback(v), v, atol=1e-5)


def test_usable_shapes_and_refusals() -> None:
    assert JpegSpec().usable_shape((3, 50, 31)) == (3, 48, 16)
    assert JpegSpec().usable_shape((1, 50, 31)) == (1, 48, 24)
    assert JpegSpec(subsampling="4:4:4").usable_shape((3, 50, 31)) == (3, 48, 24)
    with pytest.raises(ShapeError, match="at least 16x16"):
        JpegSpec().usable_shape((3, 15, 40))
    with pytest.raises(ShapeError, match="grey or colour"):
        JpegSpec().usable_shape((2, 16, 16))
    with pytest.raises(ShapeError, match="quality from 1 to 100"):
        Jpeg((1, 8, 8), 0)
    with pytest.raises(ValidationError):
        JpegSpec(quality=101)
