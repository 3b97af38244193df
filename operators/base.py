"""Measurement operators: maps from an image to noise-free data.

Batch first; shapes are written without the batch. The inner product is the real one, `<a, b> = Re sum(conj(a) b)`, so
operators between real and complex spaces have a well-defined adjoint. An operator is pure and holds no device, no
dtype and no randomness of its own: `.to()` moves it, and its answer has the precision of what it is given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf, prod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from operators.errors import NeedError, ShapeError
from operators.rng import Rng
from operators.solve import cg, inner, least_squares, norm, per_sample
from operators.spec import Need, Spec

Shape = tuple[int, ...]
Pullback = Callable[[Tensor], Tensor]

_DTYPES = (
    frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64}),
    frozenset({torch.complex32, torch.complex64, torch.complex128}),
)
"""Of real and of complex images and data. A look into a set is the quickest check; see `Inpainting`."""


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
    exact_gradient: ClassVar[bool] = True
    """Whether the gradient is the derivative; False where that is zero almost everywhere (rounding) and `vjp` gives the
    slope of a smooth stand-in instead. The data are exact in both cases."""
    farthest: ClassVar[float] = 1.0
    """`project` goes at most this many times as far as the nearest image with these data; above 1 where it takes the
    nearest in another norm than the Euclidean one."""

    def __init__(
        self, in_shape: Shape, out_shape: Shape, *, in_complex: bool = False, out_complex: bool = False
    ) -> None:
        super().__init__()
        self.in_shape: Shape = tuple(in_shape)
        self.out_shape: Shape = tuple(out_shape)
        self.in_complex = in_complex
        self.out_complex = out_complex

    def forward(self, x: Tensor) -> Tensor:
        """A x.

        Shapes: x (B, *in_shape) → (B, *out_shape).

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_image(x)
        return self._forward(x)

    def __call__(self, x: Tensor) -> Tensor:
        """A x; see `forward`."""
        return self.forward(x)  # nn.Module would search for hooks, which takes as long as a product with a small mask

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

    def project(self, z: Tensor, y: Tensor, *, tol: float = 1e-6, max_iter: int = 200) -> Tensor:
        """The image nearest to z among those whose noise-free data are y: z itself, where A z = y.

        What was lost stays as it is in z, what was measured is taken from y. For linear operators this is
        z + A⁺ (y − A z). Rounded data leave an interval for each number and clipped ones a half-line; z is moved to its
        nearest end. Data that no image has, such as noisy ones, are read as the nearest that one has, in the
        operator's own way of reading.

        Shapes: z (B, *in_shape), y (1 or B, *out_shape) → (B, *in_shape).

        Args:
            z: the image to be changed as little as possible.
            y: data.
            tol: see `LinearOperator.pinv`; operators that are not linear ignore it.
            max_iter: iterations at most; closed forms do not iterate.

        Raises:
            NeedError: the operator does not offer projections.
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_image(z)
        self._check_held(z, y)
        if Need.PROJECTION not in self.offers:
            raise NeedError(f"{Need.PROJECTION.sentence} {type(self).__name__} has none; choose another method.")
        return self._project(z, y, tol, max_iter)

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

    def gather(self, y: Tensor) -> Tensor:
        """The numbers in the data that were measured, which noise and residuals are about.

        The data themselves, except for operators whose data have places where nothing was measured.

        Shapes: y (B, *out_shape) → (B, ...).
        """
        return y

    def scatter(self, values: Tensor) -> Tensor:
        """The data that hold these numbers, and zero where nothing was measured; undoes `gather`.

        Shapes: values (B, ...) → (B, *out_shape).
        """
        return values

    def check_image(self, x: Tensor) -> None:
        """Raise ShapeError unless x is a batch of this operator's images, (B, *in_shape)."""
        if x.shape[1:] != self.in_shape or x.dtype not in _DTYPES[self.in_complex]:
            raise ShapeError(_mismatch(type(self).__name__, self.in_shape, self.in_complex, x))

    def check_data(self, y: Tensor) -> None:
        """Raise ShapeError unless y is a batch of this operator's data, (B, *out_shape)."""
        if y.shape[1:] != self.out_shape or y.dtype not in _DTYPES[self.out_complex]:
            raise ShapeError(_mismatch(f"{type(self).__name__} data", self.out_shape, self.out_complex, y))

    def _check_held(self, z: Tensor, y: Tensor) -> None:
        self.check_data(y)
        if y.shape[0] not in (1, z.shape[0]):
            raise ShapeError(
                f"{type(self).__name__} expected data for 1 or {z.shape[0]} samples, got {y.shape[0]}; match batches."
            )

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _guess(self, y: Tensor) -> Tensor: ...

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} offers projections and does not write _project.")


