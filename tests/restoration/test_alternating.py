"""Alternating estimation tends to the maximiser of the marginal likelihood, which is known for Gaussian images."""

import math

import pytest
import torch
from scipy.optimize import minimize

from operators import CircularBlur, Gaussian, Identity, Likelihood, Rng, UnknownWidthSpec
from operators.errors import NeedError, RecipeError
from operators.kernels import gaussian_kernel
from operators.spec import Need
from restoration.alternating import Alternating
from restoration.analytic import GaussianPrior
from restoration.methods.daps import DAPS, Shrinking
from restoration.methods.dps import DPS
from restoration.prior import Prior
from restoration.schedule import Karras

SHAPE, STD = (1, 16, 16), 0.25
PRIOR = Prior(GaussianPrior(torch.tensor(0.5).double(), torch.tensor(STD**2).double(), SHAPE))
EXACT = DAPS(schedule=Karras(steps=4), width=Shrinking(std=STD), shed=False)
"""Draws from the posterior itself for independent pixels; see test_daps.py."""


def simulated(operator: object, sigma: float = 0.05) -> Likelihood:
    """Data of an image of independent pixels."""
    x = 0.5 + STD * Rng([3], dtype=torch.float64).randn(SHAPE)
    return Likelihood.simulate(operator, Gaussian(sigma=sigma), x, Rng([5], dtype=torch.float64))  # type: ignore[arg-type]


def best(likelihood: Likelihood, power: object) -> list[float]:
    """Logarithms of width (if any) and sigma that maximise p(y), y ~ N(0.5, STD² A A* + sigma²), by Fourier."""
    seen = torch.fft.fft2(likelihood.y - 0.5, norm="ortho").abs().square()

    def cost(logs: list[float]) -> float:
        variance = STD**2 * power([float(v) for v in logs[:-1]]) + math.exp(2 * logs[-1])  # type: ignore[operator]
        return float((variance.log() + seen / variance).sum())

    length = 1 if isinstance(likelihood.operator, CircularBlur) else 2
    starts = [[math.log(w)] * (length - 1) + [math.log(s)] for w in (0.7, 1.2, 2) for s in (0.03, 0.1)]
    fits = [minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}) for start in starts]
    return list(min(fits, key=lambda fit: fit.fun).x)


def impulse() -> torch.Tensor:
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    x[..., 0, 0] = 1
    return x


def test_noise_and_width_are_those_of_maximum_likelihood() -> None:
    """Mean over 60 chains within 5 standard errors and 2 % of the maximiser, which is not the truth (1.2, 0.05)."""
    family = UnknownWidthSpec(std=1.2, widest=2.5).build(SHAPE).double()
    likelihood = simulated(family)

    def power(logs: list[float]) -> torch.Tensor:
        blurred = family.at(torch.tensor([logs], dtype=torch.float64))(impulse())
        transfer: torch.Tensor = torch.fft.fft2(blurred)
        return transfer.abs().square()

    log_width, log_sigma = best(likelihood, power)
    method = Alternating(unknown="noise and width", method=EXACT, rounds=40, settle=12, stretch=1.5)
    *_, step = method.run(PRIOR, likelihood, Rng(range(60), dtype=torch.float64))
    assert step.found is not None
    values = step.found.values(likelihood)
    for name, expected in (("width", math.exp(log_width)), ("sigma", math.exp(log_sigma))):
        error = float(values[name].std()) / 60**0.5
        gap = abs(float(values[name].mean()) - expected)
        assert gap < 5 * error, f"{name} is off by {gap / error:.1f} standard errors"
        assert gap < 0.02 * expected
    assert abs(math.exp(log_width) / 1.2 - 1) > 0.05  # the maximiser is no longer the truth


def test_the_noise_of_a_known_operator_is_that_of_maximum_likelihood() -> None:
    blur = CircularBlur(gaussian_kernel(7, 1.0), SHAPE).double()
    likelihood = simulated(blur, 0.1)
    (log_sigma,) = best(likelihood, lambda _: torch.fft.fft2(blur(impulse())).abs().square())
    method = Alternating(method=EXACT, rounds=40, settle=10, start=0.5)
    *_, step = method.run(PRIOR, likelihood, Rng(range(60), dtype=torch.float64))
    assert step.found is not None
    assert step.found.parameters is None
    sigma = step.found.values(likelihood)["sigma"]
    error = float(sigma.std()) / 60**0.5
    assert abs(float(sigma.mean()) - math.exp(log_sigma)) < 5 * error
    assert error < 0.002 * math.exp(log_sigma)


def test_the_noise_level_of_the_recipe_is_not_used() -> None:
    family = UnknownWidthSpec(std=1.2).build(SHAPE).double()
    told = simulated(family)
    other = Likelihood(family, Gaussian(sigma=0.4), told.y)
    method = Alternating(unknown="noise and width", method=EXACT, rounds=3)
    ends = [[*method.run(PRIOR, held, Rng([0], dtype=torch.float64))][-1] for held in (told, other)]
    assert torch.equal(ends[0].x0, ends[1].x0)


def test_a_batch_equals_single_runs() -> None:
    likelihood = simulated(UnknownWidthSpec(std=1.2).build(SHAPE).double())
    method, seeds = Alternating(unknown="noise and width", method=EXACT, rounds=3), [7, 0]
    *_, together = method.run(PRIOR, likelihood, Rng(seeds, dtype=torch.float64))
    assert (together.index, together.total, together.sigma) == (3, 3, 0.0)
    for k, seed in enumerate(seeds):
        *_, alone = method.run(PRIOR, likelihood, Rng([seed], dtype=torch.float64))
        assert torch.allclose(together.x0[k : k + 1], alone.x0, atol=1e-10)
        assert together.found is not None
        assert alone.found is not None
        for name, value in alone.found.values(likelihood).items():
            assert torch.allclose(together.found.values(likelihood)[name][k : k + 1], value, atol=1e-10)


def test_needs_follow_what_is_unknown() -> None:
    assert Need.PROX in Alternating(method=EXACT).needs
    both = Alternating(unknown="noise and width", method=EXACT)
    assert both.needs == {Need.DENOISER, Need.GAUSSIAN, Need.WIDTH}
    with pytest.raises(NeedError, match="unknown-width"):
        next(iter(both.run(PRIOR, simulated(Identity(SHAPE)), Rng([0], dtype=torch.float64))))
    with pytest.raises(RecipeError, match="trained range"):
        Alternating(method=EXACT).check((0.5, 1.0))
    with pytest.raises(ValueError, match="daps"):
        Alternating.model_validate({"method": DPS().model_dump()})
