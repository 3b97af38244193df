"""Missing pixels: the data are the picture with zero in the holes."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.masks import AnyMask, RandomMask
from operators.solve import per_sample
from operators.spec import Need


class Inpainting(SpectralOperator):
    """Keep the measured pixels and put zero elsewhere, A x = mask x; noise exists only where something was measured.

    The spectrum is the list of measured pixels in reading order: (B, ..., n), or (B, n) with one channel after the
    other where each has a mask of its own. Every singular value is one, and A A* is A.

    Shapes: x (B, ..., H, W) → (B, ..., H, W).

    Args:
        mask: bool, True where measured: (H, W), the same for all channels, or (C, H, W).
        in_shape: (..., H, W), without batch.
        in_complex: whether images (and data) are complex.

    Raises:
        ShapeError: the mask has another size than the image, or measures nothing.
    """

    offers: ClassVar[frozenset[Need]] = SpectralOperator.offers | {Need.MASK}

    mask: Tensor
    _weights: Tensor
    _index: Tensor
    _nearest: Tensor
    _ones: Tensor

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
        super().__init__(in_shape, in_shape, in_complex=in_complex, out_complex=in_complex)
        self.register_buffer("mask", mask.clone())
        # numbers beside the truth values: converting them costs as much as the product
        self.register_buffer("_weights", mask.to(torch.get_default_dtype()))
        self.register_buffer("_index", index)
        self.register_buffer("_nearest", _nearest_measured(mask))
        self.register_buffer("_ones", torch.ones(1), persistent=False)

    @property
    def singular_values(self) -> Tensor:
        """One, for every measured pixel."""
        return self._ones

    def gather(self, y: Tensor) -> Tensor:
        """The measured pixels as a list.   Shapes: (B, ..., H, W) → (B, ..., n), or (B, n) for a mask of channels."""
        # two axes, because torch selects much faster from a matrix than from anything else
        lists = y.reshape(-1, self.mask.numel()).index_select(1, self._index)
        return lists.reshape(len(y), *self.in_shape[: -self.mask.ndim], -1)

    def scatter(self, values: Tensor) -> Tensor:
        """Pixels put in place, zero elsewhere; undoes `gather`."""
        lists = values.reshape(-1, len(self._index))
        planes = lists.new_zeros(len(lists), self.mask.numel())
        return planes.scatter_(1, self._index.expand_as(lists), lists).reshape(-1, *self.in_shape)

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The measured pixels; see `gather`."""
        return self.gather(x)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Pixels put in place; see `scatter`."""
        return self.scatter(c)

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The measured pixels; see `gather`."""
        return self.gather(y)

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """Pixels put in place; see `scatter`."""
        return self.scatter(c)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """A holed picture with zero in the holes, whatever was in them.   Shapes: (B, ..., H, W) → (B, ..., H, W)."""
        self.check_image(picture)
        return torch.where(self.mask, picture, 0)

    def _forward(self, x: Tensor) -> Tensor:
        weights = self._buffers["_weights"]  # an attribute of nn.Module takes a microsecond to find, the product thirty
        assert weights is not None
        return x * (weights if weights.dtype == x.dtype else weights.to(x.real.dtype))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _normal(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def _pinv(self, y: Tensor, tol: float, max_iter: int) -> Tensor:
        return self._forward(y)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor | float, tol: float, max_iter: int) -> Tensor:
        return z + self._forward((y - z) / (1 + per_sample(rho, z.ndim)))

    def _guess(self, y: Tensor) -> Tensor:
        # the nearest measured pixel: the cheapest fill that follows the picture
        return y.reshape(-1, self.mask.numel()).index_select(1, self._nearest).reshape(-1, *self.in_shape)


def _nearest_measured(mask: Tensor) -> Tensor:
    """For every pixel in reading order, the position of the measured pixel nearest to it.

    Another channel is further than any pixel of the same one, so that it helps out only where a channel has none.
    """
    far = (*(float(sum(mask.shape[-2:])),) * (mask.ndim - 2), 1.0, 1.0)
    where = distance_transform_edt(~mask.numpy(force=True), sampling=far, return_distances=False, return_indices=True)
    return torch.from_numpy(np.ravel_multi_index(tuple(where), tuple(mask.shape)).ravel()).to(mask.device)


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
