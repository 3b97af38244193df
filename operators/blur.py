"""Blur by a known kernel, with three ideas of what lies beyond the border.

Orientation: like torch's `conv2d`, data are the *cross-correlation* with the kernel,
y[i, j] = sum over (k, l) of kernel[k, l] · x[i + k − k_h // 2, j + l − k_w // 2], for every channel alike.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from scipy.fft import next_fast_len
from torch import Tensor

from operators.base import LinearOperator, OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.kernels import AnyKernel, GaussianKernel
from operators.solve import cg, per_sample
from operators.spec import Need

Boundary = Literal["circular", "reflect", "zero"]


def transfer_function(kernel: Tensor, centre: tuple[int, int], height: int, width: int) -> Tensor:
    """Factors by which periodic cross-correlation with `kernel` multiplies each frequency.

    A kernel larger than the period wraps around.

    Shapes: kernel (k_h, k_w), centre in it → (height, width // 2 + 1) complex128, the half spectrum of `rfft2`.
    """
    rows = (torch.arange(kernel.shape[0]) - centre[0]) % height
    columns = (torch.arange(kernel.shape[1]) - centre[1]) % width
    flat = torch.zeros(height * width, dtype=torch.float64)
    flat.index_add_(0, (rows[:, None] * width + columns).flatten(), kernel.detach().cpu().double().flatten())
    transfer: Tensor = torch.fft.rfft2(flat.reshape(height, width)).conj()
    return transfer


class CircularBlur(SpectralOperator):
    """Blur of an image that repeats periodically: diagonal in Fourier space.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers.
    """

    _transfer: Tensor
    _power: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        _check_kernel(kernel)
        super().__init__(in_shape, in_shape)
        transfer = transfer_function(kernel, _centre(kernel), *in_shape[-2:])
        self.register_buffer("_transfer", _as_real(transfer))
        self.register_buffer("_power", self._transfer.square().sum(-1), persistent=False)

    @property
    def transfer(self) -> Tensor:
        """The transfer function, (H, W // 2 + 1) complex."""
        return torch.view_as_complex(self._transfer)

    @property
    def singular_values(self) -> Tensor:
        """Magnitudes of the transfer function, (H, W // 2 + 1)."""
        return self.transfer.abs()

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Half spectrum.   Shapes: (B, ..., H, W) real → (B, ..., H, W // 2 + 1) complex."""
        return _to_fourier(x, self.in_shape[-2:])

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Image of a half spectrum.   Shapes: (B, ..., H, W // 2 + 1) complex → (B, ..., H, W) real."""
        return _from_fourier(c, self.in_shape[-2:])

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Half spectrum, turned by the phase of the transfer function.   Shapes: as `to_spectrum`."""
        c = _to_fourier(y, self.in_shape[-2:])
        return self._phase().conj().to(c.dtype) * c

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Undoes `data_to_spectrum`.   Shapes: as `from_spectrum`."""
        return _from_fourier(self._phase().to(c.dtype) * c, self.in_shape[-2:])

    def _phase(self) -> Tensor:
        transfer = self.transfer
        # any phase will do where nothing passes
        return torch.where(transfer == 0, torch.ones_like(transfer), torch.sgn(transfer))

    def _forward(self, x: Tensor) -> Tensor:
        c = _to_fourier(x, self.in_shape[-2:])
        return _from_fourier(c * _as_complex(self._transfer, c), self.in_shape[-2:])

    def _adjoint(self, y: Tensor) -> Tensor:
        c = _to_fourier(y, self.in_shape[-2:])
        return _from_fourier(c * _as_complex(self._transfer, c).conj(), self.in_shape[-2:])

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        # the general closed form without its phases, which cancel: samplers spend most of their own time here
        c = _to_fourier(z, self.in_shape[-2:])
        transfer = _as_complex(self._transfer, c)
        misfit = _to_fourier(y, self.in_shape[-2:]) - transfer * c
        gain = self._power.to(c.real.dtype) + per_sample(rho, c.ndim)
        return z + _from_fourier(transfer.conj() * misfit / gain, self.in_shape[-2:])

    def _guess(self, y: Tensor) -> Tensor:
        return y


class MirrorBlur(LinearOperator):
    """Blur of an image continued by its mirror image, the edge pixel not repeated (as DPS does).

    Proximal steps use conjugate gradients, preconditioned in the basis in which blurring with a kernel symmetric in
    both directions is diagonal: cosines that fit the mirrored image. For such kernels a handful of iterations is
    enough whatever `rho`; for others the preconditioner takes the mean power over the mirrored kernels.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers, or reaches further than the mirror image.
    """

    _transfer: Tensor
    _rows: Tensor
    _columns: Tensor
    _row_cosines: Tensor
    _column_cosines: Tensor
    _power: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        _check_kernel(kernel)
        super().__init__(in_shape, in_shape)
        kernel, before, after = _trimmed(kernel)
        height, width = in_shape[-2:]
        reach = (max(before[0], after[0]), max(before[1], after[1]))
        if reach[0] >= height or reach[1] >= width:
            raise ShapeError(
                f"Blur with mirrored borders expected an image of more than {reach[0]}x{reach[1]} pixels, "
                f"got {height}x{width}; use a smaller kernel or another boundary."
            )
        self._grid = (_period(height, kernel.shape[0]), _period(width, kernel.shape[1]))
        self.register_buffer("_transfer", _as_real(transfer_function(kernel, before, *self._grid)))
        self.register_buffer("_rows", _mirrored(height, self._grid[0], before[0], after[0]))
        self.register_buffer("_columns", _mirrored(width, self._grid[1], before[1], after[1]))
        self.register_buffer("_row_cosines", _cosines(height).to(torch.get_default_dtype()))
        self.register_buffer("_column_cosines", _cosines(width).to(torch.get_default_dtype()))
        self.register_buffer("_power", _mean_power(kernel, before, height, width).to(torch.get_default_dtype()))

    def _forward(self, x: Tensor) -> Tensor:
        height, width = self.in_shape[-2:]
        c = _to_fourier(x.index_select(-2, self._rows).index_select(-1, self._columns), self._grid)
        return _from_fourier(c * _as_complex(self._transfer, c), self._grid)[..., :height, :width]

    def _adjoint(self, y: Tensor) -> Tensor:
        height, width = self.in_shape[-2:]
        c = _to_fourier(y, self._grid)
        spread = _from_fourier(c * _as_complex(self._transfer, c).conj(), self._grid)
        # what fell on a mirrored pixel belongs to its original
        folded = spread.new_zeros(*spread.shape[:-1], width).index_add(-1, self._columns, spread)
        return folded.new_zeros(*folded.shape[:-2], height, width).index_add(-2, self._rows, folded)

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        weight = per_sample(rho, z.ndim)
        rows, columns = self._row_cosines.to(z.dtype), self._column_cosines.to(z.dtype)
        gain = self._power.to(z.dtype) + weight

        def precondition(r: Tensor) -> Tensor:
            return rows.T @ ((rows @ r @ columns.T) / gain) @ columns

        misfit = self._adjoint(y - self._forward(z))
        return z + cg(
            lambda d: self._normal(d) + weight * d, misfit, tol=tol, max_iter=max_iter, precondition=precondition
        )


class ZeroBlur(LinearOperator):
    """Blur of an image surrounded by black. Proximal steps use conjugate gradients.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers.
    """

    _transfer: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        _check_kernel(kernel)
        super().__init__(in_shape, in_shape)
        kernel, before, _ = _trimmed(kernel)
        self._grid = (_period(in_shape[-2], kernel.shape[0]), _period(in_shape[-1], kernel.shape[1]))
        self.register_buffer("_transfer", _as_real(transfer_function(kernel, before, *self._grid)))

    def _forward(self, x: Tensor) -> Tensor:
        # the transform appends zeros up to the grid, where the kernel's wrapped half finds them too
        c = _to_fourier(x, self._grid)
        return self._crop(_from_fourier(c * _as_complex(self._transfer, c), self._grid))

    def _adjoint(self, y: Tensor) -> Tensor:
        c = _to_fourier(y, self._grid)
        return self._crop(_from_fourier(c * _as_complex(self._transfer, c).conj(), self._grid))

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _crop(self, x: Tensor) -> Tensor:
        return x[..., : self.in_shape[-2], : self.in_shape[-1]]


def _check_kernel(kernel: Tensor) -> None:
    if kernel.ndim != 2 or kernel.numel() == 0 or not kernel.is_floating_point():
        raise ShapeError(
            f"Blur expected a kernel (k_h, k_w) of real numbers, got {tuple(kernel.shape)} {kernel.dtype}; "
            "give one plane."
        )


def _centre(kernel: Tensor) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _trimmed(kernel: Tensor) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """The kernel without its border of zeros (but with its centre), and its rows and columns before and after that."""
    centre = _centre(kernel)
    kept: list[slice] = []
    for axis in (0, 1):
        used = [*kernel.ne(0).any(1 - axis).nonzero().flatten().tolist(), centre[axis]]
        kept.append(slice(min(used), max(used) + 1))
    before = (centre[0] - kept[0].start, centre[1] - kept[1].start)
    after = (kept[0].stop - 1 - centre[0], kept[1].stop - 1 - centre[1])
    return kernel[kept[0], kept[1]], before, after


def _period(size: int, kernel_size: int) -> int:
    return int(next_fast_len(size + kernel_size - 1, real=True))


def _mirrored(size: int, period: int, before: int, after: int) -> Tensor:
    """For each place on the periodic grid, the pixel it shows: (period,) int64.

    The image comes first, then `after` mirrored pixels; `before` mirrored pixels end the period. What lies between is
    out of the kernel's reach and may show anything.
    """
    source = torch.zeros(period, dtype=torch.long)
    source[:size] = torch.arange(size)
    source[size : size + after] = size - 2 - torch.arange(after)
    source[period - before :] = torch.arange(before, 0, -1)
    return source


def _frequencies(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) * torch.pi / max(size - 1, 1)


def _cosines(size: int) -> Tensor:
    """T with M⁻¹ = Tᵀ diag(1 / gain) T the preconditioner along one axis: (size, size) float64.

    Mirrored filtering with a symmetric kernel is A = W^(−½) Qᵀ Λ Q W^(½), with Q the orthonormal cosine transform of
    the first kind and W one half at both ends and one inside. A*A + rho then lies within a factor of 4 of
    W^(½) Qᵀ (Λ² + rho) Q W^(½), whose inverse has T = Q W^(−½).
    """
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    cosines = torch.cos(_frequencies(size)[:, None] * torch.arange(size, dtype=torch.float64))
    cosines[[0, -1]] *= 0.5**0.5
    scale: float = (2 / (size - 1)) ** 0.5
    return cosines * scale


def _mean_power(kernel: Tensor, before: tuple[int, int], height: int, width: int) -> Tensor:
    """Squared response of the kernel at the frequencies of `_cosines`, mean over flips: (height, width) float64."""
    across = (torch.arange(kernel.shape[0], dtype=torch.float64) - before[0]) * _frequencies(height)[:, None]
    along = (torch.arange(kernel.shape[1], dtype=torch.float64) - before[1]) * _frequencies(width)[:, None]
    rows, columns = torch.polar(torch.ones_like(across), across), torch.polar(torch.ones_like(along), along)
    response = rows @ kernel.detach().cpu().to(rows.dtype)
    power: Tensor = ((response @ columns.T).abs().square() + (response @ columns.mH).abs().square()) / 2
    return power


def _to_fourier(x: Tensor, grid: Sequence[int]) -> Tensor:
    half: Tensor = torch.fft.rfft2(x, s=tuple(grid), norm="ortho")
    return half


def _from_fourier(c: Tensor, grid: Sequence[int]) -> Tensor:
    image: Tensor = torch.fft.irfft2(c, s=tuple(grid), norm="ortho")
    return image


def _as_real(constant: Tensor) -> Tensor:
    # complex buffers would lose their imaginary part in Module.to(dtype)
    return torch.view_as_real(constant.resolve_conj()).to(torch.get_default_dtype())


def _as_complex(constant: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_complex(constant).to(like.dtype)


_BLURS: dict[str, type[CircularBlur] | type[MirrorBlur] | type[ZeroBlur]] = {
    "circular": CircularBlur,
    "reflect": MirrorBlur,
    "zero": ZeroBlur,
}


def make_blur(kernel: Tensor, in_shape: Shape, boundary: Boundary = "circular") -> LinearOperator:
    """The blur operator for a boundary: `CircularBlur`, `MirrorBlur` ("reflect") or `ZeroBlur`.

    Shapes: kernel (k_h, k_w) real; in_shape (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers, or is too large for mirroring.
    """
    return _BLURS[boundary](kernel, in_shape)


class BlurSpec(OperatorSpec):
    """Blur by a known kernel: out of focus, camera shake, or one of your own."""

    title: ClassVar[str] = "Blur"
    kind: Literal["blur"] = "blur"
    kernel: Annotated[AnyKernel, Field(description="The image of a single point.")] = GaussianKernel()
    boundary: Annotated[
        Boundary,
        Field(description="What lies beyond the border: a mirror image, black, or the opposite side (fastest)."),
    ] = "reflect"

    @property
    def offers(self) -> frozenset[Need]:
        """What the operator for this boundary offers; only the circular one has a spectrum."""
        return _BLURS[self.boundary].offers

    def build(self, in_shape: Shape, base: Path = Path()) -> LinearOperator:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return make_blur(self.kernel.build(base), in_shape, self.boundary)
