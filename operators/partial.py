"""Some coefficients of a fast orthonormal transform, of a whole image or of each block of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import OrthonormalOperator, Shape, check_image_shape, check_side
from operators.errors import ShapeError
from operators.files import MAX_PIXELS
from operators.patterns import cosine_basis, hadamard, is_power_of_two, sequency_to_natural


@dataclass(frozen=True)
class Blocks:
    """How images are cut into blocks of equal size, each measured alike.

    Attributes:
        in_shape: (..., H, W), without batch.
        side: of a square block, a divisor of H and W; None takes the image as one block.

    Raises:
        ShapeError: the blocks do not fill the image, or one is above `MAX_PIXELS`.
    """

    in_shape: Shape
    side: int | None = None

    def __post_init__(self) -> None:
        height, width = check_image_shape(self.in_shape)[-2:]
        if self.side is not None and (self.side < 1 or height % self.side or width % self.side):
            raise ShapeError(
                f"Compressed sensing expected an image whose sides are multiples of the block's, {self.side}, "
                f"got {height}x{width}; crop the image or choose another block size."
            )
        if self.pixels > MAX_PIXELS:
            raise ShapeError(
                f"Compressed sensing expected blocks of at most {MAX_PIXELS / 1e6:g} megapixels, got "
                f"{self.height}x{self.width}; crop the image or choose smaller blocks."
            )

    @property
    def height(self) -> int:
        """Rows of a block."""
        return self.in_shape[-2] if self.side is None else self.side

    @property
    def width(self) -> int:
        """Columns of a block."""
        return self.in_shape[-1] if self.side is None else self.side

    @property
    def pixels(self) -> int:
        """Pixels of a block."""
        return self.height * self.width

    @property
    def count(self) -> int:
        """Blocks of a channel."""
        return prod(self.in_shape[-2:]) // self.pixels

    def data_shape(self, numbers: int) -> Shape:
        """(..., numbers) where the image is one block, (..., blocks, numbers) otherwise; without batch."""
        blocks = () if self.count == 1 else (self.count,)
        return (*self.in_shape[:-2], *blocks, numbers)

    def split(self, x: Tensor) -> Tensor:
        """Shapes: (B, ..., H, W) → (B · ... · blocks, pixels), blocks and their pixels in reading order."""
        rows, columns = self.in_shape[-2] // self.height, self.in_shape[-1] // self.width
        return x.reshape(-1, rows, self.height, columns, self.width).transpose(2, 3).reshape(-1, self.pixels)

    def join(self, lists: Tensor) -> Tensor:
        """Undoes `split`.   Shapes: (B · ... · blocks, pixels) → (B, ..., H, W)."""
        rows, columns = self.in_shape[-2] // self.height, self.in_shape[-1] // self.width
        grid = lists.reshape(-1, rows, columns, self.height, self.width)
        return grid.transpose(2, 3).reshape(-1, *self.in_shape)

    def laid_out(self, y: Tensor, rows: Tensor) -> Tensor:
        """The numbers of each block put at positions `rows`, zero elsewhere.   Shapes: data → (B, ..., H, W)."""
        return self.join(scattered(y.reshape(-1, len(rows)), rows, self.pixels))

    def listed(self, picture: Tensor, rows: Tensor) -> Tensor:
        """Undoes `laid_out`.   Shapes: (B, ..., H, W) → data."""
        lists = self.split(picture).index_select(1, rows)
        return lists.reshape(-1, *self.data_shape(len(rows)))


class PartialTransform(OrthonormalOperator, ABC):
    """Some coefficients of an orthonormal transform, of the whole image or of each block.

    Shapes: x (B, ..., H, W) → (B, ..., m), or (B, ..., blocks, m).

    Args:
        rows: (m,) int64, distinct positions in the transform's plane of coefficients, in reading order; see each class.
        in_shape: (..., H, W), without batch.
        block: side of a block in pixels; None for the whole image.
        pixels: (n,) int64, a permutation of a block's n pixels in reading order that comes before the transform.
        signs: (n,) of ±1 that the pixels (once permuted) are multiplied by before the transform.

    Raises:
        ShapeError: the blocks do not fill the image, or an argument is not as described.

    Source: permutation and signs are the global and the local randomiser of Do, Gan, Nguyen and Tran 2012
    (arXiv:1106.5037). Deviations: none.
    """

    _rows: Tensor
    _pixels: Tensor | None
    _back: Tensor | None
    _signs: Tensor | None
    paired: ClassVar[bool] = False

    def __init__(
        self,
        rows: Tensor,
        in_shape: Shape,
        block: int | None = None,
        *,
        pixels: Tensor | None = None,
        signs: Tensor | None = None,
    ) -> None:
        in_shape = check_image_shape(in_shape)
        blocks = Blocks(in_shape, block)
        self.check_block(blocks.height, blocks.width)
        _check_list("rows", rows, blocks.pixels)
        super().__init__(in_shape, blocks.data_shape(len(rows)))
        self.blocks = blocks
        self.register_buffer("_rows", rows.clone())
        if pixels is not None:
            _check_list("pixels", pixels, blocks.pixels, whole=True)
            pixels = pixels.clone()
        self.register_buffer("_pixels", pixels)
        self.register_buffer("_back", None if pixels is None else pixels.argsort())
        if signs is not None and (signs.shape != (blocks.pixels,) or not bool((signs.abs() == 1).all())):
            raise ShapeError(
                f"{type(self).__name__} expected {blocks.pixels} signs that are 1 or -1, got {tuple(signs.shape)}; "
                "draw one for each pixel of a block."
            )
        self.register_buffer("_signs", None if signs is None else signs.to(torch.get_default_dtype()))
        self._prepare(rows)

    @classmethod
    def check_block(cls, height: int, width: int) -> None:
        """Raise ShapeError if there is no transform of blocks of that size."""

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The measured coefficients.   Shapes: (B, ..., H, W) → data."""
        lists = self.blocks.split(x)
        if self._pixels is not None:
            lists = lists.index_select(1, self._pixels)
        if self._signs is not None:
            lists = lists * self._signs.to(x.dtype)
        return self._analyse(lists).reshape(-1, *self.out_shape)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """The image with those coefficients and no others.   Shapes: data → (B, ..., H, W)."""
        lists = self._synthesise(c.reshape(-1, len(self._rows)))
        if self._signs is not None:
            lists = lists * self._signs.to(c.dtype)
        if self._back is not None:
            lists = lists.index_select(1, self._back)
        return self.blocks.join(lists)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Undoes `data_as_image`.   Shapes: (B, ..., H, W) → data."""
        self.check_image(picture)
        return self.blocks.listed(picture, self._rows)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The coefficients in the transform's plane, low frequencies first, zero where nothing was measured.

        Shapes: data → (B, ..., H, W).
        """
        self.check_data(y)
        return self.blocks.laid_out(y, self._rows)

    @abstractmethod
    def _prepare(self, rows: Tensor) -> None:
        """Register the constants of the transform; blocks are known."""

    @abstractmethod
    def _analyse(self, lists: Tensor) -> Tensor:
        """The chosen coefficients.   Shapes: (L, n) → (L, m)."""

    @abstractmethod
    def _synthesise(self, c: Tensor) -> Tensor:
        """The transpose of `_analyse`.   Shapes: (L, m) → (L, n)."""


