"""DAPS: a clean estimate by the flow, a draw given the data, and noise for the next level."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.errors import RecipeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Spec, Ui
from restoration.draws import AnyInner, Exact, Langevin
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import euler, noisy_start, required, white


class Width(Spec, ABC):
    """Standard deviation r(sigma) of the local Gaussian model x0 | x_sigma ~ N(estimate, r² I)."""

    @abstractmethod
    def at(self, sigma: float) -> float:
        """r at noise level sigma, both in unit range."""


class Proportional(Width):
    """r = factor sigma. The paper has factor 1 and follows it with many Langevin steps at a low temperature."""

    kind: Literal["proportional"] = "proportional"
    factor: Annotated[float, Field(gt=0, le=10, description="r / sigma.")] = 1.0

    def at(self, sigma: float) -> float:
        """factor · sigma."""
        return self.factor * sigma


class Shrinking(Width):
    """1/r² = 1/sigma² + 1/std²: exact where the prior is an isotropic Gaussian of that standard deviation."""

    kind: Literal["shrinking"] = "shrinking"
    std: Annotated[float, Field(gt=0, le=10, description="Standard deviation of the prior."), Ui(unit="unit range")] = (
        0.25
    )

    def at(self, sigma: float) -> float:
        """Standard deviation of x0 given x_sigma under that prior."""
        return sigma * self.std / math.hypot(sigma, self.std)


AnyWidth = Annotated[Proportional | Shrinking, Field(discriminator="kind")]


class DAPS(Method):
    """Decoupled annealing posterior sampling.

    At each level: follow the probability-flow ODE from x to a clean estimate, draw x0 near it given the data, add the
    noise of the next level. With an isotropic Gaussian prior, one ODE step, width `shrinking`, the exact draw and
    `shed` off, every level is an exact draw from p(x0 | x, y), and the tests hold it to that. The defaults are a
    heuristic for learned priors.

    Two published forms differ, and `published` makes both: the original submission has |y - Ax|² / (2 tau²) and an ODE
    that ends on a denoised image; the rewritten public code has |y - Ax|² / tau² (`inner.doubled`), an ODE that ends at
    a small level (`ode_end` "level"), and levels that stop one short of the smallest. The step sizes are the same, so
    that the rewritten form is at the edge of stability where A has singular value 1.

    Source: Zhang et al. 2025, Algorithm 1 (arXiv:2407.01521).
    Deviations: step sizes decay over n levels, not n + 1; the start is the operator's guess plus noise; optional exact
    draw in place of the inner chain; `shed` subtracts the draw's own noise r² from the noise of the next level, since
    the denoiser would otherwise meet more noise than it is told about. With a learned prior that, and a width of half a
    sigma, is what works; with width sigma and unshed, white noise fills the unmeasured directions.
    """

    kind: Literal["daps"] = "daps"
    title: ClassVar[str] = "DAPS"
    source: ClassVar[Source] = Source(
        paper="Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, CVPR 2025",
        equation="Algorithm 1",
        arxiv="2407.01521",
        code="zhangbingliang2019/DAPS",
        licence="MIT",
    )

    schedule: Annotated[AnySchedule, Field(description="Annealing levels.")] = Karras(steps=50)
    ode_steps: Annotated[int, Field(ge=1, le=50, description="Network calls a level.")] = 1
    ode_min: Annotated[
        float | None,
        Field(gt=0, le=1, description="Smallest level of that walk (published: 0.005); none = the last level."),
    ] = None
    ode_end: Annotated[
        Literal["denoised", "level"], Field(description="End on a denoised image, or on the smallest level.")
    ] = "denoised"
    inner: Annotated[AnyInner, Field(description="How x0 is drawn given the data.")] = Exact()
    width: Annotated[AnyWidth, Field(description="Width of the local Gaussian model.")] = Proportional(factor=0.5)
    shed: Annotated[bool, Field(description="Take the draw's own variance off the next level's noise.")] = True

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER}) | self.inner.needs

    @classmethod
    def published(
        cls, form: Literal["legacy", "main"], *, rate: float = 1e-4, steps: int = 100, sigma_max: float = 50.0
    ) -> "DAPS":
        """The published settings (DAPS-1K): `rate` as published, on [-1, 1]; `sigma_max` in unit range.

        Rates: 1e-4 (super-resolution, Gaussian blur, random inpainting), 5e-5 (motion blur, box, phase retrieval),
        2e-5 (tone), nonlinear blur 5e-5 (legacy) or 1e-5 and 200 steps (main).
        """
        last = 0.05 if form == "legacy" else Karras(steps=201, sigma_max=sigma_max, sigma_min=0.05).sigmas((0, 50))[-2]
        return cls(
            schedule=Karras(steps=200, sigma_max=sigma_max, sigma_min=last),
            ode_steps=5,
            ode_min=0.005,
            ode_end="denoised" if form == "legacy" else "level",
            inner=Langevin(steps=steps, rate=rate / 4, last_rate=0.01, tau=0.005, doubled=form == "main"),
            width=Proportional(),
            shed=False,
        )

    def check(self, trained: tuple[float, float]) -> None:
        if self.ode_end == "level" and self.ode_min is None:
            raise RecipeError("Expected ode_min where the walk ends at a level, got none; give it, such as 0.005.")
        sigmas = self.schedule.sigmas(trained)
        if self.ode_min is not None:
            Karras(steps=2, sigma_max=sigmas[-1], sigma_min=self.ode_min).sigmas(trained)
        for now, then in pairwise(sigmas):
            if self.shed and self.width.at(now) > then:
                raise RecipeError(
                    f"Expected a width below the next noise level {then:.3g} to shed it, got {self.width.at(now):.3g}; "
                    "use more levels, a narrower width, or turn shed off."
                )

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """`ode_steps` network calls a level."""
        prior = required(prior, self)
        self.check(prior.denoiser.sigma_range)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        draws, noise = rng.child("draw"), rng.child("noise")
        x = noisy_start(likelihood, sigmas[0], noise)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            estimate = x
            for high, low in pairwise(self._walk(now, sigmas[-1])):
                estimate = euler(estimate, prior.denoise(estimate, high), high, low)
            r = self.width.at(now)
            x0 = self.inner.draw(estimate, r, (i - 1) / len(sigmas), likelihood, draws)
            extra = (then**2 - r**2) ** 0.5 if self.shed and then > 0 else then
            x = x0 + extra * white(x0, noise) if then > 0 else x0
            yield Step(i, len(sigmas), then, x, x0)

    def _walk(self, now: float, last: float) -> list[float]:
        """The levels of the ODE from `now` on: `ode_steps` + 1 of them, the last 0 or `ode_min`."""
        smallest = last if self.ode_min is None else self.ode_min
        end = [0.0] if self.ode_end == "denoised" else []
        steps = self.ode_steps + 1 - len(end)
        if steps == 1 or now <= smallest:
            return [now, *end]
        return [*Karras(steps=steps, sigma_max=now, sigma_min=smallest).sigmas((0.0, now)), *end]
