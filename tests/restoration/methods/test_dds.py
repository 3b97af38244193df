"""DDS: its data step against dense algebra, its law, and complex images."""

import math
from itertools import pairwise

import pytest
import torch

from operators import Gaussian, Inpainting, Likelihood, Rng
from restoration.analytic import GaussianPrior
from restoration.methods.dds import DDS
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, WORLDS, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 2000


def predicted(w: Conjugate, method: DDS) -> Law:
    """With conjugate gradients run to the end, x0 becomes the minimiser of gamma/2 |A z - y|² + |z - x0|² / 2."""
    assert method.gamma is not None
    sigmas = method.schedule.sigmas((0, 100))
    a, n, y = w.matrix, w.matrix.shape[1], w.data
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    solve = torch.linalg.inv(eye + method.gamma * a.T @ a)
    keep = math.sqrt(1 - method.eta**2)
    law = Law(w.likelihood.operator.guess(w.likelihood.y).flatten(), sigmas[0] ** 2 * eye)
    for now, then in pairwise([*sigmas, 0.0]):
        shrink = w.shrink(now)
        offset, old = (eye - shrink) @ centre, keep * then / now
        matrix = solve @ shrink + old * (eye - shrink)
        shift = solve @ (offset + method.gamma * a.T @ y) - old * offset
        law = law.step(matrix, shift, (method.eta * then) ** 2 * eye)
    return law


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("gamma", [1.0, 20.0])
def test_dds_has_its_predicted_law(name: str, gamma: float) -> None:
    w = world(name)
    method = DDS(schedule=Karras(steps=10, sigma_max=4), iterations=60, gamma=gamma)
    law, samples = predicted(w, method), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


def first_estimates(w: Conjugate, method: DDS) -> tuple[torch.Tensor, torch.Tensor]:
    """The prior's estimate at the first level and what the data step made of it."""
    sigma = method.schedule.sigmas((0, 100))[0]
    step = next(iter(method.run(w.prior, w.likelihood, Rng([4], dtype=torch.float64))))
    x = w.likelihood.operator.guess(w.likelihood.y) + sigma * Rng([4], dtype=torch.float64).randn(SMALL)
    return w.prior.denoise(x, sigma).flatten(), step.x0.flatten()


@pytest.mark.parametrize("gamma", [None, 3.0])
def test_one_iteration_is_one_steepest_descent_step(gamma: float | None) -> None:
    w = world("dense")
    x0, moved = first_estimates(w, DDS(iterations=1, gamma=gamma))
    hold = 0.0 if gamma is None else 1 / gamma
    curve = w.matrix.T @ w.matrix + hold * torch.eye(16).double()
    slope = w.matrix.T @ (w.data - w.matrix @ x0)
    assert torch.allclose(moved, x0 + slope @ slope / (slope @ curve @ slope) * slope, atol=1e-12)


def test_without_gamma_the_data_are_met_and_the_null_space_is_left_alone() -> None:
    w = world("dense")
    x0, moved = first_estimates(w, DDS(iterations=60, gamma=None))
    assert torch.allclose(w.matrix @ moved, w.data, atol=1e-5)
    null = torch.eye(16).double() - torch.linalg.pinv(w.matrix) @ w.matrix
    assert torch.allclose(null @ moved, null @ x0, atol=1e-10)


def test_complex_images_are_two_real_ones() -> None:
    """The real and imaginary parts have the laws of two real problems: same estimate, pixel by pixel."""
    operator = Inpainting(MASK, SMALL, in_complex=True).double()
    y = operator(Rng([1], dtype=torch.float64).randn(SMALL, complex=True))
    level, spread = torch.tensor(0.0).double(), torch.tensor(0.0625).double()
    prior = Prior(GaussianPrior(level, spread, SMALL))
    method = DDS(schedule=Karras(steps=6))
    likelihood = Likelihood(operator, Gaussian(sigma=0.1), y)
    *_, before, step = method.run(prior, likelihood, Rng([2], dtype=torch.float64))
    assert step.x.is_complex()
    sigma = method.schedule.sigmas((0, 100))[-1]
    x0 = before.x * 0.0625 / (0.0625 + sigma**2)
    expected = torch.where(MASK.flatten(), (x0.flatten() + y.flatten()) / 2, x0.flatten())
    assert torch.allclose(step.x0.flatten(), expected, atol=1e-9)