class LinearOperator(Operator):
    """A real-linear operator: `<A x, y> = <x, A* y>` in the real inner product.

    A subclass writes `_forward`; `_adjoint` defaults to the transpose by automatic differentiation, which is exact
    but slower than a hand-written one.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.LINEAR, Need.PROX, Need.PROJECTION}

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
        self._check_held(z, y)
        if isinstance(rho, Tensor) and rho.shape not in ((), (1,), (z.shape[0],)):
            raise ShapeError(f"Expected rho as a number or as ({z.shape[0]},), got {tuple(rho.shape)}; reshape it.")
        # in the precision of the image: what is lost in it would divide by zero
        dtype = z.real.dtype if z.is_complex() else z.dtype
        rounded = rho.to(z.device, dtype) if isinstance(rho, Tensor) else torch.tensor(rho, dtype=dtype)
        if not bool(((rounded > 0) & rounded.isfinite()).all()):
            raise ShapeError(f"Expected a finite rho > 0 in {dtype}, got {rho}; use pinv for a fit without a centre.")
        rho = rounded if isinstance(rho, Tensor) else rho
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

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        return z + self._pinv(y - self._forward(z), tol, max_iter)

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


class OrthonormalOperator(SpectralOperator):
    """A with orthonormal rows, A A* = 1: every singular value is one, and the adjoint is the pseudo-inverse.

    The spectrum are the data themselves. A subclass writes `to_spectrum`, which is A, and `from_spectrum`, which is A*.

    Args:
        in_shape: shape of an image, without batch.
        out_shape: shape of its data, without batch.
        in_complex: whether images are complex.
        out_complex: whether data are complex.
    """

    _ones: Tensor

    def __init__(
        self, in_shape: Shape, out_shape: Shape, *, in_complex: bool = False, out_complex: bool = False
    ) -> None:
        super().__init__(in_shape, out_shape, in_complex=in_complex, out_complex=out_complex)
        self.register_buffer("_ones", torch.ones((1,) * len(out_shape)), persistent=False)

    @property
    def singular_values(self) -> Tensor:
        """One, for every number in the data."""
        return self._ones

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The data themselves."""
        return y

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def _forward(self, x: Tensor) -> Tensor:
        return self.to_spectrum(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.from_spectrum(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self.from_spectrum(self.to_spectrum(x))

    def _pinv(self, y: Tensor, tol: float, max_iter: int) -> Tensor:
        return self.from_spectrum(y)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        misfit = y - self.to_spectrum(z)
        return z + self.from_spectrum(misfit / (1 + per_sample(rho, misfit.ndim)))


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

    def gather(self, y: Tensor) -> Tensor:
        """What the outer operator measured; see `Operator.gather`."""
        return self.outer.gather(y)

    def scatter(self, values: Tensor) -> Tensor:
        """The outer operator's data; see `Operator.scatter`."""
        return self.outer.scatter(values)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._normal(self.inner._forward(x)))

    def _guess(self, y: Tensor) -> Tensor:
        return self.inner._guess(self.outer._guess(y))


class Stacked(LinearOperator):
    """Several measurements of one image as one: A x = (w1 A1 x, w2 A2 x, ...), every part's data flattened in turn.

    Weights make parts of different noise comparable. Where part k was measured with noise of size sigma_k, the weights
    sigma / sigma_k whiten the stack: its data, as `join` makes them, have noise of size `sigma` throughout, and one
    `Gaussian(sigma)` is their law. Without weights, all parts have the same noise.

    Shapes: x (B, *in_shape) → (B, n1 + n2 + ...).

    Args:
        parts: linear operators on the same images.
        weights: one number > 0 per part; all 1 when absent.

    Raises:
        ShapeError: no parts, parts of different images, real and complex data mixed, or weights that do not fit.
    """

    def __init__(self, parts: Sequence[LinearOperator], weights: Sequence[float] | None = None) -> None:
        if not parts:
            raise ShapeError("Stacked expected at least one operator, got none; give the parts of the measurement.")
        first = parts[0]
        for part in parts:
            if (part.in_shape, part.in_complex) != (first.in_shape, first.in_complex):
                raise ShapeError(
                    f"Stacked expected {_words(first.in_shape, first.in_complex)} images for every part, "
                    f"got {_words(part.in_shape, part.in_complex)} for {type(part).__name__}; build all alike."
                )
            if part.out_complex != first.out_complex:
                raise ShapeError(
                    f"Stacked expected all data real or all complex, got both from {type(first).__name__} and "
                    f"{type(part).__name__}; stack only parts of one sort."
                )
        weights = (1.0,) * len(parts) if weights is None else tuple(float(w) for w in weights)
        if len(weights) != len(parts) or not all(0 < w < inf for w in weights):
            raise ShapeError(
                f"Stacked expected {len(parts)} finite weights > 0, got {weights}; give one per part, or none at all."
            )
        self._sizes = [prod(part.out_shape) for part in parts]
        super().__init__(
            first.in_shape, (sum(self._sizes),), in_complex=first.in_complex, out_complex=first.out_complex
        )
        self.parts = nn.ModuleList(parts)
        self.weights = weights

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """Data of the stack from the parts' own data, weighted.   Shapes: (B, *part.out_shape) each → (B, n).

        Raises:
            ShapeError: not one block per part, or a block is not that part's data.
        """
        if len(blocks) != len(self.parts):
            raise ShapeError(
                f"Stacked expected {len(self.parts)} blocks of data, got {len(blocks)}; give one per part."
            )
        for part, block in zip(self._parts, blocks, strict=True):
            part.check_data(block)
        return torch.cat([w * block.flatten(1) for w, block in zip(self.weights, blocks, strict=True)], 1)

    def split(self, y: Tensor) -> list[Tensor]:
        """The parts' own data, without weights; undoes `join`.   Shapes: (B, n) → (B, *part.out_shape) each.

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_data(y)
        return [block / w for w, block in zip(self.weights, self._blocks(y), strict=True)]

    def data_as_image(self, y: Tensor) -> Tensor:
        """Pictures of the parts' own data, unweighted and side by side, black elsewhere.

        The plain data of the stack if a part's data are no picture.

        A picture of one channel beside others of several is repeated over theirs.
        """
        self.check_data(y)
        if not (frames := self._frames()):
            return y
        deep, tall = max(frame[0] for frame in frames), max(frame[1] for frame in frames)
        pictures = [part.data_as_image(block) for part, block in zip(self._parts, self.split(y), strict=True)]
        # one channel beside several is grey, not the first colour
        pictures = [p.expand(-1, deep, -1, -1) if p.shape[-3] == 1 else p for p in pictures]
        return torch.cat([pad(p, (0, 0, 0, tall - p.shape[-2], 0, deep - p.shape[-3])) for p in pictures], -1)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The data from such a picture, weighted as `join` does; see `data_as_image`."""
        if not (frames := self._frames()):
            return super().data_from_image(picture)
        widths = [frame[2] for frame in frames]
        shape = (max(frame[0] for frame in frames), max(frame[1] for frame in frames), sum(widths))
        if picture.shape[1:] != shape:
            raise ShapeError(_mismatch("Stacked picture", shape, self.out_complex, picture))
        panels = zip(self._parts, picture.split(widths, -1), frames, strict=True)
        return self.join([part.data_from_image(panel[:, :c, :h]) for part, panel, (c, h, _) in panels])

    def gather(self, y: Tensor) -> Tensor:
        """What the parts measured, one after the other; see `Operator.gather`."""
        pairs = zip(self._parts, self._blocks(y), strict=True)
        return torch.cat([part.gather(block).flatten(1) for part, block in pairs], 1)

    def scatter(self, values: Tensor) -> Tensor:
        """The parts' data, one after the other; see `Operator.scatter`."""
        shapes = [part.gather(values.new_zeros(1, *part.out_shape)).shape[1:] for part in self._parts]
        pairs = zip(self._parts, values.split([prod(shape) for shape in shapes], 1), shapes, strict=True)
        return torch.cat([part.scatter(block.reshape(-1, *shape)).flatten(1) for part, block, shape in pairs], 1)

    @property
    def _parts(self) -> list[LinearOperator]:
        return [part for part in self.parts if isinstance(part, LinearOperator)]

    def _blocks(self, y: Tensor) -> list[Tensor]:
        blocks = y.split(self._sizes, 1)
        return [block.reshape(-1, *part.out_shape) for part, block in zip(self._parts, blocks, strict=True)]

    def _frames(self) -> list[Shape]:
        """Shapes (C, h, w) of the parts' pictures; none at all if one of them is no picture."""
        dtype = torch.complex64 if self.out_complex else torch.float32
        device = next((b.device for b in self.buffers()), None)
        zeros = [torch.zeros(1, *part.out_shape, dtype=dtype, device=device) for part in self._parts]
        frames = [tuple(p.data_as_image(z).shape[1:]) for p, z in zip(self._parts, zeros, strict=True)]
        return frames if all(len(frame) == 3 for frame in frames) else []

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [w * part._forward(x).flatten(1) for w, part in zip(self.weights, self._parts, strict=True)], 1
        )

    def _adjoint(self, y: Tensor) -> Tensor:
        images = [w * p._adjoint(b) for w, p, b in zip(self.weights, self._parts, self._blocks(y), strict=True)]
        return torch.stack(images).sum(0)

    def _normal(self, x: Tensor) -> Tensor:
        return torch.stack([w**2 * p._normal(x) for w, p in zip(self.weights, self._parts, strict=True)]).sum(0)

    def _guess(self, y: Tensor) -> Tensor:
        guesses = [p._guess(b / w) for w, p, b in zip(self.weights, self._parts, self._blocks(y), strict=True)]
        return torch.stack(guesses).mean(0)


