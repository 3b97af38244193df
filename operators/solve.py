"""Batched conjugate gradients with one stopping rule per sample, and the inner product they use."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.errors import NoConvergence


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of each sample, Re sum(conj(a) b).   Shapes: (B, ...), (B, ...) → (B,) real."""
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product.real if product.is_complex() else product


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each sample.   Shapes: (B, ...) → (B,) real."""
    size: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return size


def per_sample(value: Tensor | float, ndim: int) -> Tensor | float:
    """A number, or one number per sample, made to broadcast against tensors with `ndim` axes.

    Shapes: (B,) → (B, 1, ..., 1) with `ndim` axes; a plain number and a 0-dimensional tensor pass unchanged.
    """
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *(1,) * (ndim - 1))
    return value


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found.

    Attributes:
        x: (B, ...) the solution.
        iterations: (B,) integer, iterations each sample took.
        residual: (B,) norm of the (recursively updated) residual relative to the right-hand side; 0 where that is 0.
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor


def cg(
    apply: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 200,
    strict: bool = False,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The solution x of apply(x) = rhs; see `conjugate_gradient`, which also tells how it went."""
    return conjugate_gradient(apply, rhs, x0=x0, tol=tol, max_iter=max_iter, strict=strict, precondition=precondition).x


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 200,
    strict: bool = False,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Solve apply(x) = rhs for a symmetric positive definite map, every sample on its own.

    A sample whose residual is below `tol` times its right-hand side is frozen while the others go on, so the answer
    for a sample does not depend on its companions. For singular maps see `least_squares`.

    Shapes: rhs (B, ...) real or complex; `apply` and `precondition` map (B, ...) → (B, ...), sample by sample.

    Args:
        apply: symmetric in the real inner product.
        rhs: right-hand side.
        x0: start, zero when absent.
        tol: relative residual at which a sample stops.
        max_iter: iterations at most.
        strict: raise when a sample has not reached `tol`.
        precondition: approximate inverse of `apply`, symmetric positive definite.

    Raises:
        NoConvergence: only when `strict`.

    Source: Hestenes & Stiefel 1952; preconditioned form as in Golub & Van Loan, Matrix Computations, 11.5.
    Deviations: none.
    """
    x = torch.zeros_like(rhs) if x0 is None else x0.expand_as(rhs).clone()
    r = rhs.clone() if x0 is None else rhs - apply(x)
    goal = tol * norm(rhs)
    z = r if precondition is None else precondition(r)
    p = z
    rz = inner(r, z)
    iterations = torch.zeros(rhs.shape[0], dtype=torch.long, device=rhs.device)
    # written as "not above" so that a sample with NaN counts as done instead of spinning to max_iter
    active = norm(r) > goal
    for _ in range(max_iter):
        if not bool(active.any()):
            break
        q = apply(p)
        curvature = inner(p, q)
        # at the limit of precision the curvature can vanish; such a sample is finished
        active = active & (curvature > 0)
        alpha = torch.where(active, rz / curvature, torch.zeros_like(rz))
        step = per_sample(alpha, rhs.ndim)
        x = x + step * p
        r = r - step * q
        z = r if precondition is None else precondition(r)
        rz_next = inner(r, z)
        # a frozen sample keeps a finite direction: its step is zero, and 0 * inf would poison it
        beta = torch.where(active & (rz > 0), rz_next / rz, torch.zeros_like(rz))
        p = z + per_sample(beta, rhs.ndim) * p
        rz = rz_next
        iterations = iterations + active
        active = active & (norm(r) > goal)
    size = norm(rhs)
    residual = torch.where(size == 0, torch.zeros_like(size), norm(r) / size)
    if strict and bool((residual > tol).any()):
        raise NoConvergence(
            f"Conjugate gradients expected a relative residual of {tol:.1e} within {max_iter} iterations, "
            f"got {float(residual.max()):.1e}; allow more iterations or a larger tolerance."
        )
    return Solution(x, iterations, residual)


def least_squares(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    y: Tensor,
    *,
    tol: float = 1e-6,
    max_iter: int = 200,
) -> Tensor:
    """The x of smallest norm that minimises |forward(x) − y|, every sample on its own.

    Conjugate gradients on the normal equations, but with the residual kept among the data: what rounding leaves in
    the null space of `forward` is not amplified. A sample stops when |adjoint(y − forward(x))| is below `tol` times
    its first value.

    Shapes: y (B, ...) → (B, ...), the shape that `forward` takes.

    Source: Hestenes & Stiefel 1952, section 10; the form known as CGLS. Deviations: none.
    """
    # in units in which y and its adjoint are about 1, so that squares of small ones do not vanish
    unit = _largest(y)
    r = y / per_sample(unit, y.ndim)
    s = adjoint(r)
    scale = _largest(s)
    s = s / per_sample(scale, s.ndim)
    x = torch.zeros_like(s)
    p = s
    power = inner(s, s)
    goal = tol**2 * power
    active = power > goal
    for _ in range(max_iter):
        if not bool(active.any()):
            break
        q = forward(p) / per_sample(scale, y.ndim)
        curvature = inner(q, q)
        active = active & (curvature > 0)
        alpha = torch.where(active, power / curvature, torch.zeros_like(power))
        x = x + per_sample(alpha, p.ndim) * p
        r = r - per_sample(alpha, q.ndim) * q
        s = adjoint(r) / per_sample(scale, p.ndim)
        power_next = inner(s, s)
        beta = torch.where(active, power_next / power, torch.zeros_like(power))
        p = s + per_sample(beta, p.ndim) * p
        power = power_next
        active = active & (power > goal)
    return x * per_sample(unit / scale, x.ndim)


def _largest(a: Tensor) -> Tensor:
    """Largest magnitude of each sample; 1 where there is none.   Shapes: (B, ...) → (B,) real."""
    largest = a.detach().flatten(1).abs().amax(1)
    return torch.where(largest > 0, largest, torch.ones_like(largest))
