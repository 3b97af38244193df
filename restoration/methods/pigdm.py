"""PiGDM: guidance by the likelihood of a Gaussian around the estimate."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import ddim, local_variance, noisy_start, required


class PiGDM(Method):
    """Pseudo-inverse-guided diffusion.

    x0 given x is taken as N(D, r² I), so that y is N(A D, r² A A* + sigma_y² I) and, with J = dD/dx,

        grad log p(y | x) = J* A* (r² A A* + sigma_y² I)⁻¹ (y - A D) = J* (prox(D) - D) / r²,

    prox being the proximal step of the likelihood with step r²: a closed form where A has a spectrum, conjugate
    gradients elsewhere. r² = sigma² / (1 + sigma²) on [-1, 1], which is `std` 0.5 in unit range.

    `step` "score": D + now² grad replaces D in the sampler, the conditional mean by Tweedie's formula. Where the prior
    is an isotropic Gaussian of standard deviation `std` it is exactly E[x0 | x, y], and the sampler is right up to its
    number of levels.
    `step` "released": the unguided sampler's step plus r² grad, the same at every level however fine the levels are.
    In VP coordinates on [-1, 1], as in the only public code, x_s += sqrt(abar_t) sqrt(abar_s) g with g = r² grad with
    respect to x_t; division by sqrt(abar_s), and sqrt(abar_t) dx0/dx_t = J, leave r² grad. The paper's line has no
    sqrt(abar_s).

    Source: Song et al. 2023, Algorithm 1 and eq. 7 (OpenReview 9_gsMA8MRKQ).
    Deviations: levels of EDM instead of DDPM's; `step` "score" as the default.
    """

    kind: Literal["pigdm"] = "pigdm"
    title: ClassVar[str] = "PiGDM"
    source: ClassVar[Source] = Source(
        paper="Song et al., Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023",
        equation="Algorithm 1, eq. 7",
        code="NVlabs/RED-diff",
        licence="NVIDIA Source Code License (read, not used)",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 100).")] = Karras(
        steps=100, sigma_max=5
    )
    step: Annotated[Literal["score", "released"], Field(description="How the guidance enters the step.")] = "score"
    eta: Annotated[
        float, Field(ge=0, le=1, description="0 follows the flow, 1 is the ancestral step (published: 1).")
    ] = 1.0
    std: Annotated[
        float,
        Field(gt=0, le=10, description="Standard deviation of images that r² supposes (published: 1 on [-1, 1])."),
        Ui(unit="unit range"),
    ] = 0.5

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.PROX, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call and one pullback a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = noisy_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pullback = prior.denoise_vjp(x, now)
            r2 = local_variance(now, self.std)
            guide = pullback(likelihood.prox(x0, r2) - x0)  # r² grad log p(y | x)
            if self.step == "score":
                x0 = x0 + now**2 / r2 * guide
                x = ddim(x, x0, now, then, self.eta, rng)
            else:
                x = ddim(x, x0, now, then, self.eta, rng) + guide
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0)
