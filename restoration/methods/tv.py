"""Total variation: the classical edge-preserving estimate."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior


def gradient(x: Tensor) -> Tensor:
    """Forward differences, zero past the border: (B, C, H, W) → (B, 2, C, H, W)."""
    g = x.new_zeros(len(x), 2, *x.shape[1:])
    g[:, 0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    g[:, 1, ..., :-1] = x[..., 1:] - x[..., :-1]
    return g


def divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `gradient`: (B, 2, C, H, W) → (B, C, H, W)."""
    vertical, horizontal = p[:, 0].clone(), p[:, 1].clone()
    vertical[..., -1, :] = 0
    horizontal[..., -1] = 0
    vertical[..., 1:, :] -= p[:, 0, ..., :-1, :]
    horizontal[..., 1:] -= p[:, 1, ..., :-1]
    return vertical + horizontal


class TV(Method):
    """argmin -log p(y | x) + weight sum_pixels |grad x|, the norm taken over both directions and all colours.

    Source: Rudin, Osher, Fatemi 1992; vectorial form Blomgren and Chan 1998; solved by the primal-dual method of
    Chambolle and Pock 2011, Algorithm 1 with theta = 1.
    Deviations: none.
    """

    kind: Literal["tv"] = "tv"
    title: ClassVar[str] = "Total variation"
    deterministic: ClassVar[bool] = True
    source: ClassVar[Source] = Source(
        paper="Chambolle and Pock, A First-Order Primal-Dual Algorithm, JMIV 2011", equation="Algorithm 1"
    )

    weight: Annotated[float, Field(gt=0, le=1e4, description="Weight of the total variation."), Ui(scale="log")] = 6.0
    iterations: Annotated[int, Field(ge=1, le=5000, description="Primal-dual iterations.")] = 200
    primal: Annotated[
        float,
        Field(gt=0, le=100, description="Primal step; changes the speed, not the result."),
        Ui(scale="log", advanced=True),
    ] = 0.01

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.PROX, Need.GAUSSIAN})

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """A step per iteration."""
        dual_step = 1 / (8 * self.primal)  # |grad|² <= 8
        x = likelihood.operator.guess(likelihood.y).expand(len(likelihood.y), *likelihood.operator.in_shape)
        ahead, p = x, torch.zeros_like(gradient(x))
        for i in range(1, self.iterations + 1):
            p = p + dual_step * gradient(ahead)
            p = p / (p.square().sum((1, 2), keepdim=True).sqrt() / self.weight).clamp_min(1)
            previous, x = x, likelihood.prox(x + self.primal * divergence(p), self.primal)
            ahead = 2 * x - previous
            sample = x.expand(rng.batch, *x.shape[1:])
            yield Step(i, self.iterations, 0.0, sample, sample)
