"""Thick slices, against sums over planes and against a fine integral."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool3d

from operators import Rng, ThickSlices, ThickSlicesSpec
from operators.errors import ShapeError
from operators.slices import slice_centres, slice_matrix
from operators.testing import check_operator


@settings(max_examples=12)
@given(
    depth=st.integers(1, 14),
    thickness=st.floats(0.2, 20),
    spacing=st.floats(1, 6),
    profile=st.sampled_from(["boxcar", "gaussian"]),
)
def test_any_slices_pass_the_battery(depth: int, thickness: float, spacing: float, profile: str) -> None:
    operator = ThickSlices((2, depth, 3, 2), thickness, spacing, profile)  # type: ignore[arg-type]
    check_operator(operator)
    flat = operator(torch.full((1, 2, depth, 3, 2), 0.3))
    assert torch.allclose(flat, torch.tensor(0.3), atol=1e-5)


@pytest.mark.parametrize("spacing", [2, 3, 4])
def test_slices_side_by_side_are_means_of_planes(spacing: int) -> None:
    shape = (2, 5 * spacing, 4, 3)
    x = Rng([0, 1]).rand(shape)
    y = ThickSlices(shape, spacing, spacing)(x)
    assert torch.allclose(y, avg_pool3d(x, (spacing, 1, 1)), atol=1e-6)


@pytest.mark.parametrize(("thickness", "spacing"), [(3.0, 2.0), (2.5, 3.3), (5.0, 1.7), (0.6, 1.0)])
@pytest.mark.parametrize("profile", ["boxcar", "gaussian"])
def test_weights_are_integrals_of_the_profile(thickness: float, spacing: float, profile: str) -> None:
    depth, fine = 11, 2000
    places = (np.arange(depth * fine) + 0.5) / fine
    away = places - slice_centres(depth, spacing)[:, None]
    if profile == "boxcar":
        sensitivity = (np.abs(away) < thickness / 2).astype(float)
    else:
        sensitivity = 0.5 ** ((2 * away / thickness) ** 2)  # half its height at half the thickness
    weights = sensitivity.reshape(len(away), depth, fine).mean(2)
    weights /= weights.sum(1, keepdims=True)
    matrix = slice_matrix(depth, thickness, spacing, profile).numpy()  # type: ignore[arg-type]
    assert np.allclose(matrix, weights, atol=2e-3)


def test_the_default_passes_the_battery() -> None:
    spec = ThickSlicesSpec()
    operator = spec.build((2, 9, 3, 4))
    assert operator.offers == spec.offers
    check_operator(operator)


def test_slices_lie_in_the_middle_of_the_volume() -> None:
    assert slice_centres(10, 3.0).tolist() == [2.0, 5.0, 8.0]
    assert slice_centres(2, 5.0).tolist() == [1.0]
    matrix = slice_matrix(10, 3.0, 3.0, "boxcar")
    assert torch.allclose(matrix, matrix.flip(0, 1))


def test_guess_repeats_the_nearest_slice() -> None:
    operator = ThickSlices((1, 6, 1, 1), 3, 3)
    guess = operator.guess(torch.tensor([1.0, 2.0]).reshape(1, 1, 2, 1, 1))
    assert guess.flatten().tolist() == [1, 1, 1, 2, 2, 2]


@given(slices=st.integers(1, 20), spacing=st.floats(1, 9))
def test_shapes_go_there_and_back(slices: int, spacing: float) -> None:
    spec = ThickSlicesSpec(spacing=spacing)
    shape = spec.image_shape((1, slices, 2, 3))
    assert spec.build(spec.usable_shape(shape)).out_shape == (1, slices, 2, 3)


def test_pictures_and_bad_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected a volume"):
        ThickSlicesSpec().usable_shape((3, 16, 16))
    with pytest.raises(ShapeError, match="spacing of at least 1"):
        ThickSlices((1, 8, 4, 4), 2, 0.5)
    with pytest.raises(ShapeError, match="thickness above 0"):
        ThickSlices((1, 8, 4, 4), 0, 2)
