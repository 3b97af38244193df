"""Blur by a kernel that is not known: any kernel of a largest size, or a Gaussian of some width."""

from abc import abstractmethod
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import pad

from operators.base import LinearOperator, OperatorSpec, Shape, check_image_shape
from operators.blur import Boundary, make_blur, source_pixels
from operators.errors import ShapeError
from operators.kernels import AnyKernel, MotionKernel, oriented_gaussian_kernel
from operators.parametric import Parametric
from operators.solve import per_sample
from operators.spec import Need, Ui


def blur_each(x: Tensor, kernels: Tensor, boundary: Boundary) -> Tensor:
    """Every image blurred by its own kernel, oriented and bordered as in `operators.blur`; differentiable in both.

    Shapes: x (B, ..., H, W), kernels (1 or B, k_h, k_w) → (B, ..., H, W), smaller for the boundary "valid".
    """
    spans = [(size // 2, size - 1 - size // 2) for size in kernels.shape[-2:]]
    if boundary == "zero":
        x = pad(x, (*spans[1], *spans[0]))
    elif boundary != "valid":
        rows, columns = (
            source_pixels(torch.arange(-before, size + after, device=x.device), size, boundary)
            for (before, after), size in zip(spans, x.shape[-2:], strict=True)
        )
        x = x.index_select(-2, rows).index_select(-1, columns)
    grid = [int(next_fast_len(size, real=True)) for size in x.shape[-2:]]
    transfer = torch.fft.rfft2(kernels, s=grid).conj().reshape(-1, *(1,) * (x.ndim - 3), grid[0], grid[1] // 2 + 1)
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(x, s=grid) * transfer, s=grid)
    height, width = (size - sum(span) for size, span in zip(x.shape[-2:], spans, strict=True))
    return blurred[..., :height, :width]


class BlurEach(LinearOperator):
    """Blur with a kernel for every sample; solves in closed form for the boundary "circular".

    Shapes: x (B, ..., H, W) → the same, smaller for "valid".

    Args:
        kernels: (B, k_h, k_w).
        in_shape: (..., H, W), without batch.
        boundary: what lies beyond the border.
    """

    kernels: Tensor

    def __init__(self, kernels: Tensor, in_shape: Shape, boundary: Boundary) -> None:
        super().__init__(in_shape, _data_shape(in_shape, kernels.shape[-1], boundary))
        self.boundary: Boundary = boundary
        self.register_buffer("kernels", kernels.detach().clone())

    def _forward(self, x: Tensor) -> Tensor:
        return blur_each(x, self.kernels.to(x.dtype), self.boundary)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        if self.boundary != "circular":
            return super()._prox(z, y, rho, tol, max_iter)
        height, width = self.in_shape[-2:]
        impulse = z.new_zeros(len(self.kernels), *(1,) * (len(self.in_shape) - 2), height, width)
        impulse[..., 0, 0] = 1
        transfer = torch.fft.rfft2(self._forward(impulse))
        misfit = torch.fft.rfft2(y) - transfer * torch.fft.rfft2(z)
        gain = transfer.abs().square() + per_sample(rho, z.ndim)
        correction: Tensor = torch.fft.irfft2(transfer.conj() * misfit / gain, s=(height, width))
        return z + correction

    def _guess(self, y: Tensor) -> Tensor:
        return _same_size(y, self.in_shape)


class UnknownBlur(Parametric):
    """Blur of an image by a kernel of a family; parameters are what the family makes a kernel of."""

    def __init__(
        self, truth: LinearOperator, parameter_shape: Shape, size: int, boundary: Boundary, in_shape: Shape
    ) -> None:
        super().__init__(truth, parameter_shape)
        self.size, self.boundary = size, boundary
        if boundary == "reflect" and size // 2 >= min(in_shape[-2:]):
            raise ShapeError(
                f"Expected an image of more than {size // 2} pixels a side for kernels of {size}, "
                f"got {tuple(in_shape[-2:])}; lower the size or choose another boundary."
            )

    @abstractmethod
    def kernels(self, u: Tensor) -> Tensor:
        """Shapes: u (B, *parameter_shape) → (B, size, size), each of sum 1."""

    def apply_with(self, x: Tensor, u: Tensor) -> Tensor:
        """See `Parametric.apply_with`."""
        return blur_each(x, self.kernels(u), self.boundary)

    def at(self, u: Tensor) -> BlurEach:
        """The blur whose sample k has the kernel of u[k]."""
        return BlurEach(self.kernels(u), self.in_shape, self.boundary)

    def describe(self, u: Tensor) -> Mapping[str, Tensor]:
        """The kernels, (B, size, size)."""
        return {"kernel": self.kernels(u)}

    def _guess(self, y: Tensor) -> Tensor:
        return _same_size(y, self.in_shape)


class UnknownKernel(UnknownBlur):
    """Blur by any kernel of `size` x `size` pixels without negative ones; u is the kernel itself, of sum 1.

    Args:
        truth: the blur of simulated data.
        size: largest side of the kernel.
        boundary: what lies beyond the border.
        in_shape: (..., H, W), without batch.
    """

    offers: ClassVar[frozenset[Need]] = UnknownBlur.offers | {Need.KERNEL}

    def __init__(self, truth: LinearOperator, size: int, boundary: Boundary, in_shape: Shape) -> None:
        super().__init__(truth, (size, size), size, boundary, in_shape)

    def kernels(self, u: Tensor) -> Tensor:
        """The parameters as they are."""
        return u

    def start(self, y: Tensor) -> Tensor:
        """All entries equal."""
        return y.new_full((len(y), self.size, self.size), self.size**-2)

    def constrain(self, u: Tensor) -> Tensor:
        """Negative entries made 0, and the sum 1; they must not all be negative."""
        positive = u.clamp(min=0)
        return positive / positive.sum((-2, -1), keepdim=True)


class UnknownWidth(UnknownBlur):
    """Blur by a round Gaussian; u is the logarithm of its standard deviation in pixels, (1,).

    Args:
        truth: the blur of simulated data.
        widest: largest standard deviation, in pixels.
        boundary: what lies beyond the border.
        in_shape: (..., H, W), without batch.
    """

    NARROWEST: ClassVar[float] = 0.3
    offers: ClassVar[frozenset[Need]] = UnknownBlur.offers | {Need.WIDTH}

    def __init__(self, truth: LinearOperator, widest: float, boundary: Boundary, in_shape: Shape) -> None:
        super().__init__(truth, (1,), _gaussian_side(widest), boundary, in_shape)
        self.widest = widest

    def kernels(self, u: Tensor) -> Tensor:
        """Gaussians sampled at pixel centres, the sum made 1."""
        along = torch.arange(self.size, dtype=u.dtype, device=u.device) - self.size // 2
        profile = torch.softmax(-0.5 * (along / u.exp()) ** 2, -1)
        return profile[:, :, None] * profile[:, None, :]

    def start(self, y: Tensor) -> Tensor:
        """The geometric mean of the narrowest and the widest."""
        middle = (self.NARROWEST * self.widest) ** 0.5
        return y.new_full((len(y), 1), middle).log()

    def constrain(self, u: Tensor) -> Tensor:
        """Not narrower than 0.3 pixels, where it is none, nor wider than `widest`."""
        return u.clamp(torch.tensor(self.NARROWEST).log().item(), torch.tensor(self.widest).log().item())

    def describe(self, u: Tensor) -> Mapping[str, Tensor]:
        """The standard deviation in pixels, (B,), and the kernels, (B, size, size)."""
        return {"width": u.exp()[:, 0], "kernel": self.kernels(u)}


def _gaussian_side(widest: float) -> int:
    return 2 * ceil(3 * widest) + 1


def _data_shape(in_shape: Shape, size: int, boundary: Boundary) -> Shape:
    *rest, height, width = in_shape
    return (*rest, height - size + 1, width - size + 1) if boundary == "valid" else tuple(in_shape)


def _same_size(y: Tensor, in_shape: Shape) -> Tensor:
    """The data, their edge pixels repeated where the image is larger."""
    for axis in (-2, -1):
        lost = in_shape[axis] - y.shape[axis]
        places = torch.arange(-(lost // 2), y.shape[axis] + lost - lost // 2, device=y.device)
        y = y.index_select(axis, source_pixels(places, y.shape[axis], "replicate"))
    return y


class UnknownKernelSpec(OperatorSpec):
    """Blur by a kernel that is to be found together with the image."""

    title: ClassVar[str] = "Blur, kernel unknown"
    kind: Literal["unknown-kernel"] = "unknown-kernel"
    size: Annotated[int, Field(ge=3, le=101, description="Largest side of the kernel."), Ui(unit="px")] = 15
    boundary: Annotated[Boundary, Field(description="What lies beyond the border; valid assumes nothing.")] = "reflect"
    kernel: Annotated[
        AnyKernel, Field(description="What simulated data are blurred with; it is not told to what restores them.")
    ] = MotionKernel(size=15)

    @property
    def offers(self) -> frozenset[Need]:
        """What `UnknownKernel` offers."""
        return UnknownKernel.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> UnknownKernel:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        in_shape = check_image_shape(in_shape)
        kernel = _framed(self.kernel.build(base), self.size)
        return UnknownKernel(make_blur(kernel, in_shape, self.boundary), self.size, self.boundary, in_shape)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape; for "valid", with the largest kernel's side less one added."""
        return _grown(picture_shape, self.size, self.boundary)


class UnknownWidthSpec(OperatorSpec):
    """Blur by a round Gaussian whose width is to be found together with the image."""

    title: ClassVar[str] = "Gaussian blur, width unknown"
    kind: Literal["unknown-width"] = "unknown-width"
    widest: Annotated[
        float, Field(gt=0.3, le=20, description="Largest standard deviation that is looked for."), Ui(unit="px")
    ] = 2.5
    boundary: Annotated[Boundary, Field(description="What lies beyond the border; valid assumes nothing.")] = "circular"
    std: Annotated[
        float,
        Field(gt=0, le=20, description="Width that simulated data have; it is not told to what restores them."),
        Ui(unit="px"),
    ] = 1.5

    @property
    def offers(self) -> frozenset[Need]:
        """What `UnknownWidth` offers."""
        return UnknownWidth.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> UnknownWidth:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        in_shape = check_image_shape(in_shape)
        kernel = oriented_gaussian_kernel(_gaussian_side(self.widest), self.std, self.std, 0)
        return UnknownWidth(make_blur(kernel, in_shape, self.boundary), self.widest, self.boundary, in_shape)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape; for "valid", with the largest kernel's side less one added."""
        return _grown(picture_shape, _gaussian_side(self.widest), self.boundary)


def _grown(shape: Shape, size: int, boundary: Boundary) -> Shape:
    *rest, height, width = check_image_shape(shape)
    return (*rest, height + size - 1, width + size - 1) if boundary == "valid" else (*rest, height, width)


def _framed(kernel: Tensor, size: int) -> Tensor:
    """The kernel in the middle of size x size pixels, so that its centre is theirs.

    Raises:
        ShapeError: it is larger.
    """
    if max(kernel.shape) > size:
        raise ShapeError(
            f"Expected a kernel of at most {size}x{size} pixels, got {tuple(kernel.shape)}; raise the largest size."
        )
    top, left = (size // 2 - side // 2 for side in kernel.shape)
    height, width = kernel.shape
    return pad(kernel, (left, size - width - left, top, size - height - top))