class PartialHadamard(PartialTransform):
    """Some Walsh–Hadamard coefficients: sums and differences of all pixels, divided by the root of their number.

    `rows` are positions in the plane of sequencies (numbers of sign changes, downwards and across).

    Raises:
        ShapeError: a side of the block is not a power of two.
    """

    _natural: Tensor

    def _prepare(self, rows: Tensor) -> None:
        down, across = sequency_to_natural(self.blocks.height), sequency_to_natural(self.blocks.width)
        natural = (down[:, None] * self.blocks.width + across).flatten()
        self.register_buffer("_natural", natural.to(rows.device)[rows])

    @classmethod
    def check_block(cls, height: int, width: int) -> None:
        if not (is_power_of_two(height) and is_power_of_two(width)):
            raise ShapeError(
                f"Hadamard patterns expected sides that are powers of two, got {height}x{width}; "
                "crop the image to such a size, choose such blocks, or use cosine patterns."
            )

    def _analyse(self, lists: Tensor) -> Tensor:
        return hadamard(lists).index_select(1, self._natural)

    def _synthesise(self, c: Tensor) -> Tensor:
        return hadamard(scattered(c, self._natural, self.blocks.pixels))


class PartialCosine(PartialTransform):
    """Some coefficients of the cosine transform (DCT-II); `rows` are positions in the plane of frequencies.

    Raises:
        ShapeError: a side of the block is above `MAX_SIDE`.
    """

    _down: Tensor
    _across: Tensor

    @classmethod
    def check_block(cls, height: int, width: int) -> None:
        check_side("Cosine patterns", height, width, "choose blocks or Fourier patterns")

    def _prepare(self, rows: Tensor) -> None:
        # dense matrices: at 256 pixels as fast as a transform by FFT, and without its detours
        self.register_buffer("_down", cosine_basis(self.blocks.height).to(torch.get_default_dtype()))
        self.register_buffer("_across", cosine_basis(self.blocks.width).to(torch.get_default_dtype()))

    def _analyse(self, lists: Tensor) -> Tensor:
        planes = lists.reshape(-1, self.blocks.height, self.blocks.width)
        coefficients = self._down.to(lists.dtype) @ (planes @ self._across.to(lists.dtype).T)
        return coefficients.flatten(1).index_select(1, self._rows)

    def _synthesise(self, c: Tensor) -> Tensor:
        planes = scattered(c, self._rows, self.blocks.pixels).reshape(-1, self.blocks.height, self.blocks.width)
        return (self._down.to(c.dtype).T @ (planes @ self._across.to(c.dtype))).flatten(1)


