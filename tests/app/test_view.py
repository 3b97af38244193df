"""Pictures for people."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from app.view import (
    SPREAD,
    Cell,
    data_picture,
    enlarged,
    fitted,
    heat,
    heat_with_scale,
    montage,
    png,
    spread,
    spread_scale,
    to_colours,
    webp,
)


def test_colours_are_clipped_and_rounded() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5]).reshape(1, 1, 5).expand(3, 1, 5)
    assert to_colours(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 5, 7), (3, 5, 7)),
        ((1, 5, 7), (1, 5, 7)),
        ((5, 7), (1, 5, 7)),
        ((100,), (1, 10, 10)),
        ((3, 50), (1, 12, 13)),
        ((2, 5, 7), (1, 10, 14)),
        ((9, 5, 7), (1, 10, 14)),
        ((1, 8, 5, 7), (1, 10, 14)),
    ],
)
@pytest.mark.parametrize("complex_", [False, True])
def test_data_of_any_shape_become_a_picture(shape: tuple[int, ...], expected: tuple[int, ...], complex_: bool) -> None:
    data = 40 * torch.rand(shape)
    picture = data_picture(torch.complex(data, -data) if complex_ else data)
    assert picture.shape == expected
    assert float(picture.min()) == 0
    assert float(picture.max()) == 1


def test_a_picture_is_shown_as_it_is() -> None:
    image = torch.rand(3, 6, 5)
    assert torch.equal(data_picture(image), image)


def test_red_comes_first() -> None:
    image = torch.zeros(3, 2, 2)
    image[0] = 1
    assert to_colours(image)[0, 0].tolist() == [255, 0, 0]


def test_a_grey_image_becomes_three_equal_channels() -> None:
    assert to_colours(torch.full((1, 2, 3), 0.2)).tolist() == [[[51] * 3] * 3] * 2


@pytest.mark.parametrize("encode", [png, webp])
def test_encoded_pictures_are_lossless(encode) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(colours))).convert("RGB")), colours)


def test_enlarging_repeats_whole_pixels() -> None:
    small = torch.arange(6.0).reshape(1, 2, 3)
    large = enlarged(small, 8, 12)
    assert torch.equal(large, small.repeat_interleave(4, -2).repeat_interleave(4, -1))
    assert enlarged(large, 8, 12) is large


def test_fitting_only_ever_reduces() -> None:
    colours = np.zeros((30, 60, 3), np.uint8)
    assert fitted(colours, 20).shape == (10, 20, 3)
    assert fitted(colours, 60) is colours


def test_spread_is_the_root_mean_square_over_colours() -> None:
    std = torch.tensor([3.0, 4.0, 0.0]).reshape(3, 1, 1)
    assert spread(std).item() == pytest.approx((25 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("largest", "top"),
    [(0.0, 0.01), (0.0103, 0.015), (0.02, 0.02), (0.034, 0.04), (0.095, 0.1), (0.7, 0.8), (1.0, 1.0)],
)
def test_the_scale_is_a_plain_number_that_covers_the_map(largest: float, top: float) -> None:
    assert spread_scale([torch.full((4, 4), largest), torch.zeros(0)]) == top


def test_heat_goes_from_black_to_the_end_of_opencvs_inferno_and_stays_there() -> None:
    end = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    colours = heat(torch.tensor([[0.0, 0.1, 0.4]]), 0.1)
    assert colours[0, 0].sum() < 10
    assert colours[0, 1].tolist() == colours[0, 2].tolist() == end.tolist()


def test_heat_grows_brighter_all_the_way() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    brightness = heat(torch.linspace(0, 1, 64)[None], 1.0)[0] @ weights
    assert (np.diff(brightness) > 0).all()


def test_a_map_with_its_scale_keeps_the_map_and_adds_the_bar_beneath() -> None:
    values = torch.linspace(0, 0.05, 400 * 40).reshape(40, 400)
    colours = heat_with_scale(values, 0.05, SPREAD)
    assert np.array_equal(colours[:40], heat(values, 0.05))
    assert colours.shape[0] > 80
    assert heat_with_scale(values[:, :16], 0.05, SPREAD).shape[1] > 200  # the words need room


def test_a_montage_holds_each_picture_unchanged_in_its_place() -> None:
    red, blue = np.full((20, 30, 3), (255, 0, 0), np.uint8), np.full((10, 40, 3), (0, 0, 255), np.uint8)
    colours = montage(
        [[Cell(red, "a caption"), None], [Cell(red), Cell(blue, "x")]],
        ["first\nrow", "second"],
        ["left", "right"],
        "note",
    )
    assert (colours == (255, 0, 0)).all(-1).sum() == 2 * red.shape[0] * red.shape[1]
    assert (colours == (0, 0, 255)).all(-1).sum() == blue.shape[0] * blue.shape[1]


def test_a_montage_leaves_room_for_long_words() -> None:
    tiny = Cell(np.zeros((4, 4, 3), np.uint8), "a caption far wider than its picture")
    plain = montage([[tiny, tiny]])
    assert plain.shape[1] > 400
    assert montage([[tiny, tiny]], note="n" * 200).shape[1] > plain.shape[1]
