"""DDNM: the split between range and null space, and the law of DDNM+."""

import math
from itertools import pairwise

import pytest
import torch

from operators import (
    ClippingSpec,
    Gaussian,
    Inpainting,
    JpegSpec,
    Likelihood,
    LinearOperator,
    OperatorSpec,
    PhaseRetrieval,
    QuantisationSpec,
    Rng,
)
from operators.errors import NeedError
from restoration.analytic import GaussianPrior
from restoration.methods.ddnm import DDNM
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, SPECTRAL_WORLDS, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 2000


def carried(w: Conjugate, method: DDNM, trust: str) -> Law:
    """Law of DDNM+; `trust` "each" has lambda and gamma per singular value, "scalar" those of singular value 1."""
    sigmas = method.schedule.sigmas((0, 100))
    u, s, vt = torch.linalg.svd(w.matrix, full_matrices=True)
    data, n = u.T @ w.data, vt.shape[0]
    start = w.likelihood.operator.guess(w.likelihood.y).flatten()
    law = Law(start, sigmas[0] ** 2 * torch.eye(n).double())
    keep, eye, centre = math.sqrt(1 - method.eta**2), torch.eye(n).double(), torch.full((n,), w.mean).double()
    for now, then in pairwise([*sigmas, 0.0]):
        lam, gamma, memory = (torch.zeros(n).double() for _ in range(3))
        for i in range(n):
            value = float(s[i]) if i < len(s) else 0.0
            if value < 1e-9:
                gamma[i], memory[i] = (method.eta * then) ** 2, keep * then / now
            elif trust == "scalar":
                lam[i] = min(1.0, then / w.sigma)
                gamma[i] = then**2 - (lam[i] * w.sigma) ** 2
            elif value * then >= w.sigma:
                lam[i], gamma[i] = 1.0, then**2 - (w.sigma / value) ** 2
            else:
                lam[i], gamma[i] = value * then * keep / w.sigma, (method.eta * then) ** 2
        shrink, inverse = w.shrink(now), torch.zeros(n).double()
        inverse[: len(s)] = torch.where(s > 1e-9, 1 / s.clamp_min(1e-9), 0.0)
        projected = torch.zeros(n).double()
        projected[: len(data)] = data
        estimate = vt.T @ torch.diag(1 - lam - memory) @ vt
        law = law.step(
            estimate @ shrink + vt.T @ torch.diag(memory) @ vt,
            estimate @ (eye - shrink) @ centre + vt.T @ (lam * inverse * projected),
            vt.T @ torch.diag(gamma) @ vt,
        )
    return law


@pytest.mark.parametrize("name", SPECTRAL_WORLDS)
def test_ddnm_plus_has_its_predicted_law(name: str) -> None:
    w = world(name)
    method = DDNM(schedule=Karras(steps=12, sigma_max=4))
    law, samples = carried(w, method, "each"), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)


@pytest.mark.parametrize("name", ["inpainting", "correlated inpainting"])
def test_the_scalar_form_has_its_predicted_law(name: str) -> None:
    w = world(name)
    # The last level but one is above the noise, so that the law has a spread everywhere.
    method = DDNM(schedule=Karras(steps=8, sigma_max=4, sigma_min=0.12), form="scalar")
    law, samples = carried(w, method, "scalar"), last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())


@pytest.mark.parametrize("name", ["inpainting", "correlated inpainting", "blur", "dense"])
def test_without_noise_every_range_is_that_of_the_data(name: str) -> None:
    """A x = y at the end; and the null space is what the prior's own chain makes of it."""
    w = world(name)
    operator, y = w.likelihood.operator, w.likelihood.y
    method = DDNM(schedule=Karras(steps=6), form="noise-free")
    rng = Rng([3, 4], dtype=torch.float64)
    steps = list(method.run(w.prior, w.likelihood, rng))
    assert torch.allclose(operator(steps[-1].x), y.expand(2, *operator.out_shape), atol=1e-5)
    pinv = torch.linalg.pinv(w.matrix, rtol=1e-6)
    null = torch.eye(16).double() - pinv @ w.matrix
    draw = Rng([3, 4], dtype=torch.float64)
    x = operator.guess(y) + 1.5 * draw.randn(SMALL)
    sigmas = [*method.schedule.sigmas((0, 100)), 0.0]
    for step, (now, then) in zip(steps, pairwise(sigmas), strict=True):
        estimate = w.prior.denoise(x, now)
        free = estimate
        if then > 0:
            old = math.sqrt(1 - 0.85**2) * (x - estimate) / now
            free = estimate + then * (old + 0.85 * draw.randn(SMALL))
        assert torch.allclose(step.x.flatten(1) @ null, free.flatten(1) @ null, atol=1e-5)
        x = step.x


