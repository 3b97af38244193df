"""PnP-Flow: a gradient step on the data, a step back along the flow, a denoised image, at every time."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, FlowTimes
from restoration.steps import data_scale, flow_time, misfit_slope, required, white


class PnPFlow(Method):
    """Plug-and-play flow matching.

    At every time t of the flow x_t = (1 - t) x0 + t n, from noise to image (the paper counts the other way):
        z = x - gamma A* (A x - y),   gamma = rate t^alpha;
        x = the mean, over `draws` of n, of D((1 - t) z + t n, t), where D(x_t, t) = x_t - t v(x_t, t).
    The noise of the data is in neither: the paper divides by its variance and multiplies gamma with it.

    As t goes to 0, D moves its argument by t² (grad log p on the flow's [-1, 1]) and the noise of the mean has variance
    t² / draws: a Langevin step of size t² on the prior at temperature 1 / (2 draws). With alpha below 2 the data, where
    they say anything, outweigh it in the end: what is measured is fitted, noise included, and the rest keeps
    1 / sqrt(2 draws) of the prior's spread.

    Stable while gamma < 2. A is taken in units of its norm, which is 1 in the paper's tasks (`data_scale`).

    Source: Martin et al. 2025, Algorithm 3 (arXiv:2410.02423); constants of the released code.
    Deviations: levels that the prior knows, with t = 1 left out: there the paper's image is the denoised noise alone,
    whatever it started from. The start is the operator's guess.
    """

    kind: Literal["pnp-flow"] = "pnp-flow"
    title: ClassVar[str] = "PnP-Flow"
    source: ClassVar[Source] = Source(
        paper="Martin et al., PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, ICLR 2025",
        equation="Algorithm 3",
        arxiv="2410.02423",
        code="annegnx/PnP-Flow",
        licence="BSD-3-Clause",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 100 times).")] = FlowTimes(steps=100)
    rate: Annotated[
        float, Field(gt=0, le=100, description="Step down the data at t = 1 (published: 1)."), Ui(scale="log")
    ] = 1.0
    alpha: Annotated[
        float,
        Field(ge=0, le=2, description="How fast it falls with t (published: 0.01 deblurring ... 0.8 denoising)."),
    ] = 0.5
    draws: Annotated[int, Field(ge=1, le=100, description="Denoised images that are averaged (published: 5).")] = 5

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """`draws` network calls a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        guess, rate = likelihood.guess(), self.rate * data_scale(likelihood)
        x = guess.expand(rng.batch, *guess.shape[1:])
        for i, (now, then) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
            z = x - rate * flow_time(now) ** self.alpha * misfit_slope(likelihood, x)
            x = torch.stack([prior.denoise(z + now * white(z, rng), now) for _ in range(self.draws)]).mean(0)
            yield Step(i, len(sigmas), then, x, x)
