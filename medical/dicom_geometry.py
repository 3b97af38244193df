"""From positions of slices to one grid, or the reason why there is none. Positions decide; no other tag is believed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medical.volume import Note

SAME_PLACE = 0.01
"""Millimetres below which two slices are at the same place."""

_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and to the back


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in spatial order.

    Attributes:
        order: indices of the slices, along the normal.
        affine: (4, 4), from (column, row, slice) to RAS+ millimetres; mean step where steps are uneven.
        notes: what was noticed.
        problem: why there is no regular grid, as "got ..." of a sentence; empty where there is one.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]
    notes: tuple[Note, ...]
    problem: str


def normal_of(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction in which slices follow each other, from the two directions of ImageOrientationPatient (6,)."""
    return np.cross(orientation[:3], orientation[3:])


def is_orientation(orientation: NDArray[np.float64]) -> bool:
    """Whether six numbers are two unit vectors at a right angle, to 1e-3."""
    row, column = orientation[:3], orientation[3:]
    return bool(
        orientation.shape == (6,)
        and np.isfinite(orientation).all()
        and max(abs(row @ row - 1), abs(column @ column - 1)) < 2e-3
        and abs(row @ column) < 1e-3
    )


def plane_of(orientation: NDArray[np.float64]) -> str:
    """The name of the plane: axial, coronal, sagittal, or oblique if the normal is over 25 degrees off every axis."""
    along = np.abs(normal_of(orientation))
    names = ("sagittal", "coronal", "axial")
    return names[int(along.argmax())] if along.max() > np.cos(np.radians(25)) else "oblique"


def stack(
    orientation: NDArray[np.float64], positions: NDArray[np.float64], spacing: tuple[float, float], step: float
) -> Stack:
    """Order slices along their normal and find the grid that they are on.

    Args:
        orientation: ImageOrientationPatient (6,): directions in which the column index and the row index increase.
        positions: ImagePositionPatient of each slice (N, 3), in any order, no two alike.
        spacing: PixelSpacing: distance between rows, then between columns.
        step: distance to a next slice where there is only one.
    """
    normal = normal_of(orientation)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    first, last = positions[order[0]], positions[order[-1]]
    count = len(positions)
    advance = (last - first) / (count - 1) if count > 1 else normal * step
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = advance
    affine[:3, 3] = first
    notes: list[Note] = []
    problem = ""
    if count > 2:
        problem = _uneven(np.diff(depth[order]), notes)
    if count > 1:
        sideways = positions[order] - first - np.outer(depth[order] - depth[order[0]], normal)
        tilted = np.linalg.norm(sideways, axis=1).max() > 0.1
        steady = np.outer(np.arange(count) / (count - 1), sideways[-1])
        if not problem and np.linalg.norm(sideways - steady, axis=1).max() > 0.1:
            problem = "slices that are shifted sideways by uneven amounts"
        elif tilted:
            angle = np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), depth[order[-1]] - depth[order[0]]))
            notes.append(Note("W-TILT", f"slices are shifted sideways: the gantry was tilted by {angle:.1f} degrees"))
    return Stack(tuple(int(k) for k in order), _RAS @ affine, tuple(notes), problem)


def _uneven(steps: NDArray[np.float64], notes: list[Note]) -> str:
    """What is wrong with the distances between slices; a note where they differ by no more than rounding in headers."""
    usual = float(np.median(steps))
    off = np.abs(steps - usual)
    if off.max() <= max(SAME_PLACE, 0.01 * usual):
        return ""
    if off.max() <= max(SAME_PLACE, 0.02 * usual):
        text = f"distances between slices vary from {steps.min():.3f} to {steps.max():.3f} mm; their mean is used"
        notes.append(Note("W-STEP", text))
        return ""
    places = np.flatnonzero(off > max(SAME_PLACE, 0.02 * usual))
    words = []
    for k in places[:3]:
        times = steps[k] / usual
        whole = round(float(times))
        missing = f", {whole - 1} missing" if whole > 1 and abs(times - whole) < 0.1 else ""
        words.append(f"{steps[k]:.2f} mm between slices {k + 1} and {k + 2}{missing}")
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return f"{'; '.join(words)}{more} where {usual:.2f} mm is usual"
