"""JPEG compression: what its rounding lost."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from operators.base import Operator, OperatorSpec, Shape, check_image_shape
from operators.color import LUMA
from operators.errors import ShapeError
from operators.spec import Need
from operators.tone import CELL, round_through

Subsampling = Literal["4:4:4", "4:2:0"]


class Jpeg(Operator):
    """Compress as JPEG and decompress; grey or colour.

    Luma and chroma of JFIF, chroma halved by the mean of 2x2 pixels for 4:2:0, the cosine transform of 8x8 blocks, and
    rounding to multiples of the quantisation tables; back again with libjpeg's triangular ("fancy") interpolation of
    chroma. Blocks that reach over the right and lower border are filled by repeating the edge, as libjpeg does. Unlike
    in a file, pixels are real numbers: they are neither rounded to 8 bits nor clipped, before or after.

    The gradient is that of the same map without rounding (straight-through, see `round_through`).

    The projection moves each coefficient of z into the interval that rounds to the coefficient of y, which is found by
    compressing y once more. It is exact, and the nearest in the norm of (Y, Cb, Cr), where both sides are multiples of
    8 (16 for 4:2:0). Elsewhere blocks at the right and lower border are approximate, because the part of such a block
    that is seen does not tell its coefficients.

    Shapes: x (B, 1 or 3, H, W) → the same.

    Args:
        in_shape: (1, H, W) grey or (3, H, W) red, green and blue, without batch.
        quality: from 1 to 100, as libjpeg's.
        subsampling: of chroma; of no concern to grey images.

    Raises:
        ShapeError: not one or three channels, or the quality is out of range.

    Source: ITU-T T.81 (blocks, tables K.1 and K.2), ITU-T T.871 (JFIF colours), libjpeg 6b (scaling of the tables,
    padding, interpolation). The straight-through gradient and the projection are those that data-consistent samplers
    use for JPEG (Chung et al. 2023, CDDB, arXiv:2305.15086). Deviations: real arithmetic throughout.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.PROJECTION}
    exact_gradient: ClassVar[bool] = False
    farthest: ClassVar[float] = 1.76  # condition number of the matrix of colours

    _cosines: Tensor
    _tables: Tensor
    _colours: Tensor
    _colours_back: Tensor
    _sharpen_rows: Tensor
    _sharpen_columns: Tensor

    def __init__(self, in_shape: Shape, quality: int, subsampling: Subsampling = "4:2:0") -> None:
        in_shape = _check_channels(in_shape)
        tables = torch.stack([quantisation_table(plane, quality) for plane in ("luma", "chroma")])
        super().__init__(in_shape, in_shape)
        self._halved = subsampling == "4:2:0" and in_shape[0] == 3
        half = [(size + 1) // 2 if self._halved else 1 for size in in_shape[1:]]
        colours = _colours() if in_shape[0] == 3 else torch.eye(1, dtype=torch.float64)
        constants = {
            "_cosines": _cosines(),
            "_tables": tables[:, None, :, None, :],
            "_colours": colours,
            "_colours_back": torch.linalg.inv(colours),
            "_sharpen_rows": _sharpen(half[0]),
            "_sharpen_columns": _sharpen(half[1]),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()).contiguous())

    def _forward(self, x: Tensor) -> Tensor:
        planes = [self._pixels(round_through(self._levels(plane, k)), k) for k, plane in enumerate(self._split(x))]
        if self._halved:
            planes[1] = _enlarge(_enlarge(self._half(planes[1]), -2), -1)
        return self._join(planes, 128)

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        given = self._split(y)
        if self._halved:
            # interpolated and halved, chroma comes back softer than it was
            rows, columns = self._sharpen_rows.to(y.dtype), self._sharpen_columns.to(y.dtype)
            given[1] = _fill(rows @ self._half(given[1]) @ columns.T, 8, 8)
        changes = []
        for k, (plane, wanted) in enumerate(zip(self._split(z), given, strict=True)):
            now, level = self._levels(plane, k), self._levels(wanted, k).round()
            changes.append(self._pixels(now.clamp(level - CELL, level + CELL) - now, k))
        if self._halved:
            changes[1] = changes[1].repeat_interleave(2, -2).repeat_interleave(2, -1)
        return z + self._join(changes, 0)

    def _split(self, x: Tensor) -> list[Tensor]:
        """Luma, and chroma if there is any, in grey levels and filled to whole blocks.   Shapes: → (B, 1 or 2, ...)."""
        planes = torch.einsum("cd,bdhw->bchw", self._colours.to(x.dtype), 255 * x)
        luma = _fill(planes[:, :1] - 128, 8, 8)
        if len(self._colours) == 1:
            return [luma]
        # libjpeg fills to the right before it halves, and below afterwards
        chroma = avg_pool2d(_fill(planes[:, 1:], 2, 16), 2) if self._halved else planes[:, 1:]
        return [luma, _fill(chroma, 8, 8)]

    def _join(self, planes: list[Tensor], black: float) -> Tensor:
        """The image of luma and chroma of full size; `black` was taken from luma.   Shapes: → (B, *in_shape)."""
        height, width = self.in_shape[1:]
        luma, *chroma = [plane[..., :height, :width] for plane in planes]
        whole = torch.cat([luma + black, *chroma], 1)
        return torch.einsum("cd,bdhw->bchw", self._colours_back.to(whole.dtype), whole) / 255

    def _half(self, chroma: Tensor) -> Tensor:
        """Halved chroma without what fills its last blocks."""
        return chroma[..., : len(self._sharpen_rows), : len(self._sharpen_columns)]

    def _levels(self, plane: Tensor, table: int) -> Tensor:
        """Coefficients in steps of the quantisation table.   Shapes: (B, C, 8 h, 8 w) → (B, C, h, 8, w, 8)."""
        *rest, height, width = plane.shape
        d = self._cosines.to(plane.dtype)
        rows = d @ plane.reshape(*rest, height // 8, 8, width)
        return rows.reshape(*rest, height // 8, 8, width // 8, 8) @ d.T / self._tables[table].to(plane.dtype)

    def _pixels(self, levels: Tensor, table: int) -> Tensor:
        """Undoes `_levels`."""
        d = self._cosines.to(levels.dtype)
        rows = (levels * self._tables[table].to(levels.dtype) @ d).flatten(-2)
        return (d.T @ rows).flatten(-3, -2)


def quantisation_table(plane: Literal["luma", "chroma"], quality: int) -> Tensor:
    """The steps to which coefficients are rounded, as libjpeg scales them.

    Shapes: → (8, 8) float64, vertical frequency first.   Units: grey levels of 255, orthonormal transform.

    Raises:
        ShapeError: the quality is not from 1 to 100.

    Source: ITU-T T.81, tables K.1 and K.2; libjpeg 6b `jpeg_quality_scaling`. Deviations: none.
    """
    if not 1 <= quality <= 100:
        raise ShapeError(f"Jpeg expected a quality from 1 to 100, got {quality}; choose one in that range.")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = (torch.tensor(_TABLES[plane]) * scale + 50) // 100
    return table.clamp(1, 255).double()


_TABLES = {
    "luma": [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    "chroma": [
        [17, 18, 24, 47, 99, 99, 99, 99],
        [18, 21, 26, 66, 99, 99, 99, 99],
        [24, 26, 56, 99, 99, 99, 99, 99],
        [47, 66, 99, 99, 99, 99, 99, 99],
        *4 * [[99] * 8],
    ],
}


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 numbers, frequency first."""
    n = torch.arange(8, dtype=torch.float64)
    d = torch.cos(torch.pi / 8 * torch.outer(n, n + 0.5)) / 2
    d[0] /= 2**0.5
    return d


def _colours() -> Tensor:
    """Red, green and blue to luma and the scaled differences of blue and red from it."""
    luma = torch.tensor(LUMA, dtype=torch.float64)
    blue, red = torch.tensor([0, 0, 1.0]).double(), torch.tensor([1.0, 0, 0]).double()
    return torch.stack([luma, (blue - luma) / (2 - 2 * luma[2]), (red - luma) / (2 - 2 * luma[0])])


def _fill(plane: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples of `rows` and `columns`."""
    return pad(plane, (0, -plane.shape[-1] % columns, 0, -plane.shape[-2] % rows), mode="replicate")


def _enlarge(x: Tensor, axis: int) -> Tensor:
    """Twice as many samples along `axis`: three parts of the nearest and one of the next nearest, edges repeated."""
    x = x.movedim(axis, -1)
    before = torch.cat([x[..., :1], x[..., :-1]], -1)
    after = torch.cat([x[..., 1:], x[..., -1:]], -1)
    return (0.75 * x[..., None] + 0.25 * torch.stack([before, after], -1)).flatten(-2).movedim(-1, axis)


def _sharpen(count: int) -> Tensor:
    """The inverse of `_enlarge` followed by the mean of each two.   Shapes: → (count, count) float64."""
    soft = _enlarge(torch.eye(count, dtype=torch.float64), -2).unflatten(0, (count, 2)).mean(1)
    inverse: Tensor = torch.linalg.inv(soft)
    return inverse


def _check_channels(shape: Shape) -> Shape:
    shape = check_image_shape(shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ShapeError(
            f"Jpeg expected a grey or colour image (1 or 3, H, W), got {shape}; compress other data alone."
        )
    return shape


class JpegSpec(OperatorSpec):
    """A photograph compressed too much: blocks and ringing."""

    title: ClassVar[str] = "JPEG compression"
    kind: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100, description="Quality as libjpeg counts it; 75 is common.")] = 10
    subsampling: Annotated[
        Subsampling, Field(description="Whether colours are kept at full size (4:4:4) or at half of it (4:2:0).")
    ] = "4:2:0"

    @property
    def offers(self) -> frozenset[Need]:
        """What `Jpeg` offers."""
        return Jpeg.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Jpeg:
        """The operator on real images (1 or 3, H, W); see `OperatorSpec.build`."""
        return Jpeg(in_shape, self.quality, self.subsampling)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` cropped to whole blocks, in which the projection is exact.

        Raises:
            ShapeError: not one or three channels, or smaller than a block.
        """
        channels, height, width = _check_channels(image_shape)
        block = 16 if channels == 3 and self.subsampling == "4:2:0" else 8
        if min(height, width) < block:
            raise ShapeError(f"Expected an image of at least {block}x{block} pixels, got {height}x{width}; enlarge it.")
        return channels, height - height % block, width - width % block
