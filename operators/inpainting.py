"""Missing pixels: the data are the measured pixels and nothing else."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from operators.base import OperatorSpec, OrthonormalOperator, Shape, check_image_shape
from operators.errors import ShapeError
from operators.masks import AnyMask, RandomMask
from operators.spec import Need


class Inpainting(OrthonormalOperator):
    """Keep the measured pixels, as a list: noise and residuals exist only where something was measured.

    Shapes: x (B, ..., H, W) → (B, ..., n_measured), pixels in reading order. Where each channel has a mask of its own,
    x (B, ..., C, H, W) → (B, ..., n_measured), one channel after the other.

    Args:
        mask: bool, True where measured: (H, W), the same for all channels, or (C, H, W).
        in_shape: (..., H, W), without batch.
        in_complex: whether images (and data) are complex.

    Raises:
        ShapeError: the mask has another size than the image, or measures nothing.
    """

    offers: ClassVar[frozenset[Need]] = OrthonormalOperator.offers | {Need.MASK}

    mask: Tensor
    _weights: Tensor
    _index: Tensor
    _nearest: Tensor

    def __init__(self, mask: Tensor, in_shape: Shape, *, in_complex: bool = False) -> None:
        in_shape = check_image_shape(in_shape)
        if mask.ndim not in (2, 3) or mask.shape != in_shape[-mask.ndim :] or mask.dtype != torch.bool:
            raise ShapeError(
                f"Inpainting expected a bool mask of shape {in_shape[-2:]} or {in_shape[-3:]}, got {tuple(mask.shape)} "
                f"{mask.dtype}; resize it, or compare it with a threshold."
            )
        index = mask.flatten().nonzero().squeeze(1)
        if len(index) == 0:
            raise ShapeError("Inpainting expected at least one measured pixel, got none; make the holes smaller.")
        out_shape = (*in_shape[: -mask.ndim], len(index))
        super().__init__(in_shape, out_shape, in_complex=in_complex, out_complex=in_complex)
        self.register_buffer("mask", mask.clone())
        # numbers beside the truth values: converting them costs as much as the product
        self.register_buffer("_weights", mask.to(torch.get_default_dtype()))
        self.register_buffer("_index", index)
        self.register_buffer("_nearest", _nearest_measured(mask))

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The measured pixels of x.   Shapes: (B, ..., H, W) → (B, ..., n_measured)."""
        # two axes, because torch selects much faster from a matrix than from anything else
        planes = x.reshape(-1, self.mask.numel())
        return planes.index_select(1, self._index).reshape(-1, *self.out_shape)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Pixels put in place, zero elsewhere.   Shapes: (B, ..., n_measured) → (B, ..., H, W)."""
        lists = c.reshape(-1, len(self._index))
        planes = lists.new_zeros(len(lists), self.mask.numel())
        return planes.scatter_(1, self._index.expand_as(lists), lists).reshape(-1, *self.in_shape)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The measured pixels of a holed picture, whatever is in the holes.   Shapes: (B, ..., H, W) → data."""
        self.check_image(picture)
        return self.to_spectrum(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The measured pixels in place, black elsewhere.   Shapes: data → (B, ..., H, W)."""
        self.check_data(y)
        return self.from_spectrum(y)

    def _normal(self, x: Tensor) -> Tensor:
        return x * self._weights.to(x.real.dtype if x.is_complex() else x.dtype)

    def _guess(self, y: Tensor) -> Tensor:
        # the nearest measured pixel: the cheapest fill that follows the picture
        return y.reshape(-1, len(self._index)).index_select(1, self._nearest).reshape(-1, *self.in_shape)


def _nearest_measured(mask: Tensor) -> Tensor:
    """For every pixel in reading order, the position in the data of the measured pixel nearest to it.

    Another channel is further than any pixel of the same one, so that it helps out only where a channel has none.
    """
    far = (*(float(sum(mask.shape[-2:])),) * (mask.ndim - 2), 1.0, 1.0)
    where = distance_transform_edt(~mask.numpy(force=True), sampling=far, return_distances=False, return_indices=True)
    position = torch.cumsum(mask.flatten(), 0) - 1
    flat = torch.from_numpy(np.ravel_multi_index(tuple(where), tuple(mask.shape)).ravel())
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
        channels = shape[-3] if len(shape) > 2 else 1
        mask = self.mask.build(shape[-2], shape[-1], base, channels)
        return Inpainting(mask.reshape(shape[-mask.ndim :]), shape)
