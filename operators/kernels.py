"""Blur kernels, as functions of their parameters and as descriptions. A kernel is (k_h, k_w), float64, and sums to 1.

The centre of a kernel is at row k_h // 2 and column k_w // 2.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter
from torch import Tensor

from operators.errors import ReadError, ShapeError
from operators.files import read_plane
from operators.spec import DataRef, Spec, Ui


def gaussian_kernel(size: int, std: float) -> Tensor:
    """A unit impulse after a Gaussian filter truncated at 4 standard deviations.

    Shapes: → (size, size) float64, sum 1.   Units: std in pixels.

    Source: Chung et al. 2023 (arXiv:2209.14687), official code DPS2022/diffusion-posterior-sampling; with size 61 and
    std 3 only the central 25×25 entries are non-zero. Deviations: none.
    """
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    return torch.from_numpy(gaussian_filter(impulse, std, truncate=4.0))


def disk_kernel(size: int, radius: float) -> Tensor:
    """A uniform disk, as of a lens out of focus; border pixels weigh by the part of them that is inside.

    Shapes: → (size, size) float64, sum 1.   Units: radius in pixels.

    Raises:
        ShapeError: the disk does not fit.
    """
    centre = size // 2
    if radius > min(centre, size - 1 - centre) + 0.5:
        raise ShapeError(f"Expected a disk of radius {radius} to fit its kernel, got size {size}; enlarge the kernel.")
    fine = 16
    offsets = (np.arange(size * fine) + 0.5) / fine - 0.5 - centre
    inside = offsets[:, None] ** 2 + offsets**2 <= radius**2
    disk = inside.reshape(size, fine, size, fine).mean((1, 3))
    return torch.from_numpy(disk / disk.sum())


def motion_kernel(size: int, intensity: float, seed: int) -> Tensor:
    """A random camera shake: a jittery path, drawn as a thin line.

    The path is drawn at twice the size: short steps of random length in slowly changing directions, centred on its
    centre of mass, turned at random, softened and reduced to `size`.

    Shapes: → (size, size) float64, >= 0, sum 1.

    Args:
        size: side in pixels.
        intensity: from 0 (nearly straight) to 1 (erratic and long).
        seed: the path; equal seeds give equal kernels.

    Source: the law of the path as in LeviBorodenko/motionblur (used by DPS and DAPS), written anew.
    Deviations: numpy `Generator` instead of the global state, so seeds do not match that code; drawn with
        sub-pixel accuracy and reduced by area averaging, so no weight is negative.
    """
    draw = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed)))
    diagonal = 2 * np.sqrt(2) * size
    longest = 0.75 * diagonal * (draw.uniform() + draw.uniform(0, intensity**2))
    steps: list[float] = []
    while sum(steps) < longest:
        step = draw.beta(1, 30) * (1 - intensity + 0.1) * diagonal
        if step < longest:
            steps.append(step)
    widest = draw.uniform(0, intensity * np.pi)
    jitter = draw.beta(2, 20)
    angles = [draw.uniform(-widest, widest)]
    while len(angles) < len(steps):
        angle = draw.triangular(0, intensity * widest, widest + 0.1)
        side = -1 if angles[-1] < 0 else 1
        angles.append(-side * angle if draw.uniform() < jitter else side * angle)
    path = np.cumsum(np.asarray(steps) * np.exp(1j * np.asarray(angles[: len(steps)])))
    path = (path - path.mean()) * np.exp(1j * draw.uniform(0, np.pi))
    side_length = 2 * size
    fraction_bits = 4
    points = np.stack([path.real, path.imag], -1) + side_length / 2 - 0.5
    canvas = np.zeros((side_length, side_length), np.uint8)
    fixed = np.rint(points * 2**fraction_bits).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, 255, max(1, int(diagonal / 150)), cv2.LINE_AA, fraction_bits)
    softness = max(1, int(0.01 * diagonal))
    soft = gaussian_filter(canvas.astype(np.float64), softness, mode="constant")
    kernel = soft.reshape(size, 2, size, 2).mean((1, 3))
    return torch.from_numpy(kernel / kernel.sum())


class Kernel(Spec, ABC):
    """Description of a blur kernel."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, base: Path = Path()) -> Tensor:
        """The kernel, (k_h, k_w) float64, sum 1; relative paths are read from folder `base`."""


_Size = Annotated[int, Field(ge=3, le=255, description="Side of the kernel."), Ui(unit="px")]


class GaussianKernel(Kernel):
    """Smooth blur; see `gaussian_kernel`."""

    title: ClassVar[str] = "Gaussian"
    kind: Literal["gaussian"] = "gaussian"
    size: _Size = 61
    std: Annotated[float, Field(gt=0, le=30, description="Standard deviation of the blur."), Ui(unit="px")] = 3.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        return gaussian_kernel(self.size, self.std)


class MotionKernel(Kernel):
    """Random camera shake; see `motion_kernel`."""

    title: ClassVar[str] = "Camera shake"
    kind: Literal["motion"] = "motion"
    size: _Size = 61
    intensity: Annotated[float, Field(ge=0, le=1, description="From nearly straight (0) to erratic (1).")] = 0.5
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which path; the same seed gives the same path.")] = 0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        return motion_kernel(self.size, self.intensity, self.seed)


class DiskKernel(Kernel):
    """Lens out of focus; see `disk_kernel`."""

    title: ClassVar[str] = "Out of focus"
    kind: Literal["disk"] = "disk"
    size: _Size = 21
    radius: Annotated[float, Field(ge=0.5, le=120, description="Radius of the blur disk."), Ui(unit="px")] = 5.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`.

        Raises:
            ShapeError: the disk does not fit.
        """
        return disk_kernel(self.size, self.radius)


class KernelFile(Kernel):
    """A measured kernel, from a picture or a numpy file; it is scaled to sum 1."""

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Picture (white is strong), .npy or .npz with one array.")]

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`.

        Raises:
            ReadError: the file is not one plane of numbers with a positive sum.
            AssetCorrupt: the file does not have the recorded checksum.
        """
        plane = read_plane(self.file, base)
        total = plane.sum()
        if total <= 0:
            raise ReadError(f"Expected a kernel with a positive sum in {self.file.path}, got {total}; check the file.")
        return torch.from_numpy(plane / total)


AnyKernel = Annotated[GaussianKernel | MotionKernel | DiskKernel | KernelFile, Field(discriminator="kind")]
