"""Exposure blur: its curve against the standard's, its steps against numpy, its gradient and its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import correlate

from operators import Need, Rng
from operators.blur import make_blur
from operators.errors import NeedError, ShapeError
from operators.kernels import GaussianKernel, LineKernel, line_kernel, motion_kernel
from operators.nonlinear import ExposureBlur, ExposureBlurSpec, from_light, saturate, to_light
from operators.testing import check_operator


def test_the_curve_is_srgbs() -> None:
    value = torch.linspace(0, 1, 1001, dtype=torch.float64)
    v = value.numpy()
    standard = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    assert np.allclose(to_light(value).numpy(), standard, atol=1e-5)


@given(st.floats(-2, 3))
def test_the_curve_is_undone(value: float) -> None:
    x = torch.tensor([value], dtype=torch.float64)
    assert torch.allclose(from_light(to_light(x)), x, atol=1e-12)


def test_curve_and_shoulder_have_no_kinks() -> None:
    x = torch.linspace(-0.5, 3, 350001, dtype=torch.float64)
    for curve in (to_light, from_light, lambda v: saturate(v, 0.3), lambda v: saturate(v, 1.0)):
        slope = curve(x).diff() / x.diff()
        assert float(slope.min()) > 0
        assert float(slope.diff().abs().max()) < 0.05  # the standard's own curve jumps by 0.2
    assert torch.equal(saturate(x[x < 0.7], 0.3), x[x < 0.7])
    assert float(saturate(torch.tensor(100.0), 0.3)) == pytest.approx(1)


def test_steps_in_order() -> None:
    image = np.random.default_rng(0).random((3, 12, 14))
    kernel = motion_kernel(5, 0.5, 2)
    light = ((image + 0.055) / 1.055) ** 2.4
    light = np.where(image > 0.04045, light, image / 12.92)
    light = 1.8 * np.stack([correlate(c, kernel.numpy(), mode="mirror") for c in light])
    light = np.where(light > 0.75, 0.75 + 0.25 * np.tanh((light - 0.75) / 0.25), light)
    expected = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    operator = ExposureBlur(kernel, (3, 12, 14), gain=1.8, shoulder=0.25)
    found = operator(torch.from_numpy(image)[None])[0].numpy()
    assert np.allclose(found, expected, atol=1e-4)
    assert found.max() < 1


def test_a_bright_point_draws_a_brighter_streak_than_in_encoded_values() -> None:
    x = torch.full((1, 1, 9, 15), 0.1, dtype=torch.float64)
    x[..., 4, 7] = 1
    kernel = line_kernel(9, 6.0, 0.0)
    camera = ExposureBlur(kernel, (1, 9, 15), gain=1.0, shoulder=0.1)(x)
    plain = make_blur(kernel, (1, 9, 15), "reflect")(x)
    assert float(camera[..., 4, 7]) > 1.5 * float(plain[..., 4, 7])


@pytest.mark.parametrize("boundary", ["circular", "reflect", "replicate", "zero", "valid"])
def test_exposure_blur_passes_the_battery(boundary: str) -> None:
    spec = ExposureBlurSpec.model_validate({"kernel": LineKernel(size=7, length=4), "boundary": boundary})
    assert ExposureBlurSpec.model_validate_json(spec.model_dump_json()) == spec
    operator = spec.build((2, 11, 12))
    assert operator.offers == spec.offers == {Need.GRADIENT}
    check_operator(operator)


@given(gain=st.floats(0.1, 8), shoulder=st.floats(0.05, 1), seed=st.integers(0, 99))
def test_gradient_is_true(gain: float, shoulder: float, seed: int) -> None:
    operator = ExposureBlur(motion_kernel(3, 0.5, seed), (1, 3, 4), gain, shoulder).double()
    x = Rng([seed], dtype=torch.float64).randn((1, 3, 4)) * 0.3 + 0.5
    assert torch.autograd.gradcheck(operator, x.requires_grad_(), eps=1e-6, atol=1e-5)


def test_an_even_picture_is_guessed_back() -> None:
    operator = ExposureBlurSpec(gain=1.2, shoulder=0.1).build((3, 16, 17))
    x = torch.full((2, 3, 16, 17), 0.4)
    assert torch.allclose(operator.guess(operator(x)), x, atol=1e-5)


def test_picture_of_a_valid_exposure_blur_is_smaller() -> None:
    spec = ExposureBlurSpec(kernel=GaussianKernel(size=6, std=1), boundary="valid")
    assert spec.build((3, 20, 21)).out_shape == (3, 15, 16)
    assert spec.image_shape((3, 15, 16)) == (3, 20, 21)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ShapeError, match="gain > 0"):
        ExposureBlur(torch.ones(1, 1), (1, 4, 4), gain=0.0)
    with pytest.raises(ShapeError, match="shoulder above 0"):
        ExposureBlur(torch.ones(1, 1), (1, 4, 4), shoulder=0.0)
    with pytest.raises(ValidationError, match="shoulder"):
        ExposureBlurSpec(shoulder=1.5)
    assert not hasattr(ExposureBlur(torch.ones(1, 1), (1, 4, 4)), "adjoint")
    with pytest.raises(NeedError, match="choose another"):
        ExposureBlur(torch.ones(1, 1), (1, 4, 4)).project(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
