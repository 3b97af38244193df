"""Filtered back-projection for parallel and fan beams: what the adjoint is not, an approximate inverse.

It is neither the adjoint nor the pseudo-inverse of the projector: it discretises the inversion formula of the
continuous transform. The filter is built in the spatial domain, and back-projection is pixel-driven: each pixel reads
the filtered row, linearly interpolated, where it projects.
"""

from math import pi
from typing import Any, Literal

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from operators.ct_geometry import FanBeam, ParallelBeam, Scan

Array = np.ndarray[Any, np.dtype[np.float64]]
Ramp = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


def ramp_kernel(count: int, spacing: float, *, angular: bool = False) -> Array:
    """The band-limited ramp in the spatial domain, at −(count − 1) .. count − 1 columns, periodic from 0.

    Sampling |omega| itself in frequency would lose the mean of the image; this does not. For columns at equal fan
    angles the kernel is multiplied by (gamma / sin gamma)².

    Shapes: → (period,), period >= 2 · count.

    Source: Kak & Slaney 1988, chapter 3, eq. 61 and section 3.4.1. Deviations: the factor ½ of the fan formulas is in
    the weights of the rays.
    """
    period = next_fast_len(2 * count, real=True)
    n = np.minimum(np.arange(period), period - np.arange(period))
    odd = n % 2 == 1
    distance = np.sin(n * spacing) if angular else n * spacing
    kernel = np.zeros(period)
    kernel[0] = 1 / (4 * spacing**2)
    kernel[odd & (n < count)] = -1 / (pi * distance[odd & (n < count)]) ** 2
    return kernel


