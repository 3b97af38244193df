"""Sensitivities of MRI receive coils: simulated, read from a file, or estimated from the centre of k-space.

Maps are (coils, H, W) complex. Where there is signal their squared magnitudes sum to 1 over the coils, so that an image
in unit range stays one; where there is none they may all be zero.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.errors import ReadError, ShapeError
from operators.files import read_array
from operators.rng import generator
from operators.spec import DataRef, Spec, Ui


def root_sum_of_squares(images: Tensor) -> Tensor:
    """The magnitude image of all coils together.   Shapes: (..., coils, H, W) complex → (..., H, W) real, >= 0."""
    size: Tensor = torch.linalg.vector_norm(images, dim=-3)
    return size


def birdcage_maps(coils: int, height: int, width: int, seed: int) -> Tensor:
    """Receive fields of straight wires on a ring around the image, scaled to unit sum of squares everywhere.

    The ring has 1.5 times the half-width of the image; each wire's field falls as one over the distance and circles it
    in phase. The seed turns the ring and gives each receiver its own phase, as cables and amplifiers do.

    Shapes: → (coils, height, width) complex128.

    Source: the field of a long wire (Biot & Savart), as used for simulated head coils. Deviations: no shielding,
        no loading, no correlation between coils.
    """
    draw = generator(seed)
    turn, phases = draw.uniform(0, 2 * np.pi), draw.uniform(0, 2 * np.pi, coils)
    wires = 1.5 * np.exp(1j * (turn + 2 * np.pi * np.arange(coils) / coils))
    rows, columns = np.mgrid[:height, :width]
    place = (columns - width // 2) / (width / 2) + 1j * (rows - height // 2) / (height / 2)
    away = place - wires[:, None, None]
    # 1 / conj(away) has the magnitude 1/r and the phase of the angle around the wire
    maps = np.exp(1j * phases)[:, None, None] / away.conj()
    return torch.from_numpy(maps / np.linalg.norm(maps, axis=0))


def calibration_region(mask: Tensor) -> tuple[int, int]:
    """Height and width of the fully measured box around the zero frequency (H // 2, W // 2), grown while it can be.

    Shapes: mask (H, W) bool.

    Raises:
        ShapeError: the zero frequency itself was not measured.
    """
    height, width = mask.shape
    if not bool(mask[height // 2, width // 2]):
        raise ShapeError("Expected the centre of k-space to be measured, got a hole there; measure calibration lines.")
    reach = [0, 0]
    growing = [True, True]
    while any(growing):
        for axis in (0, 1):
            tried = [reach[0] + (axis == 0), reach[1] + (axis == 1)]
            inside = tried[axis] <= (mask.shape[axis] - 1) // 2
            growing[axis] = growing[axis] and inside and bool(_middle(mask, tried).all())
            if growing[axis]:
                reach = tried
    return 2 * reach[0] + 1, 2 * reach[1] + 1


def espirit_maps(
    kspace: Tensor,
    mask: Tensor,
    *,
    lines: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> Tensor:
    """Sensitivities from the fully measured centre of multi-coil k-space, and zero outside the body.

    Small patches of the centre span a space that every coil's k-space lies in; at each pixel that makes a matrix over
    the coils, whose eigenvector of eigenvalue 1 is the sensitivities there. Their common phase, which no data tell, is
    such that the first principal component of the coils is real: phase that all coils share stays in the image.

    Shapes: kspace (coils, H, W) complex, centred; mask (H, W) bool → (coils, H, W) complex128.

    Args:
        kspace: measured k-space; only the fully measured centre is used.
        mask: where it was measured.
        lines: the centre is at most this many lines in each direction.
        kernel: side of a patch.
        threshold: singular values of the patches below this part of the largest count as noise.
        crop: a pixel whose largest eigenvalue is below this is outside the body.

    Raises:
        ShapeError: shapes do not match, or the measured centre is smaller than two patches in a direction.

    Source: Uecker et al. 2014 (ESPIRiT, doi:10.1002/mrm.24751). Deviations: one set of maps; the eigenvector by power
        iteration (30 steps from the principal component's own start); the phase reference above.
    """
    if kspace.ndim != 3 or kspace.shape[1:] != mask.shape or not kspace.is_complex():
        raise ShapeError(
            f"Expected complex k-space (coils, {mask.shape[0]}, {mask.shape[1]}) like the mask, got "
            f"{tuple(kspace.shape)} {kspace.dtype}; give both of one scan."
        )
    box = [min(n, lines) for n in calibration_region(mask)]
    if min(box) < 2 * kernel - 1:
        raise ShapeError(
            f"Expected at least {2 * kernel - 1} calibration lines in each direction, got {box[0]}x{box[1]}; measure "
            "more of the centre or use a smaller kernel."
        )
    centre = _middle(kspace.to(torch.complex128), [(n - 1) // 2 for n in box])
    patches = centre.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4)
    patches = patches.reshape(-1, len(kspace) * kernel**2)
    power, basis = torch.linalg.eigh(patches.mH @ patches)
    basis = basis[:, power > threshold**2 * power[-1]]
    projector = (basis @ basis.mH).reshape(len(kspace), kernel, kernel, len(kspace), kernel, kernel)
    # a sample lies in many patches; two places of one patch at distance d say how a neighbour at d predicts the sample
    lags = projector.new_zeros(len(kspace), len(kspace), 2 * kernel - 1, 2 * kernel - 1)
    for i in range(kernel):
        for j in range(kernel):
            window = (slice(kernel - 1 - i, 2 * kernel - 1 - i), slice(kernel - 1 - j, 2 * kernel - 1 - j))
            lags[(..., *window)] += projector[..., i, j].permute(3, 0, 1, 2) / kernel**2
    samples = centre.flatten(1)
    reference = torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
    return _eigenmaps(lags, reference, mask.shape[0], mask.shape[1], crop)


def _eigenmaps(lags: Tensor, reference: Tensor, height: int, width: int, crop: float) -> Tensor:
    """The first eigenvector at each pixel of the matrices with Fourier series `lags`, zero where its value is small.

    Shapes: lags (coils, coils, 2k - 1, 2k - 1), reference (coils,) → (coils, height, width).
    """
    coils, reach = lags.shape[0], lags.shape[-1] // 2
    rows, columns = (_waves(n, reach) for n in (height, width))
    maps = lags.new_zeros(coils, height, width)
    across = lags @ columns.T
    # a few rows at a time: all matrices at once would fill the memory
    for part in torch.arange(height).split(max(1, 250_000 // (coils**2 * width) + 1)):
        matrices = (rows[part] @ across).permute(2, 3, 0, 1).contiguous()
        values, vectors = torch.linalg.eigh(matrices)
        first = vectors[..., -1] * torch.sgn(reference @ vectors[..., -1:].conj()).squeeze(-1)[..., None]
        maps[:, part] = torch.where(values[..., -1] >= crop, first.movedim(-1, 0), 0)
    return maps


def _waves(size: int, reach: int) -> Tensor:
    """The factors exp(-2 pi i d x / size), pixel by lag."""
    place = torch.arange(size, dtype=torch.float64) - size // 2
    angle = -2 * torch.pi / size * torch.outer(place, torch.arange(-reach, reach + 1, dtype=torch.float64))
    return torch.polar(torch.ones_like(angle), angle)


def _middle(x: Tensor, reach: list[int]) -> Tensor:
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    return x[..., row - reach[0] : row + reach[0] + 1, column - reach[1] : column + reach[1] + 1]


class SingleCoil(Spec):
    """One coil that sees everything alike."""

    title: ClassVar[str] = "One coil"
    kind: Literal["single"] = "single"


class CoilMaps(Spec, ABC):
    """Description of the sensitivities of several coils."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The maps, (coils, height, width) complex; relative paths are read from folder `base`.

        Raises:
            ShapeError: the maps have another size.
            ReadError, AssetCorrupt: a file cannot be used.
        """


class BirdcageCoils(CoilMaps):
    """A simulated ring of coils; see `birdcage_maps`."""

    title: ClassVar[str] = "Simulated ring"
    kind: Literal["birdcage"] = "birdcage"
    coils: Annotated[int, Field(ge=1, le=128, description="Number of coils.")] = 8
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Turn of the ring and phases of the receivers.")] = 0

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The maps; see `CoilMaps.build`."""
        return birdcage_maps(self.coils, height, width, self.seed)


class CoilFile(CoilMaps):
    """Maps from a numpy file (coils, H, W)."""

    title: ClassVar[str] = "Maps from a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Complex .npy or one-array .npz file (coils, H, W).")]

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The maps; see `CoilMaps.build`."""
        return _read_stack(self.file, height, width, base)


class CalibratedCoils(CoilMaps):
    """Maps estimated from the fully measured centre of a scan's own k-space; see `espirit_maps`."""

    title: ClassVar[str] = "Estimated from k-space"
    kind: Literal["calibrated"] = "calibrated"
    file: Annotated[
        DataRef, Field(description="Complex .npy or one-array .npz file (coils, H, W), centred, 0 where not measured.")
    ]
    lines: Annotated[int, Field(ge=11, le=256, description="Most calibration lines to use."), Ui(advanced=True)] = 24
    kernel: Annotated[int, Field(ge=2, le=12, description="Side of a k-space patch."), Ui(advanced=True)] = 6
    threshold: Annotated[
        float,
        Field(gt=0, lt=1, description="Singular values below this part of the largest are noise."),
        Ui(advanced=True),
    ] = 0.02
    crop: Annotated[
        float, Field(ge=0, le=1, description="Eigenvalue below which a pixel is outside."), Ui(advanced=True)
    ] = 0.95

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The maps; see `CoilMaps.build`."""
        kspace = _read_stack(self.file, height, width, base)
        measured = kspace.ne(0).any(0)
        return espirit_maps(
            kspace, measured, lines=self.lines, kernel=self.kernel, threshold=self.threshold, crop=self.crop
        )


AnyCoils = Annotated[SingleCoil | BirdcageCoils | CoilFile | CalibratedCoils, Field(discriminator="kind")]


def _read_stack(ref: DataRef, height: int, width: int, base: Path) -> Tensor:
    array: np.ndarray[Any, Any] = read_array(ref, base)
    if array.ndim != 3:
        raise ReadError(f"Expected an array (coils, H, W) in {ref.path}, got {array.shape}; reorder its axes.")
    if array.shape[1:] != (height, width):
        raise ShapeError(
            f"Expected coils of {height}x{width} pixels like the image in {ref.path}, got {array.shape[1]}x"
            f"{array.shape[2]}; use the file of this scan."
        )
    return torch.from_numpy(array.astype(np.complex128))
