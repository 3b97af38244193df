"""PnP-DM: Gibbs sampling between the data and the prior, coupled by a width that shrinks."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.draws import AnyInner, Exact
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import required, white


class PnPDM(Method):
    """Plug-and-play diffusion models: the split Gibbs sampler with a diffusion model as its prior step.

    The target is p(x) p(y | z) exp(-|x - z|² / (2 rho²)). In turn, for a decreasing rho:
    likelihood step, z ~ p(y | z) N(z; x, rho² I), the same draw as in DAPS (`inner`);
    prior step, x ~ p(x) N(z; x, rho² I), which is x0 given x_rho = z: the reverse diffusion from level rho down.

    At a fixed rho and with exact steps, x has the law of the posterior for noise of variance sigma_y² + rho² A A*; with
    rho well below sigma_y / |A| it is the posterior's. A round moves x by about rho, so that small widths need many
    rounds: a direction whose posterior has standard deviation s forgets a share rho² / (rho² + s²) of where it was.
    Modes that lie many rho apart are never crossed again: they keep the shares of the width at which they last were.

    The reverse diffusion is walked by a second-order scheme (two-step SDE-DPM-Solver++: the estimate is extrapolated
    along log sigma), because the Gibbs chain repeats the step and half of what one step lacks in variance is lacking in
    the end: with ten ancestral steps the chain keeps 0.9 of a Gaussian prior's standard deviation, with ten of these
    0.99.

    Source: Wu et al. 2024, Algorithm 1 (arXiv:2405.18782); solver Lu et al. 2022 (arXiv:2211.01095), the SDE form of
    its "2M".
    Deviations: rho follows the schedule instead of max(rho_0 alpha^k, rho_min), with ratios around the published 0.9;
    the reverse diffusion is not Euler-Maruyama on EDM's grid; it starts from the operator's guess, not from zero.
    """

    kind: Literal["pnp-dm"] = "pnp-dm"
    title: ClassVar[str] = "PnP-DM"
    source: ClassVar[Source] = Source(
        paper="Wu et al., Principled Probabilistic Imaging Using Diffusion Models as Plug-and-Play Priors, 2024",
        equation="Algorithm 1",
        arxiv="2405.18782",
        code="zihuiwu/PnP-DM-public",
        licence="MIT",
    )

    schedule: Annotated[
        AnySchedule, Field(description="Widths rho of the coupling (published: 5 down to 0.05 or 0.15).")
    ] = Karras(steps=40, sigma_max=1.5, sigma_min=0.01)
    hold: Annotated[int, Field(ge=0, le=1000, description="Further rounds at the last width.")] = 20
    inner: Annotated[AnyInner, Field(description="The likelihood step.")] = Exact()
    reverse_steps: Annotated[int, Field(ge=2, le=200, description="Network calls of a prior step.")] = 10
    reverse_end: Annotated[
        float,
        Field(gt=0, lt=1, description="Last level of a prior step, as a share of rho, if the prior goes so low."),
        Ui(advanced=True),
    ] = 0.1

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER}) | self.inner.needs

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """At most `reverse_steps` network calls a level."""
        prior = required(prior, self)
        trained = prior.denoiser.sigma_range
        rhos = self.schedule.sigmas(trained)
        rhos = [*rhos, *[rhos[-1]] * self.hold]
        draws, noise = rng.child("draw"), rng.child("noise")
        guess = likelihood.guess()
        x = guess.expand(rng.batch, *guess.shape[1:])
        for i, (rho, then) in enumerate(pairwise([*rhos, 0.0]), 1):
            z = self.inner.draw(x, rho, (i - 1) / len(rhos), likelihood, draws)
            x = reverse(prior, z, self._levels(rho, trained[0]), noise)
            yield Step(i, len(rhos), then, x, x)

    def _levels(self, rho: float, lowest: float) -> list[float]:
        end = max(self.reverse_end * rho, lowest)
        if end >= rho:
            return [rho]
        return Karras(steps=self.reverse_steps, sigma_max=rho, sigma_min=end).sigmas((0.0, rho))


def reverse(prior: Prior, x: Tensor, sigmas: list[float], rng: Rng) -> Tensor:
    """A draw of x0 given x = x0 + sigmas[0] n by the reverse diffusion, ending on a denoised image.

    x_then = r² x + (1 - r²) D̂ + then sqrt(1 - r²) n with r = then / now and D̂ the estimate, extrapolated from the
    last two to the middle of the step in log sigma. Shapes: x (B, *shape) → the same.
    """
    before: tuple[Tensor, float] | None = None
    for now, then in pairwise([*sigmas, 0.0]):
        x0 = prior.denoise(x, now)
        if then == 0:
            return x0
        length, ahead = math.log(now / then), x0
        if before is not None:
            ahead = x0 + 0.5 * length / before[1] * (x0 - before[0])
        before = (x0, length)
        ratio = (then / now) ** 2
        x = ahead + ratio * (x - ahead) + then * math.sqrt(1 - ratio) * white(x, rng)
    return x
