"""Operators of which only the family is known: a picture blurred by some kernel, dimmed by some factor.

A method that is blind estimates the parameters with the image, for each sample its own. The data alone never tell
everything: see "What a blind method cannot know" in docs/methods.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator, Shape
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.noise import Gaussian
from operators.solve import norm, per_sample
from operators.spec import Need


class Parametric(Operator, ABC):
    """x, u ↦ A(x; u), with a row of parameters u for every sample.

    Called as an operator it is `truth`, which simulated data are made with; what is restored must not use that, and so
    it offers neither gradients nor solves: methods that are not blind refuse it.

    Args:
        truth: a member of the family, or an operator that the family imitates.
        parameter_shape: shape of u, without batch.
    """

    offers: ClassVar[frozenset[Need]] = frozenset({Need.PARAMETERS})

    def __init__(self, truth: Operator, parameter_shape: Shape) -> None:
        super().__init__(truth.in_shape, truth.out_shape)
        self.truth = truth
        self.parameter_shape = parameter_shape

    @abstractmethod
    def apply_with(self, x: Tensor, u: Tensor) -> Tensor:
        """A(x; u), differentiable in both.   Shapes: x (B, *in_shape), u (B, *parameter_shape) → (B, *out_shape)."""

    @abstractmethod
    def start(self, y: Tensor) -> Tensor:
        """Parameters to begin with, from the data alone.   Shapes: y (B, *out_shape) → (B, *parameter_shape)."""

    @abstractmethod
    def constrain(self, u: Tensor) -> Tensor:
        """Parameters that are allowed, made from any near them; differentiable.   Shapes: as u."""

    @abstractmethod
    def describe(self, u: Tensor) -> Mapping[str, Tensor]:
        """The parameters by the names that people use, (B, ...) each; names are those of Python identifiers."""

    def at(self, u: Tensor) -> Operator:
        """The operator whose sample k has the parameters u[k]."""
        return Held(self, u)

    def misfit_and_slopes(self, y: Tensor, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """|y − A(x; constrain(u))| and its gradients in x and in u; gradients are zero where the misfit is.

        Shapes: (B,), (B, *in_shape), (B, *parameter_shape).
        """
        with torch.enable_grad():
            leaves = x.detach().requires_grad_(), u.detach().requires_grad_()
            residual = self.apply_with(leaves[0], self.constrain(leaves[1])) - y
            misfit = norm(residual).detach()
            unit = residual.detach() / per_sample(misfit.clamp(min=torch.finfo(misfit.dtype).tiny), residual.ndim)
            slope_x, slope_u = torch.autograd.grad(residual, leaves, unit)
        return misfit, slope_x, slope_u

    def _forward(self, x: Tensor) -> Tensor:
        return self.truth(x)

    def _guess(self, y: Tensor) -> Tensor:
        return self.truth.guess(y)


class Held(Operator):
    """A parametric operator at fixed parameters, one set for each sample.

    Args:
        family: the parametric operator.
        u: (B, *parameter_shape); images must come in batches of B, or of any size where B is 1.
    """

    u: Tensor

    def __init__(self, family: Parametric, u: Tensor) -> None:
        super().__init__(family.in_shape, family.out_shape)
        self.family = family
        self.register_buffer("u", u.detach().clone())

    def _forward(self, x: Tensor) -> Tensor:
        return self.family.apply_with(x, self.u.to(x.dtype))

    def _guess(self, y: Tensor) -> Tensor:
        return self.family.guess(y)


class Whitened(LinearOperator):
    """A divided by the standard deviation of the noise, for every sample its own, so that its noise has size 1.

    Shapes: x (B, *in_shape) → (B, *out_shape).

    Args:
        operator: linear.
        sigma: (B,), > 0.
    """

    sigma: Tensor

    def __init__(self, operator: LinearOperator, sigma: Tensor) -> None:
        super().__init__(
            operator.in_shape, operator.out_shape, in_complex=operator.in_complex, out_complex=operator.out_complex
        )
        self.operator = operator
        self.register_buffer("sigma", sigma.detach().clone())

    def gather(self, y: Tensor) -> Tensor:
        """What A measured; see `Operator.gather`."""
        return self.operator.gather(y)

    def scatter(self, values: Tensor) -> Tensor:
        """The data of A; see `Operator.scatter`."""
        return self.operator.scatter(values)

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) / self._sized(x, len(self.out_shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y / self._sized(y, len(self.out_shape)))

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        sigma = self._sized(z, 0)
        return self.operator._prox(z, y * self._sized(y, len(self.out_shape)), rho * sigma**2, tol, max_iter)

    def _guess(self, y: Tensor) -> Tensor:
        return self.operator._guess(y * self._sized(y, len(self.out_shape)))

    def _sized(self, like: Tensor, axes: int) -> Tensor:
        return self.sigma.to(like.real.dtype).reshape(-1, *(1,) * axes)


def hold(likelihood: Likelihood, u: Tensor | None, sigma: Tensor | None = None) -> Likelihood:
    """The likelihood at estimated parameters and, where given, noise levels; one set for each sample.

    With `sigma` operator and data are divided by it, and the noise is `Gaussian(1)`.

    Shapes: u (B, *parameter_shape), sigma (B,).

    Raises:
        NeedError: parameters for an operator without any, or noise levels for one that is not linear.
    """
    operator = likelihood.operator
    if u is not None:
        if not isinstance(operator, Parametric):
            raise NeedError(f"{Need.PARAMETERS.sentence} {type(operator).__name__} has none; choose another method.")
        operator = operator.at(u)
    if sigma is None:
        return Likelihood(operator, likelihood.noise, likelihood.y, likelihood.start)
    if not isinstance(operator, LinearOperator):
        raise NeedError(f"{Need.LINEAR.sentence} {type(operator).__name__} is not; choose another method.")
    y = likelihood.y / per_sample(sigma, likelihood.y.ndim)
    return Likelihood(Whitened(operator, sigma), Gaussian(sigma=1.0), y, likelihood.start)
