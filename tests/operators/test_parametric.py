"""Operators with unknown parameters: their members are the known operators, their slopes are right."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import Gaussian, Identity, Likelihood, Rng, UnknownExposureSpec, UnknownKernelSpec, UnknownWidthSpec
from operators.blur import Boundary, make_blur
from operators.errors import NeedError, ShapeError
from operators.kernels import GaussianKernel, motion_kernel, oriented_gaussian_kernel
from operators.parametric import Held, Parametric, Whitened, hold
from operators.spec import Need
from operators.testing import check_operator
from operators.unknown_blur import BlurEach, blur_each

SHAPE = (2, 9, 12)
BOUNDARIES: tuple[Boundary, ...] = ("circular", "reflect", "replicate", "zero", "valid")
FAMILIES: dict[str, Parametric] = {
    "kernel": UnknownKernelSpec(size=5, kernel=GaussianKernel(size=5, std=1)).build(SHAPE),
    "width": UnknownWidthSpec(widest=1.2, std=1).build(SHAPE),
    "exposure": UnknownExposureSpec(gains=(0.3, 2), offsets=0.1, clipped=False).build(SHAPE),
}


def some(family: Parametric, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random images, parameters and data."""
    rng = Rng(range(batch), dtype=torch.float64)
    # logarithms of widths and gains inside their ranges
    u = family.constrain(0.01 + 0.04 * rng.randn(family.parameter_shape).abs())
    return rng.randn(family.in_shape), u, rng.randn(family.out_shape)


@given(
    boundary=st.sampled_from(BOUNDARIES), size=st.integers(1, 6), height=st.integers(6, 10), width=st.integers(6, 10)
)
def test_a_member_is_the_known_blur(boundary: Boundary, size: int, height: int, width: int) -> None:
    kernels = torch.stack([motion_kernel(size, 0.5, seed) for seed in (1, 2)])
    x = Rng([0, 1], dtype=torch.float64).randn((3, height, width))
    found = blur_each(x, kernels, boundary)
    for k in (0, 1):
        known = make_blur(kernels[k], (3, height, width), boundary).double()
        assert torch.allclose(found[k : k + 1], known(x[k : k + 1]), atol=1e-6)  # known kernels are kept in float32


@pytest.mark.parametrize("boundary", ["circular", "reflect", "valid"])
def test_the_blur_at_given_kernels_passes_the_battery(boundary: Boundary) -> None:
    blur = BlurEach(motion_kernel(4, 0.5, 3)[None], (1, 6, 5), boundary)
    check_operator(blur if boundary == "reflect" else Whitened(blur, torch.tensor([0.3])))


def test_the_width_is_that_of_a_gaussian() -> None:
    family = UnknownWidthSpec(widest=2).build((1, 16, 16)).double()
    u = torch.tensor([[1.3], [0.7]], dtype=torch.float64).log()
    kernels = family.kernels(u)
    for k, std in enumerate((1.3, 0.7)):
        assert torch.allclose(kernels[k], oriented_gaussian_kernel(13, std, std, 0), atol=1e-12)
    assert torch.allclose(family.describe(u)["width"], u.exp()[:, 0])


