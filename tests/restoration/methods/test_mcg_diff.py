"""MCG-diff: resampling, the weights, and the posterior that it tends to."""

import pytest
import torch

from operators import CircularBlur, Inpainting, Likelihood, Rng
from operators.base import SpectralOperator
from operators.kernels import gaussian_kernel
from restoration.methods.mcg_diff import MCGDiff, _Data
from restoration.particles import effective_number, systematic
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, Conjugate, Mixture, last, world


def test_systematic_resampling_keeps_a_particle_as_often_as_its_share_says() -> None:
    shares = torch.tensor([[0.05, 0.5, 0.25, 0.2], [0.97, 0.01, 0.01, 0.01]]).double()
    counts = torch.zeros(2, 4).double()
    rng, rounds = Rng([1, 2], dtype=torch.float64), 2000
    for _ in range(rounds):
        kept = systematic(shares.log(), rng).view(2, 4) - torch.tensor([[0], [4]])
        times = torch.stack([torch.bincount(row, minlength=4) for row in kept]).double()
        assert ((times - 4 * shares).abs() < 1 + 1e-9).all()
        counts += times
    assert torch.allclose(counts / (4 * rounds), shares, atol=5 * 0.5 / (4 * rounds**0.5))


def test_the_effective_number() -> None:
    even, one = torch.zeros(1, 8), torch.tensor([[0.0, -1e4, -1e4]])
    assert float(effective_number(even)) == pytest.approx(8)
    assert float(effective_number(one)) == pytest.approx(1)


@pytest.mark.parametrize("task", ["inpainting", "correlated blur"])
def test_moves_and_weights_are_those_of_a_product_of_gaussians(task: str) -> None:
    """Against dense algebra: N(mean, v I) times the potentials of a level between the data's own."""
    w, sigmas = world(task), Karras(steps=20, sigma_max=2).sigmas((0, 10))
    assert isinstance(w.likelihood.operator, SpectralOperator)
    data = _Data(w.likelihood.operator, w.likelihood.y, w.sigma, sigmas, 0.1)
    _, s, vt = torch.linalg.svd(w.matrix, full_matrices=True)
    u = w.matrix @ vt[: len(s)].T / s.clamp_min(1e-12)
    ybar, level, v = (u.T @ w.data) / s, 8, 0.02
    tau2 = (w.sigma / s) ** 2
    used = torch.tensor([next((k for k, x in enumerate(sigmas) if x**2 <= 0.9 * t), 19) for t in tau2])
    guided = (used >= level) & (s > 1e-6)
    assert int(guided.sum()) > 0
    spread = torch.maximum((sigmas[level] ** 2 - tau2).abs(), 0.1 * tau2)
    precision = torch.eye(16).double() / v + vt[: len(s)].T @ torch.diag(guided / spread) @ vt[: len(s)]
    covariance = torch.linalg.inv(precision)
    mean = 0.5 + 0.1 * Rng([3], dtype=torch.float64).randn(SMALL)
    centre = covariance @ (mean.flatten() / v + vt[: len(s)].T @ (guided * ybar / spread))
    still = data.move(mean, v, level, torch.zeros(1, *SMALL).double())
    assert torch.allclose(still.flatten(), centre, atol=1e-6)
    # white noise in, covariance out: the map is linear
    basis = torch.eye(16).double().reshape(16, *SMALL)
    root = (data.move(mean.expand(16, -1, -1, -1), v, level, basis) - still).flatten(1)
    assert torch.allclose(root.T @ root, covariance, atol=1e-6)
    other = mean + 0.05
    gap = [(guided * (ybar - vt[: len(s)] @ x.flatten()) ** 2 / (v + spread)).sum() for x in (mean, other)]
    found = data.log_evidence(torch.cat([mean, other]), v, level)
    assert float(found[0] - found[1]) == pytest.approx(float(-0.5 * (gap[0] - gap[1])), abs=1e-6)


