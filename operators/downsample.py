"""Reduction by a whole factor: the photograph is too small, or its pixels too large."""

from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.files import MAX_PIXELS
from operators.spec import Need, Ui

Method = Literal["bicubic", "area", "gaussian"]
_Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def reduction_matrix(size: int, factor: int, method: Method, std: float | None = None) -> Tensor:
    """The matrix that reduces `size` samples to size / factor.

    `bicubic` stretches the cubic convolution kernel (a = −0.5) by the factor, so that it is also the anti-alias
    filter, mirrors the samples at the borders (edge repeated) and scales the weights of each output to sum 1. `area`
    is the mean of each block. `gaussian` weighs samples by their distance from the middle of each block, up to 4
    standard deviations, with the same mirror and scaling: for odd factors a Gaussian filter of which the middle sample
    of each block is kept.

    Shapes: → (size / factor, size) float64.

    Args:
        size: samples, a multiple of `factor`.
        factor: of reduction.
        method: see above.
        std: standard deviation of `gaussian` in input samples; (factor − 1) / 2 when absent.

    Source: Keys 1981 for the cubic; boundary, stretching and scaling as in assafshocher/ResizeRight's predecessor
    "Resizer" used by DPS, and as in MATLAB imresize; the Gaussian's width as in scikit-image `rescale`.
    Deviations: none.
    """
    count = size // factor
    matrix = np.zeros((count, size))
    if method == "area":
        np.put_along_axis(matrix, np.arange(size).reshape(count, factor), 1 / factor, 1)
        return torch.from_numpy(matrix)
    std = (factor - 1) / 2 if std is None else std
    reach = 2 * factor if method == "bicubic" else int(np.ceil(4 * std + 0.5))
    # output i is centred at (i + ½) factor − ½ in input pixels
    centres = (np.arange(count) + 0.5) * factor - 0.5
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 2)
    distances = centres[:, None] - taps
    weights = _cubic(distances / factor) if method == "bicubic" else _gaussian(distances, std)
    weights /= weights.sum(1, keepdims=True)
    period = taps % (2 * size)
    mirrored = np.where(period < size, period, 2 * size - 1 - period)
    np.add.at(matrix, (np.arange(count)[:, None], mirrored), weights)
    return torch.from_numpy(matrix)


def reduction_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition U diag(s) Vᵀ of a matrix (n, N) made by `reduction_matrix`, in closed form.

    Samples mirrored at their borders are even and periodic, the reduction treats every one of its outputs alike, and so
    matrix matrixᵀ is diagonal in the cosine transform (DCT-II): its basis is U, and V = matrixᵀ U / s. No singular
    value is near zero (the least is above half of the largest, or above a hundredth of it for a Gaussian as wide as a
    block), so the division loses nothing.

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


def _cubic(t: _Array) -> _Array:
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _gaussian(distance: _Array, std: float) -> _Array:
    # half a sample more than 4 std: scipy rounds its radius
    return np.where(np.abs(distance) <= 4 * std + 0.5, np.exp(-0.5 * (distance / std) ** 2), 0.0)


class Downsample(SpectralOperator):
    """Separable reduction, R_h x R_wᵀ for every channel.

    Both factors are dense matrices; their singular value decompositions give that of the whole.

    Shapes: x (B, ..., H, W) → (B, ..., H/factor, W/factor).

    Args:
        in_shape: (..., H, W), without batch; H and W multiples of `factor`.
        factor: from 2 to 12.
        method: "bicubic" (anti-aliased), "area" (block mean) or "gaussian"; see `reduction_matrix`.
        std: standard deviation of "gaussian" in pixels, from 0.1 to the factor; (factor − 1) / 2 when absent.

    Raises:
        ShapeError: H or W is not a multiple of `factor`, the factor or `std` is out of range, or H W is above
            `MAX_PIXELS`.
    """

    rows: Tensor
    columns: Tensor
    _v_rows: Tensor
    _v_columns: Tensor
    _u_rows: Tensor
    _u_columns: Tensor
    _s: Tensor

    def __init__(self, in_shape: Shape, factor: int, method: Method = "bicubic", std: float | None = None) -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        if not 2 <= factor <= 12:
            raise ShapeError(f"Downsample expected a factor from 2 to 12, got {factor}; choose one in that range.")
        if problem := _std_problem(factor, method, std):
            raise ShapeError(problem)
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
        rows, columns = (reduction_matrix(size, factor, method, std) for size in (height, width))
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


def whole_blocks(shape: Shape, factor: int) -> Shape:
    """`shape` with height and width rounded down to multiples of `factor`.

    Raises:
        ShapeError: the image is smaller than the factor.
    """
    *rest, height, width = check_image_shape(shape)
    usable = (*rest, height - height % factor, width - width % factor)
    if prod(usable) == 0:
        raise ShapeError(
            f"Expected an image of at least {factor}x{factor} pixels to reduce by {factor}, "
            f"got {height}x{width}; choose a smaller factor."
        )
    return usable


def _std_problem(factor: int, method: Method, std: float | None) -> str:
    if std is None:
        return ""
    if method != "gaussian":
        return f"Expected a standard deviation for 'gaussian' alone, got {std} for '{method}'; leave it empty."
    # wider ones would leave singular values that are noise
    if not 0.1 <= std <= factor:
        return f"Expected a standard deviation from 0.1 to the factor {factor}, got {std}; reduce further or blur less."
    return ""


def _between(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    # the cheaper order first: shrink before growing
    left, right = left.to(x.dtype), right.to(x.dtype)
    return left @ (x @ right) if right.shape[1] <= right.shape[0] else (left @ x) @ right


class DownsampleSpec(OperatorSpec):
    """A photograph too small: every pixel stands for a block of the image."""

    title: ClassVar[str] = "Low resolution"
    kind: Literal["downsample"] = "downsample"
    factor: Annotated[int, Field(ge=2, le=12, description="How many times smaller the data are, each way.")] = 4
    method: Annotated[
        Method, Field(description="Anti-aliased bicubic reduction, the plain mean of each block, or a Gaussian.")
    ] = "bicubic"
    std: Annotated[
        float | None,
        Field(ge=0.1, le=12, description="Width of the Gaussian; empty ties it to the factor."),
        Ui(unit="px", advanced=True),
    ] = None

    @model_validator(mode="after")
    def _check_std(self) -> "DownsampleSpec":
        if problem := _std_problem(self.factor, self.method, self.std):
            raise ValueError(problem)
        return self

    @property
    def offers(self) -> frozenset[Need]:
        """What `Downsample` offers."""
        return Downsample.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Downsample:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return Downsample(in_shape, self.factor, self.method, self.std)

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