class PartialFourier(PartialTransform):
    """Some Fourier coefficients of a real image, as real numbers.

    The spectrum of a real image is Hermitian, so that coefficients k and −k are one complex number: its real part,
    times √2, is at whichever position comes first in reading order, its imaginary part, times √2, at the other. The few
    that are their own mirror image (the mean, for one) are real and stand as they are. So all rows are orthonormal,
    white noise on the data is white, and its sigma is that of each real component. `rows` are positions in the plane
    of frequencies as the fast Fourier transform orders them.
    """

    paired: ClassVar[bool] = True

    _part: Tensor
    _weight: Tensor
    _source: Tensor
    _back_weight: Tensor

    def _prepare(self, rows: Tensor) -> None:
        height, width, half = self.blocks.height, self.blocks.width, self.blocks.width // 2 + 1
        place = torch.arange(height * width)
        u, v = place // width, place % width
        mirror = (-u % height) * width + -v % width
        root = 2.0**0.5
        # a part of coefficient k is found in the half spectrum, at k or, conjugated, at −k
        first = torch.minimum(place, mirror)
        imaginary = place > mirror
        inside = first % width < half
        held = torch.where(inside, first, torch.maximum(place, mirror))
        part = 2 * (held // width * half + held % width) + imaginary
        weight = torch.where(place == mirror, 1.0, torch.where(imaginary & ~inside, -root, root))
        self.register_buffer("_part", part.to(rows.device)[rows])
        self.register_buffer("_weight", weight.to(rows.device, torch.get_default_dtype())[rows])
        # the way back: for each number of the half spectrum the data it comes from, or the zero that is appended
        number = torch.full((height * width,), len(rows))
        number[rows.cpu()] = torch.arange(len(rows))
        kept = place[v < half]
        real, other = first[kept], torch.maximum(kept, mirror[kept])
        alone = kept == mirror[kept]
        source = torch.stack([number[real], torch.where(alone, len(rows), number[other])], 1)
        scale = torch.where(alone, 1.0, root / 2)
        back = torch.stack([scale, torch.where(kept == real, scale, -scale)], 1)
        self.register_buffer("_source", source.flatten().to(rows.device))
        self.register_buffer("_back_weight", back.flatten().to(rows.device, torch.get_default_dtype()))

    def _analyse(self, lists: Tensor) -> Tensor:
        planes = lists.reshape(-1, self.blocks.height, self.blocks.width)
        parts = torch.view_as_real(torch.fft.rfft2(planes, norm="ortho")).flatten(1)
        return parts.index_select(1, self._part) * self._weight.to(lists.dtype)

    def _synthesise(self, c: Tensor) -> Tensor:
        size = (self.blocks.height, self.blocks.width)
        padded = torch.cat([c, c.new_zeros(len(c), 1)], 1)
        parts = padded.index_select(1, self._source) * self._back_weight.to(c.dtype)
        spectrum = torch.view_as_complex(parts.reshape(len(c), size[0], size[1] // 2 + 1, 2))
        planes: Tensor = torch.fft.irfft2(spectrum, s=size, norm="ortho")
        return planes.flatten(1)


def scattered(c: Tensor, places: Tensor, size: int) -> Tensor:
    """Lists of `size` numbers with c at the places, zero elsewhere.   Shapes: (L, m), (m,) → (L, size)."""
    return c.new_zeros(len(c), size).scatter_(1, places.expand_as(c), c)


def _check_list(name: str, places: Tensor, size: int, *, whole: bool = False) -> None:
    fits = places.ndim == 1 and places.dtype == torch.long and 1 <= len(places) <= size
    if not fits or (whole and len(places) != size) or not _are_distinct(places, size):
        asked = f"all {size} places" if whole else f"distinct places among {size}"
        raise ShapeError(
            f"Compressed sensing expected {name} to be a list of {asked} (int64), got {tuple(places.shape)} "
            f"{places.dtype}; count from 0 in reading order."
        )


def _are_distinct(places: Tensor, size: int) -> bool:
    return bool(places.min() >= 0) and bool(places.max() < size) and len(places.unique()) == len(places)
