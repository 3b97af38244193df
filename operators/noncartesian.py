"""MRI off the grid: radial, spiral and other trajectories.

A trajectory is (M, 2): row and column frequency in cycles per pixel, from −½ to ½. The transform is
y_m = Σ x[r, c] exp(−2 pi i (t_m · (r − H // 2, c − W // 2))) / √(H W), which on the full grid is the orthonormal one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator, OperatorSpec, Shape, check_image_shape
from operators.coils import AnyCoils, SingleCoil
from operators.errors import NeedError, ReadError, ShapeError
from operators.files import MAX_PIXELS, read_array
from operators.mri import ImageKind, check_maps, combine
from operators.solve import cg
from operators.spec import DataRef, Need, Spec

Transform = Literal["direct", "nufft"]

_LARGEST = 1 << 26
"""Numbers in the factors of the direct transform: 512 MiB as complex64."""

_GOLDEN_ANGLE = np.pi * (np.sqrt(5) - 1) / 2


def radial_trajectory(spokes: int, samples: int) -> Tensor:
    """Spokes through the centre, each turned by the golden angle (111.246°) against the one before.

    Shapes: → (spokes · samples, 2) float64, cycles per pixel; sample `samples // 2` of each spoke is the centre.

    Raises:
        ShapeError: above half of `MAX_PIXELS` samples in all.

    Source: Winkelmann et al. 2007. Deviations: none.
    """
    _check_count(spokes * samples)
    along = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    angle = torch.arange(spokes, dtype=torch.float64) * _GOLDEN_ANGLE
    return (along[:, None] * torch.stack([angle.sin(), angle.cos()], -1)[:, None]).reshape(-1, 2)


def spiral_trajectory(interleaves: int, samples: int, turns: float) -> Tensor:
    """Archimedean spirals from the centre to the edge, turned evenly against one another.

    Shapes: → (interleaves · samples, 2) float64, cycles per pixel.

    Args:
        interleaves: number of spirals.
        samples: samples on each; they lie evenly along the curve, not in angle.
        turns: turns of each spiral around the centre.

    Raises:
        ShapeError: above half of `MAX_PIXELS` samples in all.

    Source: Meyer et al. 1992 for spirals of constant linear velocity. Deviations: no gradient limits.
    """
    _check_count(interleaves * samples)
    # far out the curve is as long as its swept area, radius times angle: even spacing means radius ∝ √sample
    radius = 0.5 * torch.linspace(0, 1, samples, dtype=torch.float64).sqrt()
    angle = 2 * torch.pi * (2 * turns * radius + torch.arange(interleaves, dtype=torch.float64)[:, None] / interleaves)
    return (radius[..., None] * torch.stack([angle.sin(), angle.cos()], -1)).reshape(-1, 2)


class NonCartesianMRI(LinearOperator):
    """MRI along any trajectory, by one coil or by several.

    `direct` evaluates the sum through its separable factors: exact, on any device, in time that grows as samples times
    pixels. `nufft` is the non-uniform FFT of FINUFFT (the extra `mri`): on the CPU, to a relative accuracy of about
    1e-6 in single precision and 1e-12 in double, and much faster for large images. Either way the matrix A*A is
    Toeplitz and the normal operator two FFTs of twice the size. That makes `prox` cheap, and `guess`: ten steps of
    conjugate gradients from zero, which need no density compensation.

    Shapes: x (B, ..., H, W) → (B, ..., M) complex, or (B, ..., coils, M) if there are maps.

    Args:
        trajectory: (M, 2) real, cycles per pixel.
        in_shape: (..., H, W), without batch.
        maps: (coils, H, W) complex sensitivities, or none for a single coil; see `operators.coils`.
        in_complex: whether images are complex; with real ones the adjoint takes the real part.
        transform: "direct" or "nufft".

    Raises:
        ShapeError: the trajectory is no list of frequencies within ±½, the maps do not fit, the image is above
            `MAX_PIXELS`, or the direct transform would need too much memory.
        NeedError: "nufft" without FINUFFT.

    Source: Fessler & Sutton 2003 for the transform, Fessler et al. 2005 for the Toeplitz form, Barnett et al. 2019 for
        FINUFFT. Deviations: none.
    """

    trajectory: Tensor
    _rows: Tensor
    _columns: Tensor
    _maps: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        trajectory: Tensor,
        in_shape: Shape,
        maps: Tensor | None = None,
        *,
        in_complex: bool = True,
        transform: Transform = "direct",
    ) -> None:
        in_shape = check_image_shape(in_shape)
        size = (in_shape[-2], in_shape[-1])
        if prod(size) > MAX_PIXELS:
            raise ShapeError(
                f"MRI off the grid expected an image of at most {MAX_PIXELS / 1e6:g} megapixels, got "
                f"{size[0]}x{size[1]}; crop the image."
            )
        points = _check_trajectory(trajectory)
        if transform == "direct" and len(points) * sum(size) > _LARGEST:
            raise ShapeError(
                f"Expected at most {_LARGEST // sum(size)} samples for the direct transform of {size[0]}x{size[1]} "
                f"pixels, got {len(points)}; choose the transform 'nufft'."
            )
        coils = () if maps is None else (len(maps),)
        super().__init__(in_shape, (*in_shape[:-2], *coils, len(points)), in_complex=in_complex, out_complex=True)
        self.transform: Transform = transform
        self._coils = maps is not None
        default = torch.get_default_dtype()
        grid = (2 * size[0], 2 * size[1])
        response = _point_spread(points, grid, size, transform)
        self.register_buffer("trajectory", points.to(default))
        self.register_buffer("_spectrum", torch.fft.fft2(response).real.to(default))
        if maps is not None:
            complex_maps = check_maps(maps, in_shape, type(self).__name__)
            self.register_buffer("_maps", torch.view_as_real(complex_maps).to(default))
        if transform == "direct":
            for name, axis in (("_rows", 0), ("_columns", 1)):
                factor = _waves(points[:, axis], size[axis]) / size[axis] ** 0.5
                self.register_buffer(name, torch.view_as_real(factor).to(default))

    @property
    def maps(self) -> Tensor | None:
        """The sensitivities, (coils, H, W) complex, or none."""
        return torch.view_as_complex(self._maps) if self._coils else None

    @property
    def acceleration(self) -> float:
        """Pixels over measured samples."""
        return prod(self.in_shape[-2:]) / len(self.trajectory)

    def extra_repr(self) -> str:
        return f"{len(self.trajectory)} samples, acceleration {self.acceleration:.3g}, {self.transform}"

    def _forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.complex32)
        seen = self.maps.to(dtype) * x.unsqueeze(-3) if self.maps is not None else x.to(dtype)
        planes = seen.reshape(-1, *self.in_shape[-2:])
        return self._sample(planes).reshape(x.shape[0], *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        planes = self._spread(y.reshape(-1, y.shape[-1]))
        images = planes.reshape(*y.shape[:-1], *self.in_shape[-2:])
        return self._image(images)

    def _normal(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.complex32)
        height, width = self.in_shape[-2:]
        seen = self.maps.to(dtype) * x.unsqueeze(-3) if self.maps is not None else x.to(dtype)
        k = torch.fft.fft2(seen, s=(2 * height, 2 * width))
        return self._image(torch.fft.ifft2(k * self._spectrum.to(k.real.dtype))[..., :height, :width])

    def _guess(self, y: Tensor) -> Tensor:
        return cg(self._normal, self._adjoint(y), tol=1e-3, max_iter=10)

    def _image(self, images: Tensor) -> Tensor:
        if self.maps is not None:
            images = combine(self.maps.to(images.dtype), images)
        return images if self.in_complex else images.real

    def _sample(self, planes: Tensor) -> Tensor:
        """Shapes: (n, H, W) complex → (n, M)."""
        if self.transform == "nufft":
            sampled: Tensor = _Nufft.apply(planes, self.trajectory, self.in_shape[-2:], False)  # type: ignore[no-untyped-call]
            return sampled
        rows, columns = self._factors(planes)
        return torch.cat([((rows @ part) * columns).sum(-1) for part in planes.split(self._at_once())])

    def _spread(self, samples: Tensor) -> Tensor:
        """The adjoint of `_sample`.   Shapes: (n, M) → (n, H, W) complex."""
        if self.transform == "nufft":
            spread: Tensor = _Nufft.apply(samples, self.trajectory, self.in_shape[-2:], True)  # type: ignore[no-untyped-call]
            return spread
        rows, columns = self._factors(samples)
        return torch.cat([rows.mH @ (part[..., None] * columns.conj()) for part in samples.split(self._at_once())])

    def _at_once(self) -> int:
        # small images together, large ones in turn: the intermediate numbers are samples times columns for each
        return max(1, (1 << 22) // (len(self.trajectory) * self.in_shape[-1]))

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.view_as_complex(self._rows).to(like.dtype), torch.view_as_complex(self._columns).to(like.dtype)


def _check_count(samples: int) -> None:
    # two numbers each, and no more of them than may be read from a file
    if 2 * samples > MAX_PIXELS:
        raise ShapeError(
            f"Expected a trajectory of at most {MAX_PIXELS / 2e6:g} million samples, got {samples / 1e6:g}; "
            "choose fewer spokes, interleaves or samples, or crop the image."
        )


def _check_trajectory(trajectory: Tensor) -> Tensor:
    good = trajectory.ndim == 2 and trajectory.shape[-1:] == (2,) and len(trajectory) > 0
    if not good or not trajectory.is_floating_point() or not bool((trajectory.abs() <= 0.5 + 1e-6).all()):
        raise ShapeError(
            f"Expected a trajectory (M, 2) of frequencies from -0.5 to 0.5 cycles per pixel, got "
            f"{tuple(trajectory.shape)} {trajectory.dtype} up to {_largest(trajectory)}; rescale it."
        )
    return trajectory.detach().cpu().double()


def _largest(trajectory: Tensor) -> str:
    return f"{float(trajectory.abs().max()):.3g}" if trajectory.numel() else "nothing"


def _waves(frequency: Tensor, size: int) -> Tensor:
    """The factors exp(−2 pi i f (n − size // 2)).   Shapes: (M,) → (M, size) complex128."""
    angle = -2 * torch.pi * torch.outer(frequency, torch.arange(size, dtype=torch.float64) - size // 2)
    return torch.polar(torch.ones_like(angle), angle)


def _point_spread(points: Tensor, grid: tuple[int, int], size: tuple[int, int], transform: Transform) -> Tensor:
    """A*A of one pixel at every distance, the zero distance first.   Shapes: (M, 2) → (2H, 2W) complex128."""
    spread = points.new_zeros(grid, dtype=torch.complex128)
    if transform == "nufft":
        spread = _nufft(torch.ones(1, len(points), dtype=torch.complex128), points, grid, adjoint=True)[0]
        # one scale for both sizes: `_nufft` divides by the root of its own grid
        spread = spread * (prod(grid) ** 0.5)
    else:
        half = spread[size[0] :]
        for part in points.split(max(1, _LARGEST // (4 * sum(grid)))):
            half += _waves(part[:, 0], grid[0])[:, size[0] :].mH @ _waves(part[:, 1], grid[1]).conj()
        # the opposite distance has the conjugate value
        spread[1 : size[0], 1:] = half[1:, 1:].flip(0, 1).conj()
    # distances of half the grid do not occur, and would spoil the symmetry that makes the spectrum real
    spread[0], spread[:, 0] = 0, 0
    response: Tensor = torch.fft.ifftshift(spread / prod(size))
    return response


def _finufft() -> ModuleType:
    try:
        import finufft
    except ImportError as error:
        raise NeedError(
            "The non-uniform FFT needs the package finufft, which is not installed; run "
            "`pip install preimage[mri]` or choose the transform 'direct'."
        ) from error
    return finufft  # type: ignore[no-any-return]


def _nufft(values: Tensor, points: Tensor, size: Shape, *, adjoint: bool) -> Tensor:
    """The transform of images (n, H, W), or its adjoint on samples (n, M), in the precision of `values`."""
    call: Callable[..., Any] = _finufft().nufft2d1 if adjoint else _finufft().nufft2d2
    double = values.dtype == torch.complex128
    turns = (2 * np.pi * points.numpy(force=True).astype(np.float64)).astype(np.float64 if double else np.float32)
    rows, columns = np.ascontiguousarray(turns[:, 0]), np.ascontiguousarray(turns[:, 1])
    given = np.ascontiguousarray(values.detach().resolve_conj().numpy(force=True))
    options = {"eps": 1e-13 if double else 1e-6, "isign": 1 if adjoint else -1, "nthreads": torch.get_num_threads()}
    found = call(rows, columns, given, tuple(size), **options) if adjoint else call(rows, columns, given, **options)
    return torch.from_numpy(np.asarray(found) / prod(size) ** 0.5).to(values)


class _Nufft(torch.autograd.Function):
    """`_nufft` with its gradient, which is the opposite transform."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, points: Tensor, size: Shape, adjoint: bool) -> Tensor:
        ctx.save_for_backward(points)
        ctx.size, ctx.adjoint = size, adjoint
        return _nufft(values, points, size, adjoint=adjoint)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (points,) = ctx.saved_tensors
        back: Tensor = _Nufft.apply(slopes[0], points, ctx.size, not ctx.adjoint)  # type: ignore[no-untyped-call]
        return back, None, None, None


class Trajectory(Spec, ABC):
    """Description of where in k-space samples lie."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The trajectory, (M, 2) float64 in cycles per pixel; relative paths are read from folder `base`."""


_Samples = Annotated[
    int | None, Field(ge=2, le=65536, description="Samples on each; empty takes enough for the image.")
]


class RadialTrajectory(Trajectory):
    """Golden-angle spokes; see `radial_trajectory`."""

    title: ClassVar[str] = "Radial"
    kind: Literal["radial"] = "radial"
    spokes: Annotated[
        int | None,
        Field(ge=1, le=16384, description="Spokes through the centre; empty takes a quarter of the pixels across."),
    ] = None
    samples: _Samples = None

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """As many samples on a spoke as the image has pixels across unless told otherwise; see `Trajectory.build`."""
        across = max(height, width)
        return radial_trajectory(self.spokes or max(1, across // 4), self.samples or max(2, across))


class SpiralTrajectory(Trajectory):
    """Spirals from the centre; see `spiral_trajectory`."""

    title: ClassVar[str] = "Spiral"
    kind: Literal["spiral"] = "spiral"
    interleaves: Annotated[int, Field(ge=1, le=1024, description="Number of spirals.")] = 8
    turns: Annotated[float, Field(gt=0, le=1024, description="Turns of each spiral around the centre.")] = 8.0
    samples: _Samples = None

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """As many samples on a spiral as pixels along its length unless told otherwise; see `Trajectory.build`."""
        along = int(np.pi * self.turns * max(height, width) / 2) + 2
        return spiral_trajectory(self.interleaves, self.samples or along, self.turns)


class TrajectoryFile(Trajectory):
    """A trajectory of your own."""

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[
        DataRef, Field(description="Real .npy or .npz file (..., 2): row and column frequency in cycles per pixel.")
    ]

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The points in the file, in reading order; see `Trajectory.build`."""
        points = read_array(self.file, base)
        if points.ndim < 2 or points.shape[-1] != 2 or points.dtype.kind == "c":
            raise ReadError(
                f"Expected real frequencies (..., 2) in {self.file.path}, got {points.dtype} {points.shape}."
            )
        return torch.from_numpy(points.reshape(-1, 2).astype(np.float64))


AnyTrajectory = Annotated[RadialTrajectory | SpiralTrajectory | TrajectoryFile, Field(discriminator="kind")]


class NonCartesianMRISpec(OperatorSpec):
    """MRI off the grid: radial, spiral or a trajectory of your own."""

    title: ClassVar[str] = "MRI off the grid"
    kind: Literal["mri-noncartesian"] = "mri-noncartesian"
    trajectory: Annotated[AnyTrajectory, Field(description="Where in k-space samples lie.")] = RadialTrajectory()
    coils: Annotated[AnyCoils, Field(description="How the receive coils see the image.")] = SingleCoil()
    image: Annotated[
        ImageKind, Field(description="Complex images, or real ones for a prior that knows magnitudes alone.")
    ] = "complex"
    transform: Annotated[
        Transform, Field(description="The exact sum, or the faster non-uniform FFT of the package finufft.")
    ] = "direct"

    @property
    def offers(self) -> frozenset[Need]:
        """What `NonCartesianMRI` offers."""
        return NonCartesianMRI.offers

    @property
    def in_complex(self) -> bool:
        """Whether images are complex."""
        return self.image == "complex"

    def build(self, in_shape: Shape, base: Path = Path()) -> NonCartesianMRI:
        """The operator on images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        points = self.trajectory.build(shape[-2], shape[-1], base)
        maps = None if isinstance(self.coils, SingleCoil) else self.coils.build(shape[-2], shape[-1], base)
        in_complex = self.image == "complex"
        return NonCartesianMRI(points, shape, maps, in_complex=in_complex, transform=self.transform)
