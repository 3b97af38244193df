"""RED-diff: descent on the data misfit and on how far the denoiser moves a noisy copy of the image."""

from collections.abc import Iterator
from math import prod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import per_sample
from operators.spec import Need, Source, Ui
from restoration.adam import Adam
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import required, white


class REDDiff(Method):
    """Regularisation by denoising diffusion: an image mu, fitted by Adam at one noise level after another.

    The paper's q(x0 | y) = N(mu, s² I) with s = 0; at each level its loss is, on [-1, 1] and with x_vp the noisy mu,
        v mean (y - A mu)² / 2 + w mean (stop(eps_net(x_vp) - eps) mu),   w = lambda (sqrt(1 - abar) / sqrt(abar)).
    In VE coordinates x = mu + sigma eps and eps_net - eps = (mu - D(x, sigma)) / sigma, so that the weight, sigma on
    [-1, 1], cancels: the gradient is v A* (A mu - y) / m + lambda (mu - D) / n with m data and n pixels. Adam does not
    see the common factor; its step of 0.1 on [-1, 1] is 0.05 here. `balance` "sums" leaves m and n out.
    Other `weighting`s are (2 sigma)^p in place of 2 sigma: constant p = 0, sqrt 1/2, square 2.

    Source: Mardani et al. 2023, Algorithm 1, eq. 11 (arXiv:2305.04391).
    Deviations: levels that the prior knows, instead of all of DDPM's; the start is the operator's guess.
    """

    kind: Literal["red-diff"] = "red-diff"
    title: ClassVar[str] = "RED-diff"
    source: ClassVar[Source] = Source(
        paper="Mardani et al., A Variational Perspective on Solving Inverse Problems with Diffusion Models, ICLR 2024",
        equation="Algorithm 1",
        arxiv="2305.04391",
        code="NVlabs/RED-diff",
        licence="NVIDIA Source Code License (read, not used)",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels, from high to low.")] = LinearVP(steps=100)
    weight: Annotated[
        float, Field(gt=0, le=1000, description="Pull of the prior, the paper's lambda."), Ui(scale="log")
    ] = 0.25
    weighting: Annotated[float, Field(ge=0, le=2, description="Power p of the level in the weight (published: 1).")] = 1
    data_weight: Annotated[float, Field(gt=0, le=1e6, description="Pull of the data, the paper's v.")] = 1.0
    balance: Annotated[
        Literal["means", "sums"], Field(description="Compare means (published) or sums over data and pixels.")
    ] = "means"
    rate: Annotated[
        float, Field(gt=0, le=1, description="Step of Adam in unit range (published: 0.05 and 0.25)."), Ui(scale="log")
    ] = 0.05

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.GRADIENT})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level, no pullback."""
        prior = required(prior, self)
        sigmas, operator = self.schedule.sigmas(prior.denoiser.sigma_range), likelihood.operator
        measured = operator.gather(likelihood.y[:1]).numel()
        share = prod(operator.in_shape) / measured if self.balance == "means" else 1.0
        guess = likelihood.guess()
        mu = guess.expand(rng.batch, *guess.shape[1:])
        adam = Adam(mu, betas=(0.9, 0.99))
        for i, (now, then) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
            estimate = prior.denoise(mu + now * white(mu, rng), now)
            misfit, slope = likelihood.misfit_and_slope(mu)
            pull = self.weight * (2 * now) ** (self.weighting - 1) * (mu - estimate)
            push = self.data_weight * share * per_sample(misfit, mu.ndim) * slope  # A* (A mu - y)
            mu = mu - self.rate * adam.direction(push + pull)
            yield Step(i, len(sigmas), then, mu, mu)
