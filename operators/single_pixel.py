"""The single-pixel camera: light summed behind one mask after the other."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.compressed import HadamardPatterns, Ratio, Seed
from operators.errors import ShapeError
from operators.partial import PartialHadamard
from operators.patterns import Order, choose_rows, count_of
from operators.spec import Need


class SinglePixel(SpectralOperator):
    """A camera of one detector behind 0/1 masks, which are the Hadamard patterns h turned into (1 + h) / 2.

    Each number is the light that passes one mask, y_k = (c_k + c_0) / 2 with c the orthonormal Hadamard coefficients
    and c_0 that of the open mask: light summed over n pixels and divided by √n. Data of an image that is nowhere
    negative are not negative either. Patterns come with a singular value of ½ but for two: the offset that all numbers
    share has about √m / 2, and moving it against the mean of the patterns about 1 / √m.

    Shapes: x (B, ..., H, W) → (B, ..., m).

    Args:
        rows: (m,) int64, positions in the plane of sequencies, see `PartialHadamard`; the first is 0, the open mask.
        in_shape: (..., H, W), without batch; H and W powers of two.

    Raises:
        ShapeError: a side is not a power of two, or the first mask is not the open one.

    Source: Duarte et al. 2008 (IEEE Signal Processing Magazine 25(2), 83–91). Deviations: the scale.
    """

    _s: Tensor
    _left: Tensor
    _right: Tensor
    _axis: Tensor

    def __init__(self, rows: Tensor, in_shape: Shape) -> None:
        differential = PartialHadamard(rows, in_shape)
        if int(rows[0]) != 0:
            raise ShapeError(f"SinglePixel expected the open mask, row 0, first, got row {int(rows[0])}; put it there.")
        super().__init__(differential.in_shape, differential.out_shape)
        self.differential = differential
        count = len(rows)
        # A = M C with C the coefficients and M = (1 + 1 e₀ᵀ) / 2, which is ½ outside the plane of e₀ and f, the unit
        # vector along all others. A reflection along f − e₁ takes f to the second axis, where a 2x2 SVD is left.
        f = torch.zeros(count, dtype=torch.float64)
        f[1:] = max(count - 1, 1) ** -0.5
        axis = f.clone()
        axis[1:2] -= 1
        length = torch.linalg.vector_norm(axis)
        core = torch.tensor([[1.0, 0.0], [(count - 1) ** 0.5 / 2, 0.5]], dtype=torch.float64)[:count, :count]
        left, s, right = torch.linalg.svd(core)
        values = torch.full((count,), 0.5, dtype=torch.float64)
        values[:2] = s
        constants = {"_s": values, "_left": left, "_right": right.T, "_axis": axis / length if length > 0 else axis}
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(rows.device, torch.get_default_dtype()).contiguous())

    @property
    def singular_values(self) -> Tensor:
        """(m,): about √m / 2, about 1 / √m, and ½ for all others."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, ..., H, W) → (B, ..., m)."""
        return self._turned(self._reflected(self.differential.to_spectrum(x)), self._right.T)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., m) → (B, ..., H, W)."""
        return self.differential.from_spectrum(self._reflected(self._turned(c, self._right)))

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, ..., m) → the same."""
        return self._turned(self._reflected(y), self._left.T)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., m) → the same."""
        return self._reflected(self._turned(c, self._left))

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Undoes `data_as_image`.   Shapes: (B, ..., H, W) → data."""
        return self.differential.data_from_image(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The data in the plane of sequencies, zero where nothing was measured.   Shapes: data → (B, ..., H, W)."""
        return self.differential.data_as_image(y)

    def _forward(self, x: Tensor) -> Tensor:
        c = self.differential.to_spectrum(x)
        return (c + c[..., :1]) / 2

    def _adjoint(self, y: Tensor) -> Tensor:
        first = (y[..., :1] + y.sum(-1, keepdim=True)) / 2
        return self.differential.from_spectrum(torch.cat([first, y[..., 1:] / 2], -1))

    def _guess(self, y: Tensor) -> Tensor:
        return self._pinv(y, 1e-6, 0)

    def _reflected(self, c: Tensor) -> Tensor:
        axis = self._axis.to(c.dtype)
        return c - 2 * (c @ axis)[..., None] * axis

    def _turned(self, c: Tensor, rotation: Tensor) -> Tensor:
        return torch.cat([c[..., :2] @ rotation.to(c.dtype).T, c[..., 2:]], -1)


class SinglePixelSpec(OperatorSpec):
    """A camera with one detector, which sees the picture through one Hadamard mask after the other."""

    title: ClassVar[str] = "Single-pixel camera"
    kind: Literal["single-pixel"] = "single-pixel"
    ratio: Ratio = 0.25
    masks: Annotated[
        Literal["binary", "differential"],
        Field(description="Open and closed (0 and 1), as a mirror array has them, or differences of two such (±1)."),
    ] = "binary"
    order: Annotated[
        Order, Field(description="Which masks are taken: the coarsest, by cake cutting or zigzag, or any at random.")
    ] = "cake"
    seed: Seed = 0

    @property
    def offers(self) -> frozenset[Need]:
        """What every spectral operator offers."""
        return SpectralOperator.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> SpectralOperator:
        """The operator on real images (..., H, W), H and W powers of two; see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        height, width = shape[-2:]
        PartialHadamard.check_block(height, width)
        rows = choose_rows(height, width, count_of(self.ratio, height * width), self.order, self.seed)
        return SinglePixel(rows, shape) if self.masks == "binary" else PartialHadamard(rows, shape)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` with height and width rounded down to powers of two."""
        *rest, height, width = check_image_shape(image_shape)
        patterns = HadamardPatterns()
        return (*rest, patterns.usable_side(height), patterns.usable_side(width))