@pytest.mark.parametrize("task", ["inpainting", "correlated blur"])
def test_it_samples_the_posterior_of_small_problems(task: str) -> None:
    w, chains = world(task), 200
    samples = last(MCGDiff(schedule=Karras(steps=150, sigma_max=5), particles=32), w, range(chains))
    exact = w.posterior_covariance.diagonal().sqrt()
    assert ((samples.mean(0) - w.posterior_mean).abs() / exact).mean() < 0.15
    assert 0.9 < (samples.std(0) / exact).mean() < 1.05
    low, high = torch.quantile(samples, torch.tensor([0.05, 0.95]).double(), dim=0)
    normal = torch.distributions.Normal(w.posterior_mean, exact)
    assert 0.84 < (normal.cdf(high) - normal.cdf(low)).mean() < 0.93


def test_with_more_levels_the_spread_becomes_the_posteriors() -> None:
    """Ancestral steps are narrow at first order; 300 samples of 4 pixels know the spread to 2%."""
    w = Conjugate.make(Inpainting(torch.ones(2, 2, dtype=torch.bool), (1, 2, 2)))
    ratio = []
    for steps in (50, 300):
        samples = last(MCGDiff(schedule=Karras(steps=steps, sigma_max=5), particles=32), w, range(300))
        ratio.append(float((samples.std(0) / w.posterior_covariance.diagonal().sqrt()).mean()))
    assert ratio[0] < 0.9
    assert 0.94 < ratio[1] < 1.06


def test_both_modes_of_a_mixture_have_their_share() -> None:
    """What a guided single chain gets wrong: the weights of the modes."""
    shape = (1, 2, 2)
    operator = Inpainting(torch.tensor([[True, False], [False, False]]), shape)
    means = torch.stack([torch.full(shape, 0.2), torch.full(shape, 0.8)]).double()
    weights, std = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.1, 0.1]).double()
    w = Mixture.make(operator, weights, means, std, y=torch.tensor([[[0.56]]]).double(), sigma=0.15)
    samples = last(MCGDiff(schedule=Karras(steps=60, sigma_max=5), particles=64), w, range(400))
    expected = float(w.weights[1])
    assert 0.6 < expected < 0.95
    assert float(w.shares(samples)[1]) == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 400) ** 0.5)


def test_the_effective_number_falls_with_the_number_of_data() -> None:
    seen = []
    for side in (2, 4, 8):
        w = Conjugate.make(Inpainting(torch.ones(side, side, dtype=torch.bool), (1, side, side)))
        method = MCGDiff(schedule=Karras(steps=30, sigma_max=5), particles=64)
        steps = method.run(w.prior, w.likelihood, Rng(range(20), dtype=torch.float64))
        seen.append(min(float(s.effective.mean()) for s in steps if s.effective is not None))
    assert seen[0] > 1.5 * seen[1] > 1.5 * 1.5 * seen[2]


def test_precise_data_count_as_precise_as_the_last_level() -> None:
    operator = CircularBlur(gaussian_kernel(5, 1.0), SMALL)
    w = Conjugate.make(operator, sigma=1e-4)
    samples = last(MCGDiff(schedule=Karras(steps=30, sigma_max=5), particles=8), w, [0, 1])
    assert samples.isfinite().all()
    w = Conjugate.make(Inpainting(MASK, SMALL), sigma=1e-4)
    samples = last(MCGDiff(schedule=Karras(steps=30, sigma_max=5), particles=8), w, [0, 1])
    assert float((samples[:, MASK.flatten()] - w.data).abs().max()) < 0.05


def test_several_measurements_in_a_batch_are_kept_apart() -> None:
    w = world("inpainting")
    both = torch.cat([w.likelihood.y, 1 - w.likelihood.y])
    method = MCGDiff(schedule=Karras(steps=6), particles=5)

    def end(y: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        likelihood = Likelihood(w.likelihood.operator, w.likelihood.noise, y)
        *_, step = method.run(w.prior, likelihood, Rng(seeds, dtype=torch.float64))
        return step.x0

    assert torch.allclose(end(both, [3, 4]), torch.cat([end(both[:1], [3]), end(both[1:], [4])]), atol=1e-10)
