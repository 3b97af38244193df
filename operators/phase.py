"""Phase retrieval: only the size of a wave is measured, |L x| or its square, and its phase is lost.

Three measurements share one class: the far field (oversampled Fourier magnitudes), the far field behind known masks,
and the near field at several distances (in-line holograms, defocus).
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import pi, prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.base import Operator, OperatorSpec, Shape, check_image_shape
from operators.errors import ShapeError
from operators.rng import generator
from operators.spec import Need, Ui

Reading = Literal["amplitude", "intensity"]
Modulation = Literal["octanary", "uniform"]


class MagnitudeOperator(Operator):
    """|L x|, or |L x|², for a linear L that loses nothing: `unfield(field(x))` is x.

    The derivative of |z| at z = 0 is taken as 0, the element of smallest norm among its subgradients.

    Args:
        in_shape: (..., H, W), without batch.
        out_shape: shape of the data, without batch.
        reading: "amplitude" for |L x|, "intensity" for |L x|².
        in_complex: whether images are complex.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, reading: Reading, *, in_complex: bool) -> None:
        super().__init__(in_shape, out_shape, in_complex=in_complex)
        self.reading = reading

    def field(self, x: Tensor) -> Tensor:
        """The wave L x.   Shapes: (B, *in_shape) → (B, *out_shape) complex.

        Raises:
            ShapeError: wrong shape, or real where complex is expected.
        """
        self.check_image(x)
        return self._field(x)

    def unfield(self, u: Tensor) -> Tensor:
        """The image whose wave is nearest to u, that is L⁺ u.   Shapes: (B, *out_shape) complex → (B, *in_shape)."""
        image = self._unfield(u)
        return image if self.in_complex else image.real

    def magnitude(self, y: Tensor) -> Tensor:
        """|L x| as the data have it; what noise made negative counts as 0.   Shapes: (B, *out_shape) → the same.

        Raises:
            ShapeError: wrong shape, or complex.
        """
        self.check_data(y)
        return y.clamp(min=0) if self.reading == "amplitude" else y.clamp(min=0).sqrt()

    def _forward(self, x: Tensor) -> Tensor:
        u = self._field(x)
        return u.abs() if self.reading == "amplitude" else u.real.square() + u.imag.square()

    @abstractmethod
    def _field(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _unfield(self, u: Tensor) -> Tensor: ...


class PhaseRetrieval(MagnitudeOperator):
    """Magnitudes of the orthonormal Fourier transform of each channel in a black frame; zero frequency centred.

    The frame has int(oversample / 8 · size) pixels on each side: 64 at 256 and oversample 2, where the grid is 384x384.
    The published "oversample 2" is therefore 1.5 times finer per axis; all of the image's autocorrelation fits the grid
    from oversample 4 on. Nothing but the frame tells where the image is: turned by 180° it has the same data, and so
    have shifts of an image with black borders.

    Images are in unit range. DAPS maps its images to it before this operator; DPS does not, and its data of a [-1, 1]
    image are another measurement: the zero frequency differs, and noise of the same size is half as large there.

    Shapes: x (B, ..., H, W) → (B, ..., H + 2 pad, W + 2 pad).

    Args:
        in_shape: (..., H, W), without batch.
        oversample: from 0 to 8; the grid has 1 + oversample / 4 times as many pixels as the image on each axis.
        reading: "amplitude" (as published) or "intensity".
        in_complex: whether images are complex.

    Source: Chung et al. 2023 (arXiv:2209.14687), code DPS2022/diffusion-posterior-sampling; Zhang et al. 2025
    (arXiv:2407.01521). Deviations: sizes other than 256; the image lies in a corner of the periodic grid, not at its
    centre, which changes phases alone.
    """

    offers: ClassVar[frozenset[Need]] = MagnitudeOperator.offers | {Need.FOURIER}

    def __init__(
        self, in_shape: Shape, oversample: float = 2.0, reading: Reading = "amplitude", *, in_complex: bool = False
    ) -> None:
        in_shape = check_image_shape(in_shape)
        if not 0 <= oversample <= 8:
            raise ShapeError(f"PhaseRetrieval expected an oversample from 0 to 8, got {oversample}; choose another.")
        self.grid = (_padded(in_shape[-2], oversample), _padded(in_shape[-1], oversample))
        super().__init__(in_shape, (*in_shape[:-2], *self.grid), reading, in_complex=in_complex)

    def _field(self, x: Tensor) -> Tensor:
        return _centred_transform(x, self.grid)

    def _unfield(self, u: Tensor) -> Tensor:
        return _uncentred_inverse(u)[..., : self.in_shape[-2], : self.in_shape[-1]]

    def _guess(self, y: Tensor) -> Tensor:
        # an even image with the energy of the data: the transform keeps it, and no place is better than another
        level = (self.magnitude(y).square().flatten(1).sum(1) / prod(self.in_shape)).sqrt()
        even = level.reshape(-1, *(1,) * len(self.in_shape)).repeat(1, *self.in_shape)
        return torch.complex(even, torch.zeros_like(even)) if self.in_complex else even


class CodedDiffraction(MagnitudeOperator):
    """Magnitudes of the orthonormal Fourier transform behind each of several known masks: |F (d_k x)|, k = 1 ... K.

    Shapes: x (B, ..., H, W) → (B, ..., K, H, W).

    Args:
        masks: (K, H, W) complex, nowhere all zero.
        in_shape: (..., H, W), without batch.
        reading: "amplitude" or "intensity".
        in_complex: whether images are complex.

    Raises:
        ShapeError: masks of another size or not complex, or a pixel that no mask lets through.

    Source: Candès, Li & Soltanolkotabi 2015, "Phase retrieval from coded diffraction patterns". Deviations: the
    transform is orthonormal, its zero frequency centred.
    """

    _masks: Tensor
    _power: Tensor

    def __init__(
        self, masks: Tensor, in_shape: Shape, reading: Reading = "intensity", *, in_complex: bool = False
    ) -> None:
        in_shape = check_image_shape(in_shape)
        if masks.ndim != 3 or masks.shape[1:] != in_shape[-2:] or not masks.is_complex():
            raise ShapeError(
                f"CodedDiffraction expected complex masks (K, {in_shape[-2]}, {in_shape[-1]}), "
                f"got {tuple(masks.shape)} {masks.dtype}; give one for each pattern."
            )
        power = masks.abs().square().sum(0)
        if not bool((power > 0).all()):
            raise ShapeError("CodedDiffraction expected masks that let every pixel through once, got a dark one.")
        super().__init__(in_shape, (*in_shape[:-2], *masks.shape), reading, in_complex=in_complex)
        self.register_buffer("_masks", torch.view_as_real(masks.resolve_conj()).to(torch.get_default_dtype()))
        self.register_buffer("_power", power.to(torch.get_default_dtype()))

    def data_as_image(self, y: Tensor) -> Tensor:
        """The patterns side by side.   Shapes: (B, ..., K, H, W) → (B, ..., H, K W)."""
        self.check_data(y)
        return _side_by_side(y)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The patterns from such a picture; see `data_as_image`."""
        return _apart(self, picture)

    def _field(self, x: Tensor) -> Tensor:
        masks = torch.view_as_complex(self._masks).to(torch.promote_types(x.dtype, torch.complex32))
        return _centred_transform(masks * x.unsqueeze(-3), self.in_shape[-2:])

    def _unfield(self, u: Tensor) -> Tensor:
        masks = torch.view_as_complex(self._masks).to(u.dtype)
        return (masks.conj() * _uncentred_inverse(u)).sum(-3) / self._power.to(u.real.dtype)

    def _guess(self, y: Tensor) -> Tensor:
        energy = self.magnitude(y).square().sum((-3, -2, -1), keepdim=True).squeeze(-3)
        even = (energy / self._power.to(y.dtype).sum()).sqrt().repeat(*(1,) * (y.ndim - 3), *self.in_shape[-2:])
        return torch.complex(even, torch.zeros_like(even)) if self.in_complex else even


class Hologram(MagnitudeOperator):
    """The wave behind a transparent object, some way further on: |x propagated by z_k| at each of several distances.

    The image is the amplitude that the object lets through (1: all of it); complex images have its phase, too. Waves
    propagate exactly (angular spectrum), and the object repeats periodically. This is an in-line hologram, or a stack
    of pictures out of focus.

    Shapes: x (B, ..., H, W) → (B, ..., K, H, W).

    Args:
        in_shape: (..., H, W), without batch.
        distances: K distances from the object, either sign, in millimetres.
        wavelength: in micrometres.
        pixel: side of a pixel in micrometres, more than wavelength / √2, so that every wave reaches the detector.
        reading: "intensity" or "amplitude".
        in_complex: whether images are complex.

    Raises:
        ShapeError: no distances, or pixels too fine for the wavelength.

    Source: Goodman, Introduction to Fourier Optics, 3.10 (the angular spectrum). Deviations: the phase exp(i k z) that
    all waves share is left out.
    """

    _transfer: Tensor

    def __init__(
        self,
        in_shape: Shape,
        distances: Sequence[float],
        wavelength: float,
        pixel: float,
        reading: Reading = "intensity",
        *,
        in_complex: bool = False,
    ) -> None:
        in_shape = check_image_shape(in_shape)
        if not distances:
            raise ShapeError("Hologram expected at least one distance, got none; say where the detector is.")
        if reason := _too_fine(wavelength, pixel):
            raise ShapeError(reason)
        super().__init__(in_shape, (*in_shape[:-2], len(distances), *in_shape[-2:]), reading, in_complex=in_complex)
        transfer = angular_spectrum(in_shape[-2], in_shape[-1], distances, wavelength, pixel)
        self.register_buffer("_transfer", torch.view_as_real(transfer).to(torch.get_default_dtype()))

    def data_as_image(self, y: Tensor) -> Tensor:
        """The holograms side by side.   Shapes: (B, ..., K, H, W) → (B, ..., H, K W)."""
        self.check_data(y)
        return _side_by_side(y)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The holograms from such a picture; see `data_as_image`."""
        return _apart(self, picture)

    def _field(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(x)
        u: Tensor = torch.fft.ifft2(torch.view_as_complex(self._transfer).to(spectrum.dtype) * spectrum.unsqueeze(-3))
        return u

    def _unfield(self, u: Tensor) -> Tensor:
        transfer = torch.view_as_complex(self._transfer).to(u.dtype)
        image: Tensor = torch.fft.ifft2((transfer.conj() * torch.fft.fft2(u)).mean(-3))
        return image

    def _guess(self, y: Tensor) -> Tensor:
        # each hologram sent back as if its phase were flat: the object, and its out-of-focus twin
        magnitude = self.magnitude(y)
        return self.unfield(torch.complex(magnitude, torch.zeros_like(magnitude)))


def coded_masks(count: int, height: int, width: int, modulation: Modulation, seed: int) -> Tensor:
    """Random masks whose pixels have a mean squared size of 1.

    "octanary": one of 1, −1, i, −i, times √½ (four times out of five) or √3. "uniform": any phase, size 1.

    Shapes: → (count, height, width) complex128.

    Source: Candès, Li & Soltanolkotabi 2015, the octanary pattern. Deviations: none.
    """
    draw = generator(seed)
    size = (count, height, width)
    if modulation == "uniform":
        return torch.from_numpy(np.exp(2j * pi * draw.random(size)))
    sign = np.array([1, -1, 1j, -1j])[draw.integers(0, 4, size)]
    return torch.from_numpy(sign * np.where(draw.random(size) < 0.8, 0.5**0.5, 3**0.5))


def angular_spectrum(height: int, width: int, distances: Sequence[float], wavelength: float, pixel: float) -> Tensor:
    """Factors by which propagation multiplies each frequency: exp(2πi z/λ (√(1 − λ²|f|²) − 1)).

    Shapes: → (len(distances), height, width) complex128, in the order of `fft2`.
    Units: distances in millimetres, wavelength and pixel in micrometres.
    """
    across = torch.fft.fftfreq(height, pixel, dtype=torch.float64)[:, None]
    along = torch.fft.fftfreq(width, pixel, dtype=torch.float64)
    squared = wavelength**2 * (across**2 + along**2)
    # √(1 − s) − 1 without the cancellation
    detour = -squared / (1 + (1 - squared).sqrt())
    phase = 2 * pi / wavelength * 1000 * torch.tensor(list(distances), dtype=torch.float64)[:, None, None] * detour
    return torch.polar(torch.ones_like(phase), phase)


def _padded(size: int, oversample: float) -> int:
    return size + 2 * int(oversample / 8 * size)


def _centred_transform(x: Tensor, grid: Sequence[int]) -> Tensor:
    c: Tensor = torch.fft.fftshift(torch.fft.fft2(x, s=tuple(grid), norm="ortho"), (-2, -1))
    return c


def _uncentred_inverse(c: Tensor) -> Tensor:
    x: Tensor = torch.fft.ifft2(torch.fft.ifftshift(c, (-2, -1)), norm="ortho")
    return x


def _side_by_side(y: Tensor) -> Tensor:
    return y.transpose(-3, -2).flatten(-2)


def _apart(operator: Operator, picture: Tensor) -> Tensor:
    *rest, count, height, width = operator.out_shape
    if picture.shape[1:] != (*rest, height, count * width):
        raise ShapeError(
            f"{type(operator).__name__} expected a picture of {count} patterns side by side, "
            f"(B, {', '.join(map(str, (*rest, height, count * width)))}), got {tuple(picture.shape)}; join them so."
        )
    y: Tensor = picture.unflatten(-1, (count, width)).transpose(-3, -2)
    operator.check_data(y)
    return y


def _shape_of_one(picture_shape: Shape, count: int) -> Shape:
    *rest, height, width = check_image_shape(picture_shape)
    if width % count:
        raise ShapeError(
            f"Expected a picture of {count} patterns of equal width side by side, got {width} columns; "
            f"match the description, or crop to {width - width % count}."
        )
    return (*rest, height, width // count)


def _too_fine(wavelength: float, pixel: float) -> str:
    if pixel > wavelength / 2**0.5 > 0:
        return ""
    return (
        f"Hologram expected pixels above wavelength / √2 = {wavelength / 2**0.5:.4g} µm, got {pixel} µm; "
        "use larger pixels or a shorter wavelength."
    )


class PhaseRetrievalSpec(OperatorSpec):
    """Far-field diffraction: the magnitudes of the Fourier transform are measured, its phases are lost."""

    title: ClassVar[str] = "Phase retrieval"
    kind: Literal["phase-retrieval"] = "phase-retrieval"
    oversample: Annotated[
        float,
        Field(ge=0, le=8, description="Black around the image: an eighth of this, times its size, on each side."),
    ] = 2.0
    reading: Annotated[Reading, Field(description="Magnitudes as published, or their squares.")] = "amplitude"

    @property
    def offers(self) -> frozenset[Need]:
        """What `PhaseRetrieval` offers."""
        return PhaseRetrieval.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> PhaseRetrieval:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return PhaseRetrieval(in_shape, self.oversample, self.reading)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The picture's shape without the black frame.

        Raises:
            ShapeError: no image has data of this size.
        """
        *rest, height, width = check_image_shape(picture_shape)
        sizes = [next((n for n in range(1, s + 1) if _padded(n, self.oversample) == s), 0) for s in (height, width)]
        if 0 in sizes:
            raise ShapeError(
                f"Expected Fourier magnitudes of a framed image, got {height}x{width}, which no image gives at "
                f"oversample {self.oversample}; match the oversample, or crop the picture."
            )
        return (*rest, *sizes)


class CodedDiffractionSpec(OperatorSpec):
    """Far-field diffraction behind several known random masks."""

    title: ClassVar[str] = "Coded diffraction"
    kind: Literal["coded-diffraction"] = "coded-diffraction"
    masks: Annotated[int, Field(ge=1, le=32, description="Number of masks, each with a pattern of its own.")] = 4
    modulation: Annotated[
        Modulation, Field(description="Random quarter turns with two strengths, or any random phase.")
    ] = "octanary"
    reading: Annotated[Reading, Field(description="Intensities, or their square roots.")] = "amplitude"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which masks; the same seed gives the same masks.")] = 0

    @property
    def offers(self) -> frozenset[Need]:
        """What `CodedDiffraction` offers."""
        return CodedDiffraction.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> CodedDiffraction:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        masks = coded_masks(self.masks, shape[-2], shape[-1], self.modulation, self.seed)
        return CodedDiffraction(masks, shape, self.reading)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The shape of one of the patterns side by side.

        Raises:
            ShapeError: the width is not a multiple of the number of masks.
        """
        return _shape_of_one(picture_shape, self.masks)


_Distance = Annotated[float, Field(ge=-1000, le=1000)]


class HologramSpec(OperatorSpec):
    """Near-field diffraction: the light behind an object, seen at one or several distances without a lens."""

    title: ClassVar[str] = "Hologram"
    kind: Literal["hologram"] = "hologram"
    distances: Annotated[
        tuple[_Distance, ...],
        Field(min_length=1, max_length=32, description="Distances from the object to the detector."),
        Ui(unit="mm"),
    ] = (0.5, 1.0, 2.0)
    wavelength: Annotated[float, Field(gt=0, le=20, description="Wavelength of the light."), Ui(unit="µm")] = 0.633
    pixel: Annotated[float, Field(gt=0, le=1000, description="Side of a pixel."), Ui(unit="µm")] = 2.0
    reading: Annotated[Reading, Field(description="Intensities, or their square roots.")] = "intensity"

    @model_validator(mode="after")
    def _check_pixel(self) -> "HologramSpec":
        if reason := _too_fine(self.wavelength, self.pixel):
            raise ValueError(reason)
        return self

    @property
    def offers(self) -> frozenset[Need]:
        """What `Hologram` offers."""
        return Hologram.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Hologram:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return Hologram(in_shape, self.distances, self.wavelength, self.pixel, self.reading)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The shape of one of the holograms side by side.

        Raises:
            ShapeError: the width is not a multiple of the number of distances.
        """
        return _shape_of_one(picture_shape, len(self.distances))
