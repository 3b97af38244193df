"""Compressed sensing: few numbers, each a mixture of many pixels, of a whole image or of each block of it."""

from abc import ABC, abstractmethod
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.partial import Blocks, PartialCosine, PartialFourier, PartialHadamard, PartialTransform
from operators.patterns import Order, check_matrix_size, choose_rows, count_of, gaussian_matrix
from operators.rng import generator
from operators.spec import Need, Spec, Ui


class MatrixSensing(SpectralOperator):
    """Products of a given matrix with the pixels of the whole image or of each block; closed forms by its SVD.

    Shapes: x (B, ..., H, W) → (B, ..., m), or (B, ..., blocks, m).

    Args:
        matrix: (m, n) real, m <= n, for the n pixels of a block in reading order, with at most `MAX_MATRIX` numbers.
        in_shape: (..., H, W), without batch.
        block: side of a block in pixels; None for the whole image.

    Raises:
        ShapeError: the matrix does not fit a block, is too large, zero or not finite, or the blocks do not fill the
            image.
    """

    matrix: Tensor
    _u: Tensor
    _s: Tensor
    _v: Tensor
    _rows: Tensor

    def __init__(self, matrix: Tensor, in_shape: Shape, block: int | None = None) -> None:
        in_shape = check_image_shape(in_shape)
        blocks = Blocks(in_shape, block)
        if matrix.ndim != 2 or matrix.shape[1] != blocks.pixels or not 1 <= len(matrix) <= blocks.pixels:
            raise ShapeError(
                f"Compressed sensing expected a matrix of up to {blocks.pixels} rows and {blocks.pixels} columns, "
                f"got {tuple(matrix.shape)}; give one column for each pixel of a block."
            )
        check_matrix_size(*matrix.shape)
        if not bool(matrix.isfinite().all()) or not bool(matrix.any()):
            raise ShapeError("Compressed sensing expected a matrix of finite numbers that are not all zero; check it.")
        super().__init__(in_shape, blocks.data_shape(len(matrix)))
        self.blocks = blocks
        u, s, v = _svd(matrix.to(torch.float64))
        constants = {"matrix": matrix, "_u": u, "_s": s, "_v": v}
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()).contiguous())
        self.register_buffer("_rows", torch.arange(len(matrix), device=matrix.device))

    @property
    def singular_values(self) -> Tensor:
        """Those of the matrix that are not zero, the same for each block."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, ..., H, W) → (B, ..., rank) or (B, ..., blocks, rank)."""
        return (self.blocks.split(x) @ self._v.to(x.dtype)).reshape(-1, *self.blocks.data_shape(len(self._s)))

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., rank) or (B, ..., blocks, rank) → (B, ..., H, W)."""
        return self.blocks.join(c @ self._v.to(c.dtype).T)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, ..., m) → (B, ..., rank)."""
        return y @ self._u.to(y.dtype)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, ..., rank) → (B, ..., m)."""
        return c @ self._u.to(c.dtype).T

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Undoes `data_as_image`.   Shapes: (B, ..., H, W) → data."""
        self.check_image(picture)
        return self.blocks.listed(picture, self._rows)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The numbers of each block in the place of its first pixels, then zeros.   Shapes: data → (B, ..., H, W)."""
        self.check_data(y)
        return self.blocks.laid_out(y, self._rows)

    def _forward(self, x: Tensor) -> Tensor:
        return (self.blocks.split(x) @ self.matrix.to(x.dtype).T).reshape(-1, *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.blocks.join(y @ self.matrix.to(y.dtype))

    def _guess(self, y: Tensor) -> Tensor:
        return self._pinv(y, 1e-6, 0)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition U diag(s) Vᵀ without its zeros.   Shapes: (m, n) → (m, rank), (rank,), (n, rank)."""
    one = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    if torch.allclose(matrix @ matrix.T, one, rtol=0, atol=1e-10):  # orthonormal rows are their own decomposition
        return one, torch.ones_like(matrix[:, 0]), matrix.T
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > 1e-10 * s[0]
    return u[:, kept], s[kept], vh[kept].T


Seed = Annotated[int, Field(ge=0, lt=2**63, description="Which draw; the same seed gives the same patterns.")]


