"""FlowDPS: the flow's clean estimate is moved towards the data, its noise estimate is partly renewed."""

import math
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
from restoration.steps import centred_start, data_scale, flow_time, misfit_slope, renoise, required


class FlowDPS(Method):
    """Flow-driven posterior sampling, in pixels.

    At time t of the flow x_t = (1 - t) x0 + t n the velocity v gives a clean image x0 = x_t - t v and a noise
    eps = x_t + (1 - t) v. With x0_y, `iterations` gradient steps of length `rate` on |A x - y|² / 2 from x0:
        x0' = (1 - t) x0 + t x0_y,   eps' = sqrt(t') eps + sqrt(1 - t') n,   x_t' = (1 - t') x0' + t' eps'.
    In VE coordinates the last line is x0' + then eps', the step of DDIM with a share 1 - t' of fresh noise.

    The data are heard by a share t, whatever their noise is, and no more at all at the end. Stable while
    rate < 2: A is taken in units of its norm, which is 1 in most published tasks (`data_scale`).

    Source: Kim et al. 2025, Algorithm 1 (arXiv:2503.08136); constants of the released code.
    Deviations: the paper's flow is a latent one with text guidance. Its code descends |A* (A x - y)|, the norm, by a
    fixed length of 15, which means another thing at every image size; the square is descended here. Levels that the
    prior knows, with t = 1 left out.
    """

    kind: Literal["flow-dps"] = "flow-dps"
    title: ClassVar[str] = "FlowDPS"
    source: ClassVar[Source] = Source(
        paper="Kim et al., FlowDPS: Flow-Driven Posterior Sampling for Inverse Problems, ICCV 2025",
        equation="Algorithm 1",
        arxiv="2503.08136",
        code="FlowDPS-Inverse/FlowDPS",
        licence="not checked",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (released: 28 times, shift 4).")] = FlowTimes(
        steps=28, shift=4
    )
    iterations: Annotated[int, Field(ge=1, le=100, description="Gradient steps a level (released: 3).")] = 3
    rate: Annotated[float, Field(gt=0, le=100, description="Their length."), Ui(scale="log")] = 1.0

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
            x0_y = x0
            for _ in range(self.iterations):
                x0_y = x0_y - rate * misfit_slope(likelihood, x0_y)
            x0_y = torch.lerp(x0, x0_y, flow_time(now))
            x = renoise(x, x0, x0_y, now, then, math.sqrt(1 - flow_time(then)), rng)
            yield Step(i, len(sigmas), then, x, x0_y)