def apodisation(period: int, ramp: Ramp) -> Array:
    """Factor that damps the ramp towards the highest frequency.   Shapes: → (period // 2 + 1,)."""
    f = np.arange(period // 2 + 1) / (period / 2)
    if ramp == "shepp-logan":
        return np.sinc(f / 2)
    if ramp == "cosine":
        return np.cos(pi * f / 2)
    if ramp == "hamming":
        return 0.54 + 0.46 * np.cos(pi * f)
    return 0.5 + 0.5 * np.cos(pi * f) if ramp == "hann" else np.ones_like(f)


def view_weights(angles: Array, period: float) -> Array:
    """Angle in radians that each view stands for: half the way to its neighbours on a circle of `period`.

    Views at the same angle share it. A gap above twice the usual one is a wedge that was not measured: a view at its
    edge counts as if the usual gap followed.

    Shapes: (views,) → (views,).
    """
    turned = np.round(np.mod(angles, period), 9)
    turned[turned >= period - 1e-9] = 0.0
    distinct, which, times = np.unique(turned, return_inverse=True, return_counts=True)
    gaps = np.diff(np.append(distinct, distinct[0] + period))
    usual = np.median(gaps)
    gaps = np.where(gaps > 2 * usual, usual, gaps)
    weights: Array = ((gaps + np.roll(gaps, 1)) / 2 / times)[which]
    return weights


def ray_weights(scan: Scan) -> Array:
    """How much each ray counts, so that every line that was measured counts once in all: (views, 1 or detectors).

    Fan-beam scans of a whole turn measure every line twice, so ½. A short scan, of more than half a turn and the fan,
    gets Parker's smooth weights; a shorter one the reciprocal number of times each line was measured.

    Source: Parker 1982 (doi 10.1118/1.595078), with the overscan of Silver 2000. Deviations: the scans below half a
    turn plus the fan, for which there is no exact formula.
    """
    if isinstance(scan.beam, ParallelBeam):
        return np.ones((len(scan.angles), 1))
    angles, gamma = np.array(scan.angles), scan.fan_angles
    begin, arc = _covered(angles)
    beta = np.mod(angles - begin + 1e-9, 2 * pi)[:, None]
    if arc >= 2 * pi - 1e-6:
        return np.full((len(angles), 1), 0.5)
    widest = np.abs(gamma).max()
    if arc < pi + 2 * widest:
        # the same line from the other side has beta' = beta − 2 gamma + pi, gamma' = −gamma
        opposite = np.mod(beta - 2 * gamma + pi, 2 * pi)
        twice = (opposite < arc) & (np.abs(gamma) <= min(-gamma.min(), gamma.max()) + 1e-9)
        return np.where(twice, 0.5, 1.0)
    over = (arc - pi) / 2
    rise = np.sin(pi / 4 * beta / np.maximum(over + gamma, 1e-12)) ** 2
    fall = np.sin(pi / 4 * np.maximum(arc - beta, 0) / np.maximum(over - gamma, 1e-12)) ** 2
    weights: Array = np.where(beta < 2 * (over + gamma), rise, np.where(beta > pi + 2 * gamma, fall, 1.0))
    return weights


def _covered(angles: Array) -> tuple[float, float]:
    """Where the scanned arc begins and how long it is, with half a step at either end; 2 pi for a whole turn."""
    turned = np.unique(np.round(np.mod(angles, 2 * pi), 9))
    gaps = np.diff(np.append(turned, turned[0] + 2 * pi))
    usual, largest = float(np.median(gaps)), int(gaps.argmax())
    if gaps[largest] <= 2 * usual:
        return 0.0, 2 * pi
    return float(turned[(largest + 1) % len(turned)]) - usual / 2, 2 * pi - float(gaps[largest]) + usual


def filtered(scan: Scan, y: Tensor, ramp: Ramp) -> Tensor:
    """Rows weighted for redundancy and obliquity and filtered.   Shapes: (..., views, detectors) → the same."""
    gamma, offsets = scan.fan_angles, scan.offsets
    angular = isinstance(scan.beam, FanBeam) and scan.beam.detector == "curved"
    step = float(offsets[1] - offsets[0]) if len(offsets) > 1 else scan.spacing
    kernel = ramp_kernel(scan.detectors, step, angular=angular)
    response = np.fft.rfft(kernel).real * step * apodisation(len(kernel), ramp)
    period = pi if isinstance(scan.beam, ParallelBeam) else 2 * pi
    weights = ray_weights(scan) * view_weights(np.array(scan.angles), period)[:, None] * np.cos(gamma)
    if angular and isinstance(scan.beam, FanBeam):
        weights = weights * scan.beam.source_origin
    spectrum = torch.fft.rfft(y * torch.from_numpy(weights).to(y), len(kernel))
    rows: Tensor = torch.fft.irfft(spectrum * torch.from_numpy(response).to(y), len(kernel))
    return rows[..., : scan.detectors]


def fbp(scan: Scan, y: Tensor, shape: tuple[int, int], pixel: float, ramp: Ramp = "ram-lak") -> Tensor:
    """The image whose line integrals are y, as nearly as the views allow.

    Shapes: y (..., views, detectors) → (..., H, W).   Units: those of y over those of `pixel`.

    Args:
        scan: where the rays ran.
        y: line integrals.
        shape: (H, W) of the image.
        pixel: side of a pixel.
        ramp: how the ramp filter is damped.

    Source: Kak & Slaney 1988, sections 3.3, 3.4.1 (equal angles) and 3.4.2 (equal distances). Deviations: redundancy
    weights for scans of less than a turn.
    """
    height, width = shape
    rows = filtered(scan, y.reshape(-1, *y.shape[-2:]), ramp)
    # one more column of zeros at either end, which is where everything beyond the detector reads
    rows = torch.nn.functional.pad(rows, (1, 1))
    across = (torch.arange(width, dtype=y.dtype, device=y.device) - (width - 1) / 2) * pixel
    up = ((height - 1) / 2 - torch.arange(height, dtype=y.dtype, device=y.device)) * pixel
    image = y.new_zeros(len(rows), height * width)
    step = float(scan.offsets[1] - scan.offsets[0]) if scan.detectors > 1 else scan.spacing
    for view, angle in enumerate(scan.angles):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        place = across * cos + up[:, None] * sin
        if isinstance(scan.beam, FanBeam):
            depth = scan.beam.source_origin - across * sin + up[:, None] * cos
            place, falloff = _fan(scan.beam, place, depth)
        column = (place.flatten() / step + scan.center + 1).clamp(0, scan.detectors + 1)
        below = column.floor().clamp(max=scan.detectors)
        fraction, index = column - below, below.long()
        row = rows[:, view]
        read = torch.lerp(row[:, index], row[:, index + 1], fraction)
        image += read / falloff.flatten() if isinstance(scan.beam, FanBeam) else read
    return image.reshape(*y.shape[:-2], height, width)


def _fan(beam: FanBeam, place: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Where a pixel projects, in the unit of `Scan.offsets`, and the square of its distance weight.

    `place` is the pixel's coordinate along the detector, `depth` its distance from the source along the central ray.
    """
    if beam.detector == "flat":
        return place * beam.source_origin / depth, (depth / beam.source_origin).square()
    return torch.atan2(place, depth), place.square() + depth.square()
