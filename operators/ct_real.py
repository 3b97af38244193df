"""From a detector's readings to line integrals, and where the rotation axis was: what measured data need first."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from operators.ct_geometry import ParallelBeam, Scan
from operators.errors import ShapeError
from operators.fbp import fbp

_SAMPLES = 128  # a side; the integral needs few pixels, however fine the detector is


def line_integrals(readings: Tensor, flats: Tensor, darks: Tensor, *, floor: float = 1e-4) -> Tensor:
    """The line integrals −ln((readings − dark) / (flat − dark)), with the means of several flat and dark fields.

    Shapes: readings (views, ..., columns), flats and darks (any number, ..., columns) → (views, ..., columns).

    Args:
        readings: with the object in the beam.
        flats: without the object.
        darks: without the beam.
        floor: transmitted fractions below this are raised to it; their line integrals are lower bounds.

    Raises:
        ShapeError: shapes do not fit, or a column reads no more with the beam than without.
    """
    if not (readings.shape[1:] == flats.shape[1:] == darks.shape[1:]) or 0 in (len(flats), len(darks)):
        raise ShapeError(
            f"Expected readings, flat and dark fields of the same columns, got {tuple(readings.shape)}, "
            f"{tuple(flats.shape)} and {tuple(darks.shape)}; put views and repetitions first."
        )
    dark = darks.mean(0)
    beam = flats.mean(0) - dark
    if not bool((beam > 0).all()):
        count = int((~(beam > 0)).sum())
        raise ShapeError(f"Expected flat fields above dark ones, got {count} columns that are not; interpolate them.")
    return -((readings - dark) / beam).clamp(min=floor).log()


def rotation_center(sinogram: Tensor, scan: Scan, *, reach: float = 0.25) -> float:
    """The detector column of the rotation axis, for which filtered back-projection is least negative.

    A wrong axis doubles and smears edges, and what is added to one place is missing from another; the integral over the
    image stays, so the integral of its magnitude grows. It is minimised over a coarse detector first, then finer around
    the best and between columns by a parabola. Rings and noise move it by a few tenths of a column.

    Shapes: sinogram (views, columns) → a column, not necessarily whole.

    Args:
        sinogram: line integrals of one slice, of a scan that would suffice for a reconstruction.
        scan: the scan; its centre is the middle of the search.
        reach: how far to search to either side, as a share of the detector's width; below 0.5.

    Raises:
        ShapeError: the sinogram is not of this scan, or has fewer than 8 columns.

    Source: Donath et al. 2006 (doi 10.1364/JOSAA.23.001048), the metric Q_IA. Deviations: the coarse-to-fine search.
    """
    if sinogram.shape != (len(scan.angles), scan.detectors) or scan.detectors < 8:
        raise ShapeError(
            f"Expected a sinogram of {len(scan.angles)} views and {scan.detectors} columns, at least 8, "
            f"got {tuple(sinogram.shape)}; describe the scan it comes from."
        )
    bins = max(scan.detectors // (2 * _SAMPLES), 1)
    rows = sinogram - _baseline(sinogram)
    column = scan.spacing if isinstance(scan.beam, ParallelBeam) else scan.spacing / scan.beam.magnification
    best, span, pace = scan.center, reach * scan.detectors, 2.0 * bins
    for coarser in (2, 1, 1):
        count = int(span / pace)
        places = best + np.arange(-count, count + 1) * pace
        # the circle that holds whatever any view sees: were the object cut, its place would weigh instead of its shape
        radius = column * (max(best, scan.detectors - 1 - best) + span)
        values = []
        for place in places:
            values.append(_magnitude(*_binned(rows, replace(scan, center=float(place)), bins * coarser), radius))
        k = int(np.argmin(values))
        best, span, last, pace = float(places[k]), 1.5 * pace, pace, pace / 4
    if 0 < k < len(values) - 1:
        before, here, after = values[k - 1 : k + 2]
        best += last * 0.5 * (before - after) / (before - 2 * here + after)
    return best


def _baseline(sinogram: Tensor) -> Tensor:
    """The straight line between the ends of each row: what surrounds the object, or was wrong with the beam."""
    width = max(sinogram.shape[1] // 50, 1)
    left, right = sinogram[:, :width].mean(1, keepdim=True), sinogram[:, -width:].mean(1, keepdim=True)
    return torch.lerp(left, right, torch.linspace(0, 1, sinogram.shape[1]).to(sinogram))


def _magnitude(rows: Tensor, scan: Scan, radius: float) -> float:
    """Integral of the magnitude of the image within `radius` of the axis, from samples on a grid."""
    side = min(_SAMPLES, scan.detectors)
    across = torch.arange(side) - (side - 1) / 2
    disc = across.square() + across[:, None].square() < (side / 2) ** 2
    image = fbp(scan, rows, (side, side), 2 * radius / side, "hann")
    return float(image.abs()[disc.to(rows.device)].sum())


def _binned(sinogram: Tensor, scan: Scan, bins: int) -> tuple[Tensor, Scan]:
    """Sums over `bins` neighbouring columns, and the scan that would have measured them."""
    count = scan.detectors // bins
    rows = sinogram[:, : count * bins].reshape(len(sinogram), count, bins).mean(-1)
    center = (scan.center - (bins - 1) / 2) / bins
    return rows, replace(scan, detectors=count, spacing=scan.spacing * bins, center=center)
