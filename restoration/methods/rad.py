"""RAD: missing pixels walk down from noise while the measured ones wait at the level of their own noise."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.errors import NeedError, RecipeError
from operators.inpainting import Inpainting
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import noise_sigma, noisy_start, required, white


class RAD(Method):
    """Region-aware diffusion: inpainting with a prior that takes a noise level for every pixel.

    A measured pixel y = x0 + sigma_y n is a state at level sigma_y. So pixel i is at level min(sigma, sigma_y) where it
    was measured and at sigma elsewhere, and sigma walks down: the holes come first, and from sigma_y on all pixels
    together. Every pixel takes its own ancestral step, x_then = x0 + r² (x - x0) + then sqrt(1 - r²) n with
    r = then / now, which leaves it alone while it waits. Nothing else ties x to the data.

    It is the reverse of a diffusion that gives each pixel noise at its own times, so that for any prior the law tends
    to the posterior with the number of levels.

    Source: Kim et al. 2025, section 3 (arXiv:2412.09191).
    Deviations: measured pixels are at the level of their noise, where the paper has them clean; VE coordinates; the
    paper trains its network on two phases of noise, here the prior is whatever offers such levels.
    """

    kind: Literal["rad"] = "rad"
    title: ClassVar[str] = "RAD"
    source: ClassVar[Source] = Source(
        paper="Kim et al., RAD: Region-Aware Diffusion Models for Image Inpainting, CVPR 2025",
        equation="section 3",
        arxiv="2412.09191",
        licence="no code used",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels of the holes (published: 100).")] = Karras(
        steps=100, sigma_max=5
    )

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.NOISE_MAP, Need.MASK, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior = required(prior, self)
        operator, sigma_y = likelihood.operator, noise_sigma(likelihood, self)
        if not isinstance(operator, Inpainting):
            raise NeedError(f"{Need.MASK.sentence} {type(operator).__name__} is none; use DiffPIR or DAPS.")
        if Need.NOISE_MAP not in prior.denoiser.offers:
            raise NeedError(f"{Need.NOISE_MAP.sentence} Use DiffPIR or DAPS.")
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        if not prior.denoiser.sigma_range[0] <= sigma_y <= sigmas[0]:
            raise RecipeError(
                f"Expected noise between the prior's smallest level {prior.denoiser.sigma_range[0]:g} and the first of "
                f"the walk {sigmas[0]:g}, got {sigma_y:g}; change sigma_max or use DiffPIR."
            )
        x = torch.where(operator.mask, operator.adjoint(likelihood.y), noisy_start(likelihood, sigmas[0], rng))
        # What level a pixel waits at.
        wait = torch.full(operator.mask.shape, torch.inf).to(x.real).masked_fill(operator.mask, sigma_y)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            here, there = wait.clamp(max=now), wait.clamp(max=then)
            x0, ratio = prior.denoise(x, here), (there / here) ** 2
            x = x0 + ratio * (x - x0) + there * (1 - ratio).sqrt() * white(x, rng)
            yield Step(i, len(sigmas), then, x, x0)
