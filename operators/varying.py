"""Blur that changes over the image: kernels blended from place to place, and a scene seen through turbulent air."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter
from torch import Tensor

from operators.base import Composed, LinearOperator, OperatorSpec, Shape, check_image_shape
from operators.blur import Continued, make_blur, source_pixels, transfer_function
from operators.errors import ShapeError
from operators.kernels import AnyKernel, GaussianKernel, disk_kernel, gaussian_kernel, line_kernel
from operators.rng import generator
from operators.spec import Need, Ui


class VaryingBlur(LinearOperator):
    """Blur whose kernel is blended between the nodes of a grid: A x = sum over i of K_i (w_i · x).

    K_i blurs the whole image by kernel i; the windows w_i are the bilinear ones of the grid, whose nodes are spread
    evenly from border to border, and sum to one everywhere. A point is therefore spread by the blend of the kernels
    of the four nodes around it; light is kept, and equal kernels make the ordinary blur. Each term is computed on its
    window's part of the image alone.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        kernels: rows · columns planes (k_h, k_w) of any sizes, in reading order, centres at k_h // 2, k_w // 2.
        grid: (rows, columns) of nodes, each at least 1.
        in_shape: (..., H, W), without batch.
        boundary: what lies beyond the border, as for `make_blur`.

    Raises:
        ShapeError: the number of kernels is not that of the nodes, one is not a plane of numbers, or they are too
            large for mirroring.

    Source: the "efficient filter flow" of Hirsch et al. 2010 (CVPR, eq. 3 to 6), after Nagy & O'Leary 1998; also
        known as product-convolution. Deviations: bilinear windows; cross-correlation with the kernels, as all blurs
        here.
    """

    _transfer: Tensor
    _rows: Tensor
    _columns: Tensor
    _data_rows: Tensor
    _data_columns: Tensor
    _row_windows: Tensor
    _column_windows: Tensor

    def __init__(
        self, kernels: Sequence[Tensor], grid: tuple[int, int], in_shape: Shape, boundary: Continued = "reflect"
    ) -> None:
        in_shape = check_image_shape(in_shape)
        super().__init__(in_shape, in_shape)
        if min(grid) < 1 or len(kernels) != grid[0] * grid[1]:
            raise ShapeError(
                f"Expected a kernel for each node of a {grid[0]}x{grid[1]} grid, got {len(kernels)}; count them."
            )
        stack, before = _stacked(kernels)
        margin = (stack.shape[1] - 1, stack.shape[2] - 1)
        reach = max(before[0], before[1], margin[0] - before[0], margin[1] - before[1])
        if boundary == "reflect" and reach >= min(in_shape[-2:]):
            raise ShapeError(
                f"Blur with mirrored borders expected an image of more than {reach} pixels each way, "
                f"got {in_shape[-2]}x{in_shape[-1]}; use smaller kernels or another boundary."
            )
        rows, columns = (
            _Patches.cut(size, nodes, first, extent, boundary)
            for size, nodes, first, extent in zip(in_shape[-2:], grid, before, margin, strict=True)
        )
        self._period = (len(rows.data[0]), len(columns.data[0]))
        for name, axis in (("row", rows), ("column", columns)):
            self.register_buffer(f"_{name}s", axis.pixels)
            self.register_buffer(f"_data_{name}s", axis.data)
            self.register_buffer(f"_{name}_windows", axis.window.to(torch.get_default_dtype()))
        # the far corner as centre puts the whole response, which is longer than the patch, at indices >= 0
        planes = [transfer_function(kernel, margin, *self._period) for kernel in stack]
        transfer = torch.stack(planes).unflatten(0, grid)[rows.node][:, columns.node].transpose(1, 2)
        self.register_buffer("_transfer", torch.view_as_real(transfer.resolve_conj()).to(torch.get_default_dtype()))

    def _forward(self, x: Tensor) -> Tensor:
        c = self._to_fourier(_gather(x, self._rows, self._columns) * self._window(x.dtype))
        blurred = self._from_fourier(c * self._response(c))
        height, width = self.in_shape[-2:]
        return _scatter(blurred, self._data_rows, self._data_columns, height + 1, width + 1)[..., :height, :width]

    def _adjoint(self, y: Tensor) -> Tensor:
        # the last row and column, which stand for what lies beyond the data, are zero
        c = self._to_fourier(_gather(torch.nn.functional.pad(y, (0, 1, 0, 1)), self._data_rows, self._data_columns))
        patches = self._from_fourier(c * self._response(c).conj())
        inside = patches[..., : self._rows.shape[1], :, : self._columns.shape[1]] * self._window(y.dtype)
        return _scatter(inside, self._rows, self._columns, *self.in_shape[-2:])

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _window(self, dtype: torch.dtype) -> Tensor:
        return self._row_windows.to(dtype)[:, :, None, None] * self._column_windows.to(dtype)

    def _response(self, like: Tensor) -> Tensor:
        return torch.view_as_complex(self._transfer).to(like.dtype)

    def _to_fourier(self, patches: Tensor) -> Tensor:
        half: Tensor = torch.fft.rfftn(patches, s=self._period, dim=(-3, -1))
        return half

    def _from_fourier(self, c: Tensor) -> Tensor:
        patches: Tensor = torch.fft.irfftn(c, s=self._period, dim=(-3, -1))
        return patches


def _gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Patches of an image.   Shapes: (..., H, W), (m, P), (n, Q) → (..., m, P, n, Q)."""
    # for columns, indexing is several times faster on the CPU than `index_select`
    cut = x.index_select(-2, rows.flatten())[..., columns.flatten()]
    return cut.reshape(*x.shape[:-2], *rows.shape, *columns.shape)


