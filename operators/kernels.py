"""Blur kernels, as functions of their parameters and as descriptions. A kernel is (k_h, k_w), float64, and sums to 1.

The centre of a kernel is at row k_h // 2 and column k_w // 2.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import factorial, inf, pi
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter
from scipy.special import j1, jn_zeros
from torch import Tensor

from operators.errors import ReadError, ShapeError
from operators.files import read_plane
from operators.rng import generator
from operators.spec import DataRef, Spec, Ui

_Array = np.ndarray[Any, np.dtype[np.float64]]


def gaussian_kernel(size: int, std: float) -> Tensor:
    """A unit impulse after a Gaussian filter truncated at 4 standard deviations.

    Shapes: → (size, size) float64, sum 1.   Units: std in pixels.

    Source: Chung et al. 2023 (arXiv:2209.14687), official code DPS2022/diffusion-posterior-sampling; with size 61 and
    std 3 only the central 25×25 entries are non-zero. Deviations: none.

    Raises:
        ShapeError: `size` or `std` is not positive.
    """
    _check_size(size)
    _check_positive("a standard deviation", std)
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    # what does not fit is cut off, not folded back
    kernel = gaussian_filter(impulse, std, truncate=4.0, mode="constant")
    return torch.from_numpy(kernel / kernel.sum())


def oriented_gaussian_kernel(size: int, std_x: float, std_y: float, angle: float) -> Tensor:
    """A Gaussian with two widths, sampled at pixel centres.

    Shapes: → (size, size) float64, sum 1.   Units: standard deviations in pixels, angle in degrees.

    Args:
        size: side in pixels; the Gaussian is cut there and nowhere else.
        std_x: standard deviation along the first axis, which at angle 0 is horizontal.
        std_y: standard deviation across it.
        angle: turn of both axes, counter-clockwise as seen on the screen.

    Raises:
        ShapeError: `size` or a standard deviation is not positive.
    """
    _check_size(size)
    _check_positive("a standard deviation", std_x)
    _check_positive("a standard deviation", std_y)
    up, right = -_offsets(size)[:, None], _offsets(size)
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    exponent = ((cosine * right + sine * up) / std_x) ** 2 + ((cosine * up - sine * right) / std_y) ** 2
    kernel = np.exp(-exponent / 2)
    return torch.from_numpy(kernel / kernel.sum())


def disk_kernel(size: int, radius: float) -> Tensor:
    """A uniform disk, as of a lens out of focus; border pixels weigh by the part of them that is inside.

    Shapes: → (size, size) float64, sum 1.   Units: radius in pixels; up to 0.5 the disk is one pixel.

    Raises:
        ShapeError: the disk does not fit, or `size` or `radius` is not positive.
    """
    _check_size(size)
    _check_positive("a radius", radius)
    centre = size // 2
    if radius > min(centre, size - 1 - centre) + 0.5:
        raise ShapeError(f"Expected a disk of radius {radius} to fit its kernel, got size {size}; enlarge the kernel.")
    radius = max(radius, 0.5)  # the same disk, where the fine grid below would miss a small one
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

    Raises:
        ShapeError: `size` is not positive, or `intensity` is not from 0 to 1.

    Source: the law of the path as in LeviBorodenko/motionblur (used by DPS and DAPS), written anew.
    Deviations: numpy `Generator` instead of the global state, so seeds do not match that code; drawn with
        sub-pixel accuracy and reduced by area averaging, so no weight is negative.
    """
    _check_size(size)
    if not 0 <= intensity <= 1:
        raise ShapeError(f"Expected an intensity from 0 to 1, got {intensity}; choose one in between.")
    draw = generator(seed)
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


