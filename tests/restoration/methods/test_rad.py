"""RAD: with a prior that takes a level for every pixel its law tends to the posterior, whatever the prior is."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from operators import Inpainting, Likelihood, Poisson, Rng
from operators.errors import NeedError, RecipeError
from operators.spec import Need
from restoration.analytic import MixturePrior, PowerLawPrior
from restoration.assets import AssetStore
from restoration.methods.rad import RAD
from restoration.prior import Denoiser, Prior, UnitRange
from restoration.recipe import Recipe
from restoration.schedule import Karras
from tests.oracle import (
    MASK,
    SMALL,
    Conjugate,
    CorrelatedPrior,
    Law,
    Mixture,
    assert_covariance,
    assert_law,
    last,
    stationary,
    world,
)


class MappedPrior(CorrelatedPrior):
    """The correlated Gaussian at a level for every pixel: D = mean + C (C + diag(sigma²))⁻¹ (x - mean)."""

    offers = CorrelatedPrior.offers | {Need.NOISE_MAP}

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if sigma.ndim == 1:
            return super().forward(x, sigma)
        covariance = self.vectors * self.values @ self.vectors.T
        noisy = covariance + torch.diag_embed(sigma.flatten(1).square())
        centred = torch.linalg.solve(noisy, (x - self.mean).flatten(1).unsqueeze(-1)).squeeze(-1)
        estimate: Tensor = self.mean + (centred @ covariance).reshape(x.shape)
        return estimate


def mapped(name: str) -> Conjugate:
    w = world(name)
    if name == "inpainting":
        return w
    made = Conjugate.make(Inpainting(MASK, SMALL), covariance=stationary(SMALL, 0.25, 1.0))
    object.__setattr__(made, "prior", Prior(MappedPrior(0.5, made.covariance, SMALL)))
    return made


def predicted(w: Conjugate, method: RAD) -> Law:
    """Every step is affine in x plus Gaussian noise; measured pixels wait at the level of theirs."""
    levels = [*method.schedule.sigmas((0, 100)), 0.0]
    seen = w.matrix.sum(0) > 0
    eye, centre = torch.eye(16).double(), torch.full((16,), w.mean).double()
    first = w.likelihood.operator.guess(w.likelihood.y).flatten()
    y = w.matrix.T @ w.data
    law = Law(y.where(seen, first), torch.diag(levels[0] ** 2 * (~seen).double()))
    for now, then in pairwise(levels):
        here, there = (torch.full((16,), s).double() for s in (now, then))
        here[seen], there[seen] = here[seen].clamp(max=w.sigma), there[seen].clamp(max=w.sigma)
        shrink = w.covariance @ torch.linalg.inv(w.covariance + torch.diag(here**2))
        ratio = torch.diag((there / here) ** 2)
        step = (eye - ratio) @ shrink + ratio
        noise = torch.diag(there**2 * (1 - ratio.diagonal()))
        law = law.step(step, (eye - ratio) @ (eye - shrink) @ centre, noise)
    return law


@pytest.mark.parametrize("name", ["inpainting", "correlated inpainting"])
def test_it_has_its_predicted_law(name: str) -> None:
    w, method = mapped(name), RAD(schedule=Karras(steps=12, sigma_max=2, sigma_min=0.02))
    law, samples = predicted(w, method), last(method, w, range(600))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


@pytest.mark.parametrize("name", ["inpainting", "correlated inpainting"])
def test_the_law_converges_to_the_posterior(name: str) -> None:
    """First order: twice the levels, half the error. The predicted law has no sampling error."""
    w, errors = mapped(name), []
    for steps in (200, 400, 800):
        law = predicted(w, RAD(schedule=Karras(steps=steps, sigma_max=50, sigma_min=0.001)))
        scale = w.posterior_covariance.diagonal().sqrt()
        assert ((law.mean - w.posterior_mean).abs() / scale).max() < 5e-3
        errors.append(float((law.covariance - w.posterior_covariance).abs().max() / scale.max() ** 2))
    assert errors[-1] < 0.02
    assert 1.7 < errors[0] / errors[1] < 2.3
    assert 1.7 < errors[1] / errors[2] < 2.3


def test_modes_have_their_share() -> None:
    """For any prior: two modes that the data hardly tell apart, whose share most other methods miss."""
    shape, chains = (1, 8, 8), 1500
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2, 2] = mask[5, 5] = True
    means = torch.stack([torch.full(shape, 0.35), torch.full(shape, 0.65)]).double()
    even, std = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.1, 0.1]).double()
    w = Mixture.make(Inpainting(mask, shape), even, means, std, y=torch.tensor([[[0.54, 0.55]]]).double(), sigma=0.1)
    share = float(w.weights[0])
    assert 0.1 < share < 0.25
    samples = last(RAD(schedule=Karras(steps=50, sigma_max=5)), w, range(chains))
    assert abs(float(w.shares(samples)[0]) - share) < 4 * (share * (1 - share) / chains) ** 0.5


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_a_level_for_every_pixel_agrees_with_one_for_all(kind: str) -> None:
    means = Rng([1, 2], dtype=torch.float64).randn(SMALL)
    mixture = MixturePrior(torch.tensor([1.0, 2.0]).double(), means, torch.tensor([0.3, 0.5]).double())
    prior = world("inpainting").prior if kind == "gaussian" else Prior(mixture)
    x = Rng([0, 1, 2], dtype=torch.float64).randn(SMALL)
    sigma = torch.tensor([0.1, 0.5, 2.0]).double()
    assert torch.allclose(prior.denoise(x, sigma), prior.denoise(x, sigma.view(3, 1, 1, 1).expand(x.shape)), atol=1e-13)


def test_a_mixture_at_levels_of_its_own_is_the_posterior_mean() -> None:
    """Two pixels, by quadrature over both."""
    means = torch.tensor([[[[-0.4, 0.3]]], [[[0.5, -0.2]]]]).double()
    weights, std = torch.tensor([0.3, 0.7]).double(), torch.tensor([0.2, 0.4]).double()
    x, sigma = torch.tensor([[[[0.1, 0.4]]]]).double(), torch.tensor([[[[0.15, 0.9]]]]).double()
    grid = torch.linspace(-3, 3, 601).double()
    pairs = torch.cartesian_prod(grid, grid)
    density = torch.zeros(len(pairs)).double()
    for weight, mean, s in zip(weights, means.flatten(1), std, strict=True):
        density += weight * torch.exp(-0.5 * ((pairs - mean) / s).square().sum(1)) / s**2
    density *= torch.exp(-0.5 * ((x.flatten() - pairs) / sigma.flatten()).square().sum(1))
    expected = (density[:, None] * pairs).sum(0) / density.sum()
    found = Prior(MixturePrior(weights, means, std)).denoise(x, sigma)
    assert torch.allclose(found.flatten(), expected, atol=1e-8)


@pytest.mark.parametrize("denoiser", [PowerLawPrior(channels=1), UnitRange(world("inpainting").prior.denoiser)])
def test_other_priors_refuse_a_level_for_every_pixel(denoiser: Denoiser) -> None:
    assert Need.NOISE_MAP not in denoiser.offers
    with pytest.raises(NeedError, match="noise level for every pixel"):
        Prior(denoiser).denoise(torch.zeros(1, *SMALL), torch.ones(SMALL))


def test_a_recipe_with_a_trained_prior_is_refused_before_weights_are_read() -> None:
    recipe = Recipe.model_validate({"operator": {"kind": "inpainting"}, "method": {"kind": "rad"}})
    assert any("noise level for every pixel" in problem for problem in recipe.problems(AssetStore()))


def test_what_it_cannot_do_is_said() -> None:
    w, rng = world("inpainting"), Rng([0])
    with pytest.raises(NeedError, match="use DiffPIR"):
        next(RAD().run(world("blur").prior, world("blur").likelihood, rng))
    with pytest.raises(NeedError, match="every pixel"):
        next(RAD().run(Prior(PowerLawPrior(channels=1)), w.likelihood, rng))
    poisson = Likelihood(w.likelihood.operator, Poisson(peak=20.0), w.likelihood.y.clamp(min=0))
    with pytest.raises(NeedError, match="Gaussian"):
        next(RAD().run(w.prior, poisson, rng))
    with pytest.raises(RecipeError, match="first of the walk"):
        next(RAD(schedule=Karras(sigma_max=0.05)).run(w.prior, w.likelihood, rng))


def test_masks_of_channels_and_the_bill() -> None:
    shape = (2, 4, 4)
    mask = torch.stack([MASK, ~MASK])
    w = Conjugate.make(Inpainting(mask, shape))
    samples = last(RAD(schedule=Karras(steps=60, sigma_max=20, sigma_min=0.01)), w, range(400))
    assert w.prior.cost.denoised == 400 * 60
    assert_law(samples, w.posterior_mean, w.posterior_covariance.diagonal() * 0.93**2)
