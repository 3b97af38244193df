"""The oracles themselves, against independent arithmetic."""

import pytest
import torch

from operators import Inpainting, Rng
from tests.oracle import MASK, SMALL, WORLDS, Conjugate, Mixture, stationary, world


@pytest.mark.parametrize("name", WORLDS)
def test_the_posterior_is_that_of_the_precision_form(name: str) -> None:
    w = world(name)
    prior = torch.linalg.inv(w.covariance + 1e-12 * torch.eye(16).double())
    covariance = torch.linalg.inv(prior + w.matrix.T @ w.matrix / w.sigma**2)
    mean = covariance @ (prior.sum(1) * w.mean + w.matrix.T @ w.data / w.sigma**2)
    assert torch.allclose(w.posterior_covariance, covariance, atol=1e-7)
    assert torch.allclose(w.posterior_mean, mean, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 10.0])
def test_the_correlated_denoiser_is_the_conditional_mean(sigma: float) -> None:
    w = world("correlated blur")
    x = Rng([1, 2], dtype=torch.float64).randn(SMALL)
    gain = w.covariance @ torch.linalg.inv(w.covariance + sigma**2 * torch.eye(16).double())
    expected = w.mean + (x.flatten(1) - w.mean) @ gain.T
    assert torch.allclose(w.prior.denoise(x, sigma).flatten(1), expected, atol=1e-10)
    assert torch.allclose(w.shrink(sigma), gain, atol=1e-10)


def test_the_stationary_covariance_is_one() -> None:
    covariance = stationary((2, 4, 6), 0.3, 1.0)
    assert torch.allclose(covariance, covariance.T)
    assert torch.linalg.eigvalsh(covariance).min() > 0
    assert torch.allclose(covariance.diagonal(), torch.tensor(0.09).double())
    assert covariance[0, 24:].abs().max() == 0
    assert 0.2 < covariance[0, 1] / 0.09 < 0.95


def test_the_posterior_of_a_mixture_is_that_of_weighted_prior_draws() -> None:
    """Self-normalised importance sampling on 2x2 pixels; error bars from the effective number of draws."""
    shape, draws = (1, 2, 2), 200_000
    operator = Inpainting(torch.tensor([[True, False], [False, True]]), shape)
    weights, std = torch.tensor([0.6, 0.4]).double(), torch.tensor([0.1, 0.15]).double()
    means = torch.stack([torch.full(shape, 0.3), torch.full(shape, 0.6)]).double()
    w = Mixture.make(operator, weights, means, std, y=torch.tensor([[[0.45, 0.5]]]).double(), sigma=0.1)
    rng = Rng([5], dtype=torch.float64)
    kind = (rng.rand((draws,))[0] > 0.6).long()
    x = means[kind].flatten(1) + std[kind, None] * rng.randn((draws, 4))[0]
    share = torch.softmax(w.likelihood.log_prob(x.reshape(-1, *shape)), 0)
    effective = 1 / share.square().sum()
    error = (w.covariance.diagonal() / effective).sqrt()
    assert ((share @ x - w.mean).abs() / error).max() < 5
    gap = x - w.mean
    spread = w.covariance.diagonal()
    assert (((gap.T * share) @ gap - w.covariance).diagonal().abs() / (spread * (2 / effective).sqrt())).max() < 5
    assert abs(float(share[kind == 0].sum() - w.weights[0])) < 5 * 0.5 / float(effective) ** 0.5


def test_independent_pixels_are_a_special_case() -> None:
    plain = world("inpainting")
    given = Conjugate.make(Inpainting(MASK, SMALL), covariance=0.0625 * torch.eye(16).double())
    x = Rng([1], dtype=torch.float64).randn(SMALL)
    assert torch.allclose(plain.prior.denoise(x, 0.3), given.prior.denoise(x, 0.3), atol=1e-12)
    assert torch.allclose(plain.posterior_covariance, given.posterior_covariance, atol=1e-12)
