"""The Wiener estimate: the posterior mean under a stationary Gaussian prior."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.noise import Gaussian
from operators.rng import Rng
from operators.solve import cg
from operators.spec import Need, Source
from restoration.analytic import PowerLawPrior
from restoration.method import Method, Step
from restoration.prior import Prior


class Wiener(Method):
    """argmin |A x - y|² / (2 sigma²) + |x - mean|²_{1/S} / 2 with S a power-law spectrum; a classical baseline.

    Solved by conjugate gradients in whitened coordinates x = mean + S^(1/2) u, for any linear operator.

    Source: Wiener 1949; spectrum of natural images, Field 1987.
    Deviations: the mean is that of the operator's guess rather than zero.
    """

    kind: Literal["wiener"] = "wiener"
    title: ClassVar[str] = "Wiener"
    deterministic: ClassVar[bool] = True
    source: ClassVar[Source] = Source(paper="Wiener 1949; Field 1987 (spectrum)")

    std: Annotated[float, Field(gt=0, le=10, description="Standard deviation of a pixel under the prior.")] = 0.15
    exponent: Annotated[float, Field(gt=0, le=4, description="Amplitude falls as 1/f^exponent.")] = 1.3
    iterations: Annotated[int, Field(ge=1, le=2000, description="Most conjugate-gradient iterations.")] = 200

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.LINEAR, Need.GAUSSIAN})

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """A single step."""
        if not isinstance(likelihood.noise, Gaussian):
            raise NeedError(
                f"Expected Gaussian noise for Wiener, got {type(likelihood.noise).__name__}; use another method."
            )
        operator, y, variance = likelihood.operator, likelihood.y, likelihood.noise.sigma**2
        if not isinstance(operator, LinearOperator):
            raise NeedError(
                f"Expected a linear operator for Wiener, got {type(operator).__name__}; use another method."
            )
        mean = operator.guess(y).mean((1, 2, 3), keepdim=True)
        root = (
            PowerLawPrior(0.0, self.std, self.exponent).spectrum(operator.in_shape[-2], operator.in_shape[-1], y).sqrt()
        )

        def whitened(u: Tensor) -> Tensor:
            image: Tensor = torch.fft.irfft2(root * torch.fft.rfft2(u), s=u.shape[-2:])
            return image

        flat = mean.expand(len(y), *operator.in_shape)
        right = whitened(operator.adjoint(y - operator(flat))) / variance
        u = cg(
            lambda v: v + whitened(operator.normal(whitened(v))) / variance, right, tol=1e-5, max_iter=self.iterations
        )
        x = (flat + whitened(u)).expand(rng.batch, *operator.in_shape)
        yield Step(1, 1, 0.0, x, x)
