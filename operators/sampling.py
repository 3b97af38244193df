"""Which frequencies an MRI scan measures: functions of (height, width, parameters, seed), and descriptions.

A sampling mask is a (H, W) boolean tensor of *centred* k-space, the zero frequency at (H // 2, W // 2); True means
measured. The readout runs along the rows, so that a one-dimensional pattern measures whole columns.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.errors import ShapeError
from operators.files import read_array, read_plane
from operators.rng import generator
from operators.spec import DataRef, Spec

_GOLDEN_ANGLE = np.pi * (np.sqrt(5) - 1) / 2
"""Angle between successive spokes, 111.246°, which covers the circle evenly however many there are."""

_Plane = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def measured_acceleration(mask: Tensor) -> float:
    """Frequencies over measured frequencies: what a mask really spares, whatever it was asked for."""
    return mask.numel() / int(mask.sum())


def random_columns(width: int, acceleration: float, centre: int, seed: int) -> _Plane:
    """The central columns, and every other column with the one probability that makes width / acceleration expected.

    Shapes: → (width,) bool.

    Raises:
        ShapeError: the centre alone is more than may be measured.

    Source: Zbontar et al. 2018 (fastMRI, arXiv:1811.08839), "random" masks. Deviations: the draws come from `seed`.
    """
    _check_room(width, acceleration, centre)
    draw = generator(seed)
    chance = (width / acceleration - centre) / max(width - centre, 1)
    return (draw.uniform(size=width) < chance) | _central(width, centre)


def equispaced_columns(width: int, acceleration: float, centre: int, seed: int) -> _Plane:
    """Every acceleration-th column from a random first one, and the central columns on top: less is spared than asked.

    Shapes: → (width,) bool.

    Source: fastMRI, "equispaced" masks. Deviations: the first column comes from `seed`; any acceleration is taken.
    """
    return _comb(width, acceleration, seed) | _central(width, centre)


def equispaced_fraction_columns(width: int, acceleration: float, centre: int, seed: int) -> _Plane:
    """The central columns and a comb so wide that width / acceleration columns are measured in all, within about one.

    Shapes: → (width,) bool.

    Raises:
        ShapeError: the centre alone is more than may be measured.

    Source: fastMRI, "equispaced_fraction" masks. Deviations: the first column comes from `seed`; the last column may be
    measured, which the original leaves out.
    """
    _check_room(width, acceleration, centre)
    spacing = acceleration * (width - centre) / max(width - centre * acceleration, 1e-9)
    return _comb(width, spacing, seed) | _central(width, centre)


def gaussian_columns(width: int, acceleration: float, centre: int, seed: int) -> _Plane:
    """The central columns and 1.2 width / acceleration normal draws around the centre (std 15/128 of the width).

    Draws that fall on one another count once and the centre comes on top, so the acceleration is near the one asked
    for, on either side of it.

    Shapes: → (width,) bool.

    Source: Chung & Ye 2022 (score-MRI, arXiv:2110.05243), "gaussian1d". Deviations: the draws come from `seed`.
    """
    draws = generator(seed).normal(width // 2, width * 15 / 128, int(1.2 * (width // acceleration)))
    columns = _central(width, centre)
    columns[np.clip(draws.astype(int), 0, width - 1)] = True
    return columns


def gaussian_points(height: int, width: int, acceleration: float, seed: int) -> _Plane:
    """H W / acceleration normal draws around the centre, of variance 1.5/128 of the squared size along either axis.

    Draws that fall on one another count once, so more is spared than asked.

    Shapes: → (height, width) bool.

    Source: Chung & Ye 2022 (score-MRI), "gaussian2d", there for square images. Deviations: the draws come from `seed`.
    """
    size = np.array([height, width])
    count = max(1, int(height * width // acceleration))
    draws = generator(seed).normal(size // 2, size * np.sqrt(1.5 / 128), (count, 2))
    rows, columns = np.clip(draws.astype(int), 0, size - 1).T
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def poisson_disc(height: int, width: int, acceleration: float, centre_fraction: float, seed: int) -> _Plane:
    """Points that keep a distance which grows from the centre outwards, and a fully measured central box.

    Exactly round(H W / acceleration) points, or the central box if that is more. The distance kept is 1 + slope · r
    pixels, r = 1 at the middle of an edge; `slope` is the largest of a bisection at which enough points fit, and what
    fits beyond the number wanted is left out at random. The time is bounded: ten passes over the
    grid at most.

    Shapes: → (height, width) bool.

    Source: Bridson 2007 for the pattern, Lustig & Pauly 2010 for its use; darts are thrown in a random order instead of
    along a growing front. Deviations: none otherwise.
    """
    rows, columns = np.mgrid[:height, :width]
    radius = np.hypot((rows - height // 2) / (height / 2), (columns - width // 2) / (width / 2)).ravel()
    box = np.outer(
        _central(height, round(height * centre_fraction)), _central(width, round(width * centre_fraction))
    ).ravel()
    order = generator(seed).permutation(np.flatnonzero(~box)).tolist()
    wanted = max(round(height * width / acceleration), 1) - int(box.sum())
    low, high = 0.0, 4.0 * float(np.sqrt(acceleration))
    kept: list[int] = order[: max(wanted, 0)]
    for _ in range(9):
        slope = (low + high) / 2
        found = _darts(height, width, 1 + slope * radius, order, wanted)
        if len(found) == wanted:
            low, kept = slope, found
        else:
            high = slope
    box[kept] = True
    return box.reshape(height, width)


def radial_lines(height: int, width: int, acceleration: float, seed: int) -> _Plane:
    """Lines through the centre, each turned by the golden angle against the one before, rounded to the grid.

    Lines are added from a random first angle until H W / acceleration frequencies are measured; they reach the edges of
    the inscribed ellipse, and 4 / π is therefore the least acceleration there is.

    Shapes: → (height, width) bool.

    Raises:
        ShapeError: more frequencies are wanted than the ellipse holds.

    Source: Winkelmann et al. 2007 for the golden angle. Deviations: none.
    """
    mask = np.zeros((height, width), bool)
    mask[height // 2, width // 2] = True
    along = np.linspace(-0.5, 0.5, 4 * max(height, width) + 1)
    start = generator(seed).uniform(0, np.pi)
    wanted = height * width / acceleration
    # a line measures at least half the smaller side; far more lines than that add nothing but the last few corners
    for line in range(8 * max(height, width)):
        if mask.sum() >= wanted:
            return mask
        angle = start + line * _GOLDEN_ANGLE
        rows = np.rint(height // 2 + along * np.sin(angle) * height).astype(int)
        columns = np.rint(width // 2 + along * np.cos(angle) * width).astype(int)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        mask[rows[inside], columns[inside]] = True
    raise ShapeError(
        f"Expected an acceleration above {height * width / mask.sum():.3g} for radial lines, got {acceleration}; "
        "measure less, or choose another pattern."
    )


def _central(size: int, count: int) -> _Plane:
    """The `count` central places of `size`, the odd one out on the right as fastMRI has it."""
    first = (size - count + 1) // 2
    places = np.arange(size)
    return (places >= first) & (places < first + count)


def _comb(width: int, spacing: float, seed: int) -> _Plane:
    first = int(generator(seed).integers(0, min(max(1, round(spacing)), width)))
    columns = np.zeros(width, bool)
    columns[np.rint(np.arange(first, width - 0.5, spacing)).astype(int)] = True
    return columns


def _check_room(width: int, acceleration: float, centre: int) -> None:
    if centre * acceleration > width:
        raise ShapeError(
            f"Expected at most {width / acceleration:.3g} of {width} columns in the centre at acceleration "
            f"{acceleration}, got {centre}; lower the acceleration or the centre fraction."
        )


def _darts(height: int, width: int, distance: np.ndarray, order: list[int], wanted: int) -> list[int]:
    """The first `wanted` places in `order` that no earlier one forbids by being nearer than its own distance."""
    free = np.ones((height, width), bool)
    reach = int(np.ceil(distance.max()))
    offsets = np.arange(-reach, reach + 1)
    squared = offsets[:, None] ** 2 + offsets**2
    flags = free.reshape(-1)
    found: list[int] = []
    for place in order:
        if not flags[place]:
            continue
        if len(found) == wanted:
            break
        found.append(place)
        near = float(distance[place])
        if near <= 1:
            continue
        step = int(near)
        row, column = divmod(place, width)
        top, left = max(row - step, 0), max(column - step, 0)
        bottom, right = min(row + step + 1, height), min(column + step + 1, width)
        taken = squared[top - row + reach : bottom - row + reach, left - column + reach : right - column + reach]
        free[top:bottom, left:right] &= taken >= near**2
    return found


_Acceleration = Annotated[
    float, Field(ge=1, le=64, description="Frequencies over measured frequencies, as asked for; see what was measured.")
]
_Centre = Annotated[
    float, Field(ge=0, lt=1, description="Part of each undersampled axis measured fully at its centre.")
]
_Seed = Annotated[int, Field(ge=0, lt=2**63, description="Which draw; the same seed gives the same pattern.")]


class Sampling(Spec, ABC):
    """Description of the measured frequencies."""

    kind: str
    title: ClassVar[str]

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The mask, (height, width) bool, True where measured; relative paths are read from folder `base`.

        Raises:
            ShapeError: the mask has another size, nothing would be measured, or the pattern does not exist.
            ReadError, AssetCorrupt: a file cannot be used.
        """
        mask = self._build(height, width, base)
        if mask.shape != (height, width):
            raise ShapeError(
                f"Expected a sampling mask of {height}x{width} like the image, got {mask.shape[0]}x{mask.shape[1]}; "
                "use the mask of this scan."
            )
        if not bool(mask.any()):
            raise ShapeError("Expected at least one measured frequency, got none; lower the acceleration.")
        return mask

    @abstractmethod
    def _build(self, height: int, width: int, base: Path) -> Tensor: ...


