"""Physical numbers and unit range: one scale for a whole volume, and back without loss of what it does not cover."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medical.volume import Volume
from operators.errors import ShapeError

CT_WINDOW = (-1000.0, 1000.0)
"""Hounsfield units that become 0 and 1: air to dense bone."""

_TAILS = (0.5, 99.5)


@dataclass(frozen=True)
class Scale:
    """`low` becomes 0 and `high` becomes 1, in the unit of the volume."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ShapeError(f"Expected a window from low to high, got {self.low:g} to {self.high:g}; change it.")

    @property
    def span(self) -> float:
        """Physical units in one unit of unit range: a standard deviation is multiplied by it."""
        return self.high - self.low

    def to_unit(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """Unit range, clipped to [0, 1]; float32 of the same shape."""
        unit = (numbers.astype(np.float64) - self.low) / self.span
        return np.clip(unit, 0, 1).astype(np.float32)

    def apply(self, numbers: NDArray[Any], restored: NDArray[np.float32]) -> NDArray[np.float32]:
        """The physical numbers changed as `restored` differs from `to_unit(numbers)`; same shapes.

        What lies outside the window is moved, not clipped; where nothing was changed, the numbers are the same bits.
        """
        change = restored.astype(np.float64) - self.to_unit(numbers)
        return (numbers + change * self.span).astype(np.float32)

    def to_physical(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Physical numbers of unit range, for images that are not a changed version of others."""
        return (self.low + unit.astype(np.float64) * self.span).astype(np.float32)


def scale_of(volume: Volume, window: tuple[float, float] | None = None) -> Scale:
    """The scale of a volume: `window`, or -1000 to 1000 for HU, or the 0.5th and 99.5th percentile of its valid voxels.

    It is one for the whole volume, because a scale of its own for every slice would make them flicker.

    Raises:
        ShapeError: complex numbers, or no two different ones to scale by.
    """
    if np.iscomplexobj(volume.array):
        raise ShapeError("Expected real numbers, got complex ones; take their magnitude first.")
    if window is not None:
        return Scale(*window)
    if volume.unit == "HU":
        return Scale(*CT_WINDOW)
    valid = volume.array if volume.valid is None else volume.array[volume.valid]
    if valid.size == 0:
        raise ShapeError("Expected measured voxels, got padding alone; leave the volume out.")
    low, high = (float(v) for v in np.percentile(valid, _TAILS))
    if not low < high:
        low, high = float(valid.min()), float(valid.max())
    if not low < high:
        raise ShapeError("Expected different numbers, got the same everywhere; leave the volume out.")
    return Scale(low, high)


def through_axis(volume: Volume) -> int:
    """The axis across slices: one voxel long, or the one of clearly larger steps, or the last of the three."""
    if volume.source is not None and volume.source.format == "dicom":
        return 2
    if 1 in volume.array.shape[:3]:
        return 2 - volume.array.shape[2::-1].index(1)
    spacing = np.array(volume.spacing)
    coarse = int(spacing.argmax())
    return coarse if spacing[coarse] > 1.1 * np.delete(spacing, coarse).max() else 2


def planes(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """The slices across `axis` as pictures: (I, J, K) or (I, J, K, T) → (slices, rows, columns), T running fastest."""
    front = np.moveaxis(array, axis, 0)
    front = np.moveaxis(front, 3, 1).reshape(-1, *front.shape[1:3]) if array.ndim == 4 else front
    return front.swapaxes(1, 2)


def from_planes(pictures: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    """The array of `shape` whose `planes` are `pictures`."""
    front = pictures.swapaxes(1, 2)
    if len(shape) == 4:
        front = np.moveaxis(front.reshape(shape[axis], shape[3], *front.shape[1:]), 1, 3)
    return np.ascontiguousarray(np.moveaxis(front, 0, axis))
