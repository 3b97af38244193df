"""Missing pixels: the data are the measured pixels and nothing else."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.masks import AnyMask, RandomMask
from operators.spec import Need


class Inpainting(SpectralOperator):
    """Keep the measured pixels, as a list: noise and residuals exist only where something was measured.

    Shapes: x (B, ..., H, W) → (B, ..., n_measured), pixels in reading order.

    Args:
        mask: (H, W) bool, True where measured; the same for all channels.
        in_shape: (..., H, W), without batch.
        in_complex: whether images (and data) are complex.

    Raises:
        ShapeError: the mask has another size than the image, or measures nothing.
    """

    offers: ClassVar[frozenset[Need]] = SpectralOperator.offers | {Need.MASK}

    mask: Tensor
    _index: Tensor
    _nearest: Tensor
    _ones: Tensor

    def __init__(self, mask: Tensor, in_shape: Shape, *, in_complex: bool = False) -> None:
        in_shape = check_image_shape(in_shape)
        if mask.shape != in_shape[-2:] or mask.dtype != torch.bool:
            raise ShapeError(
                f"Inpainting expected a bool mask of shape {in_shape[-2:]}, got {tuple(mask.shape)} {mask.dtype}; "
                "resize it, or compare it with a threshold."
            )
        index = mask.flatten().nonzero().squeeze(1)
        if len(index) == 0:
            raise ShapeError("Inpainting expected at least one measured pixel, got none; make the holes smaller.")
        super().__init__(in_shape, (*in_shape[:-2], len(index)), in_complex=in_complex, out_complex=in_complex)
        self.register_buffer("mask", mask.clone())
        self.register_buffer("_index", index)
        self.register_buffer("_nearest", _nearest_measured(mask))
        self.register_buffer("_ones", torch.ones((1,) * (len(in_shape) - 1)), persistent=False)

    @property
    def singular_values(self) -> Tensor:
        """One, for every measured pixel."""
        return self._ones

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The measured pixels of x.   Shapes: (B, ..., H, W) → (B, ..., n_measured)."""
        return x.flatten(-2).gather(-1, self._index.expand(*x.shape[:-2], -1))

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Pixels put in place, zero elsewhere.   Shapes: (B, ..., n_measured) → (B, ..., H, W)."""
        flat = c.new_zeros(*c.shape[:-1], self.mask.numel())
        return flat.scatter(-1, self._index.expand(c.shape), c).reshape(*c.shape[:-1], *self.mask.shape)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The data themselves."""
        return y

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The measured pixels of a holed picture, whatever is in the holes.   Shapes: (B, ..., H, W) → data."""
        self.check_image(picture)
        return self.to_spectrum(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The measured pixels in place, black elsewhere.   Shapes: data → (B, ..., H, W)."""
        self.check_data(y)
        return self.from_spectrum(y)

    def _guess(self, y: Tensor) -> Tensor:
        # the nearest measured pixel: the cheapest fill that follows the picture
        return y.gather(-1, self._nearest.expand(*y.shape[:-1], -1)).reshape(*y.shape[:-1], *self.mask.shape)


def _nearest_measured(mask: Tensor) -> Tensor:
    """For every pixel in reading order, the position in the data of the measured pixel nearest to it."""
    rows, columns = distance_transform_edt(~mask.numpy(force=True), return_distances=False, return_indices=True)
    position = torch.cumsum(mask.flatten(), 0) - 1
    flat = torch.from_numpy(rows.astype("int64") * mask.shape[1] + columns).flatten()
    return position[flat.to(position.device)]


class InpaintingSpec(OperatorSpec):
    """Missing pixels: a hole, scratches, random dropout or a mask of your own."""

    title: ClassVar[str] = "Missing pixels"
    kind: Literal["inpainting"] = "inpainting"
    mask: Annotated[AnyMask, Field(description="Which pixels were measured.")] = RandomMask()

    @property
    def offers(self) -> frozenset[Need]:
        """What `Inpainting` offers."""
        return Inpainting.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Inpainting:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        return Inpainting(self.mask.build(shape[-2], shape[-1], base), shape)