def _scatter(patches: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """The transpose of `_gather`: patches added up where they came from.   Shapes: → (..., height, width)."""
    flat = patches.reshape(*patches.shape[:-4], rows.numel(), columns.numel())
    partial = flat.new_zeros(*flat.shape[:-1], width).index_add(-1, columns.flatten(), flat)
    return partial.new_zeros(*partial.shape[:-2], height, width).index_add(-2, rows.flatten(), partial)


@dataclass(frozen=True)
class _Patches:
    """One axis of an image and its border, cut into pieces of equal length on which one window is not zero.

    Attributes:
        node: (n,) int64, the window of each piece; where a border repeats a window far away, it has several pieces.
        window: (n, length) float64, its values there.
        pixels: (n, length) int64, the pixel that the continued image shows there.
        data: (n, period) int64, the pixel of the data at each place of a piece's response, `size` where there is none.
    """

    node: Tensor
    window: Tensor
    pixels: Tensor
    data: Tensor

    @staticmethod
    def cut(size: int, nodes: int, before: int, margin: int, boundary: Continued) -> "_Patches":
        places = torch.arange(-before, size + margin - before)
        pixels = source_pixels(places, size, boundary)
        windows = _hats(size, nodes)[:, pixels]
        if boundary == "zero":
            windows = windows * (pixels == places)
        edges = torch.nn.functional.pad(windows.ne(0).int(), (1, 1)).diff().nonzero()
        # copies that are nearer than the kernel is wide share a piece
        apart = (edges[2::2, 0] != edges[1:-1:2, 0]) | (edges[2::2, 1] - edges[1:-1:2, 1] > margin)
        end = torch.ones(1, dtype=torch.bool)
        begins, ends = torch.cat([end, apart]), torch.cat([apart, end])
        node, starts, stops = edges[::2, 0][begins], edges[::2, 1][begins], edges[1::2, 1][ends]
        length = int((stops - starts).max())
        # a piece near the end starts earlier than its window, so that all have one length
        first = starts.clamp(max=len(places) - length)
        taken = first[:, None] + torch.arange(length)
        own = (taken >= starts[:, None]) & (taken < stops[:, None])
        period = int(next_fast_len(length + margin, real=True))
        data = first[:, None] + torch.arange(period) - margin
        data[(data < 0) | (data >= size)] = size
        return _Patches(node, windows[node[:, None], taken] * own, pixels[taken], data)


def _stacked(kernels: Sequence[Tensor]) -> tuple[Tensor, tuple[int, int]]:
    """The kernels with common centre and size: (n, k_h, k_w) float64, and rows and columns before the centre."""
    for kernel in kernels:
        if kernel.ndim != 2 or kernel.numel() == 0 or not kernel.is_floating_point():
            raise ShapeError(
                f"Blur expected kernels (k_h, k_w) of real numbers, got {tuple(kernel.shape)} {kernel.dtype}; "
                "give one plane for each node."
            )
    centres = [(kernel.shape[0] // 2, kernel.shape[1] // 2) for kernel in kernels]
    reach = [
        max(max(c[axis], k.shape[axis] - 1 - c[axis]) for k, c in zip(kernels, centres, strict=True)) for axis in (0, 1)
    ]
    stack = torch.zeros(len(kernels), 2 * reach[0] + 1, 2 * reach[1] + 1, dtype=torch.float64)
    for plane, kernel, (row, column) in zip(stack, kernels, centres, strict=True):
        top, left = reach[0] - row, reach[1] - column
        plane[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel.detach().cpu()
    used = stack.ne(0).any(0)
    used[reach[0], reach[1]] = True
    rows, columns = used.any(1).nonzero().flatten(), used.any(0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    trimmed = stack[:, top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    return trimmed, (reach[0] - top, reach[1] - left)


def _hats(size: int, nodes: int) -> Tensor:
    """Linear windows of nodes spread evenly over 0 … size − 1, which sum to 1: (nodes, size) float64."""
    if nodes == 1:
        return torch.ones(1, size, dtype=torch.float64)
    places = torch.arange(size, dtype=torch.float64) * (nodes - 1) / max(size - 1, 1)
    return (1 - (places - torch.arange(nodes, dtype=torch.float64)[:, None]).abs()).clamp(min=0)


Family = Literal["gaussian", "defocus", "spin"]


def field_kernels(
    family: Family, grid: tuple[int, int], height: int, width: int, centre: float, corner: float
) -> list[Tensor]:
    """Kernels for `VaryingBlur` whose strength grows linearly with the distance from the middle of the field.

    Shapes: → rows · columns planes float64, in reading order, each as large as its strength needs and of sum 1.

    Args:
        family: "gaussian" (strength: standard deviation), "defocus" (radius of the disk) or "spin" (length of the
            streak of a camera that turns about its optical axis, across the radius).
        grid: (rows, columns) of nodes.
        height: of the image, which places the nodes.
        width: of the image.
        centre: strength in the middle, in pixels, >= 0; 0 is no blur.
        corner: strength in the corners.

    Raises:
        ShapeError: a strength is negative.
    """
    if min(centre, corner) < 0:
        raise ShapeError(f"Expected strengths >= 0, got {centre} and {corner}; 0 is no blur.")
    kernels = []
    for row in np.linspace(-0.5, 0.5, grid[0]) if grid[0] > 1 else [0.0]:
        for column in np.linspace(-0.5, 0.5, grid[1]) if grid[1] > 1 else [0.0]:
            up, right = -row * (height - 1), column * (width - 1)
            distance = 2 * hypot(up, right) / max(hypot(height - 1, width - 1), 1)
            strength = centre + (corner - centre) * distance
            if strength == 0:
                kernels.append(torch.ones(1, 1, dtype=torch.float64))
            elif family == "gaussian":
                kernels.append(gaussian_kernel(2 * int(np.ceil(4 * strength)) + 1, strength))
            elif family == "defocus":
                kernels.append(disk_kernel(2 * int(np.ceil(strength)) + 1, strength))
            else:
                across = float(np.degrees(np.arctan2(up, right))) + 90
                kernels.append(line_kernel(2 * int(np.ceil(strength / 2)) + 1, strength, across))
    return kernels


class VaryingBlurSpec(OperatorSpec):
    """Blur that grows from the middle of the picture to its corners: a simple lens, or a camera that was turned."""

    title: ClassVar[str] = "Blur, varying"
    kind: Literal["varying-blur"] = "varying-blur"
    family: Annotated[Family, Field(description="Smooth blur, out of focus, or streaks around the middle (spin).")] = (
        "defocus"
    )
    centre: Annotated[
        float,
        Field(ge=0, le=30, description="Strength in the middle: standard deviation, radius or length."),
        Ui(unit="px"),
    ] = 0.0
    corner: Annotated[
        float,
        Field(ge=0, le=30, description="Strength in the corners: standard deviation, radius or length."),
        Ui(unit="px"),
    ] = 2.0
    nodes: Annotated[int, Field(ge=1, le=16, description="Kernels along each side, blended in between.")] = 5
    boundary: Annotated[Continued, Field(description="What lies beyond the border.")] = "reflect"

    @property
    def offers(self) -> frozenset[Need]:
        """What `VaryingBlur` offers."""
        return VaryingBlur.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> VaryingBlur:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        grid = (self.nodes, self.nodes)
        kernels = field_kernels(self.family, grid, shape[-2], shape[-1], self.centre, self.corner)
        return VaryingBlur(kernels, grid, shape, self.boundary)


class Warp(LinearOperator):
    """A displaced image, y(p) = x(p + d(p)), by bilinear interpolation; beyond the border the edge pixels go on.

    Shapes: x (B, ..., H, W) → the same.

    Args:
        displacement: d, (2, H, W) real: rows and columns to go down and right, in pixels.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the displacement is not (2, H, W) finite real numbers.
    """

    _index: Tensor
    _weight: Tensor

    def __init__(self, displacement: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        super().__init__(in_shape, in_shape)
        height, width = in_shape[-2:]
        given = tuple(displacement.shape)
        if (
            given != (2, height, width)
            or not displacement.is_floating_point()
            or not bool(displacement.isfinite().all())
        ):
            raise ShapeError(
                f"Warp expected a displacement (2, {height}, {width}) of finite real numbers, got {given} "
                f"{displacement.dtype}; give pixels down and pixels right for every pixel."
            )
        d = displacement.detach().cpu().double()
        row = (d[0] + torch.arange(height)[:, None]).clamp(0, height - 1)
        column = (d[1] + torch.arange(width)).clamp(0, width - 1)
        top, left = row.floor().clamp(max=max(height - 2, 0)), column.floor().clamp(max=max(width - 2, 0))
        down, right = row - top, column - left
        index, weight = [], []
        for i in (0, 1):
            for j in (0, 1):
                corner = (top + i).clamp(max=height - 1) * width + (left + j).clamp(max=width - 1)
                index.append(corner.long().flatten())
                weight.append(((down if i else 1 - down) * (right if j else 1 - right)).flatten())
        self.register_buffer("_index", torch.stack(index))
        self.register_buffer("_weight", torch.stack(weight).to(torch.get_default_dtype()))

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(-2)
        total = torch.zeros_like(flat)
        for i, w in zip(self._index, self._weight.to(x.dtype), strict=True):
            total = total + w * flat[..., i]
        return total.reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.flatten(-2)
        total = torch.zeros_like(flat)
        for i, w in zip(self._index, self._weight.to(y.dtype), strict=True):
            total = total.index_add(-1, i, w * flat)
        return total.reshape(y.shape)

    def _guess(self, y: Tensor) -> Tensor:
        return y


def tilt_field(height: int, width: int, strength: float, correlation: float, seed: int) -> Tensor:
    """A smooth random displacement for `Warp`: two independent stationary Gaussian fields.

    Shapes: → (2, height, width) float64.

    Args:
        height: of the image.
        width: of the image.
        strength: standard deviation of either component, in pixels, >= 0.
        correlation: distance in pixels, > 0, at which the correlation has fallen to exp(−½).
        seed: which field.

    Raises:
        ShapeError: `strength` is negative or `correlation` not positive.

    Source: random tilts correlated over the field as in Chimitt & Chan 2020 (arXiv:2004.11210).
    Deviations: a Gaussian correlation instead of the integral over the Kolmogorov spectrum.
    """
    if strength < 0 or not correlation > 0:
        raise ShapeError(f"Expected strength >= 0 and correlation > 0, got {strength} and {correlation}; mend them.")
    draw = generator(seed)
    # white noise after a Gaussian filter of this width has the correlation of one √2 times as wide
    std = correlation / 2**0.5
    margin = int(np.ceil(4 * std))
    noise = draw.standard_normal((2, height + 2 * margin, width + 2 * margin))
    smooth = gaussian_filter(noise, (0, std, std), truncate=4.0)[:, margin : margin + height, margin : margin + width]
    impulse = np.zeros(2 * margin + 1)
    impulse[margin] = 1
    scale = (gaussian_filter(impulse, std, truncate=4.0) ** 2).sum()  # the variance is the square of this, by two axes
    return torch.from_numpy(strength * smooth / scale)


class TurbulenceSpec(OperatorSpec):
    """A far scene through turbulent air: every part is shifted its own way, then blurred."""

    title: ClassVar[str] = "Turbulence"
    kind: Literal["turbulence"] = "turbulence"
    strength: Annotated[
        float, Field(ge=0, le=30, description="Typical shift (standard deviation of each direction)."), Ui(unit="px")
    ] = 1.5
    correlation: Annotated[
        float, Field(ge=0.5, le=500, description="Distance over which neighbours shift alike."), Ui(unit="px")
    ] = 12.0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which shifts; the same seed gives the same ones.")] = 0
    kernel: Annotated[AnyKernel, Field(description="How a point is spread in a short exposure.")] = GaussianKernel(
        size=9, std=1.0
    )
    boundary: Annotated[Continued, Field(description="What lies beyond the border, for the blur.")] = "reflect"

    @property
    def offers(self) -> frozenset[Need]:
        """What a composition of linear operators offers."""
        return Composed.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> LinearOperator:
        """Tilt, then blur, on real images (..., H, W); see `OperatorSpec.build`.

        Source: Chan 2022 (IEEE Signal Processing Letters) for the order; a tilt field and a kernel as in BlindDPS,
            Chung et al. 2023 (arXiv:2211.10656). Deviations: none.
        """
        shape = check_image_shape(in_shape)
        tilt = tilt_field(shape[-2], shape[-1], self.strength, self.correlation, self.seed)
        return make_blur(self.kernel.build(base), shape, self.boundary) @ Warp(tilt, shape)
