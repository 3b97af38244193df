"""Checks, sentences and composition of operators."""

import pytest
import torch

from operators import DownsampleSpec, Identity, IdentitySpec, InpaintingSpec, Need, Rng, make_blur
from operators.errors import ShapeError
from operators.kernels import disk_kernel


def test_mismatch_is_a_sentence() -> None:
    operator = make_blur(disk_kernel(5, 2), (3, 16, 16))
    with pytest.raises(ShapeError, match=r"Blur expected \(B, 3, 16, 16\) real, got \(4, 1, 16, 16\) complex64"):
        operator(torch.zeros(4, 1, 16, 16, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="int64"):
        operator(torch.zeros(4, 3, 16, 16, dtype=torch.long))
    with pytest.raises(ShapeError, match="CircularBlur data expected"):
        operator.adjoint(torch.zeros(4, 3, 16, 15))
    with pytest.raises(ShapeError, match=r"Identity expected .* complex, got"):
        Identity((2,), in_complex=True)(torch.zeros(1, 2))


@pytest.mark.parametrize("rho", [0, -1.0, float("nan"), float("inf"), torch.tensor([1.0, 0.0]), torch.tensor(-1.0)])
def test_rho_must_be_positive(rho: float | torch.Tensor) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match="rho > 0"):
        Identity((3,)).prox(x, x, rho)


@pytest.mark.parametrize("rho", [1e-50, 1e39, torch.tensor(1e-50, dtype=torch.float64)])
def test_rho_must_be_positive_in_the_precision_of_the_image(rho: float | torch.Tensor) -> None:
    operator = InpaintingSpec().build((1, 8, 8))
    x = Rng([0], dtype=torch.float64).rand((1, 8, 8))
    with pytest.raises(ShapeError, match=r"rho > 0 in torch\.float32, got .*e[+-]"):
        operator.prox(x.float(), operator(x.float()), rho)
    found = operator.double().prox(x, operator(x), rho)
    assert torch.allclose(found, x)


def test_data_of_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match="1 or 2 samples, got 3"):
        Identity((3,)).prox(torch.zeros(2, 3), torch.zeros(3, 3), 1.0)


@pytest.mark.parametrize("rho", [2, 2.0, torch.tensor(2.0), torch.tensor([2.0]), torch.tensor([2.0, 2.0]).double()])
def test_rho_may_be_any_kind_of_number(rho: float | torch.Tensor) -> None:
    z = torch.ones(2, 3)
    found = Identity((3,)).prox(z, torch.zeros(1, 3), rho)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full((2, 3), 2 / 3))


def test_composition_applies_the_right_one_first() -> None:
    shape = (1, 16, 16)
    blur, small = make_blur(disk_kernel(5, 2), shape, "reflect"), DownsampleSpec(factor=4).build(shape)
    both = small @ blur
    x = Rng([0]).rand(shape)
    assert torch.equal(both(x), small(blur(x)))
    assert Need.SPECTRUM not in both.offers
    assert Need.PROX in both.offers
    assert both.guess(both(x)).shape == x.shape
    with pytest.raises(ShapeError, match="to compose with"):
        blur @ small


def test_composition_reads_pictures_as_its_outer_operator() -> None:
    holes = InpaintingSpec().build((1, 4, 4))
    both = holes @ DownsampleSpec(factor=4).build((1, 16, 16))
    picture = Rng([0]).rand((1, 4, 4))
    assert torch.equal(both.data_from_image(picture), holes.data_from_image(picture))
    assert both.data_as_image(both.data_from_image(picture)).shape == picture.shape


def test_pictures_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match="Downsample data expected"):
        DownsampleSpec().build((1, 16, 16)).data_from_image(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ShapeError, match="Inpainting expected"):
        InpaintingSpec().build((1, 16, 16)).data_from_image(torch.zeros(1, 1, 8, 8))


def test_shapes_of_descriptions() -> None:
    assert IdentitySpec().usable_shape((3, 7, 9)) == (3, 7, 9)
    assert IdentitySpec().image_shape((3, 7, 9)) == (3, 7, 9)
    for empty in ((3, 0, 4), (5,), (3, -1, 4)):
        with pytest.raises(ShapeError, match="such as"):
            IdentitySpec().build(empty)
    assert IdentitySpec().build((1, 1, 1)).in_shape == (1, 1, 1)


def test_adjoint_by_autograd_can_be_differentiated() -> None:
    operator = make_blur(disk_kernel(3, 1), (1, 4, 4), "zero")
    y = Rng([0]).randn((1, 4, 4)).requires_grad_()
    (slope,) = torch.autograd.grad(operator.adjoint(y).square().sum() / 2, y)
    assert torch.allclose(slope, operator(operator.adjoint(y)), atol=1e-5)
