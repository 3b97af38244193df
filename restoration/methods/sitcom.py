"""SITCOM: the input of the network is fitted so that its output fits the data, at every level."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import per_sample
from operators.spec import Need, Source, Ui
from restoration.adam import Adam
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import centred_start, required, white


class SITCOM(Method):
    """Step-wise triple-consistent sampling.

    At each level v starts at x and Adam lowers |A D(v) - y|² + lambda |v - x|² (backward consistency: the estimate
    stays in the range of the network), until the data are fitted to the noise or `iterations` are over; then fresh
    noise of the next level is added to D(v).

    On [-1, 1] in VP coordinates, as published, v_vp = (2 v - 1) / sqrt(1 + level²) with level = 2 sigma: the weight
    becomes lambda / (1 + level²) here (data and image both doubled), and Adam's step rate sqrt(1 + level²) / 2.
    A sample stops when its residual is below `stop` standard deviations of the noise, root mean square, and stays as it
    is while others go on.

    Source: Alkhouri et al. 2025, Algorithm 1 (arXiv:2410.04479).
    Deviations: the published code keeps the iterate nearest to the truth, which nobody has: here the last level's
    estimate is the result. No clamping. Levels of EDM.
    """

    kind: Literal["sitcom"] = "sitcom"
    title: ClassVar[str] = "SITCOM"
    source: ClassVar[Source] = Source(
        paper="Alkhouri et al., SITCOM: Step-wise Triple-Consistent Diffusion Sampling for Inverse Problems, ICML 2025",
        equation="Algorithm 1",
        arxiv="2410.04479",
        code="sjames40/SITCOM",
        licence="none stated",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 20).")] = Karras(sigma_max=5)
    iterations: Annotated[int, Field(ge=1, le=200, description="Most steps of Adam a level (published: 30).")] = 30
    rate: Annotated[
        float, Field(gt=0, le=1, description="Step of Adam, as published, on [-1, 1] (0.01)."), Ui(scale="log")
    ] = 0.01
    weight: Annotated[float, Field(ge=0, le=100, description="The paper's lambda; its code has 0 for noisy data.")] = (
        0.0
    )
    stop: Annotated[
        float, Field(ge=0, le=10, description="Residual to stop at, in standard deviations of the noise.")
    ] = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """At most `iterations` + 1 network calls and `iterations` pullbacks a level."""
        prior = required(prior, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = centred_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = self._fitted(prior, likelihood, x, now)
            x = x0 + then * white(x0, rng) if then > 0 else x0
            yield Step(i, len(sigmas), then, x, x0)

    def _fitted(self, prior: Prior, likelihood: Likelihood, x: Tensor, now: float) -> Tensor:
        """D(v) at the fitted v."""
        stretch = 1 + 4 * now**2
        v, x0, adam = x.clone(), torch.empty_like(x), Adam(x)
        going = torch.arange(len(x), device=x.device)  # samples that do not fit yet
        for k in range(self.iterations + 1):
            part = _rows(likelihood, going)
            estimate, pullback = prior.denoise_vjp(v[going], now)
            x0[going] = estimate
            open_ = part.residual_sigma(estimate) > self.stop
            if k == self.iterations or not bool(open_.any()):
                break
            misfit, slope = part.misfit_and_slope(estimate)
            slope = 2 * per_sample(misfit, x.ndim) * slope
            gradient = pullback(slope) + 2 * self.weight / stretch * (v[going] - x[going])
            going, gradient = going[open_], gradient[open_]
            v[going] = v[going] - 0.5 * self.rate * stretch**0.5 * adam.direction(gradient, going)
        return x0


def _rows(likelihood: Likelihood, rows: Tensor) -> Likelihood:
    y = likelihood.y
    return likelihood if len(y) == 1 else Likelihood(likelihood.operator, likelihood.noise, y[rows])
