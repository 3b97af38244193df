"""Computed tomography of a volume with a cone of rays: a point source on a circle and a flat panel opposite to it."""

from dataclasses import dataclass
from hashlib import sha256
from math import hypot

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from operators.base import LinearOperator, Shape
from operators.ct_geometry import Array, FanBeam, Scan, check_source
from operators.ct_matrix import STORED_BYTES, Projector, Tracer
from operators.errors import ShapeError
from operators.fbp import Ramp, filtered

_BLOCK = 1 << 22  # entries of the matrix that are computed at once


@dataclass(frozen=True)
class ConeScan:
    """A circular scan with a flat panel. Lengths are all in one unit, angles in radians.

    Attributes:
        middle: the scan in the plane of the source, with a flat fan-beam detector.
        rows: of the panel, as far from each other as its columns.
        center_row: row, not necessarily whole, at the height of the source.

    Raises:
        ShapeError: not a flat fan, no rows, or rays more than 35° off the source's plane.
    """

    middle: Scan
    rows: int
    center_row: float

    def __post_init__(self) -> None:
        beam = self.middle.beam
        if not isinstance(beam, FanBeam) or beam.detector != "flat":
            raise ShapeError(f"Cone-beam CT expected a fan with a flat detector, got {beam}; give a FanBeam.")
        if self.rows < 1 or not np.isfinite(self.center_row):
            raise ShapeError(
                f"Cone-beam CT expected at least one detector row and a finite centre, got {self.rows} and "
                f"{self.center_row}; describe the panel."
            )
        if np.abs(self.heights).max() >= beam.source_origin / 2**0.5:
            raise ShapeError("Cone-beam CT expected rays within 35° of the source's plane; use fewer detector rows.")

    @property
    def beam(self) -> FanBeam:
        """The fan in the plane of the source."""
        assert isinstance(self.middle.beam, FanBeam)
        return self.middle.beam

    @property
    def heights(self) -> Array:
        """Height of each row's image at the axis, (rows,)."""
        rows: Array = np.arange(self.rows, dtype=np.float64) - self.center_row
        return rows * (self.middle.spacing / self.beam.magnification)


