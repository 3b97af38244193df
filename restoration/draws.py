"""Draws of an image near an estimate, given the data: N(estimate, r² I) times the likelihood. No network call."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.noise import Gaussian
from operators.rng import Rng
from operators.spec import Need, Spec, Ui
from restoration.steps import white

Rate = Annotated[float, Field(gt=0, le=1, description="Step size at the first level (unit range)."), Ui(scale="log")]
Share = Annotated[float, Field(gt=0, le=1, description="Last step size as a share of the first.")]
Tau = Annotated[
    float | None, Field(gt=0, le=1, description="Temperature of the likelihood; none = the noise level itself.")
]
Doubled = Annotated[bool, Field(description="Count the data twice, as the rewritten public code of DAPS does.")]


class Inner(Spec, ABC):
    """How x0 is drawn from N(estimate, r² I) times the likelihood."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[Need]:
        """What the draw needs of operator and noise."""

    @abstractmethod
    def draw(self, estimate: Tensor, r: float, progress: float, likelihood: Likelihood, rng: Rng) -> Tensor:
        """A draw (B, *shape); `progress` goes from 0 to 1 over the levels."""


class Exact(Inner):
    """The exact draw for linear operators and Gaussian noise, by perturb-and-solve (Papandreou and Yuille 2010)."""

    kind: Literal["exact"] = "exact"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.PROX, Need.GAUSSIAN})

    def draw(self, estimate: Tensor, r: float, progress: float, likelihood: Likelihood, rng: Rng) -> Tensor:
        """One proximal solve."""
        return likelihood.draw(estimate, r**2, rng)


class Langevin(Inner):
    """Unadjusted Langevin on log p(y|x) - |x - estimate|² / (2 r²), with the likelihood at temperature `tau`.

    The likelihood enters as |y - Ax|² / (2 tau²): the form of DAPS's original submission and of InverseBench. `doubled`
    is the 1/tau² of its rewritten public code. With tau at the noise level (None) the target is the posterior; the
    paper's 0.01 on [-1, 1] data is 0.005 here and sharpens it.
    Learning rates of the paper are on [-1, 1] data: divide them by 4.
    Stable while rate (|A|² / tau² + 1 / r²) stays below 2.

    Source: Zhang et al. 2025 (arXiv:2407.01521), Algorithm 1, line 5.
    """

    kind: Literal["langevin"] = "langevin"
    steps: Annotated[int, Field(ge=1, le=1000, description="Langevin steps a level.")] = 100
    rate: Rate = 2.5e-5
    last_rate: Share = 0.01
    tau: Tau = None
    doubled: Doubled = False

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GRADIENT}) | _tempering(self.tau)

    def draw(self, estimate: Tensor, r: float, progress: float, likelihood: Likelihood, rng: Rng) -> Tensor:
        """`steps` gradient steps with noise."""
        rate = _decayed(self.rate, self.last_rate, progress)
        temper = _temper(likelihood, self.tau) * (1 + self.doubled)
        x = estimate
        for _ in range(self.steps):
            slope, _ = likelihood.grad(x)
            x = x + rate * (temper * slope + (estimate - x) / r**2)
            x = x + (2 * rate) ** 0.5 * white(x, rng)
        return x


class HMC(Inner):
    """Damped Hamiltonian steps on the same target: v <- m v + h score + sqrt(2 (1 - m)) n, x <- x + h v, h² = rate.

    Never rejected, so its law is the target only for small rates; momentum 0 is Langevin. DAPS has a rate, a number of
    steps and a momentum for each task, on [-1, 1] data (super-resolution: 12 steps, 1.04e-4 / 4, 0.9).

    Source: code of Zhang et al. 2025, "hmc" of its MCMC sampler.
    """

    kind: Literal["hmc"] = "hmc"
    steps: Annotated[int, Field(ge=1, le=1000, description="Steps a level (published: 11 to 100).")] = 60
    rate: Rate = 1e-5
    last_rate: Share = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1, description="Share of the velocity that a step keeps.")] = 0.5
    tau: Tau = None
    doubled: Doubled = False

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GRADIENT}) | _tempering(self.tau)

    def draw(self, estimate: Tensor, r: float, progress: float, likelihood: Likelihood, rng: Rng) -> Tensor:
        """`steps` gradient steps with momentum and noise."""
        h = _decayed(self.rate, self.last_rate, progress) ** 0.5
        temper = _temper(likelihood, self.tau) * (1 + self.doubled)
        x, velocity = estimate, white(estimate, rng)
        for _ in range(self.steps):
            slope, _ = likelihood.grad(x)
            push = h * (temper * slope + (estimate - x) / r**2)
            velocity = self.momentum * velocity + push + (2 * (1 - self.momentum)) ** 0.5 * white(x, rng)
            x = x + h * velocity
        return x


class Metropolis(Inner):
    """Random-walk Metropolis on the same target: no gradient, so any operator will do, rounding ones too.

    Right at any rate, but a proposal is accepted less the more pixels there are: for small problems.

    Source: code of Zhang et al. 2025, "mh" of its MCMC sampler. Deviations: none.
    """

    kind: Literal["metropolis"] = "metropolis"
    steps: Annotated[int, Field(ge=1, le=100_000, description="Proposals a level.")] = 500
    rate: Rate = 2.5e-5
    last_rate: Share = 0.01
    tau: Tau = None

    @property
    def needs(self) -> frozenset[Need]:
        return _tempering(self.tau)

    def draw(self, estimate: Tensor, r: float, progress: float, likelihood: Likelihood, rng: Rng) -> Tensor:
        """`steps` proposals, each accepted or not for every sample by itself."""
        h, temper = _decayed(self.rate, self.last_rate, progress) ** 0.5, _temper(likelihood, self.tau)

        def target(x: Tensor) -> Tensor:
            return temper * likelihood.log_prob(x) - (x - estimate).abs().square().flatten(1).sum(1) / (2 * r**2)

        x, now = estimate, target(estimate)
        for _ in range(self.steps):
            proposed = x + h * white(x, rng)
            then = target(proposed)
            accepted = rng.rand(()).log() < then - now
            x = proposed.where(accepted.view(-1, *[1] * (x.ndim - 1)), x)
            now = then.where(accepted, now)
        return x


AnyInner = Annotated[Exact | Langevin | HMC | Metropolis, Field(discriminator="kind")]


def _decayed(rate: float, last: float, progress: float) -> float:
    return rate * (1 + progress * (last - 1))


def _tempering(tau: float | None) -> frozenset[Need]:
    # Tempering asks how large the noise is.
    return frozenset() if tau is None else frozenset({Need.GAUSSIAN})


def _temper(likelihood: Likelihood, tau: float | None) -> float:
    if tau is None:
        return 1.0
    if not isinstance(likelihood.noise, Gaussian):
        raise NeedError(
            f"Expected Gaussian noise for a tempered likelihood, "
            f"got {type(likelihood.noise).__name__}; leave tau empty."
        )
    return (likelihood.noise.sigma / tau) ** 2
