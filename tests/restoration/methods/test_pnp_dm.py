"""PnP-DM: its prior step is a draw of x0 given x, and its chain tends to the posterior."""

import pytest
import torch

from operators import Inpainting, Rng
from restoration.draws import Langevin
from restoration.methods.pnp_dm import PnPDM, reverse
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import CorrelatedPrior, Mixture, assert_law, last, stationary, world


@pytest.mark.parametrize("rho", [0.1, 0.5])
def test_the_prior_step_is_a_draw_of_x0_given_x(rho: float) -> None:
    """At 40 levels, down to where a Gaussian prior has nothing left to lose."""
    chains, covariance = 1000, stationary((1, 4, 4), 0.25, 1.0)
    prior = Prior(CorrelatedPrior(0.5, covariance, (1, 4, 4)))
    z = 0.5 + 0.3 * Rng([1], dtype=torch.float64).randn((1, 4, 4))
    levels = Karras(steps=40, sigma_max=rho, sigma_min=0.01 * rho).sigmas((0, 10))
    x = reverse(prior, z.expand(chains, -1, -1, -1), levels, Rng(range(chains), dtype=torch.float64)).flatten(1)
    after = covariance - covariance @ torch.linalg.solve(covariance + rho**2 * torch.eye(16).double(), covariance)
    assert_law(x, prior.denoise(z, rho).flatten(), after.diagonal())


def test_ten_calls_lose_little_of_the_spread() -> None:
    """The figure in the class: ten ancestral steps would keep 0.8 of the conditional variance, and less."""
    chains = 3000
    prior = world("identity").prior  # standard deviation 0.25
    z = torch.full((chains, 1, 4, 4), 0.7).double()
    levels = PnPDM()._levels(0.25, 0.0)
    assert len(levels) == 10
    x = reverse(prior, z, levels, Rng(range(chains), dtype=torch.float64))
    assert float(x.var() / (0.0625 / 2)) == pytest.approx(0.996, abs=0.03)


@pytest.mark.parametrize("task", ["identity", "inpainting", "correlated inpainting", "dense"])
def test_it_samples_the_posterior(task: str) -> None:
    """In spread, in the mean, and 90% intervals hold 85 to 93%; the samples' own errors are within the bounds."""
    w, chains = world(task), 250
    schedule = Karras(steps=60, sigma_max=1.5, sigma_min=0.03)
    samples = last(PnPDM(schedule=schedule, hold=60), w, range(chains))
    exact = w.posterior_covariance.diagonal().sqrt()
    ratio = samples.std(0) / exact
    assert 0.95 < ratio.mean() < 1.08
    assert 0.85 < ratio.min() <= ratio.max() < 1.2
    assert ((samples.mean(0) - w.posterior_mean).abs() / exact).mean() < 0.2
    # How often the interval between the samples' 5% and 95% quantiles holds a draw of the exact posterior.
    low, high = torch.quantile(samples, torch.tensor([0.05, 0.95]).double(), dim=0)
    normal = torch.distributions.Normal(w.posterior_mean, exact)
    held = (normal.cdf(high) - normal.cdf(low)).mean()
    assert 0.85 < held < 0.93


def test_fewer_rounds_at_wide_couplings_are_visibly_too_wide() -> None:
    """What the coupling costs: stopped at rho = sigma, measured pixels keep the noise of both."""
    w = world("identity")
    samples = last(PnPDM(schedule=Karras(steps=20, sigma_max=1.5, sigma_min=0.1), hold=5), w, range(300))
    expected = (1 / (1 / 0.0625 + 1 / (0.01 + 0.01))) ** 0.5
    assert float(samples.std(0).mean()) == pytest.approx(expected, rel=0.06)


def test_modes_far_apart_keep_the_shares_of_a_wide_coupling() -> None:
    """Two modes 24 standard deviations apart, of which the data prefer the second: 0.21 to 0.79.

    Rounds stop crossing near rho = 0.5, where the coupled target still has 0.475 in the first.
    """
    shape, chains = (1, 8, 8), 400
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2, 2] = mask[5, 5] = True
    means = torch.stack([torch.full(shape, 0.35), torch.full(shape, 0.65)]).double()
    even, std = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.1, 0.1]).double()

    def target(rho: float) -> Mixture:
        y, sigma = torch.tensor([[[0.54, 0.55]]]).double(), (0.1**2 + rho**2) ** 0.5
        return Mixture.make(Inpainting(mask, shape), even, means, std, y=y, sigma=sigma)

    assert float(target(0).weights[0]) == pytest.approx(0.206, abs=0.001)
    assert float(target(0.5).weights[0]) == pytest.approx(0.475, abs=0.001)
    method = PnPDM(schedule=Karras(steps=25, sigma_max=1.5, sigma_min=0.05), hold=5, reverse_steps=6)
    share = float(target(0).shares(last(method, target(0), range(chains)))[0])
    assert share == pytest.approx(0.475, abs=4 * 0.025)


def test_other_likelihood_steps_and_the_bill() -> None:
    w = world("inpainting")
    method = PnPDM(schedule=Karras(steps=4), hold=2, reverse_steps=3, inner=Langevin(steps=3))
    steps = list(method.run(w.prior, w.likelihood, Rng([0, 1], dtype=torch.float64)))
    assert [s.sigma for s in steps][-3:] == pytest.approx([0.01, 0.01, 0])
    assert w.prior.cost.denoised == 2 * 6 * 3
