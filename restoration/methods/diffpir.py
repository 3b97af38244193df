"""DiffPIR: denoise, solve the data subproblem in closed form, renoise."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import noisy_start, required, white


class DiffPIR(Method):
    """Plug-and-play diffusion: x0 = D(x, sigma), then its proximal fit to the data, then noise for the next level.

    The prior's estimate is trusted to a width r = sigma / sqrt(weight); the noise of the next level is a mix of the
    noise estimate left in x (share 1 - zeta) and fresh noise (share zeta).

    Source: Zhu et al. 2023, Algorithm 1 (arXiv:2305.08995).
    Deviations: levels of EDM instead of DDPM's; the start is the operator's guess plus noise; the data step is kept at
    the last level too, so that the result fits the data.
    """

    kind: Literal["diffpir"] = "diffpir"
    title: ClassVar[str] = "DiffPIR"
    source: ClassVar[Source] = Source(
        paper="Zhu et al., Denoising Diffusion Models for Plug-and-Play Image Restoration, NTIRE 2023",
        equation="Algorithm 1",
        arxiv="2305.08995",
        code="yuanzhi-zhu/DiffPIR",
        licence="MIT",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels.")] = Karras()
    weight: Annotated[
        float,
        Field(gt=0, le=1000, description="The paper's lambda: how firmly the prior's estimate is held."),
        Ui(scale="log"),
    ] = 1.0
    zeta: Annotated[float, Field(ge=0, le=1, description="Share of fresh noise at each level.")] = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.PROX, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = noisy_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
            x0 = likelihood.prox(prior.denoise(x, now), now**2 / self.weight)
            if then > 0:
                noise = white(x, rng)
                if self.zeta < 1:
                    noise = (1 - self.zeta) ** 0.5 * (x - x0) / now + self.zeta**0.5 * noise
                x = torch.add(x0, noise, alpha=then)
            else:
                x = x0
            yield Step(i, len(sigmas), then, x, x0)