class ConeTracer(Tracer):
    """Integrals along rays in space by Joseph's method: bilinear samples in each plane of voxels across x or y.

    Args:
        scan: where the rays run.
        shape: (D, H, W) of the volume.
        voxel: side of a voxel.

    Source: Joseph 1982 (doi 10.1109/TMI.1982.4307572), with bilinear instead of linear interpolation. Deviations: none.
    """

    def __init__(self, scan: ConeScan, shape: tuple[int, int, int], voxel: float) -> None:
        self._scan, self._shape, self._voxel = scan, shape, voxel
        columns, steps = scan.middle.detectors, max(shape[1:])
        # rows of the panel in equal blocks, for memory
        fits = [n for n in range(1, scan.rows + 1) if scan.rows % n == 0 and n * columns * steps * 4 <= _BLOCK]
        self._height = max(fits, default=1)
        self.views = len(scan.middle.angles) * (scan.rows // self._height)
        self.rays = self._height * columns
        self.pixels = shape[0] * shape[1] * shape[2]
        self.bound = 4 * self.rays * steps

    @property
    def key(self) -> bytes:
        """Digest of the scan, the volume's shape and the precision."""
        text = repr(("cone", self._scan, self._shape, self._voxel, torch.get_default_dtype()))
        return sha256(text.encode()).digest()

    def trace(self, view: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Up to two groups: rays sampled in planes across x, and in planes across y; see `Tracer.trace`."""
        turn, block = divmod(view, self._scan.rows // self._height)
        depth, height, width = self._shape
        angle, radius = self._scan.middle.angles[turn], self._scan.beam.source_origin / self._voxel
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        u = torch.from_numpy(self._scan.middle.offsets / self._voxel).to(device).repeat(self._height)
        rows = self._scan.heights[block * self._height : (block + 1) * self._height] / self._voxel
        v = torch.from_numpy(rows).to(device).repeat_interleave(self._scan.middle.detectors)
        # from the source through (u, v) on the plane that holds the axis, in voxels
        source = (radius * sin, -radius * cos)
        along = (u * cos - radius * sin, u * sin + radius * cos)
        length = (along[0].square() + along[1].square() + v.square()).sqrt()
        flat = along[0].abs() >= along[1].abs()
        found = []
        for chosen, k, steps, across, step_stride, stride, sign in (
            (flat, 0, width, height, 1, width, -1.0),
            (~flat, 1, height, width, width, 1, 1.0),
        ):
            rays = chosen.nonzero().squeeze(1)
            if not len(rays):
                continue
            driving, other = along[k][rays, None], along[1 - k][rays, None]
            step = torch.arange(steps, dtype=torch.float64, device=device)
            # rows count downwards, against y
            t = ((step - (steps - 1) / 2) * -sign - source[k]) / driving
            place = sign * (source[1 - k] + t * other) + (across - 1) / 2
            level = t * v[rays, None] + (depth - 1) / 2
            pixels, weights = _corners(level, place, depth, across, stride, height * width)
            pixels = pixels + torch.arange(steps, device=device)[:, None] * step_stride
            weights = weights * (self._voxel * length[rays, None] / driving.abs())[..., None]
            found.append((rays, pixels.flatten(1), weights.flatten(1)))
        return found


def _corners(
    level: Tensor, place: Tensor, depth: int, across: int, stride: int, slice_stride: int
) -> tuple[Tensor, Tensor]:
    """The four voxels around each sample and their bilinear weights, zero beyond the volume: (..., 4) twice."""
    pixels, weights = [], []
    for up in (0, 1):
        for right in (0, 1):
            k, j = level.floor() + up, place.floor() + right
            weight = (1 - (level - k).abs()) * (1 - (place - j).abs())
            inside = (k >= 0) & (k < depth) & (j >= 0) & (j < across)
            weights.append(weight * inside)
            pixels.append(k.clamp(0, depth - 1).long() * slice_stride + j.clamp(0, across - 1).long() * stride)
    return torch.stack(pixels, -1), torch.stack(weights, -1)


class ConeCT(LinearOperator):
    """Line integrals of a volume along a cone of rays, for a source on a circle around the D axis.

    As `CT` in all else: stored or computed, with the transpose of the same numbers. Computing takes about a fifth of a
    microsecond per ray and plane of voxels on one CPU core, so volumes above some 100³ want a GPU. `guess` is the
    reconstruction of Feldkamp, Davis and Kress, exact in the plane of the source alone.

    Shapes: x (B, ..., D, H, W) → (B, ..., views, rows, columns). Slices and rows are counted in the same direction.

    Args:
        scan: angles, distances and panel.
        in_shape: (..., D, H, W), without batch.
        voxel: side of a voxel, in the unit of the scan's lengths.
        ramp: filter of the guess.
        stored_bytes: largest matrix stored, transpose included.

    Raises:
        ShapeError: fewer than three axes, a voxel that is not positive, or the source inside the volume.
    """

    def __init__(
        self,
        scan: ConeScan,
        in_shape: Shape,
        voxel: float = 1.0,
        *,
        ramp: Ramp = "hann",
        stored_bytes: int = STORED_BYTES,
    ) -> None:
        if len(in_shape) < 3 or min(in_shape) < 1:
            raise ShapeError(f"Cone-beam CT expected a volume (D, H, W), got {tuple(in_shape)}; stack its slices.")
        if not 0 < voxel < float("inf"):
            raise ShapeError(f"Cone-beam CT expected a voxel size > 0, got {voxel}; give the side of a voxel.")
        depth, height, width = in_shape[-3:]
        check_source(scan.beam.source_origin, hypot(height, width) * voxel / 2)
        super().__init__(in_shape, (*in_shape[:-3], len(scan.middle.angles), scan.rows, scan.middle.detectors))
        self.scan = scan
        self.voxel = voxel
        self.ramp: Ramp = ramp
        self.projector = Projector(ConeTracer(scan, (depth, height, width), voxel), stored_bytes)

    def _forward(self, x: Tensor) -> Tensor:
        return self.projector.project(x.reshape(-1, self.projector.tracer.pixels)).reshape(-1, *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        rays = int(np.prod(self.out_shape[-3:]))
        return self.projector.backproject(y.reshape(-1, rays)).reshape(-1, *self.in_shape)

    def _guess(self, y: Tensor) -> Tensor:
        panel = y.reshape(-1, *self.out_shape[-3:])
        return fdk(self.scan, panel, self.in_shape[-3:], self.voxel, self.ramp).reshape(-1, *self.in_shape)


def fdk(scan: ConeScan, y: Tensor, shape: Shape, voxel: float, ramp: Ramp = "ram-lak") -> Tensor:
    """Filtered back-projection of a cone-beam scan.   Shapes: y (K, views, rows, columns) → (K, D, H, W).

    Source: Feldkamp, Davis & Kress 1984 (doi 10.1364/JOSAA.1.000612), with the fan's redundancy weights for scans of
    less than a turn. Deviations: none for a whole turn.
    """
    depth, height, width = shape
    radius = scan.beam.source_origin
    v = torch.from_numpy(scan.heights).to(y)[:, None]
    u = torch.from_numpy(scan.middle.offsets).to(y)
    # the fan's weight has the obliquity within the plane already
    oblique = ((radius**2 + u.square()) / (radius**2 + u.square() + v.square())).sqrt()
    rows = filtered(scan.middle, (y * oblique).transpose(-3, -2), ramp).transpose(-3, -2)
    column_step = scan.middle.spacing / scan.beam.magnification
    across = (torch.arange(width, dtype=y.dtype, device=y.device) - (width - 1) / 2) * voxel
    up = ((height - 1) / 2 - torch.arange(height, dtype=y.dtype, device=y.device)) * voxel
    levels = (torch.arange(depth, dtype=y.dtype, device=y.device) - (depth - 1) / 2) * voxel
    volume = y.new_zeros(len(y), depth, height, width)
    # half a pixel of zeros all around is what grid_sample reads beyond the panel
    scale = torch.tensor([2 / scan.middle.detectors, 2 / scan.rows]).to(y)
    for view, angle in enumerate(scan.middle.angles):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        nearness = radius / (radius - across * sin + up[:, None] * cos)
        column = (across * cos + up[:, None] * sin) * nearness / column_step + scan.middle.center
        row = levels[:, None, None] * nearness / column_step + scan.center_row
        place = torch.stack([column.expand_as(row), row], -1)
        grid = ((place + 0.5) * scale - 1).reshape(1, depth * height, width, 2)
        read = grid_sample(rows[None, :, view], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        volume += read.reshape(-1, depth, height, width) * nearness.square()
    return volume