def line_kernel(size: int, length: float, angle: float) -> Tensor:
    """A straight streak: the mean over the exposure of a point that moves evenly, at sub-pixel positions.

    A point between pixels is shared bilinearly by its four neighbours; the integral along the path is exact, so that
    the kernel's centre of mass is its centre and its variance along the path that of the motion and of one bilinear
    cell. A length of 0 is the impulse.

    Shapes: → (size, size) float64, >= 0, sum 1.

    Args:
        size: side in pixels.
        length: of the path, in pixels; >= 0.
        angle: of the motion in degrees, counter-clockwise from the horizontal as seen on the screen.

    Raises:
        ShapeError: the streak does not fit, or `size` is not positive or `length` negative.
    """
    _check_size(size)
    if not 0 <= length < inf:
        raise ShapeError(f"Expected a length of the streak >= 0, got {length}; give a number of pixels.")
    centre = size // 2
    direction = np.array([-np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])
    # rounding in the cosine of a right angle must not cost a pixel
    reach = np.ceil(length / 2 * np.abs(direction) - 1e-9)
    if reach.max() > size - 1 - centre:
        raise ShapeError(
            f"Expected a streak of length {length} to fit its kernel, got size {size}; enlarge the kernel."
        )
    # between two crossings of pixel rows or columns the weights are quadratic, so two Gauss nodes are exact
    lines = np.arange(-centre, centre + 1)
    crossings = [lines / part for part in direction if abs(part) > 1e-12]
    ends = np.array([-length / 2, length / 2])
    knots = np.unique(np.clip(np.concatenate([ends, *crossings]), *ends))
    if len(knots) == 1:
        knots = np.zeros(2)
    middle, half = (knots[1:] + knots[:-1]) / 2, np.diff(knots) / 2
    along = np.concatenate([middle - half / 3**0.5, middle + half / 3**0.5])
    weight = np.concatenate([half, half]) if length else np.ones(2)
    places = along[:, None] * direction
    rows, columns = (np.clip(1 - np.abs(places[:, axis, None] - _offsets(size)), 0, None) for axis in (0, 1))
    kernel = (weight[:, None] * rows).T @ columns
    return torch.from_numpy(kernel / kernel.sum())


def airy_kernel(size: int, radius: float) -> Tensor:
    """The Airy pattern of a perfect lens with a round aperture, (2 J1(v) / v)², sampled at pixel centres.

    Shapes: → (size, size) float64, >= 0, sum 1.

    Args:
        size: side in pixels; the pattern is cut there.
        radius: of the first dark ring in pixels, 0.6098 wavelengths / numerical aperture. Below 2.44 the pixels are
            too coarse for the pattern (Nyquist).

    Raises:
        ShapeError: `size` or `radius` is not positive.

    Source: Airy 1835; Born & Wolf, Principles of Optics, 8.5.2. Deviations: none.
    """
    _check_size(size)
    _check_positive("a radius of the first dark ring", radius)
    distance = np.hypot(_offsets(size)[:, None], _offsets(size))
    v = _AIRY_ZERO / radius * np.where(distance > 0, distance, 1)
    pattern = np.where(distance > 0, (2 * j1(v) / v) ** 2, 1.0)
    return torch.from_numpy(pattern / pattern.sum())


