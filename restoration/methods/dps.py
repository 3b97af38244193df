"""DPS: an ancestral step, then a step down the data misfit through the network."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Spec, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import ancestral, centred_start, required, vp_factor


class Guidance(Spec, ABC):
    """How far to go along the data's slope at one level."""

    @abstractmethod
    def slope(self, likelihood: Likelihood, x0: Tensor, now: float, then: float) -> Tensor:
        """The step to take, before it is pulled back through the denoiser: (B, *shape), to be added to x."""


class NormGuidance(Guidance):
    """Down the norm of the misfit, the form of the released code.

    `scale` is that of the released configurations: x_vp <- x_vp - scale grad |y - A x0| on [-1, 1] images (0.3 for
    super-resolution and deblurring, 0.5 for inpainting, 1 for phase retrieval); the paper's zeta' is scale / 2.
    In VE coordinates and unit range (sigma doubled to [-1, 1]) the factor is
    scale / 2 sqrt(1 + (2 now)²) sqrt(1 + (2 then)²).

    Source: Chung et al. 2023, appendix D.1.
    """

    kind: Literal["norm"] = "norm"
    scale: Annotated[
        float,
        Field(gt=0, le=20, description="Step down the misfit, as in the released configurations."),
        Ui(scale="log"),
    ] = 0.3

    def slope(self, likelihood: Likelihood, x0: Tensor, now: float, then: float) -> Tensor:
        """-factor grad |y - A x0|, per sample."""
        _, slope = likelihood.misfit_and_slope(x0)
        return -self.scale * vp_factor(now, then) * slope


class ZetaGuidance(Guidance):
    """The same step in the paper's units: its Algorithm 1 steps down the squared misfit by zeta' / |y - A x0|.

    The gradient of the square is 2 |y - A x0| times that of the norm, so zeta' is half a released `scale`. The paper's
    zeta' (1 for most tasks) and the released scales (0.3) are still not the same step.

    Source: Chung et al. 2023, Algorithm 1, line 7, and appendix D.1.
    """

    kind: Literal["zeta"] = "zeta"
    zeta: Annotated[float, Field(gt=0, le=10, description="The paper's zeta' (FFHQ: 1)."), Ui(scale="log")] = 1.0

    def slope(self, likelihood: Likelihood, x0: Tensor, now: float, then: float) -> Tensor:
        """-factor grad |y - A x0|, per sample."""
        _, slope = likelihood.misfit_and_slope(x0)
        return -2 * self.zeta * vp_factor(now, then) * slope


class LikelihoodGuidance(Guidance):
    """Up the log-likelihood at the estimate, by the variance the level loses: the formula before any rescaling.

    Stable only where the steps are fine or the noise is large. Source: Chung et al. 2023, eq. 11 to 16.
    """

    kind: Literal["likelihood"] = "likelihood"
    weight: Annotated[float, Field(gt=0, le=10, description="1 is the formula.")] = 1.0

    def slope(self, likelihood: Likelihood, x0: Tensor, now: float, then: float) -> Tensor:
        """weight (now² - then²) grad log p(y | x0), per sample."""
        slope, _ = likelihood.grad(x0)
        return self.weight * (now**2 - then**2) * slope


AnyGuidance = Annotated[NormGuidance | ZetaGuidance | LikelihoodGuidance, Field(discriminator="kind")]


class DPS(Method):
    """Diffusion posterior sampling.

    DPS does not sample the posterior, even with infinitely many steps: see docs/methods.md.

    Source: Chung et al. 2023, Algorithm 1 and appendix D.1 (arXiv:2209.14687).
    Deviations: the misfit is taken per sample, not over the batch; fixed posterior variance instead of a learned one;
    the estimate is not clamped; the last step is noise-free and ends on the estimate.
    """

    kind: Literal["dps"] = "dps"
    title: ClassVar[str] = "DPS"
    source: ClassVar[Source] = Source(
        paper="Chung et al., Diffusion Posterior Sampling for General Noisy Inverse Problems, ICLR 2023",
        equation="Algorithm 1",
        arxiv="2209.14687",
        code="DPS2022/diffusion-posterior-sampling",
        licence="none stated",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels.")] = LinearVP()
    guidance: Annotated[AnyGuidance, Field(description="Form and size of the step along the data.")] = NormGuidance()

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call and one pullback a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = centred_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pullback = prior.denoise_vjp(x, now)
            x = ancestral(x, x0, now, then, rng) + pullback(self.guidance.slope(likelihood, x0, now, then))
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0)