class _Columns(Sampling):
    """Whole columns of k-space, as one-dimensional undersampling measures them."""

    acceleration: _Acceleration = 4.0
    centre_fraction: _Centre = 0.08
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        columns = self._columns(width, round(width * self.centre_fraction))
        return torch.from_numpy(columns).expand(height, width).clone()

    @abstractmethod
    def _columns(self, width: int, centre: int) -> _Plane: ...


class RandomColumns(_Columns):
    """Columns at random; see `random_columns`."""

    title: ClassVar[str] = "Random columns"
    kind: Literal["random"] = "random"

    def _columns(self, width: int, centre: int) -> _Plane:
        return random_columns(width, self.acceleration, centre, self.seed)


class EquispacedColumns(_Columns):
    """Every so-many-th column and the centre; see `equispaced_columns`."""

    title: ClassVar[str] = "Equispaced columns"
    kind: Literal["equispaced"] = "equispaced"

    def _columns(self, width: int, centre: int) -> _Plane:
        return equispaced_columns(width, self.acceleration, centre, self.seed)


class EquispacedFraction(_Columns):
    """Equispaced columns, spaced so that the acceleration is the one asked for; see `equispaced_fraction_columns`."""

    title: ClassVar[str] = "Equispaced columns, exact acceleration"
    kind: Literal["equispaced-fraction"] = "equispaced-fraction"

    def _columns(self, width: int, centre: int) -> _Plane:
        return equispaced_fraction_columns(width, self.acceleration, centre, self.seed)