@pytest.mark.parametrize("name", ["inpainting", "correlated inpainting", "blur", "dense"])
def test_the_projection_is_the_papers_correction_where_the_operator_is_linear(name: str) -> None:
    w, method = world(name), DDNM(schedule=Karras(steps=6), form="noise-free")
    operator, y = w.likelihood.operator, w.likelihood.y
    assert isinstance(operator, LinearOperator)
    x0 = Rng([3, 4], dtype=torch.float64).rand(SMALL)
    found = method._advance(w.likelihood)(x0, x0, 1.0, 0.0, Rng([3, 4], dtype=torch.float64))
    assert torch.equal(found, x0 + operator.pinv(y - operator(x0)))


@pytest.mark.parametrize("spec", [JpegSpec(), QuantisationSpec(), ClippingSpec()], ids=lambda spec: spec.kind)
def test_without_noise_data_that_are_not_linear_are_met(spec: OperatorSpec) -> None:
    shape = (3, 32, 32)
    operator = spec.build(shape).double()
    truth = (0.5 + 0.2 * Rng([0], dtype=torch.float64).randn(shape)).clamp(0, 1)
    level, spread = torch.tensor([0.5, 0.04], dtype=torch.float64)
    prior = Prior(GaussianPrior(level, spread, shape))
    likelihood = Likelihood(operator, Gaussian(sigma=0.01), operator(truth))
    method = DDNM(schedule=Karras(steps=20), form="noise-free")
    assert method.needs <= spec.offers | prior.denoiser.offers
    *_, step = method.run(prior, likelihood, Rng([3, 4], dtype=torch.float64))
    assert torch.allclose(operator(step.x0), likelihood.y.expand(2, *operator.out_shape), atol=1e-9)
    # what the data leave open differs from sample to sample
    assert not torch.allclose(step.x0[0], step.x0[1], atol=1e-3)


def test_without_a_projection_it_is_refused() -> None:
    operator = PhaseRetrieval(SMALL).double()
    y = operator(Rng([0], dtype=torch.float64).rand(SMALL))
    with pytest.raises(NeedError, match="offers projections"):
        next(DDNM(form="noise-free").run(world("dense").prior, Likelihood(operator, Gaussian(sigma=0.1), y), Rng([0])))


def test_scalar_and_spectrum_agree_above_the_noise_where_singular_values_are_one() -> None:
    w = world("correlated inpainting")
    schedule = Karras(steps=8, sigma_max=4, sigma_min=0.12)
    one, other = (last(DDNM(schedule=schedule, form=form), w, [1, 2]) for form in ("scalar", "spectrum"))
    assert torch.allclose(one, other, atol=1e-10)


def test_time_travel_walks_levels_again() -> None:
    method = DDNM(schedule=Karras(steps=5), travel_length=2, travel_repeat=3)
    assert method._path(5) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5]
    w = world("inpainting")
    steps = list(method.run(w.prior, w.likelihood, Rng([0], dtype=torch.float64)))
    assert [s.index for s in steps] == list(range(1, 14))
    assert {s.total for s in steps} == {13}
    assert w.prior.cost.denoised == 13
    assert steps[-1].sigma == 0


def test_time_travel_leaves_the_prior_as_it_is() -> None:
    """Missing pixels of independent images never hear of the data: noising and walking again keeps their law."""
    w = Conjugate.make(Inpainting(MASK, SMALL))
    plain = DDNM(schedule=Karras(steps=40, sigma_max=4), eta=1.0, form="noise-free")
    again = plain.model_copy(update={"travel_length": 10, "travel_repeat": 3})
    holes = ~MASK.flatten()
    spreads = [last(m, w, range(1500))[:, holes].std() for m in (plain, again)]
    assert abs(float(spreads[0] - spreads[1])) / 0.25 < 5 * (1 / (1500 * 8)) ** 0.5
