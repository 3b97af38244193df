"""DDRM against the law that its own formulas predict on Gaussian problems."""

import math
from itertools import pairwise

import pytest
import torch

from restoration.methods.ddrm import DDRM
from restoration.schedule import Karras
from tests.oracle import SPECTRAL_WORLDS, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 2000


def predicted(w: Conjugate, method: DDRM) -> Law:
    """Mean and covariance carried along in a basis found by a dense singular value decomposition."""
    sigmas = method.schedule.sigmas((0, 100))
    u, s, vt = torch.linalg.svd(w.matrix, full_matrices=True)
    data, n, centre = u.T @ w.data, vt.shape[0], torch.full((vt.shape[0],), w.mean).double()
    start, spread = vt @ torch.full((n,), 0.5).double(), torch.full((n,), sigmas[0] ** 2).double()
    for i, value in enumerate(s):
        if value * sigmas[0] > w.sigma:
            start[i], spread[i] = data[i] / value, sigmas[0] ** 2 - (w.sigma / value) ** 2
    law = Law(vt.T @ start, vt.T @ torch.diag(spread) @ vt)
    keep, eye = math.sqrt(1 - method.eta**2), torch.eye(n).double()
    for now, then in pairwise([*sigmas, 0.0]):
        weight, memory, shift, noise = (torch.zeros(n).double() for _ in range(4))
        for i in range(n):
            value = float(s[i]) if i < len(s) else 0.0
            if then == 0:
                weight[i] = 1
            elif value < 1e-9:
                weight[i], memory[i], noise[i] = 1 - keep * then / now, keep * then / now, (method.eta * then) ** 2
            elif value * then < w.sigma:
                share = keep * then / w.sigma
                weight[i], shift[i], noise[i] = 1 - share * value, share * data[i], (method.eta * then) ** 2
            else:
                weight[i], shift[i] = 1 - method.eta_data, method.eta_data * data[i] / value
                noise[i] = then**2 - (method.eta_data * w.sigma / value) ** 2
        shrink = w.shrink(now)
        estimate = vt.T @ torch.diag(weight) @ vt
        law = law.step(
            estimate @ shrink + vt.T @ torch.diag(memory) @ vt,
            estimate @ (eye - shrink) @ centre + vt.T @ shift,
            vt.T @ torch.diag(noise) @ vt,
        )
    return law


@pytest.mark.parametrize("name", SPECTRAL_WORLDS)
def test_ddrm_has_its_predicted_law(name: str) -> None:
    w = world(name)
    method = DDRM(schedule=Karras(steps=12, sigma_max=4))
    law, samples = predicted(w, method), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


@pytest.mark.parametrize(("eta", "eta_data"), [(1.0, 1.0), (0.0, 1.0), (0.5, 0.4)])
def test_shares_of_fresh_noise_and_of_data_enter_as_written(eta: float, eta_data: float) -> None:
    w = world("correlated blur")
    method = DDRM(schedule=Karras(steps=8, sigma_max=4), eta=eta, eta_data=eta_data)
    law, samples = predicted(w, method), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())


def test_ddrm_is_narrower_than_the_posterior() -> None:
    """The published defaults on the problem of docs/calibration.md: about half the spread where something is known."""
    w = world("inpainting", std=0.15)
    law = predicted(w, DDRM())
    ratio = (law.covariance.diagonal() / w.posterior_covariance.diagonal()).sqrt()
    seen = w.matrix.sum(0) > 0
    assert 0.4 < float(ratio[seen].mean()) < 0.65
    assert 0.7 < float(ratio[~seen].mean()) < 0.9
    samples = last(DDRM(), w, range(CHAINS))
    with pytest.raises(AssertionError, match="standard errors"):
        assert_law(samples, w.posterior_mean, w.posterior_covariance.diagonal())


def test_one_network_call_a_level() -> None:
    w = world("blur")
    last(DDRM(), w, [0, 1])
    assert w.prior.cost.denoised == 2 * 20
    assert w.prior.cost.pulled_back == 0
