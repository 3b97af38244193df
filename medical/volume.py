"""The value that all medical formats are read into and written from."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from operators.errors import ShapeError

Code = Literal[
    "W-BURNED-IN",
    "W-CLIP",
    "W-DUP",
    "W-EMPTY-UID",
    "W-FORMS",
    "W-GAP",
    "W-LOSSY-SOURCE",
    "W-MIXED-SLOPE",
    "W-NO-FOR",
    "W-NO-POSITION",
    "W-NO-SPACING",
    "W-NONORTHO",
    "W-NOT-FINITE",
    "W-ORIENTATION",
    "W-PADDING",
    "W-SPACING-TAG",
    "W-STEP",
    "W-TILT",
]
"""What a person should know about a volume; `docs/medical.md` says what each means."""


@dataclass(frozen=True)
class Note:
    """A warning: a code that programs can count, and a sentence. Never holds names, identifiers or paths."""

    code: Code
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: its checksum, and its path, which is kept out of every printed form."""

    path: Path = field(repr=False)
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where voxels came from: enough to find the files again and to know whether they are still the same.

    Attributes:
        format: what the files are.
        files: in the order of the slices for DICOM; one for NIfTI and for multi-frame DICOM.
        frames: for multi-frame DICOM, the frame (from 0) that each slice was.
    """

    format: Literal["dicom", "nifti"]
    files: tuple[SourceFile, ...] = field(repr=False)
    frames: tuple[int, ...] = field(default=(), repr=False)

    @property
    def case(self) -> str:
        """A name for logs and output files, made from the contents of the files and nothing that is written in them."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels, where they are in the patient, and what their numbers mean.

    Shapes: array (I, J, K) or (I, J, K, T), in the order of the file: for DICOM (column, row, slice).
    Units: voxel (i, j, k) is at affine @ (i, j, k, 1) in millimetres to the patient's right-to-left, back-to-front and
    feet-to-head (RAS+).

    Attributes:
        array: float32, or complex64 where the file is complex. Not to be written into.
        affine: (4, 4) float64.
        unit: of the numbers: "HU", "BQML", or "a.u." where the format does not say.
        source: the files, needed to write back what the array does not hold.
        valid: where the numbers were measured, or None for everywhere. Elsewhere (padding, NaN) the array holds the
            smallest valid value, and writing puts back what the file held.
        regular: whether the affine holds for every slice; False where positions are uneven and only work slice by slice
            makes sense.
        notes: what a person should know.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    unit: str = "a.u."
    source: Source | None = None
    valid: NDArray[np.bool_] | None = None
    regular: bool = True
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or self.array.dtype not in (np.float32, np.complex64) or not self.array.size:
            raise ShapeError(
                f"Expected float32 or complex64 voxels (I, J, K) or (I, J, K, T), "
                f"got {self.array.dtype} {self.array.shape}; convert them."
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine)) < 1e-12:
            raise ShapeError("Expected an invertible affine (4, 4), got another matrix; look at the file's header.")
        if self.valid is not None and self.valid.shape != self.array.shape:
            raise ShapeError(f"Expected a mask {self.array.shape}, got {self.valid.shape}; give one value a voxel.")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.array.shape))
        spacing = "x".join(f"{step:.4g}" for step in self.spacing)
        origin = f", {self.source.format} case {self.source.case}" if self.source else ""
        return f"Volume({size}, {spacing} mm, {self.orientation}, {self.unit}{origin})"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in millimetres between neighbours along each axis."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Where each axis leads, most nearly: "RAS" is to the right, to the front, to the head."""
        return "".join(nibabel.aff2axcodes(self.affine))

    @property
    def skew(self) -> float:
        """Largest deviation of RᵀR from 1, where R has the directions of the axes; 0 for right angles."""
        directions = self.affine[:3, :3] / np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return float(np.abs(directions.T @ directions - np.eye(3)).max())

    def with_array(self, array: NDArray[Any]) -> "Volume":
        """The same place, unit and source with other numbers of the same shape; converted to single precision.

        Raises:
            ShapeError: another shape.
        """
        if array.shape != self.array.shape:
            raise ShapeError(f"Expected voxels {self.array.shape}, got {array.shape}; keep the grid of the volume.")
        return replace(self, array=single(array))

    def reoriented(self, orientation: str) -> "Volume":
        """Axes turned and flipped to lead to `orientation`, such as "RAS"; no voxel is changed, the place is kept.

        `volume.reoriented("RAS").reoriented(volume.orientation)` is the volume again.

        Raises:
            ShapeError: not three letters that name three axes.
        """
        if sorted(_AXIS.get(letter, "?") for letter in orientation) != ["ap", "is", "lr"]:
            raise ShapeError(f"Expected one letter of each of LR, AP and IS, got '{orientation}'; write RAS or LPS.")
        start = nibabel.orientations.axcodes2ornt(self.orientation)
        change = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(orientation))
        affine = self.affine @ nibabel.orientations.inv_ornt_aff(change, self.array.shape[:3])
        turn: Callable[[Any, Any], NDArray[Any]] = nibabel.orientations.apply_orientation
        valid = None if self.valid is None else turn(self.valid, change)
        return replace(self, array=turn(self.array, change), affine=affine, valid=valid)


_AXIS = dict(zip("LRAPIS", ("lr", "lr", "ap", "ap", "is", "is"), strict=True))


def single(array: NDArray[Any]) -> NDArray[Any]:
    """Float32, or complex64 for complex numbers."""
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32, copy=False)


def with_filled(array: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """The array with its smallest valid value, 0 for complex arrays or where none is valid, at all other places."""
    if valid.all():
        return array
    smallest = array[valid].min() if valid.any() and not np.iscomplexobj(array) else 0
    return np.where(valid, array, smallest).astype(array.dtype)
