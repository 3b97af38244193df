"""Reduction after a blur of any shape, on an image that repeats periodically."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.downsample import whole_blocks
from operators.errors import ShapeError
from operators.kernels import AnyKernel, GaussianKernel
from operators.spec import Need, Ui

Phase = Literal["first", "centre"]


class BlurDownsample(SpectralOperator):
    """Circular blur by a kernel, of which every factor-th pixel is kept.

    With pixel (0, 0) or the middle one of each block (row and column factor // 2), p:
    y[i, j] = sum over (k, l) of kernel[k, l] · x[factor i + p + k − k_h // 2, factor j + p + l − k_w // 2].

    Each frequency of the data is the sum of factor² frequencies of the blurred image, its aliases, and no two share
    one: A A* is diagonal in Fourier space, whatever the kernel.

    Shapes: x (B, ..., H, W) → (B, ..., H/factor, W/factor).

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch; H and W multiples of `factor`.
        factor: from 2 to 12.
        phase: which pixel of each block is kept, its "first" or its "centre".

    Raises:
        ShapeError: the kernel is not a plane, H or W is not a multiple of `factor`, or the factor is out of range.

    Source: Zhao et al. 2016 (IEEE TIP 25, 3683), Lemma 1 and Theorem 1, as a singular value decomposition.
    Deviations: none.
    """

    _units: Tensor
    _s: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape, factor: int, phase: Phase = "first") -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        if kernel.ndim != 2 or kernel.numel() == 0 or kernel.is_complex():
            raise ShapeError(
                f"Expected a kernel that is a plane of numbers, got {tuple(kernel.shape)}; give (k_h, k_w)."
            )
        if not 2 <= factor <= 12:
            raise ShapeError(f"BlurDownsample expected a factor from 2 to 12, got {factor}; choose one in that range.")
        if height % factor or width % factor:
            raise ShapeError(
                f"BlurDownsample expected a height and width that are multiples of {factor}, got {height}x{width}; "
                f"crop the image to {height - height % factor}x{width - width % factor}."
            )
        super().__init__(in_shape, (*in_shape[:-2], height // factor, width // factor))
        self.factor = factor
        self._kept = factor // 2 if phase == "centre" else 0
        rows = (torch.arange(kernel.shape[0]) - kernel.shape[0] // 2 + self._kept) % height
        columns = (torch.arange(kernel.shape[1]) - kernel.shape[1] // 2 + self._kept) % width
        flat = torch.zeros(height * width, dtype=torch.float64)
        # a kernel larger than the image wraps around
        flat.index_add_(0, (rows[:, None] * width + columns).flatten(), kernel.detach().cpu().double().flatten())
        transfer = self._aliases(torch.fft.fft2(flat.reshape(height, width)).conj()) / factor
        s = torch.linalg.vector_norm(transfer, dim=(-4, -2), keepdim=True)
        # where nothing passes, any direction will do
        units = torch.where(s > 1e-14, transfer / s.clamp(min=1e-14), torch.full_like(transfer, 1 / factor))
        default = torch.get_default_dtype()
        self.register_buffer("_units", torch.view_as_real(units).to(default).contiguous())
        self.register_buffer("_s", torch.where(s > 1e-14, s, 0.0)[0, :, 0].to(default).contiguous())

    @property
    def singular_values(self) -> Tensor:
        """Root of the aliases' mean power, (H/factor, W/factor)."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, ..., H, W) real → (B, ..., H/factor, W/factor) complex."""
        c = self._aliases(torch.fft.fft2(x, norm="ortho"))
        spectrum: Tensor = (self._directions(c) * c).sum((-4, -2))
        return spectrum

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) complex → (B, ..., H, W) real."""
        aliases = self._directions(c).conj() * c[..., None, :, None, :]
        image: Tensor = torch.fft.ifft2(aliases.flatten(-2).flatten(-3, -2), norm="ortho").real
        return image

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) real → the same, complex."""
        c: Tensor = torch.fft.fft2(y, norm="ortho")
        return c

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) complex → the same, real."""
        y: Tensor = torch.fft.ifft2(c, norm="ortho").real
        return y

    def _aliases(self, c: Tensor) -> Tensor:
        """Frequencies by what they become: (..., H, W) → (..., factor, H/factor, factor, W/factor)."""
        height, width = self.out_shape[-2:]
        return c.reshape(*c.shape[:-2], self.factor, height, self.factor, width)

    def _directions(self, c: Tensor) -> Tensor:
        return torch.view_as_complex(self._units.to(c.real.dtype))

    def _guess(self, y: Tensor) -> Tensor:
        planes = y.reshape(-1, 1, *y.shape[-2:])
        enlarged = interpolate(planes, self.in_shape[-2:], mode="bicubic", align_corners=False, antialias=True)
        # the enlargement has data in the middle of their blocks
        shift = self._kept - (self.factor - 1) // 2
        return enlarged.roll((shift, shift), (-2, -1)).reshape(y.shape[0], *self.in_shape)


class BlurDownsampleSpec(OperatorSpec):
    """Low resolution behind a blur of your own: the kernel, then every n-th pixel; the image repeats periodically."""

    title: ClassVar[str] = "Low resolution, own blur"
    kind: Literal["blur-downsample"] = "blur-downsample"
    kernel: Annotated[AnyKernel, Field(description="Blur before the reduction.")] = GaussianKernel(size=15, std=1.6)
    factor: Annotated[int, Field(ge=2, le=12, description="How many times smaller the data are, each way.")] = 3
    phase: Annotated[
        Phase,
        Field(description="Which pixel of each block is kept: the upper left, or the middle one."),
        Ui(advanced=True),
    ] = "first"

    @property
    def offers(self) -> frozenset[Need]:
        """What `BlurDownsample` offers."""
        return BlurDownsample.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> BlurDownsample:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return BlurDownsample(self.kernel.build(base), in_shape, self.factor, self.phase)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape with height and width multiplied by the factor."""
        *rest, height, width = check_image_shape(picture_shape)
        return (*rest, height * self.factor, width * self.factor)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` with height and width rounded down to multiples of the factor.

        Raises:
            ShapeError: the image is smaller than the factor.
        """
        return whole_blocks(image_shape, self.factor)
