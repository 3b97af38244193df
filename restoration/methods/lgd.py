"""LGD-MC: guidance by a loss averaged over images near the estimate."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import per_sample
from operators.spec import Need, Source, Spec, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import ancestral, centred_start, local_variance, required, vp_factor, white


class Average(Spec, ABC):
    """How the images near the estimate are made into one step."""

    @abstractmethod
    def slope(self, likelihood: Likelihood, near: list[Tensor], now: float, then: float) -> Tensor:
        """The step to take, before it is pulled back through the denoiser: (B, *shape), to be added to x."""


class LogMeanExp(Average):
    """Up log (1/n) sum_i p(y | x_i), the paper's estimate of log p(y | x), by the variance the level loses.

    Unbiased in n, but p(y | x_i) are products over all data: in images one x_i has all the weight, and the step is as
    unstable at small noise as DPS without rescaling.
    Source: Song et al. 2023, the Monte Carlo estimate of LGD-MC.
    """

    kind: Literal["log-mean-exp"] = "log-mean-exp"
    weight: Annotated[float, Field(gt=0, le=10, description="1 is the formula."), Ui(scale="log")] = 1.0

    def slope(self, likelihood: Likelihood, near: list[Tensor], now: float, then: float) -> Tensor:
        """weight (now² - then²) sum_i w_i grad log p(y | x_i), w the softmax of log p(y | x_i), per sample."""
        slopes, logs = zip(*(likelihood.grad(x) for x in near), strict=True)
        shares = torch.softmax(torch.stack(logs), dim=0)
        total = torch.stack([per_sample(w, s.ndim) * s for w, s in zip(shares, slopes, strict=True)]).sum(0)
        return self.weight * (now**2 - then**2) * total


class MeanMisfit(Average):
    """Down the root of the mean squared misfit over the x_i, in the released units of DPS: stable at any noise.

    For a linear operator its mean is the step of DPS, shortened by the misfit that the spread of the x_i adds.
    Source: the port in InverseBench (DPS with the misfit averaged over samples); scale as `NormGuidance` of DPS.
    """

    kind: Literal["mean-misfit"] = "mean-misfit"
    scale: Annotated[
        float,
        Field(gt=0, le=20, description="Step down the misfit, in the units of DPS's configurations."),
        Ui(scale="log"),
    ] = 0.3

    def slope(self, likelihood: Likelihood, near: list[Tensor], now: float, then: float) -> Tensor:
        """-factor grad sqrt(mean_i |y - A x_i|²), per sample."""
        misfits, slopes = zip(*(likelihood.misfit_and_slope(x) for x in near), strict=True)
        root = torch.stack(misfits).square().mean(0).sqrt()
        root = root.clamp_min(torch.finfo(root.dtype).tiny)
        total = torch.stack([per_sample(m / root, s.ndim) * s for m, s in zip(misfits, slopes, strict=True)]).sum(0)
        return -self.scale * vp_factor(now, then) / len(near) * total


AnyAverage = Annotated[MeanMisfit | LogMeanExp, Field(discriminator="kind")]


class LGD(Method):
    """Loss-guided diffusion with Monte Carlo.

    DPS takes the likelihood at the estimate D; here it is averaged over x_i = D + r n_i, draws from the Gaussian that
    PiGDM supposes for x0 given x, r² = sigma² / (1 + sigma²) on [-1, 1]. It needs no adjoint and no closed form: any
    differentiable measurement and any noise. With many x_i and `log-mean-exp` it becomes PiGDM for a linear
    measurement with Gaussian noise. Not a calibrated sampler with a handful of them: see docs/calibration.md.

    Source: Song et al. 2023, LGD-MC (ICML 2023, PMLR 202, 32483-32498).
    Deviations: `mean-misfit` as the default; the estimate is not clamped.
    """

    kind: Literal["lgd"] = "lgd"
    title: ClassVar[str] = "LGD-MC"
    source: ClassVar[Source] = Source(
        paper="Song et al., Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation, ICML 2023",
        equation="LGD-MC",
        code="devzhk/InverseBench (a port)",
        licence="MIT",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels.")] = LinearVP()
    particles: Annotated[int, Field(ge=1, le=1000, description="Images near the estimate (InverseBench: 3).")] = 3
    average: Annotated[AnyAverage, Field(description="How they become one step.")] = MeanMisfit()
    std: Annotated[
        float,
        Field(gt=0, le=10, description="Standard deviation of images that r supposes (published: 1 on [-1, 1])."),
        Ui(unit="unit range"),
    ] = 0.5

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call and one pullback a level, `particles` calls of the operator."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        noise, spread = rng.child("noise"), rng.child("particles")
        x = centred_start(likelihood, sigmas[0], noise)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pullback = prior.denoise_vjp(x, now)
            r = math.sqrt(local_variance(now, self.std))
            near = [x0 + r * white(x0, spread) for _ in range(self.particles)]
            x = ancestral(x, x0, now, then, noise) + pullback(self.average.slope(likelihood, near, now, then))
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0)
