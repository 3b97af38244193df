"""Joseph's method: a line integral as a sum of linearly interpolated samples, one per row or column crossed."""

from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct_matrix import Tracer

Array = np.ndarray[Any, np.dtype[np.float64]]


class LineTracer(Tracer):
    """Integrals along lines in the plane by Joseph's method.

    A line closer to the x axis than to the y axis is sampled where it meets the middle of each column of pixels, by
    linear interpolation between the two pixels above and below; other lines likewise in rows. Each sample stands for
    the length of line between two columns (rows). Beyond the image everything is zero.

    Args:
        phi: normal direction of each line, (views, rays), radians.
        s: distance of each line from the middle of the image, (views, rays).
        shape: (H, W) of the image.
        pixel: side of a pixel, in the unit of s.
        scale: what every weight is multiplied by.

    Source: Joseph 1982 (doi 10.1109/TMI.1982.4307572), which ASTRA calls "linear". Deviations: none.
    """

    def __init__(self, phi: Array, s: Array, shape: tuple[int, int], pixel: float, scale: float = 1.0) -> None:
        self.views, self.rays = phi.shape
        self.pixels = shape[0] * shape[1]
        self.bound = 2 * self.rays * max(shape)
        self._shape = shape
        self._pixel = pixel
        self._length = pixel * scale
        self._lines = np.stack([np.cos(phi), np.sin(phi), s])

    @property
    def key(self) -> bytes:
        """Digest of the lines, the image's shape and the precision."""
        text = repr(("joseph", self._shape, self._pixel, self._length, self._lines.shape, torch.get_default_dtype()))
        return sha256(text.encode() + self._lines.tobytes()).digest()

    def trace(self, view: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Up to two groups: lines sampled in columns, and lines sampled in rows; see `Tracer.trace`."""
        height, width = self._shape
        cos, sin, s = (torch.from_numpy(part).to(device) for part in self._lines[:, view])
        flat = sin.abs() >= cos.abs()
        # in pixels from the middle: rows count downwards, against y
        groups = [
            (flat, s / self._pixel / sin, cos / sin, sin, width, height, 1, width, -1),
            (~flat, s / self._pixel / cos, sin / cos, cos, height, width, width, 1, 1),
        ]
        found = []
        for chosen, start, slope, along, steps, across, step_stride, stride, sign in groups:
            rays = chosen.nonzero().squeeze(1)
            if not len(rays):
                continue
            step = torch.arange(steps, dtype=torch.float64, device=device)
            driven = (step - (steps - 1) / 2) * -sign
            place = sign * (start[rays, None] - slope[rays, None] * driven) + (across - 1) / 2
            found.append((rays, *self._interpolate(place, along[rays], across, stride, step_stride)))
        return found

    def _interpolate(
        self, place: Tensor, along: Tensor, across: int, stride: int, step_stride: int
    ) -> tuple[Tensor, Tensor]:
        below = place.floor()
        fraction = place - below
        neighbours = torch.stack([below, below + 1], -1)
        weights = torch.stack([1 - fraction, fraction], -1) * (self._length / along.abs())[:, None, None]
        inside = (neighbours >= 0) & (neighbours < across)
        steps = torch.arange(place.shape[1], device=place.device)[:, None] * step_stride
        pixels = neighbours.clamp(0, across - 1).long() * stride + steps
        return pixels.flatten(1), (weights * inside).flatten(1)
