"""Alternating estimation: sample the image, then move noise level and blur width to where that sample says."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.parametric import Parametric, hold
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from operators.unknown_blur import UnknownWidth
from restoration.method import Found, Method, Step
from restoration.methods.daps import DAPS
from restoration.methods.diffpir import DiffPIR
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.prior import Prior
from restoration.schedule import Karras
from restoration.steps import required

Sampler = Annotated[DAPS | PnPDM | MomentMatching | PiGDM | DiffPIR, Field(discriminator="kind")]


class Alternating(Method):
    """Stochastic approximation of the EM algorithm for what is not known of a measurement.

    Each round draws x by `method` from the posterior at the present noise level and width, then moves both towards what
    this x has for maximum likelihood: the noise variance to |y - A x|² / m, the width by a Gauss-Newton step. The first
    `settle` rounds move all the way, later ones by a share that falls as 1 / round, which averages the draws out. Where
    `method` draws from the posterior, the parameters tend to a stationary point of the marginal likelihood p(y | width,
    sigma): there the mean over the posterior of d log p(y | x) is zero (Fisher's identity).

    The noise level in the recipe is what simulated data are made with; it is not used here. Every sample has parameters
    of its own, which differ by the draws.

    Source: Delyon, Lavielle, Moulines 1999 (Annals of Statistics), SAEM.
    Deviations: a Gauss-Newton step in place of the maximisation over the width, and `stretch` of it, for the image was
    drawn to fit the data at the present width and EM is slow where the image could be nearly anything.
    """

    kind: Literal["alternating"] = "alternating"
    title: ClassVar[str] = "Alternating estimation"
    source: ClassVar[Source] = Source(
        paper="Delyon, Lavielle, Moulines, Convergence of a stochastic approximation version of the EM algorithm, 1999",
        equation="eq. 3",
        arxiv="10.1214/aos/1018031103",
    )

    unknown: Annotated[
        Literal["noise", "noise and width"],
        Field(description="What is estimated; the noise alone for known operators."),
    ] = "noise"
    method: Annotated[Sampler, Field(description="How the image is drawn.")] = DAPS(schedule=Karras(steps=20))
    rounds: Annotated[int, Field(ge=2, le=1000, description="Draws of the image.")] = 20
    settle: Annotated[int, Field(ge=1, le=1000, description="Rounds before the average begins.")] = 10
    stretch: Annotated[
        float,
        Field(gt=0, le=20, description="Factor of the width's steps: a draw made at one width pleads for that width."),
        Ui(advanced=True),
    ] = 3.0
    start: Annotated[
        float, Field(gt=0, le=1, description="Noise level of the first round."), Ui(unit="unit range", scale="log")
    ] = 0.1

    @property
    def needs(self) -> frozenset[Need]:
        # what the method needs of an operator, the blur of a known width has
        of_operator = frozenset({Need.PROX, Need.GRADIENT})
        known = of_operator & self.method.needs if self.unknown == "noise" else frozenset({Need.WIDTH})
        return self.method.needs - of_operator | known | {Need.GAUSSIAN}

    def check(self, trained: tuple[float, float]) -> None:
        self.method.check(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """The network calls of `rounds` runs."""
        prior, y = required(prior, self), likelihood.operator.gather(likelihood.y)
        family = likelihood.operator if isinstance(likelihood.operator, UnknownWidth) else None
        if family is None and self.unknown != "noise":
            raise NeedError(f"{Need.WIDTH.sentence} {type(likelihood.operator).__name__} is none; use it.")
        like = y.real.new_ones(rng.batch)
        u = None if family is None else family.start(likelihood.y).repeat(rng.batch, 1)
        variance = self.start**2 * like
        for i in range(1, self.rounds + 1):
            held = hold(likelihood, u, variance.sqrt())
            *_, drawn = self.method.run(prior, held, rng.child(f"round {i}"))
            x, share = drawn.x0, 1 / max(1, i - self.settle)
            residual = likelihood.operator.gather(likelihood.y - _apply(likelihood, x, u))
            power = torch.view_as_real(residual) if residual.is_complex() else residual
            if family is not None and u is not None:
                u = family.constrain(u + share * self.stretch * _newton(family, x, u, likelihood.y))
            variance = variance + share * (power.square().flatten(1).mean(1) - variance)
            yield Step(i, self.rounds, 0.0, x, x, found=Found(u, variance.sqrt()))


def _apply(likelihood: Likelihood, x: Tensor, u: Tensor | None) -> Tensor:
    operator = likelihood.operator
    return operator.apply_with(x, u) if isinstance(operator, Parametric) and u is not None else operator(x)


def _newton(family: UnknownWidth, x: Tensor, u: Tensor, y: Tensor) -> Tensor:
    """The Gauss-Newton step of u, (B, 1), for |y - A(x; u)|²."""
    with torch.enable_grad():
        # the derivative along u is that of the pullback in what is pulled back
        leaf = u.detach().requires_grad_()
        data = family.apply_with(x, leaf)
        probe = torch.zeros_like(data).requires_grad_()
        (pulled,) = torch.autograd.grad(data, leaf, probe, create_graph=True)
        (slope,) = torch.autograd.grad(pulled.sum(), probe)
    data = data.detach()
    along = (slope * (y - data)).flatten(1).sum(1)
    return (along / slope.square().flatten(1).sum(1))[:, None]