class GaussianColumns(_Columns):
    """Columns drawn densely near the centre; see `gaussian_columns`."""

    title: ClassVar[str] = "Gaussian columns"
    kind: Literal["gaussian-1d"] = "gaussian-1d"

    def _columns(self, width: int, centre: int) -> _Plane:
        return gaussian_columns(width, self.acceleration, centre, self.seed)


class GaussianPoints(Sampling):
    """Points drawn densely near the centre; see `gaussian_points`."""

    title: ClassVar[str] = "Gaussian points"
    kind: Literal["gaussian-2d"] = "gaussian-2d"
    acceleration: _Acceleration = 8.0
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        return torch.from_numpy(gaussian_points(height, width, self.acceleration, self.seed))


class PoissonDisc(Sampling):
    """Points that keep their distance, more of it away from the centre; see `poisson_disc`."""

    title: ClassVar[str] = "Poisson disc"
    kind: Literal["poisson-disc"] = "poisson-disc"
    acceleration: _Acceleration = 8.0
    centre_fraction: _Centre = 0.08
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        return torch.from_numpy(poisson_disc(height, width, self.acceleration, self.centre_fraction, self.seed))


class RadialLines(Sampling):
    """Lines through the centre, rounded to the grid; see `radial_lines`."""

    title: ClassVar[str] = "Radial lines on the grid"
    kind: Literal["radial"] = "radial"
    acceleration: _Acceleration = 4.0
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        return torch.from_numpy(radial_lines(height, width, self.acceleration, self.seed))


class SamplingFile(Sampling):
    """A mask from a picture (above mid-grey is measured) or a numpy array (above half its largest value)."""

    title: ClassVar[str] = "Mask from a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Picture or array (H, W), zero frequency at H // 2, W // 2.")]

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        plane = read_plane(self.file, base)
        return torch.from_numpy(plane > max(1.0, plane.max()) / 2)


class MeasuredKspace(Sampling):
    """What a scan measured: where any coil of its k-space is not zero."""

    title: ClassVar[str] = "As measured in a k-space file"
    kind: Literal["kspace"] = "kspace"
    file: Annotated[DataRef, Field(description="Complex .npy or one-array .npz file (..., H, W), centred.")]

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        kspace = read_array(self.file, base)
        if kspace.ndim < 2:
            raise ShapeError(f"Expected k-space (..., H, W) in {self.file.path}, got {kspace.shape}; reshape it.")
        return torch.from_numpy((kspace != 0).any(tuple(range(kspace.ndim - 2))))


AnySampling = Annotated[
    EquispacedFraction
    | EquispacedColumns
    | RandomColumns
    | GaussianColumns
    | GaussianPoints
    | PoissonDisc
    | RadialLines
    | SamplingFile
    | MeasuredKspace,
    Field(discriminator="kind"),
]
