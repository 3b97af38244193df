"""Blur by a known kernel, with five ideas of what lies beyond the border.

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

from operators.base import LinearOperator, OperatorSpec, Shape, SpectralOperator, check_image_shape, check_side
from operators.errors import ShapeError
from operators.kernels import AnyKernel, GaussianKernel
from operators.solve import cg, per_sample
from operators.spec import Need

Continued = Literal["circular", "reflect", "replicate", "zero"]
"""Boundaries for which data have the size of the image."""

Boundary = Continued | Literal["valid"]


def source_pixels(places: Tensor, size: int, boundary: Continued) -> Tensor:
    """Along one axis, the pixel that a continued image shows at each of `places`; for "zero", where to take any from.

    Shapes: (n,) int64, any integers (for "reflect" beyond the border by less than `size`) → (n,) from 0 to size − 1.
    """
    if boundary == "circular":
        return places % size
    if boundary == "reflect":
        return size - 1 - (size - 1 - places.abs()).abs()
    return places.clamp(0, size - 1)


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
        self.register_buffer("_power", self._transfer.square().sum(-1))

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


class _ContinuedBlur(LinearOperator):
    """Blur of an image continued by its own pixels, through a transform of the continued image.

    Args:
        kernel: trimmed.
        before: rows and columns of the kernel before its centre.
        in_shape: (..., H, W), without batch.
        rows: the pixel row shown at each place of the periodic grid, as made by `_places`.
        columns: likewise.
    """

    _transfer: Tensor
    _rows: Tensor
    _columns: Tensor

    def __init__(self, kernel: Tensor, before: tuple[int, int], in_shape: Shape, rows: Tensor, columns: Tensor) -> None:
        super().__init__(in_shape, in_shape)
        self._grid = (len(rows), len(columns))
        self.register_buffer("_transfer", _as_real(transfer_function(kernel, before, *self._grid)))
        self.register_buffer("_rows", rows)
        self.register_buffer("_columns", columns)

    def _forward(self, x: Tensor) -> Tensor:
        height, width = self.in_shape[-2:]
        # for columns, indexing is several times faster on the CPU than `index_select`
        c = _to_fourier(x.index_select(-2, self._rows)[..., self._columns], self._grid)
        return _from_fourier(c * _as_complex(self._transfer, c), self._grid)[..., :height, :width]

    def _adjoint(self, y: Tensor) -> Tensor:
        height, width = self.in_shape[-2:]
        c = _to_fourier(y, self._grid)
        spread = _from_fourier(c * _as_complex(self._transfer, c).conj(), self._grid)
        # what fell on a copy belongs to its original
        folded = spread.new_zeros(*spread.shape[:-1], width).index_add(-1, self._columns, spread)
        return folded.new_zeros(*folded.shape[:-2], height, width).index_add(-2, self._rows, folded)

    def _guess(self, y: Tensor) -> Tensor:
        return y


class MirrorBlur(_ContinuedBlur):
    """Blur of an image continued by its mirror image, the edge pixel not repeated (as DPS does).

    Proximal steps use conjugate gradients, preconditioned in the basis in which blurring with a kernel symmetric in
    both directions is diagonal: cosines that fit the mirrored image. For such kernels a handful of iterations is
    enough whatever `rho`; for others the preconditioner takes the mean power over the mirrored kernels.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers or reaches further than the mirror image, or a side is above
            `MAX_SIDE`.
    """

    _row_cosines: Tensor
    _column_cosines: Tensor
    _power: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        check_side("Blur with mirrored borders", height, width, "choose the boundary circular or replicate")
        _check_kernel(kernel)
        kernel, before, after = _trimmed(kernel)
        reach = (max(before[0], after[0]), max(before[1], after[1]))
        if reach[0] >= height or reach[1] >= width:
            raise ShapeError(
                f"Blur with mirrored borders expected an image of more than {reach[0]}x{reach[1]} pixels, "
                f"got {height}x{width}; use a smaller kernel or another boundary."
            )
        rows, columns = _places(height, before[0], after[0]), _places(width, before[1], after[1])
        super().__init__(
            kernel,
            before,
            in_shape,
            source_pixels(rows, height, "reflect"),
            source_pixels(columns, width, "reflect"),
        )
        across, along = _mirror_frequencies(height), _mirror_frequencies(width)
        self.register_buffer("_row_cosines", _mirror_cosines(height).to(torch.get_default_dtype()))
        self.register_buffer("_column_cosines", _mirror_cosines(width).to(torch.get_default_dtype()))
        self.register_buffer("_power", _mean_power(kernel, before, across, along).to(torch.get_default_dtype()))

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        return _preconditioned_prox(
            self, z, y, rho, tol, max_iter, self._row_cosines, self._column_cosines, self._power
        )


class ReplicateBlur(_ContinuedBlur):
    """Blur of an image whose edge pixels go on for ever. Proximal steps use conjugate gradients.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers.
    """

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        _check_kernel(kernel)
        kernel, before, after = _trimmed(kernel)
        rows, columns = (
            source_pixels(_places(size, before[axis], after[axis]), size, "replicate")
            for axis, size in enumerate(in_shape[-2:])
        )
        super().__init__(kernel, before, in_shape, rows, columns)


class ZeroBlur(LinearOperator):
    """Blur of an image surrounded by black.

    Proximal steps use conjugate gradients, preconditioned in the basis of the cosine transform of the second kind with
    the mean power over the mirrored kernels; for smooth kernels that takes several times fewer iterations.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernel: (k_h, k_w) real, centre at k_h // 2, k_w // 2.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers, or a side is above `MAX_SIDE`.
    """

    _transfer: Tensor
    _row_cosines: Tensor
    _column_cosines: Tensor
    _power: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        check_side("Blur with black borders", height, width, "choose the boundary circular or replicate")
        _check_kernel(kernel)
        super().__init__(in_shape, in_shape)
        kernel, before, _ = _trimmed(kernel)
        self._grid = (_period(height, kernel.shape[0]), _period(width, kernel.shape[1]))
        self.register_buffer("_transfer", _as_real(transfer_function(kernel, before, *self._grid)))
        across, along = (torch.arange(size, dtype=torch.float64) * torch.pi / size for size in (height, width))
        self.register_buffer("_row_cosines", _cosines(height).to(torch.get_default_dtype()))
        self.register_buffer("_column_cosines", _cosines(width).to(torch.get_default_dtype()))
        self.register_buffer("_power", _mean_power(kernel, before, across, along).to(torch.get_default_dtype()))

    def _forward(self, x: Tensor) -> Tensor:
        # the transform appends zeros up to the grid, where the kernel's wrapped half finds them too
        c = _to_fourier(x, self._grid)
        return self._crop(_from_fourier(c * _as_complex(self._transfer, c), self._grid))

    def _adjoint(self, y: Tensor) -> Tensor:
        c = _to_fourier(y, self._grid)
        return self._crop(_from_fourier(c * _as_complex(self._transfer, c).conj(), self._grid))

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        return _preconditioned_prox(
            self, z, y, rho, tol, max_iter, self._row_cosines, self._column_cosines, self._power
        )

    def _crop(self, x: Tensor) -> Tensor:
        return x[..., : self.in_shape[-2], : self.in_shape[-1]]


class ValidBlur(LinearOperator):
    """Blur of which only those pixels are measured that the kernel reaches wholly inside the image.

    Nothing is assumed of what lies beyond the border; instead the image is larger than its data, and its outermost
    pixels are hardly measured. Data start at the image's row k_h // 2 and column k_w // 2. Proximal steps use conjugate
    gradients.

    Shapes: x (B, ..., H, W) → (B, ..., H − k_h + 1, W − k_w + 1).

    Args:
        kernel: (k_h, k_w) real; rows and columns of zeros around it count.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers, or larger than the image.
    """

    _transfer: Tensor

    def __init__(self, kernel: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        _check_kernel(kernel)
        *rest, height, width = in_shape
        size = (height - kernel.shape[0] + 1, width - kernel.shape[1] + 1)
        if min(size) < 1:
            raise ShapeError(
                f"Blur without a border expected an image of at least {kernel.shape[0]}x{kernel.shape[1]} pixels, "
                f"got {height}x{width}; use a smaller kernel or another boundary."
            )
        super().__init__(in_shape, (*rest, *size))
        self._centre = _centre(kernel)
        # what wraps around a grid of the image's own size falls on pixels that are not measured
        self._grid = (_period(height, 1), _period(width, 1))
        self.register_buffer("_transfer", _as_real(transfer_function(kernel, (0, 0), *self._grid)))

    def _forward(self, x: Tensor) -> Tensor:
        c = _to_fourier(x, self._grid)
        blurred = _from_fourier(c * _as_complex(self._transfer, c), self._grid)
        return blurred[..., : self.out_shape[-2], : self.out_shape[-1]]

    def _adjoint(self, y: Tensor) -> Tensor:
        c = _to_fourier(y, self._grid)
        spread = _from_fourier(c * _as_complex(self._transfer, c).conj(), self._grid)
        return spread[..., : self.in_shape[-2], : self.in_shape[-1]]

    def _guess(self, y: Tensor) -> Tensor:
        for axis in (-2, -1):
            places = torch.arange(self.in_shape[axis], device=y.device) - self._centre[axis]
            y = y.index_select(axis, source_pixels(places, self.out_shape[axis], "replicate"))
        return y


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


def _places(size: int, before: int, after: int) -> Tensor:
    """Pixel coordinates along a periodic grid: (period,) int64.

    The image comes first, then `after` places beyond its end; `before` places ahead of its start end the period. What
    lies between is out of the kernel's reach and may be anything.
    """
    places = torch.arange(_period(size, before + after + 1))
    places[size + after : len(places) - before] = 0
    places[len(places) - before :] -= len(places)
    return places


def _mirror_frequencies(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) * torch.pi / max(size - 1, 1)


def _mirror_cosines(size: int) -> Tensor:
    """T with M⁻¹ = Tᵀ diag(1 / gain) T the preconditioner along one axis: (size, size) float64.

    Mirrored filtering with a symmetric kernel is A = W^(−½) Qᵀ Λ Q W^(½), with Q the orthonormal cosine transform of
    the first kind and W one half at both ends and one inside. A*A + rho then lies within a factor of 4 of
    W^(½) Qᵀ (Λ² + rho) Q W^(½), whose inverse has T = Q W^(−½).
    """
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    cosines = torch.cos(_mirror_frequencies(size)[:, None] * torch.arange(size, dtype=torch.float64))
    cosines[[0, -1]] *= 0.5**0.5
    scale: float = (2 / (size - 1)) ** 0.5
    return cosines * scale


def _cosines(size: int) -> Tensor:
    """The orthonormal cosine transform of the second kind: (size, size) float64."""
    places = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(torch.pi / size * places[:, None] * (places + 0.5))
    cosines[0] *= 0.5**0.5
    scale: float = (2 / size) ** 0.5
    return cosines * scale


def _mean_power(kernel: Tensor, before: tuple[int, int], row_frequencies: Tensor, column_frequencies: Tensor) -> Tensor:
    """Squared response of the kernel at frequencies in radians per pixel, mean over flips: (H, W) float64."""
    across = (torch.arange(kernel.shape[0], dtype=torch.float64) - before[0]) * row_frequencies[:, None]
    along = (torch.arange(kernel.shape[1], dtype=torch.float64) - before[1]) * column_frequencies[:, None]
    rows, columns = torch.polar(torch.ones_like(across), across), torch.polar(torch.ones_like(along), along)
    response = rows @ kernel.detach().cpu().to(rows.dtype)
    power: Tensor = ((response @ columns.T).abs().square() + (response @ columns.mH).abs().square()) / 2
    return power


def _preconditioned_prox(
    operator: LinearOperator,
    z: Tensor,
    y: Tensor,
    rho: Tensor | float,
    tol: float,
    max_iter: int,
    rows: Tensor,
    columns: Tensor,
    power: Tensor,
) -> Tensor:
    """The proximal step with A*A + rho taken to be near diagonal, power + rho, in the basis of two matrices."""
    weight = per_sample(rho, z.ndim)
    rows, columns = rows.to(z.dtype), columns.to(z.dtype)
    gain = power.to(z.dtype) + weight
    misfit = operator.adjoint(y - operator(z))
    return z + cg(
        lambda d: operator.normal(d) + weight * d,
        misfit,
        tol=tol,
        max_iter=max_iter,
        precondition=lambda r: rows.T @ ((rows @ r @ columns.T) / gain) @ columns,
    )


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


_Blur = CircularBlur | MirrorBlur | ReplicateBlur | ZeroBlur | ValidBlur

_BLURS: dict[str, type[_Blur]] = {
    "circular": CircularBlur,
    "reflect": MirrorBlur,
    "replicate": ReplicateBlur,
    "zero": ZeroBlur,
    "valid": ValidBlur,
}


def make_blur(kernel: Tensor, in_shape: Shape, boundary: Boundary = "circular") -> LinearOperator:
    """The blur operator for a boundary.

    `CircularBlur`, `MirrorBlur` ("reflect"), `ReplicateBlur`, `ZeroBlur` or `ValidBlur`.

    Shapes: kernel (k_h, k_w) real; in_shape (..., H, W), without batch.

    Raises:
        ShapeError: the kernel is not a plane of numbers, or is too large for mirroring or for "valid".
    """
    return _BLURS[boundary](kernel, in_shape)


class BlurSpec(OperatorSpec):
    """Blur by a known kernel: out of focus, camera shake, or one of your own."""

    title: ClassVar[str] = "Blur"
    kind: Literal["blur"] = "blur"
    kernel: Annotated[AnyKernel, Field(description="How a point is spread.")] = GaussianKernel()
    boundary: Annotated[
        Boundary,
        Field(
            description="What lies beyond the border: a mirror image, the edge pixels repeated, black, the opposite "
            "side (fastest), or nothing, with data smaller than the image (valid)."
        ),
    ] = "reflect"

    @property
    def offers(self) -> frozenset[Need]:
        """What the operator for this boundary offers; only the circular one has a spectrum."""
        return _BLURS[self.boundary].offers

    def build(self, in_shape: Shape, base: Path = Path()) -> LinearOperator:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return make_blur(self.kernel.build(base), in_shape, self.boundary)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape; for "valid", with the kernel's height and width less one added.

        A kernel file, whose size is known only from its contents, is read for that: from the working folder unless its
        path is absolute, as in a pinned recipe.
        """
        *rest, height, width = check_image_shape(picture_shape)
        if self.boundary != "valid":
            return (*rest, height, width)
        rows, columns = self.kernel.build().shape
        return (*rest, height + rows - 1, width + columns - 1)
