"""MCG: a gradient step through the network, then a projection onto the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import norm, per_sample
from operators.spec import Need, Source, Spec, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, LinearVP
from restoration.steps import ancestral, centred_start, linear_operator, required, vp_factor, white

Project = Callable[[Tensor, float, float], Tensor]


class Projection(Spec, ABC):
    """How a state is made to agree with the data, and the misfit whose slope is taken."""

    @abstractmethod
    def onto(self, operator: LinearOperator, y: Tensor, rng: Rng) -> Project:
        """The map of (state, its level, progress from 0 to 1) towards the data."""

    @abstractmethod
    def slope(self, operator: LinearOperator, y: Tensor, x0: Tensor) -> Tensor:
        """Gradient of the norm of the weighted misfit at the estimate."""


class Replace(Projection):
    """The measured part of the state is replaced by the data plus noise of its level: x + A⁺ (y + then A n - A x).

    Inpainting (measured pixels are overwritten) and colourisation (the grey channel is) are this with their own A.
    """

    kind: Literal["replace"] = "replace"

    def onto(self, operator: LinearOperator, y: Tensor, rng: Rng) -> Project:
        """One pseudo-inverse a level; the last projection is noise-free."""

        def project(x: Tensor, then: float, progress: float) -> Tensor:
            aim = x if then == 0 else x - then * white(x, rng)
            return x + operator.pinv(y - operator(aim))

        return project

    def slope(self, operator: LinearOperator, y: Tensor, x0: Tensor) -> Tensor:
        """Gradient of |y - A x0|."""
        return -operator.adjoint(_unit(y - operator(x0)))


class Sart(Projection):
    """A relaxed back-projection, x + share A* (y - A x) / (A* A 1): the form for CT, data taken as free of noise.

    The misfit is weighted by an approximate inverse W of the measurement, |W (y - A x0)|: here the pseudo-inverse by a
    few conjugate gradients, whose product with A is taken as a projection, so that the slope is minus the unit vector
    along W (y - A x0).
    """

    kind: Literal["sart"] = "sart"
    first: Annotated[float, Field(gt=0, le=2, description="Share at the first level (published: 1).")] = 1.0
    last: Annotated[float, Field(gt=0, le=2, description="Share at the last level (published: 0.6).")] = 0.6
    iterations: Annotated[int, Field(ge=1, le=200, description="Most conjugate-gradient iterations of W.")] = 10

    def onto(self, operator: LinearOperator, y: Tensor, rng: Rng) -> Project:
        """One forward and one backward projection a level."""
        ones = y.new_ones((1, *operator.in_shape)) if operator.in_complex == y.is_complex() else None
        if ones is None or bool(((reach := operator.normal(ones)).real < 0).any()):
            raise NeedError(
                f"Expected an operator of non-negative weights for a SART step, got {type(operator).__name__}; "
                "use the projection 'replace'."
            )
        weights = torch.where(reach.real > 0, 1 / reach.real.clamp_min(torch.finfo(reach.real.dtype).tiny), 0.0)

        def project(x: Tensor, then: float, progress: float) -> Tensor:
            share = self.first + progress * (self.last - self.first)
            return x + share * weights * operator.adjoint(y - operator(x))

        return project

    def slope(self, operator: LinearOperator, y: Tensor, x0: Tensor) -> Tensor:
        """Gradient of |W (y - A x0)|."""
        return -_unit(operator.pinv(y - operator(x0), max_iter=self.iterations))


AnyProjection = Annotated[Replace | Sart, Field(discriminator="kind")]


class MCG(Method):
    """Manifold-constrained gradient.

    An ancestral step, a step down the misfit pulled back through the network, and a projection onto the data. A method
    for data without noise: the projection puts the noise of the data into the image.

    `coordinates` says where `weight` is meant: "vp" x_vp <- x_vp - weight grad |W (y - A x0)| on [-1, 1] (inpainting,
    weight 1), "ve" the same on [0, 1] in VE coordinates (colourisation and CT, weight 0.1). The paper divides the
    gradient of the squared misfit by the misfit, the code differentiates the norm; that is a factor of 2.

    Source: Chung et al. 2022 (arXiv:2206.00941); constants of the released code.
    Deviations: one step a level, where the released colourisation and CT have a Langevin corrector too; data put back
    carry the noise of the level that is entered, not of the one left; the gradient is not masked, for `replace`
    overwrites its measured part, and `sart` bounds it; see `Sart` for the
    filtered back-projection.
    """

    kind: Literal["mcg"] = "mcg"
    title: ClassVar[str] = "MCG"
    source: ClassVar[Source] = Source(
        paper="Chung et al., Improving Diffusion Models for Inverse Problems using Manifold Constraints, NeurIPS 2022",
        equation="manifold constrained gradient and projection",
        arxiv="2206.00941",
        code="HJ-harry/MCG_diffusion",
        licence="see its LICENSE (read, not used)",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 1000).")] = LinearVP()
    projection: Annotated[AnyProjection, Field(description="How states agree with the data.")] = Replace()
    weight: Annotated[
        float, Field(ge=0, le=20, description="Step down the misfit (published: 1 or, with 've', 0.1).")
    ] = 1.0
    coordinates: Annotated[Literal["vp", "ve"], Field(description="Where the weight is meant."), Ui(advanced=True)] = (
        "vp"
    )

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.LINEAR})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call and one pullback a level."""
        prior = required(prior, self)
        operator, y = linear_operator(likelihood, self), likelihood.y
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        noise, shown = rng.child("noise"), rng.child("data")
        project = self.projection.onto(operator, y, shown)
        x = centred_start(likelihood, sigmas[0], noise)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pullback = prior.denoise_vjp(x, now)
            factor = self.weight * (vp_factor(now, then) if self.coordinates == "vp" else 1.0)
            descent = factor * pullback(self.projection.slope(operator, y, x0))
            x = ancestral(x, x0, now, then, noise) - descent
            x = project(x, then, (i - 1) / (len(sigmas) - 1))
            yield Step(i, len(sigmas), then, x, x if then == 0 else x0)


def _unit(a: Tensor) -> Tensor:
    size = norm(a)
    return a / per_sample(size.clamp_min(torch.finfo(size.dtype).tiny), a.ndim)
