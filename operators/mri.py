"""Magnetic resonance imaging on the Cartesian grid: Fourier samples of an image, seen by one coil or by several.

k-space is centred and orthonormal, k = fftshift(fft2(ifftshift(x), norm="ortho")), with the zero frequency and the
middle of the image at (H // 2, W // 2); noise of size sigma in the data is noise of size sigma in the image. Data are
the measured samples alone, in reading order of the mask, so that noise and residuals exist only where something was
measured; `data_from_image` and `data_as_image` take and give whole k-space with zeros in between.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from operators.base import (
    LinearOperator,
    OperatorSpec,
    OrthonormalOperator,
    Shape,
    SpectralOperator,
    check_image_shape,
)
from operators.coils import AnyCoils, SingleCoil
from operators.errors import ShapeError
from operators.sampling import AnySampling, EquispacedFraction, measured_acceleration
from operators.spec import Need

ImageKind = Literal["complex", "real"]


def centred_fft(x: Tensor) -> Tensor:
    """Orthonormal Fourier transform, both origins at (H // 2, W // 2).   Shapes: (..., H, W) → the same, complex."""
    moved = torch.fft.ifftshift(x, dim=(-2, -1))
    k: Tensor = torch.fft.fftshift(torch.fft.fft2(moved, norm="ortho"), dim=(-2, -1))
    return k


def centred_ifft(k: Tensor) -> Tensor:
    """Inverse and adjoint of `centred_fft`.   Shapes: (..., H, W) → the same, complex."""
    moved = torch.fft.ifftshift(k, dim=(-2, -1))
    x: Tensor = torch.fft.fftshift(torch.fft.ifft2(moved, norm="ortho"), dim=(-2, -1))
    return x


class _Kspace(nn.Module):
    """The measured samples of the centred Fourier transform, without moving a picture around for it.

    The shift of k-space is in the places where samples are read, the shift of the image in a factor for each sample.

    Shapes: images (..., H, W), samples (..., n_measured).
    """

    mask: Tensor
    index: Tensor
    _place: Tensor
    _phase: Tensor
    _weights: Tensor

    def __init__(self, mask: Tensor, size: Shape, who: str) -> None:
        super().__init__()
        if mask.shape != size or mask.dtype != torch.bool:
            raise ShapeError(
                f"{who} expected a bool sampling mask of shape {tuple(size)}, got {tuple(mask.shape)} {mask.dtype}; "
                "use the mask of this scan."
            )
        if not bool(mask.any()):
            raise ShapeError(f"{who} expected at least one measured frequency, got none; lower the acceleration.")
        height, width = size
        rows, columns = mask.nonzero(as_tuple=True)
        rows, columns = (rows - height // 2) % height, (columns - width // 2) % width
        turns = (rows.double() * (height // 2) / height + columns.double() * (width // 2) / width) % 1
        phase = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
        self.register_buffer("mask", mask.clone())
        self.register_buffer("index", rows * width + columns)  # where samples are in torch's own order of frequencies
        self.register_buffer("_place", mask.flatten().nonzero().squeeze(1))
        self.register_buffer("_phase", torch.view_as_real(phase).to(torch.get_default_dtype()))
        # weights of frequencies that are alike along an axis need no transform along it
        weights = torch.fft.ifftshift(mask).to(torch.get_default_dtype())
        self._axes = tuple(axis for axis in (-2, -1) if not bool((mask == mask.narrow(axis, 0, 1)).all()))
        for axis in {-2, -1} - set(self._axes):
            weights = weights.narrow(axis, 0, 1)
        self.register_buffer("_weights", weights.contiguous())

    def sample(self, x: Tensor) -> Tensor:
        """Images to samples."""
        k = torch.fft.fft2(x, norm="ortho").flatten(-2)
        samples: Tensor = k.gather(-1, self.index.expand(*k.shape[:-1], -1)) * self.phase(k)
        return samples

    def spread(self, y: Tensor) -> Tensor:
        """The adjoint of `sample`, complex."""
        image: Tensor = torch.fft.ifft2(self.grid(y * self.phase(y).conj(), self.index), norm="ortho")
        return image

    def transposed(self, y: Tensor) -> Tensor:
        """The transpose of `sample` without the conjugate: conj(spread(conj(y)))."""
        image: Tensor = torch.fft.fft2(self.grid(y * self.phase(y), self.index), norm="ortho")
        return image

    def grid(self, c: Tensor, index: Tensor) -> Tensor:
        """Coefficients at places `index` of torch's own order, zero elsewhere.   Shapes: (..., n) → (..., H, W)."""
        k = c.new_zeros(*c.shape[:-1], self.mask.numel()).scatter_(-1, index.expand(c.shape), c)
        return k.unflatten(-1, self.mask.shape)  # type: ignore[no-any-return]

    def filter(self, x: Tensor) -> Tensor:
        """`spread(sample(x))`, complex."""
        if not self._axes:
            return x
        k = torch.fft.fftn(x, dim=self._axes, norm="ortho")
        image: Tensor = torch.fft.ifftn(k * self._weights.to(k.real.dtype), dim=self._axes, norm="ortho")
        return image

    def phase(self, like: Tensor) -> Tensor:
        """The factors of the samples, (n_measured,), in the precision of `like`."""
        return torch.view_as_complex(self._phase).to(like.dtype)

    def as_picture(self, y: Tensor) -> Tensor:
        """Samples in place in centred k-space, zero elsewhere.   Shapes: (..., n_measured) → (..., H, W)."""
        flat = y.new_zeros(*y.shape[:-1], self.mask.numel())
        picture: Tensor = flat.scatter(-1, self._place.expand(y.shape), y).unflatten(-1, self.mask.shape)
        return picture

    def from_picture(self, picture: Tensor, shape: Shape, who: str) -> Tensor:
        """The samples in a batch of whole centred k-spaces; `shape` is theirs, without batch."""
        if picture.shape[1:] != shape or not picture.is_complex():
            inside = ", ".join(map(str, shape))
            raise ShapeError(
                f"{who} expected k-space (B, {inside}) complex, got {tuple(picture.shape)} {picture.dtype}; "
                "give centred k-space with zeros where nothing was measured."
            )
        return picture.flatten(-2).gather(-1, self._place.expand(*picture.shape[:-2], -1))

    def extra_repr(self) -> str:
        height, width = self.mask.shape
        return f"{height}x{width}, {len(self.index)} measured, acceleration {measured_acceleration(self.mask):.3g}"


class MRI(OrthonormalOperator):
    """Single-coil MRI of complex images: the measured part of an orthonormal Fourier transform, all singular values 1.

    Shapes: x (B, ..., H, W) complex → (B, ..., n_measured) complex; leading axes (slices, time) are all sampled alike.

    Args:
        mask: (H, W) bool, True where measured, centred.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the mask has another size than the image, or measures nothing.

    Source: Zbontar et al. 2018 (fastMRI, arXiv:1811.08839) for the transform. Deviations: data hold no
        zeros for what was not measured.
    """

    def __init__(self, mask: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        kspace = _Kspace(mask, in_shape[-2:], type(self).__name__)
        super().__init__(in_shape, (*in_shape[:-2], len(kspace.index)), in_complex=True, out_complex=True)
        self._kspace = kspace

    @property
    def mask(self) -> Tensor:
        """The sampling mask, (H, W) bool, centred."""
        return self._kspace.mask

    @property
    def acceleration(self) -> float:
        """Frequencies over measured frequencies."""
        return measured_acceleration(self.mask)

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The measured samples of x, which the data are as well.   Shapes: (B, ..., H, W) → (B, ..., n_measured)."""
        return self._kspace.sample(x)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """The zero-filled image.   Shapes: (B, ..., n_measured) → (B, ..., H, W)."""
        return self._kspace.spread(c)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The measured samples of whole k-space, whatever is in between.   Shapes: (B, ..., H, W) complex → data."""
        return self._kspace.from_picture(picture, self.in_shape, type(self).__name__)

    def data_as_image(self, y: Tensor) -> Tensor:
        """Centred k-space, zero where nothing was measured.   Shapes: data → (B, ..., H, W) complex."""
        self.check_data(y)
        return self._kspace.as_picture(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self._kspace.filter(x)


class RealMRI(SpectralOperator):
    """Single-coil MRI of real images, as a prior of magnitude pictures wants them; the adjoint takes the real part.

    A real image has conj(k) at −f where it has k at f, so that a mask measures each pair of frequencies twice, once or
    never. In coordinates √2 k of the pairs (k of a frequency that is its own opposite) the singular values are 1 where
    both members were measured and √½ where one was: a closed form for every mask, symmetric or not.

    Shapes: x (B, ..., H, W) real → (B, ..., n_measured) complex.

    Args:
        mask: (H, W) bool, True where measured, centred.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the mask has another size than the image, or measures nothing.

    Source: conjugate symmetry, as in partial-Fourier imaging (Margosian et al. 1986). Deviations: none.
    """

    _frequency: Tensor
    _pair: Tensor
    _unit: Tensor
    _gain: Tensor
    _s: Tensor

    def __init__(self, mask: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        kspace = _Kspace(mask, in_shape[-2:], type(self).__name__)
        super().__init__(in_shape, (*in_shape[:-2], len(kspace.index)), out_complex=True)
        self._kspace = kspace
        height, width = in_shape[-2:]
        rows, columns = kspace.index // width, kspace.index % width
        opposite = (-rows % height) * width + -columns % width
        frequency, pair, count = torch.minimum(kspace.index, opposite).unique(return_inverse=True, return_counts=True)
        own = torch.zeros(len(frequency), dtype=torch.bool)
        own[pair] = kspace.index == opposite
        s = torch.where(own, 1.0, (count.double() / 2).sqrt())
        gain = torch.where(own, 1.0, torch.full_like(s, 2**0.5))
        flip = torch.where(kspace.index == frequency[pair], 1.0, -1.0).double()
        weight = 1 / (gain * s)[pair]
        self.register_buffer("_frequency", frequency)
        self.register_buffer("_pair", pair)
        unit = torch.stack([weight, torch.where(own[pair], 0.0, weight * flip)], -1)
        for name, constant in {"_unit": unit, "_gain": gain, "_s": s}.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()))

    @property
    def mask(self) -> Tensor:
        """The sampling mask, (H, W) bool, centred."""
        return self._kspace.mask

    @property
    def acceleration(self) -> float:
        """Frequencies over measured frequencies; pairs of which one member is measured count as half."""
        return measured_acceleration(self.mask)

    @property
    def singular_values(self) -> Tensor:
        """1 for pairs measured twice and frequencies that are their own opposite, √½ for pairs measured once."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Coordinates of the measured pairs.   Shapes: (B, ..., H, W) real → (B, ..., n_pairs) complex."""
        k = torch.fft.fft2(x, norm="ortho").flatten(-2)
        c: Tensor = k.gather(-1, self._frequency.expand(*k.shape[:-1], -1)) * self._gain.to(x.dtype)
        return c

    def from_spectrum(self, c: Tensor) -> Tensor:
        """The image of the measured pairs.   Shapes: (B, ..., n_pairs) complex → (B, ..., H, W) real."""
        k = self._kspace.grid(c * self._gain.to(c.real.dtype), self._frequency)
        image: Tensor = torch.fft.ifft2(k, norm="ortho").real
        return image

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Both members of a pair brought together.   Shapes: (B, ..., n_measured) → (B, ..., n_pairs)."""
        turned = torch.view_as_real((y * self._kspace.phase(y).conj()).resolve_conj()) * self._unit.to(y.real.dtype)
        pairs = y.new_zeros(*y.shape[:-1], len(self._frequency))
        return pairs.index_add(-1, self._pair, torch.view_as_complex(turned))

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Undoes `data_to_spectrum`.   Shapes: (B, ..., n_pairs) → (B, ..., n_measured)."""
        members = c.gather(-1, self._pair.expand(*c.shape[:-1], -1)).resolve_conj()
        turned = torch.view_as_real(members) * self._unit.to(c.real.dtype)
        return torch.view_as_complex(turned) * self._kspace.phase(c)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The measured samples of whole k-space, whatever is in between.   Shapes: (B, ..., H, W) complex → data."""
        return self._kspace.from_picture(picture, self.in_shape, type(self).__name__)

    def data_as_image(self, y: Tensor) -> Tensor:
        """Centred k-space, zero where nothing was measured.   Shapes: data → (B, ..., H, W) complex."""
        self.check_data(y)
        return self._kspace.as_picture(y)

    def _forward(self, x: Tensor) -> Tensor:
        return self._kspace.sample(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._kspace.spread(y).real

    def _normal(self, x: Tensor) -> Tensor:
        return self._kspace.filter(x).real


class MultiCoilMRI(LinearOperator):
    """Parallel MRI: every coil measures the same frequencies of the image times its own sensitivity.

    `guess` is the zero-filled coil combination Σ conj(S) F* y / Σ |S|² (the matched filter or MVUE image);
    `prox(0, y, lam)` is CG-SENSE with weight `lam` on |x|², whose conjugate gradients stop after `max_iter` steps or at
    `tol`; `pinv` is CG-SENSE without it. Samples are transformed one after another, which keeps memory to the coils of
    one sample and is faster on a CPU than all of them at once.

    Shapes: x (B, ..., H, W) → (B, ..., coils, n_measured) complex.

    Args:
        mask: (H, W) bool, True where measured, centred.
        maps: (coils, H, W) complex sensitivities; see `operators.coils`.
        in_shape: (..., H, W), without batch.
        in_complex: whether images are complex; with real ones the adjoint takes the real part.

    Raises:
        ShapeError: mask or maps have another size than the image, or there is nothing in them.

    Source: Pruessmann et al. 2001 (CG-SENSE). Deviations: none.
    """

    _maps: Tensor
    _scale: Tensor

    def __init__(self, mask: Tensor, maps: Tensor, in_shape: Shape, *, in_complex: bool = True) -> None:
        in_shape = check_image_shape(in_shape)
        who = type(self).__name__
        kspace = _Kspace(mask, in_shape[-2:], who)
        maps = check_maps(maps, in_shape, who)
        out_shape = (*in_shape[:-2], len(maps), len(kspace.index))
        super().__init__(in_shape, out_shape, in_complex=in_complex, out_complex=True)
        self._kspace = kspace
        # complex buffers would lose their imaginary part in Module.to(dtype)
        self.register_buffer("_maps", torch.view_as_real(maps).to(torch.get_default_dtype()))
        self.register_buffer("_scale", matched_scale(maps).to(torch.get_default_dtype()))

    @property
    def mask(self) -> Tensor:
        """The sampling mask, (H, W) bool, centred."""
        return self._kspace.mask

    @property
    def maps(self) -> Tensor:
        """The sensitivities, (coils, H, W) complex."""
        return torch.view_as_complex(self._maps)

    @property
    def acceleration(self) -> float:
        """Frequencies over measured frequencies."""
        return measured_acceleration(self.mask)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The measured samples of whole k-space.   Shapes: (B, ..., coils, H, W) complex → data."""
        shape = (*self.out_shape[:-1], *self.in_shape[-2:])
        return self._kspace.from_picture(picture, shape, type(self).__name__)

    def data_as_image(self, y: Tensor) -> Tensor:
        """Centred k-space, zero where nothing was measured.   Shapes: data → (B, ..., coils, H, W) complex."""
        self.check_data(y)
        return self._kspace.as_picture(y)

    def _forward(self, x: Tensor) -> Tensor:
        maps = self._maps_like(x)
        return torch.stack([self._kspace.sample(maps * image.unsqueeze(-3)) for image in x])

    def _adjoint(self, y: Tensor) -> Tensor:
        maps = self._maps_like(y)
        # Σ conj(S) F* y as the conjugate of Σ S Fᵀ conj(y): nothing as large as the maps is conjugated
        seen = [(maps * self._kspace.transposed(data.conj())).sum(-3) for data in y]
        return self._image(torch.stack(seen).conj_physical())

    def _normal(self, x: Tensor) -> Tensor:
        maps = self._maps_like(x)
        seen = [combine(maps, self._kspace.filter(maps * image.unsqueeze(-3))) for image in x]
        return self._image(torch.stack(seen))

    def _guess(self, y: Tensor) -> Tensor:
        return self._adjoint(y) * self._scale.to(y.real.dtype)

    def _image(self, x: Tensor) -> Tensor:
        return x if self.in_complex else x.real

    def _maps_like(self, x: Tensor) -> Tensor:
        return self.maps.to(torch.promote_types(x.dtype, torch.complex32))


def combine(maps: Tensor, images: Tensor) -> Tensor:
    """The coils brought together, Σ conj(S) x.   Shapes: (coils, H, W), (..., coils, H, W) → (..., H, W) complex."""
    together: Tensor = torch.linalg.vecdot(maps, images, dim=-3)
    return together


def matched_scale(maps: Tensor) -> Tensor:
    """1 / Σ |S|² where there is any sensitivity, else 0.   Shapes: (coils, H, W) → (H, W) real."""
    power = torch.linalg.vector_norm(maps, dim=0).square()
    return torch.where(power > 0, 1 / power, torch.zeros_like(power))


def check_maps(maps: Tensor, in_shape: Shape, who: str) -> Tensor:
    """The maps as complex128, if they fit images of `in_shape` and are finite and not all zero.

    Raises:
        ShapeError: otherwise.
    """
    if maps.ndim != 3 or maps.shape[1:] != in_shape[-2:] or not (maps.is_complex() or maps.is_floating_point()):
        raise ShapeError(
            f"{who} expected coil maps (coils, {in_shape[-2]}, {in_shape[-1]}), got {tuple(maps.shape)} {maps.dtype}; "
            "use the maps of this scan."
        )
    if not bool(maps.isfinite().all()) or not bool(maps.any()):
        raise ShapeError(
            f"{who} expected finite coil maps that are not all zero, got others; estimate them from data with signal "
            "in the centre of k-space."
        )
    return maps.detach().to(torch.complex128).resolve_conj()


class MRISpec(OperatorSpec):
    """MRI on the Cartesian grid: part of k-space, seen by one coil or by several."""

    title: ClassVar[str] = "MRI"
    kind: Literal["mri"] = "mri"
    sampling: Annotated[AnySampling, Field(description="Which frequencies were measured.")] = EquispacedFraction()
    coils: Annotated[AnyCoils, Field(description="How the receive coils see the image.")] = SingleCoil()
    image: Annotated[
        ImageKind, Field(description="Complex images, or real ones for a prior that knows magnitudes alone.")
    ] = "complex"

    @property
    def offers(self) -> frozenset[Need]:
        """What the operator for these coils offers; only that of a single coil has a spectrum."""
        return MRI.offers if isinstance(self.coils, SingleCoil) else MultiCoilMRI.offers

    @property
    def in_complex(self) -> bool:
        """Whether images are complex."""
        return self.image == "complex"

    def build(self, in_shape: Shape, base: Path = Path()) -> LinearOperator:
        """The operator on images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        mask = self.sampling.build(shape[-2], shape[-1], base)
        if not isinstance(self.coils, SingleCoil):
            maps = self.coils.build(shape[-2], shape[-1], base)
            return MultiCoilMRI(mask, maps, shape, in_complex=self.image == "complex")
        return MRI(mask, shape) if self.image == "complex" else RealMRI(mask, shape)