def zernike(index: int, rho: _Array, theta: _Array) -> _Array:
    """Zernike polynomial number `index` >= 1 in Noll's order; its mean square over the unit disk is 1.

    Shapes: rho (...), theta (...), which broadcast → (...).   Units: rho from 0 to 1, theta in radians.

    Raises:
        ShapeError: `index` < 1.

    Source: Noll 1976, eq. 1 to 3 (doi:10.1364/JOSA.66.000207). Deviations: none.
    """
    if index < 1:
        raise ShapeError(f"Expected a Noll index >= 1, got {index}; 1 is piston, 4 is defocus.")
    n = int((np.sqrt(8 * index - 7) - 1) / 2)
    within = index - n * (n + 1) // 2  # from 1 to n + 1 inside one radial order
    m = 2 * (within // 2) if n % 2 == 0 else 2 * ((within - 1) // 2) + 1
    radial = sum(
        (-1) ** s
        * factorial(n - s)
        / (factorial(s) * factorial((n + m) // 2 - s) * factorial((n - m) // 2 - s))
        * rho ** (n - 2 * s)
        for s in range((n - m) // 2 + 1)
    )
    if m == 0:
        angular, norm = np.ones_like(theta), float(n + 1)
    else:
        angular, norm = (np.cos(m * theta) if index % 2 == 0 else np.sin(m * theta)), float(2 * (n + 1))
    polynomial: _Array = norm**0.5 * radial * angular
    return polynomial


def zernike_kernel(size: int, radius: float, coefficients: Mapping[int, float]) -> Tensor:
    """The kernel of an aberrated lens: |Fourier transform of the pupil|², sampled at pixel centres.

    Data are correlations with a kernel, so this is the image of a point turned by 180°, that is with exp(+i) in the
    transform where the image has exp(−i).

    The pupil is exp(2πi W) on a disk, W = sum of coefficient · Zernike polynomial. It is integrated by a quadrature in
    polar coordinates, fine enough for every frequency in the kernel, so that without aberration this is `airy_kernel`
    to rounding. For small aberrations the peak falls by the Strehl ratio exp(−(2π rms)²), rms² the sum of squares.

    Shapes: → (size, size) float64, >= 0, sum 1.

    Args:
        size: side in pixels; the pattern is cut there.
        radius: of the first dark ring of the lens without aberrations, in pixels; see `airy_kernel`. The pupil's edge
            is at 0.6098 / radius cycles per pixel.
        coefficients: waves (rms) by Noll index: 2 and 3 shift, 4 is defocus, 5 and 6 astigmatism, 7 and 8 coma,
            11 spherical.

    Raises:
        ShapeError: `size` or `radius` is not positive, or an index is below 1.

    Source: Goodman, Introduction to Fourier Optics, 6.4; Noll 1976. Deviations: none.
    """
    _check_size(size)
    _check_positive("a radius of the first dark ring", radius)
    intensity = np.abs(_field(size, radius, coefficients)) ** 2
    return torch.from_numpy(intensity / intensity.sum())


def _field(size: int, radius: float, coefficients: Mapping[int, float]) -> np.ndarray[Any, np.dtype[np.complex128]]:
    """Amplitude of the image of a point turned by 180°, 1 at the centre without aberration: (size, size)."""
    edge = _AIRY_ZERO / radius  # the pupil's edge, radians per pixel
    # the steepest phase that the sums must follow: the farthest pixel's, and the aberration's (|Z| <= n + 1 each)
    orders = {j: int((np.sqrt(8 * j - 7) - 1) / 2) for j in coefficients if j >= 1}
    wavefront = sum(2 * pi * abs(coefficients[j]) * (n + 1) ** 2 for j, n in orders.items())
    phase = edge * size / 2**0.5 + wavefront + max(orders.values(), default=0)
    nodes, weights = np.polynomial.legendre.leggauss(int(phase / 2) + 24)
    theta = np.arange(int(phase) + 48) * 2 * pi / (int(phase) + 48)
    field = np.zeros((size, size), np.complex128)
    for rho, weight in zip((nodes + 1) / 2, weights, strict=True):
        waves = sum((c * zernike(j, rho, theta) for j, c in coefficients.items()), np.zeros_like(theta))
        rows = np.exp(1j * edge * rho * np.outer(_offsets(size), -np.sin(theta)))
        columns = np.exp(1j * edge * rho * np.outer(_offsets(size), np.cos(theta)))
        field += rho * weight / len(theta) * (rows * np.exp(2j * pi * waves)) @ columns.T
    return field


_AIRY_ZERO = float(jn_zeros(1, 1)[0])  # v of the first dark ring, 1.2197 π


def _offsets(size: int) -> _Array:
    return np.arange(size, dtype=np.float64) - size // 2


def _check_size(size: int) -> None:
    if size < 1:
        raise ShapeError(f"Expected a kernel of at least one pixel, got size {size}; enlarge it.")


def _check_positive(what: str, value: float) -> None:
    if not 0 < value < inf:
        raise ShapeError(f"Expected {what} > 0, got {value}; give a positive number of pixels.")


class Kernel(Spec, ABC):
    """Description of a blur kernel."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, base: Path = Path()) -> Tensor:
        """The kernel, (k_h, k_w) float64, sum 1; relative paths are read from folder `base`."""


_Size = Annotated[int, Field(ge=3, le=255, description="Side of the kernel."), Ui(unit="px")]
_Std = Annotated[float, Field(gt=0, le=30), Ui(unit="px")]
_Angle = Annotated[float, Field(ge=-360, le=360), Ui(unit="°")]
_Ring = Annotated[
    float, Field(ge=1, le=60, description="Radius of the first dark ring without aberrations."), Ui(unit="px")
]


class GaussianKernel(Kernel):
    """Smooth blur; see `gaussian_kernel`."""

    title: ClassVar[str] = "Gaussian"
    kind: Literal["gaussian"] = "gaussian"
    size: _Size = 61
    std: Annotated[float, Field(gt=0, le=30, description="Standard deviation of the blur."), Ui(unit="px")] = 3.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        return gaussian_kernel(self.size, self.std)


class OrientedGaussianKernel(Kernel):
    """Smooth blur with two widths; see `oriented_gaussian_kernel`."""

    title: ClassVar[str] = "Gaussian, two widths"
    kind: Literal["oriented-gaussian"] = "oriented-gaussian"
    size: _Size = 31
    std_x: Annotated[_Std, Field(description="Standard deviation along the axis that the angle turns.")] = 4.0
    std_y: Annotated[_Std, Field(description="Standard deviation across that axis.")] = 1.0
    angle: Annotated[_Angle, Field(description="Direction of the first axis, counter-clockwise from right.")] = 30.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        return oriented_gaussian_kernel(self.size, self.std_x, self.std_y, self.angle)


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


class LineKernel(Kernel):
    """Even motion along a straight line; see `line_kernel`."""

    title: ClassVar[str] = "Straight motion"
    kind: Literal["line"] = "line"
    size: _Size = 31
    length: Annotated[float, Field(ge=0, le=250, description="Length of the path."), Ui(unit="px")] = 15.0
    angle: Annotated[_Angle, Field(description="Direction of the motion, counter-clockwise from right.")] = 30.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`.

        Raises:
            ShapeError: the streak does not fit.
        """
        return line_kernel(self.size, self.length, self.angle)


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


class AiryKernel(Kernel):
    """A perfect lens, limited by diffraction; see `airy_kernel`."""

    title: ClassVar[str] = "Diffraction"
    kind: Literal["airy"] = "airy"
    size: _Size = 31
    radius: _Ring = 4.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        return airy_kernel(self.size, self.radius)


_Waves = Annotated[float, Field(ge=-3, le=3), Ui(unit="waves rms")]


class ZernikeKernel(Kernel):
    """A lens with aberrations; see `zernike_kernel`, which takes any Noll index."""

    title: ClassVar[str] = "Aberrations"
    kind: Literal["zernike"] = "zernike"
    size: _Size = 31
    radius: _Ring = 3.0
    defocus: Annotated[_Waves, Field(description="Defocus (Noll 4).")] = 0.1
    astigmatism_oblique: Annotated[_Waves, Field(description="Oblique astigmatism (Noll 5).")] = 0.0
    astigmatism: Annotated[_Waves, Field(description="Straight astigmatism (Noll 6).")] = 0.1
    coma_vertical: Annotated[_Waves, Field(description="Vertical coma (Noll 7).")] = 0.0
    coma_horizontal: Annotated[_Waves, Field(description="Horizontal coma (Noll 8).")] = 0.1
    trefoil_vertical: Annotated[_Waves, Field(description="Vertical trefoil (Noll 9).")] = 0.0
    trefoil_oblique: Annotated[_Waves, Field(description="Oblique trefoil (Noll 10).")] = 0.0
    spherical: Annotated[_Waves, Field(description="Spherical aberration (Noll 11).")] = 0.0

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel; see `Kernel.build`."""
        waves = (
            self.defocus,
            self.astigmatism_oblique,
            self.astigmatism,
            self.coma_vertical,
            self.coma_horizontal,
            self.trefoil_vertical,
            self.trefoil_oblique,
            self.spherical,
        )
        return zernike_kernel(self.size, self.radius, dict(enumerate(waves, 4)))


class KernelFile(Kernel):
    """The image of a point (a star, a bead, a bright spot), from a picture or a numpy file; it is scaled to sum 1.

    The point is taken to lie at row height // 2 and column width // 2 of the file.
    """

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Picture (white is strong), .npy or .npz with one array.")]

    def build(self, base: Path = Path()) -> Tensor:
        """The kernel: the picture turned by 180° about its point, with a row or column of zeros where that is even.

        Raises:
            ReadError: the file is not one plane of numbers with a positive sum.
            AssetCorrupt: the file does not have the recorded checksum.
        """
        plane = read_plane(self.file, base)
        total = plane.sum()
        if total <= 0:
            raise ReadError(f"Expected a kernel with a positive sum in {self.file.path}, got {total}; check the file.")
        odd = np.pad(plane / total, [(0, 1 - n % 2) for n in plane.shape])
        return torch.from_numpy(odd[::-1, ::-1].copy())


AnyKernel = Annotated[
    GaussianKernel
    | OrientedGaussianKernel
    | MotionKernel
    | LineKernel
    | DiskKernel
    | AiryKernel
    | ZernikeKernel
    | KernelFile,
    Field(discriminator="kind"),
]
