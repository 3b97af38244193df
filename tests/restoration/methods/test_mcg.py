"""MCG: its gradient against the released VP form, its projections against dense algebra."""

from itertools import pairwise

import pytest
import torch

from operators import Downsample, Rng
from operators.errors import NeedError
from restoration.methods.mcg import MCG, Replace, Sart
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, Conjugate, Law, Matrix, assert_law, last, stationary, world

CHAINS = 2000


@pytest.mark.parametrize("name", ["identity", "correlated inpainting", "dense"])
def test_replacing_ends_on_the_data(name: str) -> None:
    w = world(name)
    samples = last(MCG(schedule=Karras(steps=6)), w, [1, 2])
    assert torch.allclose(samples @ w.matrix.T, w.data.expand(2, -1), atol=1e-5)


def test_missing_pixels_of_independent_images_follow_the_prior() -> None:
    """The gradient does not reach them, and the projection leaves them alone: the unguided chain's law."""
    w = world("inpainting")
    method = MCG(schedule=Karras(steps=10, sigma_max=4))
    sigmas = method.schedule.sigmas((0, 100))
    law = Law(torch.full((16,), 0.5).double(), sigmas[0] ** 2 * torch.eye(16).double())
    for now, then in pairwise([*sigmas, 0.0]):
        ratio, shrink = (then / now) ** 2, w.variance / (w.variance + now**2)
        eye = torch.eye(16).double()
        law = law.step(
            ((1 - ratio) * shrink + ratio) * eye,
            torch.full((16,), (1 - ratio) * (1 - shrink) * w.mean).double(),
            then**2 * (1 - ratio) * eye,
        )
    holes = ~MASK.flatten()
    samples = last(method, w, range(CHAINS))[:, holes]
    assert_law(samples, law.mean[holes], law.covariance.diagonal()[holes])


def test_measured_pixels_carry_the_noise_of_their_level() -> None:
    w = world("inpainting")
    method = MCG(schedule=Karras(steps=4))
    step = next(iter(method.run(w.prior, w.likelihood, Rng(range(CHAINS), dtype=torch.float64))))
    seen = step.x.flatten(1)[:, MASK.flatten()]
    y = w.data
    assert_law(seen, y, torch.full_like(y, step.sigma**2))


def test_the_gradient_step_is_the_released_one_in_vp_coordinates() -> None:
    """x_vp(then) -= weight grad over x_vp(now) of |y - A x0| on [-1, 1], written out with autograd."""
    w = world("dense")
    now, then = Karras(steps=4).sigmas((0, 100))[:2]
    plain, guided = (
        next(iter(MCG(schedule=Karras(steps=4), weight=k).run(w.prior, w.likelihood, Rng([6], dtype=torch.float64))))
        for k in (0.0, 0.7)
    )
    x = 0.5 + now * Rng([6], dtype=torch.float64).child("noise").randn(SMALL)
    alpha = [1 / (1 + (2 * s) ** 2) ** 0.5 for s in (now, then)]  # sqrt(abar) of both levels
    x_vp = ((2 * x - 1) * alpha[0]).requires_grad_()
    estimate = 2 * w.prior.denoiser((x_vp / alpha[0] + 1) / 2, torch.tensor([now]).double()) - 1
    operator = w.likelihood.operator
    y_vp = 2 * w.likelihood.y - operator(torch.ones(1, *SMALL).double())  # the data of 2 x - 1
    (slope,) = torch.autograd.grad((y_vp - operator(estimate)).norm(), x_vp)
    step = -0.7 * slope / alpha[1] / 2  # back to unit range
    null = torch.eye(16).double() - torch.linalg.pinv(w.matrix) @ w.matrix
    assert torch.allclose((guided.x - plain.x).flatten(), null @ step.flatten(), atol=1e-6)
    assert step.abs().max() > 1e-3


def test_colour_is_decoupled_from_grey() -> None:
    """Colourisation: the data are the mean of the channels; the state's grey channel is y plus noise of its level."""
    shape = (3, 2, 2)
    mean = torch.cat([torch.eye(4)] * 3, dim=1).double() / 3
    w = Conjugate.make(Matrix(mean, shape), covariance=0.04 * torch.eye(12).double() + 0.02, sigma=0.01)
    method = MCG(schedule=Karras(steps=5), weight=0.1, coordinates="ve")
    first = next(iter(method.run(w.prior, w.likelihood, Rng(range(CHAINS), dtype=torch.float64))))
    grey, y = first.x.mean(1).flatten(1), w.data
    assert_law(grey, y, torch.full_like(y, first.sigma**2 / 3))
    assert torch.allclose(last(method, w, [0]).reshape(3, 4).mean(0), y, atol=1e-6)


def test_sart_is_a_weighted_back_projection_that_relaxes() -> None:
    operator = Downsample(SMALL, 2, "area").double()
    y = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    x = torch.rand(2, *SMALL, generator=torch.Generator().manual_seed(1)).double()
    project = Sart(first=1.0, last=0.6).onto(operator, y, Rng([0, 1]))
    for progress, share in ((0.0, 1.0), (0.5, 0.8), (1.0, 0.6)):
        gap = operator(x) - y
        after = operator(project(x, 0.3, progress)) - y
        # For block means A* (.) / (A* A 1) spreads each residual over its block: a share of it is left.
        assert torch.allclose(after, (1 - share) * gap, atol=1e-12)


def test_sart_runs_and_fits() -> None:
    area = Downsample(SMALL, 2, "area")
    w = Conjugate.make(area, covariance=stationary(SMALL, 0.25, 1.0), sigma=0.001)
    method = MCG(schedule=Karras(steps=30), projection=Sart(), weight=0.1, coordinates="ve")
    samples = last(method, w, [1, 2, 3])
    assert (samples @ w.matrix.T - w.data).abs().max() < 0.05
    assert samples.std(0).max() > 0.02


def test_sart_refuses_negative_weights() -> None:
    w = world("dense")
    with pytest.raises(NeedError, match="replace"):
        last(MCG(schedule=Karras(steps=3), projection=Sart()), w, [0])


@pytest.mark.parametrize("projection", [Replace(), Sart()])
def test_the_slope_is_that_of_the_weighted_norm(projection: Replace | Sart) -> None:
    w = world("dense")
    x0 = Rng([2], dtype=torch.float64).randn(SMALL).requires_grad_()
    weight = torch.eye(7).double() if isinstance(projection, Replace) else torch.linalg.pinv(w.matrix)
    size = (weight @ (w.data - w.matrix @ x0.flatten())).square().sum().sqrt()
    (slope,) = torch.autograd.grad(size, x0)
    operator = w.likelihood.operator
    assert torch.allclose(projection.slope(operator, w.likelihood.y, x0.detach()), slope, atol=1e-6)