class Patterns(Spec, ABC):
    """Description of what the pixels are mixed with."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, ratio: float, in_shape: Shape, block: int | None) -> SpectralOperator:
        """The operator with `ratio` times as many numbers as pixels; see `CompressedSpec`.

        Raises:
            ShapeError: there are no such patterns for this size.
        """

    def usable_side(self, side: int) -> int:
        """The longest side of an image up to `side` that there are patterns for."""
        return side


class GaussianPatterns(Patterns):
    """Independent Gaussian numbers, stored as a matrix: for blocks and for small images; see `gaussian_matrix`."""

    title: ClassVar[str] = "Gaussian"
    kind: Literal["gaussian"] = "gaussian"
    orthonormal: Annotated[
        bool, Field(description="Make the patterns orthonormal, so that none repeats another."), Ui(advanced=True)
    ] = True
    seed: Seed = 0

    def build(self, ratio: float, in_shape: Shape, block: int | None) -> MatrixSensing:
        pixels = block**2 if block else prod(in_shape[-2:])
        matrix = gaussian_matrix(count_of(ratio, pixels), pixels, self.orthonormal, self.seed)
        return MatrixSensing(matrix, in_shape, block)


class FastPatterns(Patterns, ABC):
    """Patterns of a fast transform."""

    operator: ClassVar[type[PartialTransform]]
    order: Annotated[
        Order, Field(description="Which patterns are taken: at random, or the coarsest, by zigzag or cake cutting.")
    ] = "random"
    scramble: Annotated[
        Literal["none", "signs", "pixels"],
        Field(description="Mix the pixels first: flip their signs at random, or change their places."),
    ] = "none"
    seed: Seed = 0

    def build(self, ratio: float, in_shape: Shape, block: int | None) -> PartialTransform:
        height, width = (block, block) if block else in_shape[-2:]
        self.operator.check_block(height, width)
        rows = choose_rows(
            height, width, count_of(ratio, height * width), self.order, self.seed, paired=self.operator.paired
        )
        draw, pixels, signs = generator(self.seed, 1), None, None
        if self.scramble == "pixels":
            pixels = torch.from_numpy(draw.permutation(height * width))
        elif self.scramble == "signs":
            signs = torch.from_numpy(draw.choice([-1.0, 1.0], height * width))
        return self.operator(rows, in_shape, block, pixels=pixels, signs=signs)


class HadamardPatterns(FastPatterns):
    """Sums and differences of pixels; sides are powers of two; see `PartialHadamard`."""

    title: ClassVar[str] = "Hadamard"
    kind: Literal["hadamard"] = "hadamard"
    operator: ClassVar[type[PartialTransform]] = PartialHadamard

    def usable_side(self, side: int) -> int:
        return 1 << (side.bit_length() - 1)


class CosinePatterns(FastPatterns):
    """Cosines of both directions (DCT); see `PartialCosine`."""

    title: ClassVar[str] = "Cosine (DCT)"
    kind: Literal["cosine"] = "cosine"
    operator: ClassVar[type[PartialTransform]] = PartialCosine


class FourierPatterns(FastPatterns):
    """Waves in all directions (FFT); see `PartialFourier`."""

    title: ClassVar[str] = "Fourier"
    kind: Literal["fourier"] = "fourier"
    operator: ClassVar[type[PartialTransform]] = PartialFourier


AnyPatterns = Annotated[
    CosinePatterns | HadamardPatterns | FourierPatterns | GaussianPatterns, Field(discriminator="kind")
]

Ratio = Annotated[float, Field(gt=0, le=1, description="How many numbers are measured for each pixel.")]


class CompressedSpec(OperatorSpec):
    """Fewer numbers than pixels, each a known mixture of many of them, for the whole image or block by block."""

    title: ClassVar[str] = "Compressed sensing"
    kind: Literal["compressed"] = "compressed"
    ratio: Ratio = 0.25
    patterns: Annotated[AnyPatterns, Field(description="What the pixels are mixed with.")] = CosinePatterns(
        scramble="signs"
    )
    block: Annotated[
        int | None,
        Field(ge=2, le=256, description="Side of the blocks, each measured alike; empty takes the image as a whole."),
        Ui(unit="px"),
    ] = None

    @model_validator(mode="after")
    def _check_block(self) -> "CompressedSpec":
        if self.block is not None and self.patterns.usable_side(self.block) != self.block:
            raise ValueError(
                f"Expected blocks whose side is a power of two for Hadamard patterns, got {self.block}; "
                "choose 8, 16 or 32, or other patterns."
            )
        return self

    @property
    def offers(self) -> frozenset[Need]:
        """What every spectral operator offers."""
        return SpectralOperator.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> SpectralOperator:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        Blocks(shape, self.block)  # refuses before anything is drawn
        return self.patterns.build(self.ratio, shape, self.block)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` with height and width rounded down to multiples of the block, or to sizes of the patterns.

        Raises:
            ShapeError: the image is smaller than a block.
        """
        *rest, height, width = check_image_shape(image_shape)
        if self.block is None:
            return (*rest, self.patterns.usable_side(height), self.patterns.usable_side(width))
        if min(height, width) < self.block:
            raise ShapeError(
                f"Expected an image of at least {self.block}x{self.block} pixels, one block, got {height}x{width}; "
                "choose smaller blocks."
            )
        return (*rest, height - height % self.block, width - width % self.block)
