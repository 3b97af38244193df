"""Reduction by a whole factor: the photograph is too small, or its pixels too large."""

from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.files import MAX_PIXELS
from operators.spec import Need

Method = Literal["bicubic", "area"]


def reduction_matrix(size: int, factor: int, method: Method) -> Tensor:
    """The matrix that reduces `size` samples to size / factor.

    `bicubic` stretches the cubic convolution kernel (a = −0.5) by the factor, so that it is also the anti-alias
    filter, mirrors the samples at the borders (edge repeated) and scales the weights of each output to sum 1. `area`
    is the mean of each block.

    Shapes: → (size / factor, size) float64.

    Source: Keys 1981 for the cubic; boundary, stretching and scaling as in assafshocher/ResizeRight's predecessor
    "Resizer" used by DPS, and as in MATLAB imresize. Deviations: none.
    """
    count = size // factor
    matrix = np.zeros((count, size))
    if method == "area":
        np.put_along_axis(matrix, np.arange(size).reshape(count, factor), 1 / factor, 1)
        return torch.from_numpy(matrix)
    # output i is centred at (i + ½) factor − ½ in input pixels; the kernel reaches 2 factor to either side
    centres = (np.arange(count) + 0.5) * factor - 0.5
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-2 * factor, 2 * factor + 2)
    weights = _cubic((centres[:, None] - taps) / factor)
    weights /= weights.sum(1, keepdims=True)
    period = taps % (2 * size)
    mirrored = np.where(period < size, period, 2 * size - 1 - period)
    np.add.at(matrix, (np.arange(count)[:, None], mirrored), weights)
    return torch.from_numpy(matrix)


def reduction_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition U diag(s) Vᵀ of a matrix (n, N) made by `reduction_matrix`, in closed form.

    Samples mirrored at their borders are even and periodic, the reduction treats every one of its outputs alike, and so
    matrix matrixᵀ is diagonal in the cosine transform (DCT-II): its basis is U, and V = matrixᵀ U / s. No singular
    value is near zero (the least is above half of the largest), so the division loses nothing.

    Shapes: → U (n, n), s (n), V (N, n), all float64. The order of s is by frequency, not by size.

    Source: the symmetric convolution of Martucci 1994. Deviations: none.
    """
    count = len(matrix)
    k = torch.arange(count, dtype=torch.float64)
    u = torch.cos(torch.pi / count * torch.outer(k + 0.5, k)) * (2 / count) ** 0.5
    u[:, 0] = count**-0.5
    # a matrix of few numbers a row: as a dense product this would be the dearest step by far
    v = torch.sparse.mm(matrix.T.contiguous().to_sparse(), u)
    s = torch.linalg.vector_norm(v, dim=0)
    return u, s, v / s


def _cubic(t: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


class Downsample(SpectralOperator):
    """Separable reduction, R_h x R_wᵀ for every channel.

    Both factors are dense matrices; their singular value decompositions give that of the whole.

    Shapes: x (B, ..., H, W) → (B, ..., H/factor, W/factor).

    Args:
        in_shape: (..., H, W), without batch; H and W multiples of `factor`.
        factor: from 2 to 8.
        method: "bicubic" (anti-aliased) or "area" (block mean); see `reduction_matrix`.

    Raises:
        ShapeError: H or W is not a multiple of `factor`, the factor is out of range, or H W is above `MAX_PIXELS`.
    """

    rows: Tensor
    columns: Tensor
    _v_rows: Tensor
    _v_columns: Tensor
    _u_rows: Tensor
    _u_columns: Tensor
    _s: Tensor

    def __init__(self, in_shape: Shape, factor: int, method: Method = "bicubic") -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        if not 2 <= factor <= 8:
            raise ShapeError(f"Downsample expected a factor from 2 to 8, got {factor}; choose one in that range.")
        if height % factor or width % factor:
            raise ShapeError(
                f"Downsample expected a height and width that are multiples of {factor}, got {height}x{width}; "
                f"crop the image to {height - height % factor}x{width - width % factor}."
            )
        if height * width > MAX_PIXELS:
            raise ShapeError(
                f"Expected data of an image of at most {MAX_PIXELS / 1e6:g} megapixels, got {height // factor}x"
                f"{width // factor} data of {height}x{width} = {height * width / 1e6:g}; crop the picture first."
            )
        super().__init__(in_shape, (*in_shape[:-2], height // factor, width // factor))
        self.factor = factor
        rows, columns = (reduction_matrix(size, factor, method) for size in (height, width))
        u_rows, s_rows, v_rows = reduction_svd(rows)
        u_columns, s_columns, v_columns = reduction_svd(columns)
        constants = {
            "rows": rows,
            "columns": columns,
            "_u_rows": u_rows,
            "_u_columns": u_columns,
            "_v_rows": v_rows,
            "_v_columns": v_columns,
            "_s": torch.outer(s_rows, s_columns),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()).contiguous())

    @property
    def singular_values(self) -> Tensor:
        """Products of the factors' singular values, (H/factor, W/factor)."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, ..., H, W) → (B, ..., H/factor, W/factor)."""
        return _between(self._v_rows.T, x, self._v_columns)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) → (B, ..., H, W)."""
        return _between(self._v_rows, c, self._v_columns.T)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) → the same."""
        return _between(self._u_rows.T, y, self._u_columns)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., H/factor, W/factor) → the same."""
        return _between(self._u_rows, c, self._u_columns.T)

    def _forward(self, x: Tensor) -> Tensor:
        return _between(self.rows, x, self.columns.T)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _between(self.rows.T, y, self.columns)

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _guess(self, y: Tensor) -> Tensor:
        planes = y.reshape(-1, 1, *y.shape[-2:])
        # torch's antialiased bicubic has a = −0.5, which keeps slopes; the plain one has not
        enlarged = interpolate(planes, self.in_shape[-2:], mode="bicubic", align_corners=False, antialias=True)
        return enlarged.reshape(y.shape[0], *self.in_shape)


def _between(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    # the cheaper order first: shrink before growing
    left, right = left.to(x.dtype), right.to(x.dtype)
    return left @ (x @ right) if right.shape[1] <= right.shape[0] else (left @ x) @ right


class DownsampleSpec(OperatorSpec):
    """A photograph too small: every pixel stands for a block of the image."""

    title: ClassVar[str] = "Low resolution"
    kind: Literal["downsample"] = "downsample"
    factor: Annotated[int, Field(ge=2, le=8, description="How many times smaller the data are, each way.")] = 4
    method: Annotated[Method, Field(description="Anti-aliased bicubic reduction, or the plain mean of each block.")] = (
        "bicubic"
    )

    @property
    def offers(self) -> frozenset[Need]:
        """What `Downsample` offers."""
        return Downsample.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Downsample:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return Downsample(in_shape, self.factor, self.method)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape with height and width multiplied by the factor."""
        *rest, height, width = check_image_shape(picture_shape)
        return (*rest, height * self.factor, width * self.factor)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` with height and width rounded down to multiples of the factor.

        Raises:
            ShapeError: the image is smaller than the factor.
        """
        *rest, height, width = check_image_shape(image_shape)
        shape = (*rest, height - height % self.factor, width - width % self.factor)
        if prod(shape) == 0:
            raise ShapeError(
                f"Expected an image of at least {self.factor}x{self.factor} pixels to reduce by {self.factor}, "
                f"got {height}x{width}; choose a smaller factor."
            )
        return shape
