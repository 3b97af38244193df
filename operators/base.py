"""Measurement operators: maps from an image to noise-free data.

Batch first; shapes are written without the batch. The inner product is the real one, `<a, b> = Re sum(conj(a) b)`, so
operators between real and complex spaces have a well-defined adjoint. An operator is pure and holds no device, no
dtype and no randomness of its own: `.to()` moves it, and its answer has the precision of what it is given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from operators.errors import NeedError, ShapeError
from operators.rng import Rng
from operators.solve import cg, inner, least_squares, norm, per_sample
from operators.spec import Need, Spec

Shape = tuple[int, ...]
Pullback = Callable[[Tensor], Tensor]


class Operator(nn.Module, ABC):
    """Noise-free map from image to data: pure, batched, differentiable unless `offers` says otherwise.

    A subclass writes `_forward` and `_guess`; the public methods check their input first.

    Args:
        in_shape: shape of an image, without batch.
        out_shape: shape of its data, without batch.
        in_complex: whether images are complex.
        out_complex: whether data are complex.
    """

    offers: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENT})

    def __init__(
        self, in_shape: Shape, out_shape: Shape, *, in_complex: bool = False, out_complex: bool = False
    ) -> None:
        super().__init__()
        self.in_shape: Shape = tuple(in_shape)
        self.out_shape: Shape = tuple(out_shape)
        self.in_complex = in_complex
        self.out_complex = out_complex

    if TYPE_CHECKING:  # nn.Module types its call as Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """A x.

        Shapes: x (B, *in_shape) → (B, *out_shape).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_image(x)
        return self._forward(x)

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """A x, and the map v ↦ J^T v with J the derivative of A at x (mirrors `torch.func.vjp`).

        Shapes: x (B, *in_shape) → (B, *out_shape) and a function (B, *out_shape) → (B, *in_shape).

        Raises:
            NeedError: the operator does not offer gradients.
        """
        self.check_image(x)
        if Need.GRADIENT not in self.offers:
            raise NeedError(f"{Need.GRADIENT.sentence} {type(self).__name__} has no gradient; choose another method.")
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            data = self._forward(leaf)

        def pullback(v: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(data, leaf, v, retain_graph=True)
            return slope

        return data.detach(), pullback

    def guess(self, y: Tensor) -> Tensor:
        """A cheap image-shaped start: zero-filled, upsampled, filtered back-projection and the like.

        Shapes: y (B, *out_shape) → (B, *in_shape).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_data(y)
        return self._guess(y)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Data, from a picture of the measurement as a user holds it: a blurred, a small or a holed photo.

        Shapes: picture (B, *shape of the picture) → (B, *out_shape). Most operators take `out_shape` itself.

        Raises:
            ShapeError: the picture is not one of this operator's measurements.
        """
        self.check_data(picture)
        return picture

    def data_as_image(self, y: Tensor) -> Tensor:
        """A picture of the data for display; `data_from_image` undoes it.   Shapes: y (B, *out_shape) → (B, ...).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_data(y)
        return y

    def check_image(self, x: Tensor) -> None:
        """Raise ShapeError unless x is a batch of this operator's images, (B, *in_shape)."""
        if x.shape[1:] != self.in_shape or x.is_complex() != self.in_complex or not _is_inexact(x):
            raise ShapeError(_mismatch(type(self).__name__, self.in_shape, self.in_complex, x))

    def check_data(self, y: Tensor) -> None:
        """Raise ShapeError unless y is a batch of this operator's data, (B, *out_shape)."""
        if y.shape[1:] != self.out_shape or y.is_complex() != self.out_complex or not _is_inexact(y):
            raise ShapeError(_mismatch(f"{type(self).__name__} data", self.out_shape, self.out_complex, y))

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _guess(self, y: Tensor) -> Tensor: ...


class LinearOperator(Operator):
    """A real-linear operator: `<A x, y> = <x, A* y>` in the real inner product.

    A subclass writes `_forward`; `_adjoint` defaults to the transpose by automatic differentiation, which is exact
    but slower than a hand-written one.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.LINEAR, Need.PROX}

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y.   Shapes: y (B, *out_shape) → (B, *in_shape).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_data(y)
        return self._adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """A* A x.   Shapes: (B, *in_shape) → (B, *in_shape).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_image(x)
        return self._normal(x)

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """A x and the adjoint, which is the pullback of a linear map at every x; see `Operator.vjp`."""
        return self(x), self.adjoint

    def pinv(self, y: Tensor, *, tol: float = 1e-6, max_iter: int = 200) -> Tensor:
        """A⁺ y, the least-squares image of smallest norm (Moore–Penrose).

        Shapes: y (B, *out_shape) → (B, *in_shape).

        Args:
            y: data.
            tol: conjugate gradients stop at this relative residual of the normal equations; closed forms treat
                singular values below `tol` times the largest as zero.
            max_iter: iterations of conjugate gradients at most; closed forms do not iterate.

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_data(y)
        return self._pinv(y, tol, max_iter)

    def prox(self, z: Tensor, y: Tensor, rho: Tensor | float, *, tol: float = 1e-6, max_iter: int = 200) -> Tensor:
        """The minimiser over x of ½|A x − y|² + rho/2 |x − z|².

        Exact for a `SpectralOperator`; otherwise conjugate gradients from z.

        Shapes: z (B, *in_shape), y (1 or B, *out_shape), rho a number or (B,) → (B, *in_shape).

        Args:
            z: centre.
            y: data.
            rho: weight of the centre, > 0: the noise variance over the variance around z.
            tol: relative residual of the correction x − z at which conjugate gradients stop; closed forms ignore it.
            max_iter: iterations at most; closed forms ignore it.

        Raises:
            ShapeError: wrong shape, or `rho` not positive and finite.
        """
        self.check_image(z)
        self.check_data(y)
        if y.shape[0] not in (1, z.shape[0]):
            raise ShapeError(
                f"{type(self).__name__} expected data for 1 or {z.shape[0]} samples, got {y.shape[0]}; match batches."
            )
        if isinstance(rho, Tensor):
            if rho.shape not in ((), (1,), (z.shape[0],)):
                raise ShapeError(f"Expected rho as a number or as ({z.shape[0]},), got {tuple(rho.shape)}; reshape it.")
            rho = rho.to(z.device, z.real.dtype if z.is_complex() else z.dtype)
        positive = ((rho > 0) & rho.isfinite()).all() if isinstance(rho, Tensor) else 0 < rho < inf
        if not bool(positive):
            raise ShapeError(f"Expected a finite rho > 0, got {rho}; use pinv for a fit without a centre.")
        return self._prox(z, y, rho, tol, max_iter)

    def norm_squared(self, iterations: int = 30) -> float:
        """The largest eigenvalue of A* A, estimated from below by power iteration with a fixed start."""
        buffer = next((b for b in self.buffers() if b.is_floating_point()), torch.zeros(()))
        rng = Rng([0], device=buffer.device, dtype=torch.float64 if buffer.dtype == torch.float64 else torch.float32)
        x = rng.randn(self.in_shape, complex=self.in_complex)
        value = 0.0
        for _ in range(iterations):
            x = x / norm(x).clamp(min=1e-30).reshape(-1, *(1,) * len(self.in_shape))
            image = self._normal(x)
            value = float(inner(x, image))
            x = image
        return value

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """The composition `self @ other`, which applies `other` first."""
        return Composed(self, other)

    def _guess(self, y: Tensor) -> Tensor:
        return self._adjoint(y)

    def _adjoint(self, y: Tensor) -> Tensor:
        # the value of a linear map's argument does not matter to its transpose
        dtype = torch.promote_types(y.dtype, torch.complex32) if self.in_complex else y.real.dtype
        x = torch.zeros(y.shape[0], *self.in_shape, dtype=dtype, device=y.device, requires_grad=True)
        chained = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            (transposed,) = torch.autograd.grad(self._forward(x), x, y, create_graph=chained)
        return transposed

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _pinv(self, y: Tensor, tol: float, max_iter: int) -> Tensor:
        return least_squares(self._forward, self._adjoint, y, tol=tol, max_iter=max_iter)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        # solving for the correction makes the tolerance relative to what changes, whatever rho is
        weight = per_sample(rho, z.ndim)
        misfit = self._adjoint(y - self._forward(z))
        return z + cg(lambda d: self._normal(d) + weight * d, misfit, tol=tol, max_iter=max_iter)


class SpectralOperator(LinearOperator):
    """A = U diag(s) V* with fast U and V: adjoint, normal, pinv and prox are closed forms, written here once.

    U and V have orthonormal columns and may be thin, that is hold only directions with s > 0; what is outside V is
    the null space, which prox and pinv leave as it is. A spectrum may have any shape with the batch first; it is the
    operator's own business how the coefficients are laid out.
    """

    offers: ClassVar[frozenset[Need]] = LinearOperator.offers | {Need.SPECTRUM}

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """s, real and >= 0, without batch; broadcasts against a spectrum."""

    @abstractmethod
    def to_spectrum(self, x: Tensor) -> Tensor:
        """V* x.   Shapes: x (B, *in_shape) → (B, *spectrum)."""

    @abstractmethod
    def from_spectrum(self, c: Tensor) -> Tensor:
        """V c.   Shapes: c (B, *spectrum) → (B, *in_shape)."""

    @abstractmethod
    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """U* y.   Shapes: y (B, *out_shape) → (B, *spectrum)."""

    @abstractmethod
    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """U c.   Shapes: c (B, *spectrum) → (B, *out_shape)."""

    def norm_squared(self, iterations: int = 30) -> float:
        """The largest eigenvalue of A* A, exactly; `iterations` is not used."""
        return float(self.singular_values.amax()) ** 2

    def _forward(self, x: Tensor) -> Tensor:
        c = self.to_spectrum(x)
        return self.data_from_spectrum(_like(self.singular_values, c) * c)

    def _adjoint(self, y: Tensor) -> Tensor:
        c = self.data_to_spectrum(y)
        return self.from_spectrum(_like(self.singular_values, c) * c)

    def _normal(self, x: Tensor) -> Tensor:
        c = self.to_spectrum(x)
        return self.from_spectrum(_like(self.singular_values, c).square() * c)

    def _pinv(self, y: Tensor, tol: float, max_iter: int) -> Tensor:
        c = self.data_to_spectrum(y)
        s = _like(self.singular_values, c)
        kept = s > tol * s.amax()
        return self.from_spectrum(torch.where(kept, c / torch.where(kept, s, 1.0), torch.zeros_like(c)))

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        # a correction to z, so that a thin V leaves the rest of z alone
        c = self.to_spectrum(z)
        s = _like(self.singular_values, c)
        weight = per_sample(rho, c.ndim)
        correction = s * (self.data_to_spectrum(y) - s * c) / (s.square() + weight)
        return z + self.from_spectrum(correction)


class Composed(LinearOperator):
    """`outer @ inner`: the operator that applies `inner`, then `outer`. It has no noise of its own.

    Offers what every linear operator offers; a spectrum does not survive composition.

    Raises:
        ShapeError: what `inner` gives is not what `outer` takes.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if inner.out_shape != outer.in_shape or inner.out_complex != outer.in_complex:
            raise ShapeError(
                f"{type(outer).__name__} expected {_words(outer.in_shape, outer.in_complex)} to compose with, "
                f"got {_words(inner.out_shape, inner.out_complex)} from {type(inner).__name__}; build both alike."
            )
        super().__init__(inner.in_shape, outer.out_shape, in_complex=inner.in_complex, out_complex=outer.out_complex)
        self.outer = outer
        self.inner = inner

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Data from a picture of them, as the outer operator reads it."""
        return self.outer.data_from_image(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """A picture of the data, as the outer operator shows it."""
        return self.outer.data_as_image(y)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._normal(self.inner._forward(x)))

    def _guess(self, y: Tensor) -> Tensor:
        return self.inner._guess(self.outer._guess(y))


class OperatorSpec(Spec, ABC):
    """Description of an operator, which builds it for an image shape."""

    kind: str
    title: ClassVar[str]

    @property
    @abstractmethod
    def offers(self) -> frozenset[Need]:
        """What the operator will offer, known without building it."""

    @abstractmethod
    def build(self, in_shape: Shape, base: Path = Path()) -> Operator:
        """The operator for images of `in_shape` (without batch); masks and kernels are drawn or read here.

        Args:
            in_shape: for example (C, H, W).
            base: folder from which relative paths in the description are read.

        Raises:
            ShapeError: the operator does not exist for this shape.
            ReadError, AssetCorrupt: a file in the description cannot be used.
        """

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Shape of the image behind a measured picture of `picture_shape`; the same unless pixels were merged."""
        return check_image_shape(picture_shape)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """The largest shape, cropped from the top left of `image_shape`, that the operator takes.

        Raises:
            ShapeError: nothing would be left.
        """
        return check_image_shape(image_shape)


def check_image_shape(shape: Shape) -> Shape:
    """`shape` as a tuple, if it has at least two axes and no empty one; the last two are height and width.

    Raises:
        ShapeError: otherwise.
    """
    if len(shape) < 2 or prod(shape) == 0 or min(shape) < 0:
        raise ShapeError(f"Expected an image shape such as (3, 256, 256), got {tuple(shape)}; give a non-empty image.")
    return tuple(int(n) for n in shape)


def _like(constant: Tensor, c: Tensor) -> Tensor:
    # real constants in the precision of the coefficients, so that the answer has the precision of the input
    return constant.to(c.real.dtype if c.is_complex() else c.dtype)


def _is_inexact(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _words(shape: Shape, is_complex: bool) -> str:
    inside = ", ".join(["B", *map(str, shape)])
    return f"({inside}) {'complex' if is_complex else 'real'}"


def _mismatch(who: str, shape: Shape, is_complex: bool, got: Tensor) -> str:
    kind = str(got.dtype).removeprefix("torch.")
    return f"{who} expected {_words(shape, is_complex)}, got {tuple(got.shape)} {kind}; give a batch of that shape."
