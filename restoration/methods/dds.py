"""DDS: a few conjugate-gradient steps towards the data from every estimate."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import cg
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import linear_operator, noisy_start, renoise, required


class DDS(Method):
    """Decomposed diffusion sampling.

    Each estimate x0 = D(x, now) moves towards argmin_z gamma/2 |A z - y|² + |z - x0|² / 2 by a few steps of conjugate
    gradients that start at x0, so that it stays in an affine Krylov space around the estimate; the noise of the next
    level is a share of the old one and a share of fresh noise. No derivative of the network. `gamma` none is the
    noise-free form: conjugate gradients on A* A z = A* y, stopped early. Real and complex images.

    gamma does not depend on units, and the noise steps are, divided by sqrt(abar), then (sqrt(1 - eta²) eps + eta n).
    The estimate is not weighed by noise levels, so DDS is not calibrated: see docs/calibration.md.

    Source: Chung et al. 2024 (arXiv:2303.05754); constants of the released code.
    Deviations: levels of EDM instead of DDPM's; the start is the operator's guess plus noise. The released code calls
    the pseudo-inverse for single-coil MRI; conjugate gradients are used for all here.
    """

    kind: Literal["dds"] = "dds"
    title: ClassVar[str] = "DDS"
    source: ClassVar[Source] = Source(
        paper="Chung et al., Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems, ICLR 2024",
        equation="the noisy, proximal form and the noise-free one",
        arxiv="2303.05754",
        code="HJ-harry/DDS",
        licence="none seen",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (released: 50).")] = Karras(steps=50)
    iterations: Annotated[int, Field(ge=1, le=200, description="Conjugate-gradient steps a level (released: 5).")] = 5
    gamma: Annotated[
        float | None,
        Field(gt=0, le=1e6, description="Weight of the data against the estimate (released: 1); none = noise-free."),
        Ui(scale="log"),
    ] = 1.0
    eta: Annotated[float, Field(ge=0, le=1, description="Share of fresh noise at each level (released: 0.85).")] = 0.85

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.LINEAR})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior = required(prior, self)
        operator, y = linear_operator(likelihood, self), likelihood.y
        hold = 0.0 if self.gamma is None else 1 / self.gamma
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = noisy_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = prior.denoise(x, now)
            slope = operator.adjoint(y - operator(x0))
            x0_fit = x0 + cg(lambda d: operator.normal(d) + hold * d, slope, tol=1e-6, max_iter=self.iterations)
            x = renoise(x, x0, x0_fit, now, then, self.eta, rng)
            yield Step(i, len(sigmas), then, x, x0_fit)
