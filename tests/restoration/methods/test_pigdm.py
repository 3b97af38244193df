"""PiGDM: its predicted law, and where that law becomes the posterior."""

import math
from itertools import pairwise

import pytest
import torch

from restoration.methods.pigdm import PiGDM
from restoration.schedule import Karras
from tests.oracle import WORLDS, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 2000


def predicted(w: Conjugate, method: PiGDM) -> Law:
    """Every step is affine in x plus Gaussian noise."""
    sigmas = method.schedule.sigmas((0, 100))
    a, n, y = w.matrix, w.matrix.shape[1], w.data
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    law = Law(w.likelihood.operator.guess(w.likelihood.y).flatten(), sigmas[0] ** 2 * eye)
    for now, then in pairwise([*sigmas, 0.0]):
        shrink = w.shrink(now)
        r2 = 1 / (1 / now**2 + 1 / method.std**2)
        weights = torch.linalg.inv(r2 * a @ a.T + w.sigma**2 * torch.eye(len(a)).double())
        pull = shrink.T @ a.T @ weights  # grad log p(y | x) = pull (y - A D)
        offset = (eye - shrink) @ centre
        fresh = method.eta * then * math.sqrt(1 - (then / now) ** 2)
        old = math.sqrt(then**2 - fresh**2) / now
        estimate, constant = shrink, offset
        if method.step == "score":
            estimate = shrink - now**2 * pull @ a @ shrink
            constant = offset + now**2 * pull @ (y - a @ offset)
        matrix, shift = (1 - old) * estimate + old * eye, (1 - old) * constant
        if method.step == "released":
            matrix = matrix - r2 * pull @ a @ shrink
            shift = shift + r2 * pull @ (y - a @ offset)
        law = law.step(matrix, shift, fresh**2 * eye)
    return law


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("step", ["score", "released"])
def test_pigdm_has_its_predicted_law(name: str, step: str) -> None:
    w = world(name)
    method = PiGDM(schedule=Karras(steps=15, sigma_max=4), step=step, eta=0.8)
    law, samples = predicted(w, method), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


@pytest.mark.parametrize("name", ["identity", "inpainting", "blur"])
def test_with_the_priors_own_spread_the_law_converges_to_the_posterior(name: str) -> None:
    """First order: twice the levels, half the error. The predicted law has no sampling error."""
    w, errors = world(name), []
    for steps in (200, 400, 800):
        method = PiGDM(schedule=Karras(steps=steps, sigma_max=20, sigma_min=0.002), std=0.25)
        law = predicted(w, method)
        scale = w.posterior_covariance.diagonal().sqrt()
        assert ((law.mean - w.posterior_mean).abs() / scale).max() < 2e-3
        errors.append(float((law.covariance.diagonal().sqrt() / scale - 1).abs().max()))
    assert errors[-1] < 0.01
    assert 1.7 < errors[0] / errors[1] < 2.3
    assert 1.7 < errors[1] / errors[2] < 2.3


def test_the_flow_converges_too() -> None:
    w = world("inpainting")
    law = predicted(w, PiGDM(schedule=Karras(steps=1600, sigma_max=20, sigma_min=0.002), std=0.25, eta=0.0))
    ratio = (law.covariance.diagonal() / w.posterior_covariance.diagonal()).sqrt()
    assert (ratio - 1).abs().max() < 0.02


def test_the_released_step_depends_on_the_number_of_levels() -> None:
    """It adds as much at every level: finer levels hold to the data more and more, far below the posterior's spread."""
    w, seen = world("inpainting"), []
    for steps in (25, 50, 100, 200):
        law = predicted(w, PiGDM(schedule=Karras(steps=steps, sigma_max=5), step="released", std=0.25))
        measured = w.matrix.sum(0) > 0
        seen.append(float((law.covariance / w.posterior_covariance).diagonal().sqrt()[measured].mean()))
    assert all(a > b for a, b in pairwise(seen))
    assert seen[-1] < 0.4


def test_with_correlated_pixels_it_stays_biased() -> None:
    w = world("dense")
    law = predicted(w, PiGDM(schedule=Karras(steps=800, sigma_max=20, sigma_min=0.002), std=0.25))
    off = (law.mean - w.posterior_mean).abs() / w.posterior_covariance.diagonal().sqrt()
    assert off.max() > 0.1


def test_one_call_and_one_pullback_a_level() -> None:
    w = world("dense")
    last(PiGDM(schedule=Karras(steps=7)), w, [0, 1])
    assert (w.prior.cost.denoised, w.prior.cost.pulled_back) == (14, 14)