class OperatorSpec(Spec, ABC):
    """Description of an operator, which builds it for an image shape."""

    kind: str
    title: ClassVar[str]

    @property
    @abstractmethod
    def offers(self) -> frozenset[Need]:
        """What the operator will offer, known without building it."""

    @property
    def in_complex(self) -> bool:
        """Whether the operator will be one on complex images, known without building it."""
        return False

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


MAX_SIDE = 16_384
"""Largest side of an image for operators that hold a dense square matrix for it: 1 GiB in single precision."""


def check_side(name: str, height: int, width: int, advice: str) -> None:
    """Raise ShapeError for an image with a side above `MAX_SIDE`; `advice` says what to choose instead."""
    if max(height, width) > MAX_SIDE:
        raise ShapeError(
            f"{name} expected sides of at most {MAX_SIDE} pixels, got {height}x{width}; crop the image or {advice}."
        )


def _like(constant: Tensor, c: Tensor) -> Tensor:
    # real constants in the precision of the coefficients, so that the answer has the precision of the input
    return constant.to(c.real.dtype if c.is_complex() else c.dtype)


def _words(shape: Shape, is_complex: bool) -> str:
    inside = ", ".join(["B", *map(str, shape)])
    return f"({inside}) {'complex' if is_complex else 'real'}"


def _mismatch(who: str, shape: Shape, is_complex: bool, got: Tensor) -> str:
    kind = str(got.dtype).removeprefix("torch.")
    return f"{who} expected {_words(shape, is_complex)}, got {tuple(got.shape)} {kind}; give a batch of that shape."
