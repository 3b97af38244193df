"""Moment matching: the exact conditional mean of every Gaussian problem, and a law that converges to the posterior."""

import math
from itertools import pairwise

import pytest
import torch

from operators import Gaussian, Inpainting, Likelihood, Rng
from restoration.analytic import GaussianPrior
from restoration.methods.moment_matching import MomentMatching
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, WORLDS, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 2000
SOLVED = {"iterations": 100, "tolerance": 1e-10}


def predicted(w: Conjugate, method: MomentMatching) -> Law:
    """The sampler with the exact E[x0 | x, y]."""
    sigmas = method.schedule.sigmas((0, 100))
    a, n, y = w.matrix, w.matrix.shape[1], w.data
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    law = Law(w.likelihood.operator.guess(w.likelihood.y).flatten(), sigmas[0] ** 2 * eye)
    for now, then in pairwise([*sigmas, 0.0]):
        # x and y together, as one measurement of x0.
        precision = torch.linalg.inv(w.covariance) + eye / now**2 + a.T @ a / w.sigma**2
        after = torch.linalg.inv(precision)
        estimate = after / now**2
        constant = after @ (torch.linalg.solve(w.covariance, centre) + a.T @ y / w.sigma**2)
        fresh = method.eta * then * math.sqrt(1 - (then / now) ** 2)
        old = math.sqrt(then**2 - fresh**2) / now
        law = law.step((1 - old) * estimate + old * eye, (1 - old) * constant, fresh**2 * eye)
    return law


@pytest.mark.parametrize("name", WORLDS)
def test_the_estimate_is_the_exact_conditional_mean(name: str) -> None:
    w = world(name)
    method = MomentMatching(schedule=Karras(steps=6), **SOLVED)
    steps = list(method.run(w.prior, w.likelihood, Rng([1, 2], dtype=torch.float64)))
    levels = method.schedule.sigmas((0, 100))[1:]
    for step, following, now in zip(steps, steps[1:], levels, strict=False):
        precision = torch.linalg.inv(w.covariance) + torch.eye(16).double() / now**2
        precision = precision + w.matrix.T @ w.matrix / w.sigma**2
        right = torch.linalg.inv(w.covariance).sum(1) * w.mean + step.x.flatten(1) / now**2
        right = right + w.data @ w.matrix / w.sigma**2
        assert torch.allclose(following.x0.flatten(1), torch.linalg.solve(precision, right.T).T, atol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_the_law_is_the_predicted_one(name: str) -> None:
    w = world(name)
    method = MomentMatching(schedule=Karras(steps=12, sigma_max=4), **SOLVED)
    law, samples = predicted(w, method), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


@pytest.mark.parametrize("name", WORLDS)
def test_the_law_converges_to_the_posterior_whatever_the_prior(name: str) -> None:
    """First order: twice the levels, half the error. The predicted law has no sampling error."""
    w, errors = world(name), []
    for steps in (200, 400, 800):
        law = predicted(w, MomentMatching(schedule=Karras(steps=steps, sigma_max=20, sigma_min=0.002)))
        scale = w.posterior_covariance.diagonal().sqrt()
        assert ((law.mean - w.posterior_mean).abs() / scale).max() < 3e-3
        errors.append(float((law.covariance.diagonal().sqrt() / scale - 1).abs().max()))
    assert errors[-1] < 0.015
    assert 1.7 < errors[0] / errors[1] < 2.3
    assert 1.7 < errors[1] / errors[2] < 2.3


def test_the_defaults_are_right_within_a_tenth() -> None:
    """100 levels, five iterations: what a user gets, against the exact posterior."""
    w = world("correlated inpainting", std=0.15)
    law, samples = predicted(w, MomentMatching()), last(MomentMatching(), w, range(600))
    ratio = (law.covariance.diagonal() / w.posterior_covariance.diagonal()).sqrt()
    assert float(ratio.min()) > 0.9
    assert float(ratio.max()) < 1.0
    assert_law(samples, law.mean, law.covariance.diagonal())


@pytest.mark.parametrize("name", ["identity", "inpainting"])
def test_row_sums_are_exact_where_the_covariance_is_diagonal(name: str) -> None:
    w = world(name)
    schedule = Karras(steps=5)
    rows = last(MomentMatching(schedule=schedule, covariance="row-sums"), w, [3, 4])
    full = last(MomentMatching(schedule=schedule, **SOLVED), w, [3, 4])
    assert torch.allclose(rows, full, atol=1e-10)


def test_row_sums_are_what_they_are_called() -> None:
    w = world("dense")
    method = MomentMatching(schedule=Karras(steps=2), covariance="row-sums")
    first = next(iter(method.run(w.prior, w.likelihood, Rng([9], dtype=torch.float64))))
    x = w.likelihood.operator.guess(w.likelihood.y) + 1.5 * Rng([9], dtype=torch.float64).randn(SMALL)
    spread = 1.5**2 * w.shrink(1.5)
    total = (w.matrix @ spread @ w.matrix.T).sum(1).clamp_min(0) + w.sigma**2
    x0 = w.prior.denoise(x, 1.5).flatten()
    expected = x0 + spread @ w.matrix.T @ ((w.data - w.matrix @ x0) / total)
    assert torch.allclose(first.x0.flatten(), expected, atol=1e-10)


def test_calls_and_pullbacks_are_those_declared() -> None:
    w = world("dense")
    last(MomentMatching(schedule=Karras(steps=3), covariance="row-sums"), w, [0])
    assert (w.prior.cost.denoised, w.prior.cost.pulled_back) == (3, 6)
    w = world("dense")
    last(MomentMatching(schedule=Karras(steps=3), iterations=2, tolerance=1e-12), w, [0])
    assert (w.prior.cost.denoised, w.prior.cost.pulled_back) == (3, 9)


@pytest.mark.parametrize("covariance", ["full", "row-sums"])
def test_complex_images_are_two_real_ones(covariance: str) -> None:
    operator = Inpainting(MASK, SMALL, in_complex=True).double()
    y = operator(Rng([1], dtype=torch.float64).randn(SMALL, complex=True))
    level, spread = torch.tensor(0.5).double(), torch.tensor(0.0625).double()
    prior = Prior(GaussianPrior(level, spread, SMALL))
    method = MomentMatching(schedule=Karras(steps=4), covariance=covariance)
    *_, before, step = method.run(prior, Likelihood(operator, Gaussian(sigma=0.1), y), Rng([2], dtype=torch.float64))
    assert step.x0.is_complex()
    for part, level in ((torch.real, 0.5), (torch.imag, 0.0)):
        x = part(before.x).flatten()
        precision = 1 / 0.0625 + 1 / 0.01**2 + MASK.flatten() / 0.1**2
        expected = (level / 0.0625 + x / 0.01**2 + part(y).flatten() / 0.1**2) / precision
        assert torch.allclose(part(step.x0).flatten(), expected, atol=1e-9)
