"""LGD-MC: the law of one particle, the limit of many, and other noises than Gaussian."""

from itertools import pairwise

import pytest
import torch

from operators import Gaussian, Identity, Likelihood, Poisson, Rng
from restoration.analytic import GaussianPrior
from restoration.methods.lgd import LGD, LogMeanExp, MeanMisfit
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import WORLDS, Law, assert_covariance, assert_law, last, world

CHAINS = 2000


@pytest.mark.parametrize("name", WORLDS)
def test_one_particle_has_its_predicted_law(name: str) -> None:
    """log-mean-exp of one draw is its log-likelihood: affine in x, with one more Gaussian noise."""
    w = world(name, sigma=0.5)
    method = LGD(schedule=Karras(steps=15, sigma_max=4), particles=1, average=LogMeanExp())
    sigmas = method.schedule.sigmas((0, 100))
    a, eye, y = w.matrix, torch.eye(16).double(), w.data
    law = Law(torch.full((16,), 0.5).double(), sigmas[0] ** 2 * eye)
    for now, then in pairwise([*sigmas, 0.0]):
        shrink, ratio = w.shrink(now), (then / now) ** 2
        offset = (eye - shrink) @ torch.full((16,), w.mean).double()
        pull = (now**2 - then**2) / w.sigma**2 * shrink.T @ a.T
        matrix = (1 - ratio) * shrink + ratio * eye - pull @ a @ shrink
        shift = (1 - ratio) * offset + pull @ (y - a @ offset)
        r2 = 1 / (1 / now**2 + 1 / 0.5**2)
        law = law.step(matrix, shift, then**2 * (1 - ratio) * eye + r2 * pull @ a @ a.T @ pull.T)
    samples = last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


def test_many_particles_become_pigdm() -> None:
    """The slope tends to A* (r² A A* + sigma²)⁻¹ (y - A x0), for one pixel and 40 000 draws."""
    sigma_y, r, x0, y = 0.3, 0.4, 0.2, 0.9
    operator = Identity((1, 1, 1)).double()
    likelihood = Likelihood(operator, Gaussian(sigma=sigma_y), torch.full((1, 1, 1, 1), y).double())
    draws = x0 + r * Rng([1], dtype=torch.float64).randn((40_000,))[0]
    near = [d.reshape(1, 1, 1, 1) for d in draws]
    slope = float(LogMeanExp().slope(likelihood, near, 1.0, 0.0))
    share = torch.softmax(-0.5 * (y - draws) ** 2 / sigma_y**2, 0)
    each = (y - draws) / sigma_y**2
    error = float((share.square() @ (each - share @ each).square()).sqrt())
    assert abs(slope - (y - x0) / (r**2 + sigma_y**2)) < 5 * error
    assert error < 0.03


def test_the_mean_misfit_is_the_gradient_of_its_root() -> None:
    w = world("dense")
    method = MeanMisfit(scale=0.5)
    x0 = Rng([1, 2], dtype=torch.float64).randn(w.likelihood.operator.in_shape).requires_grad_()
    spread = [0.3 * Rng([i, 9 + i], dtype=torch.float64).randn(w.likelihood.operator.in_shape) for i in range(4)]
    gaps = [(w.likelihood.y - w.likelihood.operator(x0 + e)).square().sum(1) for e in spread]
    root = (sum(gaps) / 4).sqrt()  # type: ignore[union-attr]
    (slope,) = torch.autograd.grad(root.sum(), x0)
    factor = 0.5 * 0.5 * ((1 + 4 * 0.8**2) * (1 + 4 * 0.5**2)) ** 0.5
    found = method.slope(w.likelihood, [(x0 + e).detach() for e in spread], 0.8, 0.5)
    assert torch.allclose(found, -factor * slope, atol=1e-10)


def test_photons_are_taken() -> None:
    operator = Identity((1, 4, 4)).double()
    y = torch.full((1, 1, 4, 4), 0.6).double()
    level, spread = torch.tensor(0.5).double(), torch.tensor(0.01).double()
    prior = Prior(GaussianPrior(level, spread, (1, 4, 4)))
    likelihood = Likelihood(operator, Poisson(peak=100), y)
    method = LGD(schedule=Karras(steps=50), particles=20, average=LogMeanExp(), std=0.1)
    *_, step = method.run(prior, likelihood, Rng(range(50), dtype=torch.float64))
    # Between the prior's 0.5 and the data's 0.6, whose variance 0.006 is near the prior's 0.01.
    assert 0.55 < float(step.x0.mean()) < 0.59


def test_one_call_and_one_pullback_a_level_however_many_particles() -> None:
    w = world("blur")
    last(LGD(schedule=Karras(steps=7), particles=6), w, [0])
    assert (w.prior.cost.denoised, w.prior.cost.pulled_back) == (7, 7)
