"""SITCOM: what a level does, when it stops, and that the truth has no part in it."""

import torch

from operators import Rng
from restoration.methods.sitcom import SITCOM
from restoration.schedule import Karras
from tests.oracle import last, world


def test_a_level_is_the_published_descent() -> None:
    """VP coordinates on [-1, 1], autograd and torch's Adam, as the paper has it."""
    w, now, weight = world("dense", sigma=1e-6), 0.4, 0.7
    a, y, level = w.matrix, 2 * w.data - w.matrix.sum(1), 0.8
    x = 0.5 + 0.4 * Rng([1], dtype=torch.float64).randn((1, 4, 4))
    state = ((2 * x - 1) / (1 + level**2) ** 0.5).flatten()
    v = state.clone().requires_grad_()
    optimiser = torch.optim.Adam([v], lr=0.02, eps=1e-12)
    for _ in range(6):
        unit = (v * (1 + level**2) ** 0.5 + 1) / 2
        clean = 2 * w.prior.denoiser(unit.reshape(1, 1, 4, 4), torch.tensor([now]).double()).flatten() - 1
        loss = (y - a @ clean).square().sum() + weight * (v - state).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unit = (v.detach() * (1 + level**2) ** 0.5 + 1) / 2
    expected = w.prior.denoise(unit.reshape(1, 1, 4, 4), now)
    found = SITCOM(iterations=6, rate=0.02, weight=weight)._fitted(w.prior, w.likelihood, x, now)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_sample_stops_when_it_fits_and_others_go_on() -> None:
    w, now = world("inpainting"), 0.3
    far = w.truth + torch.where(w.matrix.sum(0).reshape(1, 1, 4, 4) > 0, 0.8, 0.0)
    both = torch.cat([w.truth, far])
    method = SITCOM(iterations=200, rate=0.02, stop=1.5)
    found = method._fitted(w.prior, w.likelihood, both, now)
    residual = w.likelihood.residual_sigma(found)
    assert (residual <= 1.5).all()
    assert float(residual[1]) > 1.3  # it stopped where it fitted
    alone = method._fitted(w.prior, w.likelihood, both[:1], now)
    assert torch.allclose(found[:1], alone, atol=1e-12)


def test_estimates_fit_the_data_to_the_noise() -> None:
    w = world("correlated blur")
    samples = last(SITCOM(schedule=Karras(steps=20, sigma_max=5), rate=0.02), w, range(8))
    residual = w.likelihood.residual_sigma(samples.reshape(8, 1, 4, 4))
    assert (residual < 1.2).all()


def test_it_is_no_posterior_sampler() -> None:
    """Measured pixels vary far less than the posterior does: every sample stops at the same residual."""
    w = world("inpainting")
    samples = last(SITCOM(schedule=Karras(steps=20, sigma_max=5), iterations=30), w, range(100))
    ratio = samples.std(0) / w.posterior_covariance.diagonal().sqrt()
    measured = w.matrix.sum(0) > 0
    assert not (0.9 < float(ratio[measured].mean()) < 1.1 and 0.9 < float(ratio[~measured].mean()) < 1.1)
