"""GDP: the estimate goes down the misfit, the parameters of the measurement too."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d

from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.parametric import Parametric
from operators.rng import Rng
from operators.solve import per_sample
from operators.spec import Need, Source, Ui
from restoration.method import Found, Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import ancestral, centred_start, required

PATCH = 8


class GDP(Method):
    """Generative diffusion prior, guided at x0, for measurements with unknown parameters.

    At each level the parameters u take `repeats` steps down the mean squared misfit at the estimate, x an ancestral
    step and a step down half the squared misfit, neither pulled back through the network. The published step is
    x_vp <- x_vp - s grad_{x0} mean (y - A x0)² on [-1, 1] images; with N numbers in an image and `rate` = s / (2 N),
    in VE coordinates and unit range, that is rate sqrt(1 + (2 then)²) A* (y - A x0).

    Data that are dim and a bright scene, or bright ones and a dim scene, are the same to the misfit: the scale between
    image and gain comes from the prior alone, unless `exposure` says how bright the scene should be.

    Source: Fei et al. 2023, Algorithm 3 (arXiv:2304.01247); steps and weights of the released code.
    Deviations: `rate` does not depend on the size of the image; parameters start where the operator says; the released
    optimiser around the mean, which moves nothing but a constant, is left out, as is the smoothness of offsets, which
    the release computes and never uses. Exposure and colour are off by default, as in the release.
    """

    kind: Literal["gdp"] = "gdp"
    title: ClassVar[str] = "GDP"
    source: ClassVar[Source] = Source(
        paper="Fei et al., Generative Diffusion Prior for Unified Image Restoration and Enhancement, CVPR 2023",
        equation="Algorithm 3",
        arxiv="2304.01247",
        code="Fayeben/GenerativeDiffusionPrior",
        licence="none stated",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels.")] = LinearVP()
    rate: Annotated[
        float,
        Field(gt=0, le=10, description="Step down the misfit at each level (released: 0.2 for low light and HDR)."),
        Ui(scale="log"),
    ] = 0.2
    repeats: Annotated[int, Field(ge=1, le=100, description="Steps of the parameters at each level.")] = 6
    step: Annotated[float, Field(gt=0, le=100, description="Their size."), Ui(scale="log")] = 1.0
    exposure: Annotated[
        float, Field(ge=0, le=10, description="Weight of the brightness term against the misfit (proposed: 0.01).")
    ] = 0.0
    brightness: Annotated[
        float, Field(ge=0, le=1, description="Mean that patches of 8 pixels a side should have (released: 0.65).")
    ] = 0.65
    colour: Annotated[
        float, Field(ge=0, le=10, description="Weight of the term for equal means of colours (proposed: 0.005).")
    ] = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.PARAMETERS})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior, family, y = required(prior, self), likelihood.operator, likelihood.y
        if not isinstance(family, Parametric):
            raise NeedError(f"{Need.PARAMETERS.sentence} {type(family).__name__} has none; use DPS or LGD.")
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = centred_start(likelihood, sigmas[0], rng)
        u = family.start(y).expand(len(x), *family.parameter_shape)
        n = x[0].numel()
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = prior.denoise(x, now)
            for _ in range(self.repeats):
                misfit, _, slope_u = family.misfit_and_slopes(y, x0, u)
                u = family.constrain(u - self.step * 2 / n * per_sample(misfit, u.ndim) * slope_u)
            misfit, slope, _ = family.misfit_and_slopes(y, x0, u)
            down = per_sample(misfit, x.ndim) * slope + n / 2 * self._wishes(x0)
            x = ancestral(x, x0, now, then, rng) - self.rate * (1 + 4 * then**2) ** 0.5 * down
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0, found=Found(u))

    def _wishes(self, x0: Tensor) -> Tensor:
        """Gradient of the terms that say how a picture should look, in units of the mean squared misfit."""
        if self.exposure == 0 and self.colour == 0:
            return torch.zeros_like(x0)
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            patches = avg_pool2d(leaf.mean(1, keepdim=True), min(PATCH, *leaf.shape[-2:]))
            light = 4 * (patches - self.brightness).square().flatten(1).mean(1)
            means = leaf.mean((-2, -1))
            apart = means[:, :, None] - means[:, None, :]
            # a root of fourth powers, as Zero-DCE's code has it, whose slope at equal means is taken as 0
            fourth = apart.pow(4).sum((1, 2)) / 2
            cast = 4 * fourth.clamp(min=torch.finfo(fourth.dtype).tiny).sqrt()
            total = (self.exposure * light + self.colour * cast).sum()
            (slope,) = torch.autograd.grad(total, leaf)
        return slope
