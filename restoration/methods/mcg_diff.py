"""MCG-diff: particles that walk down the noise levels and meet each datum at the level of its own noise."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import SpectralOperator
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.particles import effective_number, systematic
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import centre, noise_sigma, required, spectral_operator


class MCGDiff(Method):
    """Monte-Carlo guided diffusion: sequential Monte Carlo for linear measurements of known singular values.

    In the coordinates c = V* x a datum is ybar = (U* y) / s = c + tau n with tau = sigma_y / s, which is the law of
    that coordinate at level tau. On the way down, while sigma > tau, particles are drawn towards ybar with the
    potential N(ybar; c, sigma² - tau²); at the first level below tau the datum is used with what is left of its noise,
    N(ybar; c, tau² - sigma²), and from then on the coordinate moves freely. A step draws from the product of the
    ancestral step and the potential; the weights, ratios of their integrals, are known before the step, so that
    particles are resampled first (systematically) and moved then.

    Each sample is one particle, drawn by its weight from a swarm of `particles` that belongs to its seed alone. Right
    in the limit of many particles and levels (ancestral steps are narrow at first order); what K particles can do
    shrinks quickly with the number of data. `Step.effective` has the effective number of particles, the honest sign of
    it.

    Source: Cardoso et al. 2024, Algorithms 1 and 2 (arXiv:2308.07983).
    Deviations: a datum is used at the first level with sigma² <= (1 - kappa) tau², with the rest of its noise, in place
    of a narrow potential at the level nearest to tau; data that are more precise than the last level count as precise
    as that; resampling is systematic; levels of EDM.
    """

    kind: Literal["mcg-diff"] = "mcg-diff"
    title: ClassVar[str] = "MCG-diff"
    source: ClassVar[Source] = Source(
        paper="Cardoso et al., Monte Carlo Guided Diffusion for Bayesian Linear Inverse Problems, ICLR 2024",
        equation="Algorithms 1 and 2",
        arxiv="2308.07983",
        code="gabrielvc/mcg_diff",
        licence="none stated",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 100 to 250).")] = Karras(
        steps=100, sigma_max=5
    )
    particles: Annotated[int, Field(ge=1, le=4096, description="Particles behind each sample (published: 64).")] = 64
    kappa: Annotated[
        float,
        Field(gt=0, lt=1, description="Least share of a datum's noise variance left when it is used."),
        Ui(advanced=True),
    ] = 0.1

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.SPECTRUM, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """`particles` network calls a level."""
        prior = required(prior, self)
        operator, count = spectral_operator(likelihood, self), self.particles
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        data = _Data(operator, likelihood.y, noise_sigma(likelihood, self), sigmas, self.kappa)
        moves, choices = rng.child("moves"), rng.child("choices")
        # Places in a swarm are in order: the one that is shown is chosen at random, once.
        shown = torch.arange(rng.batch) * count + (choices.rand(()) * count).long().cpu()

        first = centre(likelihood)
        if isinstance(first, Tensor):
            first = first.expand(rng.batch, *operator.in_shape).repeat_interleave(count, 0)
        x = torch.zeros_like(_swarm(moves, operator, count)) + first
        x = data.move(x, sigmas[0] ** 2, 0, _swarm(moves, operator, count))
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = prior.denoise(x, now)
            ratio = (then / now) ** 2
            mean, variance = x0 + ratio * (x - x0), then**2 * (1 - ratio)
            # What the data say of the step, over what they had said of x.
            weights = data.log_evidence(mean, variance, i) - data.log_evidence(x, 0.0, i - 1, used=False)
            weights = weights.view(-1, count)
            kept = systematic(weights, choices)
            x, x0 = mean[kept], x0[kept]
            if then > 0:
                x = data.move(x, variance, i, _swarm(moves, operator, count))
            yield Step(i, len(sigmas), then, x[shown], x0[shown], effective_number(weights))


class _Data:
    """The data as coordinates ybar = c + tau n, each with the number of the level at which it is used."""

    def __init__(self, operator: SpectralOperator, y: Tensor, sigma: float, sigmas: list[float], kappa: float) -> None:
        coefficients = operator.data_to_spectrum(y)
        s = operator.singular_values.to(coefficients.real.dtype).expand(coefficients.shape[1:])
        self.operator, self.kappa = operator, kappa
        self.squares = torch.tensor([*[level**2 for level in sigmas], 0.0], dtype=s.dtype, device=s.device)
        seen = s > 1e-6 * s.amax()
        safe = s.where(seen, torch.ones_like(s))
        self.ybar = torch.where(seen, coefficients / safe, torch.zeros_like(coefficients))
        # A datum that no level is below is used at the last one.
        self.tau2 = (sigma / safe).square().clamp(min=float(self.squares[-2]) / (1 - kappa))
        used = torch.searchsorted(-self.squares[:-1], -(1 - kappa) * self.tau2).clamp(max=len(sigmas) - 1)
        self.used = used.where(seen, torch.full_like(used, -1))

    def _potential(self, level: int, *, used: bool = True) -> tuple[Tensor, Tensor]:
        """Whether a coordinate is guided at a level (those used there included or not), and with what variance."""
        guided = self.used >= level if used else self.used > level
        return guided, torch.maximum((self.squares[level] - self.tau2).abs(), self.kappa * self.tau2)

    def log_evidence(self, mean: Tensor, variance: float, level: int, *, used: bool = True) -> Tensor:
        """log of the integral of N(x; mean, variance I) times the potential, up to what all particles share: (N,)."""
        guided, spread = self._potential(level, used=used)
        root = guided / (variance + spread).sqrt()
        gap = root * (self._data(mean) - self.operator.to_spectrum(mean))
        squared: Tensor = self.operator.from_spectrum(gap).abs().square().flatten(1).sum(1)
        return -0.5 * squared

    def move(self, mean: Tensor, variance: float, level: int, noise: Tensor) -> Tensor:
        """A draw from N(mean, variance I) times the potential, made of white noise: (N, *shape)."""
        guided, spread = self._potential(level)
        gain = guided * variance / (variance + spread)
        c = gain * (self._data(mean) - self.operator.to_spectrum(mean))
        std = math.sqrt(variance)
        c = c + ((1 - gain).sqrt() - 1) * std * self.operator.to_spectrum(noise)
        return mean + std * noise + self.operator.from_spectrum(c)

    def _data(self, particles: Tensor) -> Tensor:
        return self.ybar if len(self.ybar) == 1 else self.ybar.repeat_interleave(len(particles) // len(self.ybar), 0)


def _swarm(rng: Rng, operator: SpectralOperator, count: int) -> Tensor:
    """White noise for every particle, the particles of a sample in a row: (B count, *in_shape)."""
    return rng.randn((count, *operator.in_shape), complex=operator.in_complex).flatten(0, 1)
