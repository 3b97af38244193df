"""Thick slices: a volume measured with fewer and thicker planes than it has."""

from math import ceil, floor
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.special import ndtr
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.spec import Need, Ui

Profile = Literal["boxcar", "gaussian"]


def slice_centres(depth: int, spacing: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Middles of the slices, as many as fit, and in the middle of the volume; plane j lies between j and j + 1."""
    count = max(1, floor(depth / spacing + 1e-9))
    return (depth - count * spacing) / 2 + spacing * (np.arange(count, dtype=np.float64) + 0.5)


def slice_matrix(depth: int, thickness: float, spacing: float, profile: Profile) -> Tensor:
    """The weights with which planes enter slices; each slice's sum to 1, also where it reaches out of the volume.

    `boxcar` weighs a plane by the part of it that lies in the slice; `gaussian` by its share of a Gaussian whose full
    width at half maximum is the thickness.

    Shapes: → (slices, depth) float64.   Units: planes.
    """
    centres = slice_centres(depth, spacing)[:, None]
    below, above = np.arange(depth) - centres, np.arange(1, depth + 1) - centres
    if profile == "boxcar":
        weights = np.clip(above, -thickness / 2, thickness / 2) - np.clip(below, -thickness / 2, thickness / 2)
    else:
        std = thickness / (2 * np.sqrt(2 * np.log(2)))
        weights = ndtr(above / std) - ndtr(below / std)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))


class ThickSlices(SpectralOperator):
    """Reduction of a volume across its planes, the same for every column of voxels.

    Shapes: x (B, C, D, H, W) → (B, C, slices, H, W).

    Args:
        in_shape: (C, D, H, W), without batch.
        thickness: of a slice, in planes, > 0.
        spacing: from slice to slice, in planes, >= 1; need not be whole.
        profile: "boxcar" or "gaussian"; see `slice_matrix`.

    Raises:
        ShapeError: not a volume, or thickness or spacing out of range.
    """

    matrix: Tensor
    _u: Tensor
    _s: Tensor
    _v: Tensor
    _nearest: Tensor

    def __init__(self, in_shape: Shape, thickness: float, spacing: float, profile: Profile = "boxcar") -> None:
        in_shape = _check_volume(in_shape)
        if not thickness > 0 or not spacing >= 1:
            raise ShapeError(
                f"ThickSlices expected a thickness above 0 and a spacing of at least 1 plane, got {thickness} and "
                f"{spacing}; give both in planes of the volume."
            )
        channels, depth, *plane = in_shape
        matrix = slice_matrix(depth, thickness, spacing, profile)
        super().__init__(in_shape, (channels, len(matrix), *plane))
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        kept = s > 1e-6 * s[0]  # overlapping slices can be all but equal
        constants = {"matrix": matrix, "_u": u[:, kept], "_s": s[kept, None, None], "_v": vh[kept].T}
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()).contiguous())
        centres = slice_centres(depth, spacing)
        self.register_buffer("_nearest", torch.from_numpy(np.abs(np.arange(depth)[:, None] + 0.5 - centres).argmin(1)))

    @property
    def singular_values(self) -> Tensor:
        """Those of `matrix` that are not zero, (rank, 1, 1)."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, C, D, H, W) → (B, C, rank, H, W)."""
        return _across(self._v.T, x)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, C, rank, H, W) → (B, C, D, H, W)."""
        return _across(self._v, c)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, C, slices, H, W) → (B, C, rank, H, W)."""
        return _across(self._u.T, y)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, C, rank, H, W) → (B, C, slices, H, W)."""
        return _across(self._u, c)

    def _forward(self, x: Tensor) -> Tensor:
        return _across(self.matrix, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _across(self.matrix.T, y)

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _guess(self, y: Tensor) -> Tensor:
        return y.index_select(-3, self._nearest)


def _across(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix.to(x.dtype) @ x.flatten(-2)).reshape(*x.shape[:-3], len(matrix), *x.shape[-2:])


def _check_volume(shape: Shape) -> Shape:
    shape = check_image_shape(shape)
    if len(shape) != 4:
        raise ShapeError(f"ThickSlices expected a volume such as (1, 64, 256, 256), got {shape}; give (C, D, H, W).")
    return shape


class ThickSlicesSpec(OperatorSpec):
    """A volume in slices thicker, or further apart, than they should be."""

    title: ClassVar[str] = "Thick slices"
    kind: Literal["thick-slices"] = "thick-slices"
    thickness: Annotated[float, Field(gt=0, le=64, description="Thickness of a slice."), Ui(unit="planes")] = 4.0
    spacing: Annotated[float, Field(ge=1, le=64, description="From one slice to the next."), Ui(unit="planes")] = 4.0
    profile: Annotated[
        Profile, Field(description="Even sensitivity across a slice, or a Gaussian of that width at half its height.")
    ] = "boxcar"

    @property
    def offers(self) -> frozenset[Need]:
        """What `ThickSlices` offers."""
        return ThickSlices.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> ThickSlices:
        """The operator on real volumes (C, D, H, W); see `OperatorSpec.build`."""
        return ThickSlices(in_shape, self.thickness, self.spacing, self.profile)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The fewest planes that give so many slices."""
        channels, slices, height, width = _check_volume(picture_shape)
        return (channels, ceil(slices * self.spacing - 1e-9), height, width)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape`, if it is a volume.

        Raises:
            ShapeError: it is not.
        """
        return _check_volume(image_shape)
