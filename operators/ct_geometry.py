"""Where the rays of a tomograph run: angles, beams and detectors, described and as lines in the plane.

A line is x cos(phi) + y sin(phi) = s, with the origin in the middle of the image, x to the right and y upwards. At view
angle theta the detector's columns are counted along (cos theta, sin theta); a view at 90° sees the image from its side.
"""

from dataclasses import dataclass
from math import asin, ceil, hypot, tan
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from operators.errors import ShapeError
from operators.files import MAX_PIXELS
from operators.spec import Spec, Ui

Array = np.ndarray[Any, np.dtype[np.float64]]

_COUNTLESS = 1e18  # columns that no scan has; infinity is no whole number to refuse

Degrees = Annotated[float, Field(ge=-3600, le=3600)]


class UniformAngles(Spec):
    """Views at equal steps over an arc, its end not included."""

    kind: Literal["uniform"] = "uniform"
    count: Annotated[int, Field(ge=1, le=20_000, description="How many views.")] = 60
    start: Annotated[Degrees, Field(description="Angle of the first view."), Ui(unit="°", advanced=True)] = 0.0
    arc: Annotated[
        float | None,
        Field(
            gt=0, le=3600, description="Angle that the views share; half a turn for parallel beams, a turn for others."
        ),
        Ui(unit="°"),
    ] = None

    def radians(self, full: float) -> Array:
        """The angles, (count,); `full` is the arc of a complete scan in degrees."""
        arc = full if self.arc is None else self.arc
        angles: Array = np.radians(self.start + np.arange(self.count) * (arc / self.count))
        return angles


