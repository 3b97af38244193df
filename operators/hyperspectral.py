"""Images of many bands: a blur of its own for each band, fewer and broader bands.

Images are (bands, H, W). Fusion of a picture of fine bands with one of fine pixels is a stack of two such measurements;
see `operators.composition`. Dead bands and stripes are a mask, `operators.masks.BandMask`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.blur import transfer_function
from operators.errors import ShapeError
from operators.files import read_plane
from operators.kernels import gaussian_kernel
from operators.solve import per_sample
from operators.spec import DataRef, Need, Spec, Ui


class BandBlur(SpectralOperator):
    """Every band blurred by its own kernel, the image repeating periodically: diagonal in Fourier space.

    Shapes: x (B, bands, H, W) → the same.

    Args:
        kernels: one (k_h, k_w) real kernel per band, of any sizes, centre at k_h // 2, k_w // 2.
        in_shape: (bands, H, W), without batch.

    Raises:
        ShapeError: not one plane of real numbers per band.

    Orientation as in `CircularBlur`, which this is band by band.
    """

    _transfer: Tensor

    def __init__(self, kernels: Sequence[Tensor], in_shape: Shape) -> None:
        in_shape = _check_bands(in_shape)
        if len(kernels) != in_shape[0]:
            raise ShapeError(
                f"BandBlur expected a kernel for each of {in_shape[0]} bands, got {len(kernels)}; match them."
            )
        for kernel in kernels:
            if kernel.ndim != 2 or kernel.numel() == 0 or not kernel.is_floating_point():
                raise ShapeError(
                    f"BandBlur expected kernels (k_h, k_w) of real numbers, got {tuple(kernel.shape)} {kernel.dtype}; "
                    "give one plane per band."
                )
        super().__init__(in_shape, in_shape)
        height, width = in_shape[-2:]
        transfers = [transfer_function(k, (k.shape[0] // 2, k.shape[1] // 2), height, width) for k in kernels]
        transfer = torch.view_as_real(torch.stack(transfers).resolve_conj())
        self.register_buffer("_transfer", transfer.to(torch.get_default_dtype()))

    @property
    def singular_values(self) -> Tensor:
        """Magnitudes of the transfer functions, (bands, H, W // 2 + 1)."""
        return torch.view_as_complex(self._transfer).abs()

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Half spectra.   Shapes: (B, bands, H, W) real → (B, bands, H, W // 2 + 1) complex."""
        c: Tensor = torch.fft.rfft2(x, norm="ortho")
        return c

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Image of half spectra.   Shapes: (B, bands, H, W // 2 + 1) complex → (B, bands, H, W) real."""
        x: Tensor = torch.fft.irfft2(c, s=self.in_shape[-2:], norm="ortho")
        return x

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Half spectra, turned by the phases of the transfer functions.   Shapes: as `to_spectrum`."""
        c = self.to_spectrum(y)
        return self._phase(c).conj() * c

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Undoes `data_to_spectrum`.   Shapes: as `from_spectrum`."""
        return self.from_spectrum(self._phase(c) * c)

    def _phase(self, like: Tensor) -> Tensor:
        transfer = self._factors(like)
        # any phase will do where nothing passes
        return torch.where(transfer == 0, torch.ones_like(transfer), torch.sgn(transfer))

    def _factors(self, like: Tensor) -> Tensor:
        return torch.view_as_complex(self._transfer).to(like.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        c = self.to_spectrum(x)
        return self.from_spectrum(self._factors(c) * c)

    def _adjoint(self, y: Tensor) -> Tensor:
        c = self.to_spectrum(y)
        return self.from_spectrum(self._factors(c).conj() * c)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        # the general closed form, without the phases, which cancel
        c = self.to_spectrum(z)
        transfer = self._factors(c)
        gain = transfer.real.square() + transfer.imag.square() + per_sample(rho, c.ndim)
        return z + self.from_spectrum(transfer.conj() * (self.to_spectrum(y) - transfer * c) / gain)

    def _guess(self, y: Tensor) -> Tensor:
        return y


class SpectralResponse(SpectralOperator):
    """Every measured band a weighted sum of the image's bands, pixel by pixel: y = R x along the first axis.

    The singular value decomposition is that of the small matrix R.

    Shapes: x (B, bands, H, W) → (B, out_bands, H, W).

    Args:
        response: R, (out_bands, bands) real: how strongly each measured band responds to each band of the image.
        in_shape: (bands, H, W), without batch.

    Raises:
        ShapeError: R does not fit the bands, is not finite, or is zero.
    """

    _matrix: Tensor
    _u: Tensor
    _s: Tensor
    _v: Tensor

    def __init__(self, response: Tensor, in_shape: Shape) -> None:
        in_shape = _check_bands(in_shape)
        if response.ndim != 2 or response.shape[1] != in_shape[0] or not response.is_floating_point():
            raise ShapeError(
                f"SpectralResponse expected a real matrix (out_bands, {in_shape[0]}), got {tuple(response.shape)} "
                f"{response.dtype}; give one column for each band of the image."
            )
        matrix = response.detach().cpu().double()
        if not bool(matrix.isfinite().all()) or not bool(matrix.any()):
            raise ShapeError(
                "SpectralResponse expected finite weights that are not all zero, got others; correct them."
            )
        super().__init__(in_shape, (len(matrix), *in_shape[1:]))
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        kept = s > max(matrix.shape) * torch.finfo(torch.float64).eps * s[0]
        for name, constant in {
            "_matrix": matrix,
            "_u": u[:, kept],
            "_s": s[kept, None, None],
            "_v": vt[kept].T,
        }.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()).contiguous())

    @property
    def singular_values(self) -> Tensor:
        """Those of R that are not zero, (rank, 1, 1)."""
        return self._s

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, bands, H, W) → (B, rank, H, W)."""
        return _mix(self._v.T, x)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, rank, H, W) → (B, bands, H, W)."""
        return _mix(self._v, c)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """Shapes: (B, out_bands, H, W) → (B, rank, H, W)."""
        return _mix(self._u.T, y)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, rank, H, W) → (B, out_bands, H, W)."""
        return _mix(self._u, c)

    def _forward(self, x: Tensor) -> Tensor:
        return _mix(self._matrix, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _mix(self._matrix.T, y)

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _guess(self, y: Tensor) -> Tensor:
        # each band as the mean of the measured bands that see it
        weights = self._matrix.abs().to(y.dtype)
        return _mix((weights / weights.sum(0).clamp(min=1e-12)).T, y)


def gaussian_responses(out_bands: int, bands: int, overlap: float) -> Tensor:
    """Bell-shaped responses spread evenly over the bands, each with sum 1.

    Their centres divide the bands into equal parts; their full width at half maximum is `overlap` times such a part.

    Shapes: → (out_bands, bands) float64.
    """
    part = bands / out_bands
    centres = (torch.arange(out_bands, dtype=torch.float64) + 0.5) * part - 0.5
    std = overlap * part / 2.3548200450309493  # 2 √(2 ln 2)
    offsets = (torch.arange(bands, dtype=torch.float64) - centres[:, None]) / std
    # measured from the band that is nearest, so that a narrow response is not lost between two bands
    weights = torch.exp(-0.5 * (offsets.square() - offsets.square().amin(1, keepdim=True)))
    return weights / weights.sum(1, keepdim=True)


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("mc,bchw->bmhw", matrix.to(x.dtype), x)


def _check_bands(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeError(f"Expected an image of shape (bands, H, W), got {tuple(shape)}; give one axis of bands.")
    return check_image_shape(shape)


class BandBlurSpec(OperatorSpec):
    """A blur whose width changes evenly from the first band to the last, as that of diffraction with the wavelength."""

    title: ClassVar[str] = "Blur by band"
    kind: Literal["band-blur"] = "band-blur"
    first: Annotated[
        float, Field(gt=0, le=30, description="Standard deviation of the blur in the first band."), Ui(unit="px")
    ] = 1.0
    last: Annotated[
        float, Field(gt=0, le=30, description="Standard deviation of the blur in the last band."), Ui(unit="px")
    ] = 2.0

    @property
    def offers(self) -> frozenset[Need]:
        """What `BandBlur` offers."""
        return BandBlur.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> BandBlur:
        """The operator on real images (bands, H, W); see `OperatorSpec.build`."""
        widths = torch.linspace(self.first, self.last, _check_bands(in_shape)[0], dtype=torch.float64).tolist()
        return BandBlur([gaussian_kernel(2 * ceil(4 * std) + 1, std) for std in widths], in_shape)


class Response(Spec, ABC):
    """Description of how measured bands respond to those of the image."""

    kind: str
    title: ClassVar[str]

    @abstractmethod
    def build(self, bands: int, base: Path = Path()) -> Tensor:
        """The matrix (out_bands, bands), float64; relative paths are read from folder `base`."""


class GaussianResponses(Response):
    """Bell-shaped responses side by side; see `gaussian_responses`."""

    title: ClassVar[str] = "Bell-shaped"
    kind: Literal["gaussian"] = "gaussian"
    out_bands: Annotated[int, Field(ge=1, le=1024, description="Number of measured bands.")] = 4
    overlap: Annotated[
        float, Field(gt=0, le=10, description="Width of a response in units of the distance to the next one.")
    ] = 1.0

    def build(self, bands: int, base: Path = Path()) -> Tensor:
        """The matrix; see `Response.build`."""
        return gaussian_responses(self.out_bands, bands, self.overlap)


class ResponseFile(Response):
    """The responses of a sensor, from a file with one row per measured band."""

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="A .npy or .npz file with one matrix (measured bands, bands).")]

    def build(self, bands: int, base: Path = Path()) -> Tensor:
        """The matrix; see `Response.build`.

        Raises:
            ReadError: the file is not one plane of numbers.
            AssetCorrupt: the file does not have the recorded checksum.
        """
        return torch.from_numpy(read_plane(self.file, base))


AnyResponse = Annotated[GaussianResponses | ResponseFile, Field(discriminator="kind")]


class SpectralResponseSpec(OperatorSpec):
    """Fewer and broader bands, as a colour or multispectral camera measures them."""

    title: ClassVar[str] = "Broad bands"
    kind: Literal["spectral-response"] = "spectral-response"
    response: Annotated[AnyResponse, Field(description="How each measured band responds to the image's bands.")] = (
        GaussianResponses()
    )

    @property
    def offers(self) -> frozenset[Need]:
        """What `SpectralResponse` offers."""
        return SpectralResponse.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> SpectralResponse:
        """The operator on real images (bands, H, W); see `OperatorSpec.build`."""
        return SpectralResponse(self.response.build(_check_bands(in_shape)[0], base), in_shape)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Refused: the measured bands do not tell how many the image has.

        Raises:
            ShapeError: always.
        """
        raise ShapeError(
            "Expected data simulated from an image, got a picture of broad bands, which does not tell how many bands "
            "the image has; build the operator in Python."
        )