def test_simulated_data_are_those_of_the_truth() -> None:
    x = Rng([3]).rand((3, 12, 12))
    spec = UnknownExposureSpec(gains=(0.5, 3))
    assert torch.equal(spec.build((3, 12, 12))(x), torch.cat([0.5 * x, (3 * x).clamp(0, 1)], -1))
    blurred = UnknownKernelSpec(size=9, kernel=GaussianKernel(size=5, std=1), boundary="zero").build((3, 12, 12))(x)
    known = make_blur(GaussianKernel(size=5, std=1).build(), (3, 12, 12), "zero")(x)
    assert torch.allclose(blurred, known, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    family = FAMILIES[name].double()
    x, u, y = some(family, 2)
    misfit, slope_x, slope_u = family.misfit_and_slopes(y, x, u)
    rng, small = Rng([8, 9], dtype=torch.float64), 1e-6
    along_x, along_u = rng.randn(family.in_shape), rng.randn(family.parameter_shape)
    # a step within the allowed kernels has sum 0 and stays on what is not 0
    along_u = along_u * (u > 0) if name == "kernel" else along_u

    def at(step: float) -> torch.Tensor:
        data = family.apply_with(x + step * along_x, family.constrain(u + step * along_u))
        gaps: torch.Tensor = torch.linalg.vector_norm((y - data).flatten(1), dim=1)
        return gaps

    predicted = (slope_x * along_x).flatten(1).sum(1) + (slope_u * along_u).flatten(1).sum(1)
    assert torch.allclose(misfit, at(0), atol=1e-12)
    assert torch.allclose((at(small) - at(-small)) / (2 * small), predicted, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_do_not_see_each_other(name: str) -> None:
    family = FAMILIES[name].double()
    x, u, y = some(family, 3)
    together = family.misfit_and_slopes(y, x, u)
    for k in range(3):
        alone = family.misfit_and_slopes(y[k : k + 1], x[k : k + 1], u[k : k + 1])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[k : k + 1], b, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_allowed_parameters_are_left_alone(name: str) -> None:
    family = FAMILIES[name].double()
    _, u, y = some(family, 3)
    assert torch.allclose(family.constrain(u), u, atol=1e-12)
    start = family.start(y)
    assert torch.allclose(family.constrain(start), start, atol=1e-12)


def test_holding_gives_the_likelihood_of_each_sample() -> None:
    family = UnknownWidthSpec(widest=1.2).build(SHAPE).double()
    x, u, y = some(family, 2)
    sigma = torch.tensor([0.1, 0.3], dtype=torch.float64)
    held = hold(Likelihood(family, Gaussian(sigma=0.5), y), u, sigma)
    moved = held.prox(x, torch.tensor([0.02, 0.05], dtype=torch.float64))
    for k in (0, 1):
        one = Likelihood(family.at(u[k : k + 1]), Gaussian(sigma=float(sigma[k])), y[k : k + 1])
        assert torch.allclose(held.residual_sigma(x)[k : k + 1], one.residual_sigma(x[k : k + 1]), atol=1e-10)
        assert torch.allclose(moved[k : k + 1], one.prox(x[k : k + 1], (0.02, 0.05)[k]), atol=1e-6)


def test_a_gain_that_went_too_far_down_comes_back() -> None:
    family = UnknownExposureSpec(gains=(1,)).build((1, 1, 2)).double()
    x, y = torch.tensor([[[[0.9, 0.2]]]]).double(), torch.tensor([[[[0.9, 0.2]]]]).double()
    _, _, slope_u = family.misfit_and_slopes(y, x, family.constrain(torch.tensor([[[-5.0]]]).double()))
    assert float(slope_u) < -0.1


def test_white_means_at_least_white() -> None:
    family = UnknownExposureSpec(gains=(1,)).build((1, 1, 2)).double()
    x = torch.tensor([[[[0.9, 0.2]]]], dtype=torch.float64)
    y, u = torch.tensor([[[[1.0, 0.5]]]], dtype=torch.float64), torch.tensor([[[2.0]]], dtype=torch.float64)
    misfit, slope_x, slope_u = family.misfit_and_slopes(y, x, u)
    assert float(misfit) == pytest.approx(0.1)
    assert torch.allclose(slope_x.flatten(), torch.tensor([0.0, -2.0]).double())
    assert float(slope_u) == pytest.approx(-0.2)


def test_offsets_take_up_their_share_in_a_step() -> None:
    family = UnknownExposureSpec(gains=(1,), offsets=0.25, clipped=False).build((1, 2, 3)).double()
    x, u, y = some(family, 1)
    misfit, _, slope_u = family.misfit_and_slopes(y, x, u)
    moved = u - 2 / 6 * misfit * slope_u
    offsets = [family.describe(v)["offset"] for v in (u, moved)]
    assert torch.allclose(offsets[1] - offsets[0], 0.25 * (y - family.apply_with(x, u))[:, None], atol=1e-12)


def test_members_without_solves_are_held_too() -> None:
    family = FAMILIES["exposure"].double()
    x, u, y = some(family, 2)
    held = hold(Likelihood(family, Gaussian(sigma=0.5), y), u)
    assert isinstance(held.operator, Held)
    assert torch.equal(held.operator(x), family.apply_with(x, u))


def test_unfit_holds_are_refused() -> None:
    known = Likelihood(Identity((1, 4, 4)), Gaussian(sigma=0.1), torch.zeros(1, 1, 4, 4))
    with pytest.raises(NeedError, match="unknown parameters"):
        hold(known, torch.zeros(1, 1))
    family = FAMILIES["exposure"]
    with pytest.raises(NeedError, match="linear"):
        hold(Likelihood(family, Gaussian(sigma=0.1), torch.zeros(1, *family.out_shape)), None, torch.ones(1))


def test_what_is_not_blind_is_refused() -> None:
    for family in FAMILIES.values():
        assert Need.PARAMETERS in family.offers
        assert not family.offers & {Need.GRADIENT, Need.PROX, Need.LINEAR, Need.PROJECTION}
        with pytest.raises(NeedError, match="gradient"):
            family.vjp(torch.zeros(1, *family.in_shape))


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ShapeError, match="at most 5x5"):
        UnknownKernelSpec(size=5, kernel=GaussianKernel(size=7, std=1)).build(SHAPE)
    with pytest.raises(ShapeError, match="more than 10 pixels"):
        UnknownKernelSpec(size=21, kernel=GaussianKernel(size=5, std=1)).build((1, 10, 30))
    with pytest.raises(ShapeError, match="3 frames of equal width"):
        UnknownExposureSpec(gains=(1, 1, 1)).image_shape((3, 8, 8))
    with pytest.raises(ValidationError):
        UnknownExposureSpec(gains=())
    with pytest.raises(ValidationError):
        UnknownWidthSpec(widest=0.1)


def test_pictures_have_the_shape_of_the_image() -> None:
    assert UnknownExposureSpec(gains=(1, 2)).image_shape((3, 8, 20)) == (3, 8, 10)
    spec = UnknownKernelSpec(size=5, boundary="valid", kernel=GaussianKernel(size=5, std=1))
    assert spec.image_shape((3, 8, 20)) == (3, 12, 24)
    assert spec.build((3, 12, 24)).out_shape == (3, 8, 20)
