"""BlindDPS: two diffusions in step, of the image and of the kernel, both pulled towards the data."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from operators.unknown_blur import UnknownKernel
from restoration.kernel_prior import SparseKernelPrior
from restoration.method import Found, Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import ancestral, centred_start, required

Scale = Annotated[float, Field(gt=0, le=20), Ui(scale="log")]


class BlindDPS(Method):
    """DPS of an image and of the kernel that blurred it.

    At each level both are denoised, the kernel estimate is made >= 0 and of sum 1, and both take an ancestral step and
    a step down |y - k * x0|, each pulled back through its own denoiser. The released step is
    x_vp <- x_vp - sqrt(abar) grad on [-1, 1], which in VE coordinates and unit range is scale / 2 sqrt(1 + (2 then)²):
    it starts small and grows, for both must have taken shape before the data are believed. The kernel's state is the
    kernel times its expected sum S; its step has S² as well, and so does not depend on the size.

    Which kernel goes with which image is decided by the two priors alone; see docs/methods.md.

    Source: Chung et al. 2023 (BlindDPS), Algorithm 1 (arXiv:2211.10656); the growing step is that of the released code.
    Deviations: an analytic prior of kernels in place of a trained one, with a scale that lets the kernel take shape
    before the image does; fewer and larger steps by default (released: 1000 of scale 1); the penalty |k|_1 is left out,
    for it is 1 whatever the kernel is; borders as the operator says instead of black ones; the misfit is per sample;
    nothing is clamped; the last step is noise-free.
    """

    kind: Literal["blind-dps"] = "blind-dps"
    title: ClassVar[str] = "BlindDPS"
    source: ClassVar[Source] = Source(
        paper="Chung et al., Parallel Diffusion Models of Operator and Image for Blind Inverse Problems, CVPR 2023",
        equation="Algorithm 1",
        arxiv="2211.10656",
        code="BlindDPS/blind-dps",
        licence="none stated",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels of image and kernel.")] = LinearVP(steps=100)
    scale: Annotated[Scale, Field(description="Step of the image down the misfit (1000 levels: 1).")] = 6.0
    kernel_scale: Annotated[Scale, Field(description="Step of the kernel down the misfit.")] = 1.5
    share: Annotated[
        float, Field(gt=0, le=1, description="Share of the kernel's pixels that are expected not to be zero.")
    ] = 0.1
    mean: Annotated[
        float,
        Field(gt=0, le=10, description="Mean of those against the noise levels: the larger, the sooner they show."),
        Ui(advanced=True),
    ] = 3.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.KERNEL})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call and one pullback a level."""
        prior, family = required(prior, self), likelihood.operator
        if not isinstance(family, UnknownKernel):
            raise NeedError(f"{Need.KERNEL.sentence} {type(family).__name__} is none; use it or another method.")
        kernels = Prior(SparseKernelPrior(family.size, self.share, self.mean))
        total = family.size**2 * self.share * self.mean
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        noise, kernel_noise = rng.child("image"), rng.child("kernel")
        x = centred_start(likelihood, sigmas[0], noise)
        v = sigmas[0] * kernel_noise.randn(family.parameter_shape).to(x)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pull_x = prior.denoise_vjp(x, now)
            v0, pull_v = kernels.denoise_vjp(v, now)
            _, slope_x, slope_v = family.misfit_and_slopes(likelihood.y, x0, v0)
            ramp = 0.5 * (1 + 4 * then**2) ** 0.5
            x = ancestral(x, x0, now, then, noise) - self.scale * ramp * pull_x(slope_x)
            v = ancestral(v, v0, now, then, kernel_noise) - self.kernel_scale * total**2 * ramp * pull_v(slope_v)
            found = Found(family.constrain(v if then == 0 else v0))
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0, found=found)