class SubsetAngles(Spec):
    """Some of the views of one complete scan, picked by index, so that their data are rows of the complete data.

    The complete scan has `total` uniform views over half a turn for parallel beams, and over a turn for others.
    `sparse` keeps `count` of them spread over all, number k at index floor(k · total / count); `limited` keeps the
    first `count`. Presets of the literature: sparse 18, 30 and 60 of 180, limited 120 and 90 of 180.
    """

    kind: Literal["subset"] = "subset"
    pattern: Annotated[
        Literal["sparse", "limited"], Field(description="Views all around, or a wedge that is missing.")
    ] = "sparse"
    count: Annotated[int, Field(ge=1, le=20_000, description="How many views are kept.")] = 60
    total: Annotated[int, Field(ge=1, le=20_000, description="Views of the complete scan."), Ui(advanced=True)] = 180

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        if self.count > self.total:
            raise ValueError(f"Expected at most {self.total} of {self.total} views, got {self.count}; raise the total.")
        return self

    @property
    def indices(self) -> list[int]:
        """Rows of the complete scan that are kept, (count,)."""
        return [k * self.total // self.count if self.pattern == "sparse" else k for k in range(self.count)]

    def radians(self, full: float) -> Array:
        """The angles, (count,); `full` is the arc of a complete scan in degrees."""
        angles: Array = np.radians(np.array(self.indices) * (full / self.total))
        return angles


class ListedAngles(Spec):
    """Views at angles of one's own, in any order."""

    kind: Literal["list"] = "list"
    degrees: Annotated[tuple[Degrees, ...], Field(min_length=1, description="The angles."), Ui(unit="°")] = (0.0, 90.0)

    def radians(self, full: float) -> Array:
        """The angles, (count,)."""
        angles: Array = np.radians(np.array(self.degrees))
        return angles


AnyAngles = Annotated[SubsetAngles | UniformAngles | ListedAngles, Field(discriminator="kind")]


class ParallelBeam(Spec):
    """Parallel rays, as from a synchrotron or after rebinning."""

    kind: Literal["parallel"] = "parallel"


Distance = Annotated[float, Field(gt=0, le=1e7)]


class FanBeam(Spec):
    """Rays from a point source that turns about the middle of the image, with the detector opposite to it."""

    kind: Literal["fan"] = "fan"
    source_origin: Annotated[
        Distance, Field(description="From the source to the rotation axis; beyond the image's corners."), Ui(unit="mm")
    ] = 541.0
    origin_detector: Annotated[
        float,
        Field(ge=0, le=1e7, description="From the rotation axis to the detector; 0 for a virtual one at the axis."),
        Ui(unit="mm"),
    ] = 408.0
    detector: Annotated[
        Literal["flat", "curved"],
        Field(description="A plane with columns at equal distances, or an arc about the source with equal angles."),
    ] = "curved"

    @property
    def magnification(self) -> float:
        """How much larger the rotation axis's surroundings appear on the detector."""
        return (self.source_origin + self.origin_detector) / self.source_origin


AnyBeam = Annotated[ParallelBeam | FanBeam, Field(discriminator="kind")]


@dataclass(frozen=True)
class Scan:
    """A two-dimensional scan with every number settled. Lengths are all in one unit, angles in radians.

    Attributes:
        angles: of the views.
        beam: parallel, or a fan with its distances.
        detectors: number of detector columns.
        spacing: from one column to the next, on the detector.
        center: column, not necessarily whole, onto which the rotation axis projects.

    Raises:
        ShapeError: no views or columns, more than `MAX_PIXELS` rays, or lengths that are not positive and finite.
    """

    angles: tuple[float, ...]
    beam: ParallelBeam | FanBeam
    detectors: int
    spacing: float
    center: float

    def __post_init__(self) -> None:
        if not self.angles or not np.isfinite(self.angles).all():
            raise ShapeError(f"CT expected at least one view angle, all finite, got {self.angles}; list the angles.")
        if self.detectors < 1:
            raise ShapeError(f"CT expected at least one detector column, got {self.detectors}; give their number.")
        if len(self.angles) * self.detectors > MAX_PIXELS:
            raise ShapeError(
                f"CT expected at most {MAX_PIXELS / 1e6:g} million rays, got {len(self.angles)} views of "
                f"{self.detectors:.6g} columns; give fewer views, fewer columns or a wider spacing."
            )
        if not 0 < self.spacing < np.inf:
            raise ShapeError(f"CT expected a column spacing > 0, got {self.spacing}; give the width of a column.")
        if not np.isfinite(self.center):
            raise ShapeError(f"CT expected a finite rotation centre, got {self.center}; give it in columns.")
        if np.abs(self.fan_angles).max() >= np.pi / 2:
            widest = np.degrees(np.abs(self.fan_angles).max())
            raise ShapeError(f"CT expected fan angles below 90°, got {widest:.4g}°; use fewer or narrower columns.")

    @property
    def offsets(self) -> Array:
        """Where each column is, (detectors,): on the plane through the axis, or as an angle for a curved detector.

        For parallel beams the distance s from the axis; for a flat fan detector that of its image at the axis; for a
        curved one the fan angle gamma.
        """
        place: Array = (np.arange(self.detectors, dtype=np.float64) - self.center) * self.spacing
        if isinstance(self.beam, ParallelBeam):
            return place
        if self.beam.detector == "flat":
            return place / self.beam.magnification
        return place / (self.beam.source_origin + self.beam.origin_detector)

    @property
    def fan_angles(self) -> Array:
        """gamma of each column, (detectors,), growing with the column; 0 for parallel beams and towards the axis."""
        if isinstance(self.beam, ParallelBeam):
            return np.zeros(self.detectors)
        return np.arctan(self.offsets / self.beam.source_origin) if self.beam.detector == "flat" else self.offsets

    def lines(self) -> tuple[Array, Array]:
        """Every ray as a line x cos(phi) + y sin(phi) = s.   Shapes: phi and s, both (views, detectors)."""
        gamma = self.fan_angles
        phi = np.array(self.angles)[:, None] - gamma
        if isinstance(self.beam, ParallelBeam):
            return phi, np.broadcast_to(self.offsets, phi.shape)
        return phi, np.broadcast_to(self.beam.source_origin * np.sin(gamma), phi.shape)


def full_arc(beam: ParallelBeam | FanBeam) -> float:
    """Degrees of a complete scan: 180 for parallel beams, whose rays are the same from behind, else 360."""
    return 180.0 if isinstance(beam, ParallelBeam) else 360.0


def default_spacing(beam: ParallelBeam | FanBeam, pixel: float) -> float:
    """One pixel at the rotation axis, as wide as it appears on the detector."""
    return pixel if isinstance(beam, ParallelBeam) else pixel * beam.magnification


def default_detectors(beam: ParallelBeam | FanBeam, height: int, width: int, pixel: float, spacing: float) -> int:
    """Columns that see the whole image from every side: ceil(diagonal / spacing), on the detector.

    Raises:
        ShapeError: the source is inside the image.
    """
    radius = hypot(height, width) * pixel / 2
    if isinstance(beam, ParallelBeam):
        return ceil(min(2 * radius / spacing - 1e-9, _COUNTLESS))
    check_source(beam.source_origin, radius)
    widest, reach = asin(radius / beam.source_origin), beam.source_origin + beam.origin_detector
    return ceil(min(2 * reach * (tan(widest) if beam.detector == "flat" else widest) / spacing - 1e-9, _COUNTLESS))


def check_source(source_origin: float, radius: float) -> None:
    """Raise ShapeError unless the source is outside the circle through the image's corners."""
    if source_origin <= radius:
        raise ShapeError(
            f"CT expected the source farther from the axis than the image's corners, {radius:.6g}, "
            f"got {source_origin:.6g}; raise source_origin or lower the pixel size."
        )
