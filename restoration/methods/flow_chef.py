"""FlowChef: Euler steps along the flow, each pushed down the data misfit of the clean estimate."""

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
from restoration.schedule import AnySchedule, FlowTimes
from restoration.steps import centred_start, data_scale, euler, flow_time, misfit_slope, required


class FlowChef(Method):
    """Steering of a rectified flow without a derivative of the network.

    At time t of the flow x_t = (1 - t) x0 + t n, with the clean estimate x0 = x_t - t v:
        x_t' = x_t - rate A* (A x0 - y) + (t' - t) v,
    the gradient of |A x0 - y|² / 2 standing for that through the network; the last step has none. An Euler step along
    the flow is one along sigma in VE coordinates, where the push is divided by 1 - t'.

    After the start everything is determined: an affine map for a Gaussian prior. A is taken in units of its norm
    (`data_scale`). With 20 times a rate of 0.1 gives the data of a white Gaussian about their due weight and 0.3
    overshoots them; the photo prior wants 0.3.

    Source: Patel et al. 2025, Algorithm 1 (arXiv:2412.00100); constants of the released code.
    Deviations: `rate` multiplies the gradient of half the sum of squares. The released 100 multiplies that of their
    mean over the m data, that is rate 200 / m, 0.016 for their 64x64 RGB images and less for larger ones. Levels that
    the prior knows, with t = 1 left out.
    """

    kind: Literal["flow-chef"] = "flow-chef"
    title: ClassVar[str] = "FlowChef"
    source: ClassVar[Source] = Source(
        paper="Patel et al., FlowChef: Steering of Rectified Flow Models for Controlled Generations, ICCV 2025",
        equation="Algorithm 1",
        arxiv="2412.00100",
        code="FlowChef/flowchef",
        licence="not checked",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (released: 20 times).")] = FlowTimes(steps=20)
    rate: Annotated[
        float, Field(gt=0, le=100, description="Step down the data (released: 200 / number of data)."), Ui(scale="log")
    ] = 0.3

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        rate = self.rate * data_scale(likelihood)
        x = centred_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = prior.denoise(x, now)
            x = euler(x, x0, now, then)
            if then > 0:
                x = x - rate / (1 - flow_time(then)) * misfit_slope(likelihood, x0)
            yield Step(i, len(sigmas), then, x, x0)
