"""Strip integrals, columns as wide as they are, from the ASTRA toolbox, which is optional."""

from hashlib import sha256
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from operators.ct_geometry import Array, FanBeam, Scan
from operators.ct_matrix import Tracer
from operators.errors import NeedError, ShapeError


class StripTracer(Tracer):
    """Means over the width of each detector column: a pixel counts by the area that it shares with the column's strip.

    Needs the package `astra-toolbox` (with its CUDA libraries some 440 MB, also for work on the CPU). Weights come from
    it in single precision; the transpose and the products are this project's own.

    Args:
        scan: parallel beams, or a fan with a flat detector.
        shape: (H, W) of the image.
        pixel: side of a pixel.
        scale: what every weight is multiplied by.

    Raises:
        NeedError: ASTRA is not installed.
        ShapeError: the fan's detector is curved, or its axis is off the middle.

    Source: ASTRA's projectors "strip" and "strip_fanflat" (van Aarle et al. 2016, doi 10.1364/OE.24.025129).
    Deviations: none.
    """

    def __init__(self, scan: Scan, shape: tuple[int, int], pixel: float, scale: float = 1.0) -> None:
        try:
            astra = import_module("astra")
        except ImportError as error:
            raise NeedError(
                "Strip integrals need the package astra-toolbox, which was not found; install it with "
                "`pip install astra-toolbox` or choose joseph."
            ) from error
        height, width = shape
        across, down = width * pixel / 2, height * pixel / 2
        grid = astra.create_vol_geom(height, width, -across, across, -down, down)
        if isinstance(scan.beam, FanBeam):
            _check_fan(scan, scan.beam)
            distances = (scan.beam.source_origin, scan.beam.origin_detector)
            geometry = astra.create_proj_geom(
                "fanflat", scan.spacing, scan.detectors, np.array(scan.angles), *distances
            )
            projector = astra.create_projector("strip_fanflat", geometry, grid)
        else:
            geometry = astra.create_proj_geom("parallel_vec", scan.detectors, _vectors(scan))
            projector = astra.create_projector("strip", geometry, grid)
        handle = astra.projector.matrix(projector)
        self._matrix = astra.matrix.get(handle).tocsr()
        astra.matrix.delete(handle)
        astra.projector.delete(projector)
        self.views, self.rays = len(scan.angles), scan.detectors
        self.pixels = height * width
        self._scale = scale
        self._longest = int(np.diff(self._matrix.indptr).max())
        self.bound = self.rays * self._longest

    @property
    def key(self) -> bytes:
        """Digest of the matrix."""
        text = repr(("strip", self._matrix.shape, self._scale, torch.get_default_dtype())).encode()
        parts = (self._matrix.indptr, self._matrix.indices, self._matrix.data)
        return sha256(b"".join([text, *(part.tobytes() for part in parts)])).digest()

    def trace(self, view: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One group; see `Tracer.trace`."""
        rows = self._matrix[view * self.rays : (view + 1) * self.rays]
        counts = np.diff(rows.indptr)
        exists = np.arange(self._longest) < counts[:, None]
        pixels = np.zeros(exists.shape, np.int64)
        weights = np.zeros(exists.shape)
        pixels[exists], weights[exists] = rows.indices, rows.data * self._scale
        numbers = torch.arange(self.rays, device=device)
        return [(numbers, torch.from_numpy(pixels).to(device), torch.from_numpy(weights).to(device))]


def _check_fan(scan: Scan, beam: FanBeam) -> None:
    if beam.detector == "curved" or abs(scan.center - (scan.detectors - 1) / 2) > 1e-9:
        raise ShapeError(
            f"Strip integrals of a fan expected a flat detector with the axis at its middle, got a {beam.detector} one "
            f"with the axis at column {scan.center:g} of {scan.detectors}; choose joseph."
        )


def _vectors(scan: Scan) -> Array:
    """ASTRA's six numbers per view: ray direction, middle of the detector, and one column's step."""
    cos, sin = np.cos(scan.angles), np.sin(scan.angles)
    middle = ((scan.detectors - 1) / 2 - scan.center) * scan.spacing
    vectors: Array = np.stack([sin, -cos, middle * cos, middle * sin, scan.spacing * cos, scan.spacing * sin], 1)
    return vectors
