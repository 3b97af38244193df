"""Colour that was lost: the data are grey, and their recovery is colourisation."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.spec import Need

Weights = Literal["mean", "luma"]
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601, also in JFIF)."""


class Grayscale(SpectralOperator):
    """The weighted sum of an image's channels.

    Shapes: x (B, C, H, W) or (B, C, D, H, W) → the same with one channel.

    Args:
        in_shape: (C, H, W) or (C, D, H, W).
        weights: "mean" of all channels, or "luma" of red, green and blue.

    Raises:
        ShapeError: no channels, or luma of anything but three of them.

    Source: the mean as in DDRM (Kawar et al. 2022, arXiv:2201.11793) and DDNM (Wang et al. 2023, arXiv:2212.00490).
    Deviations: one channel of data, not three equal ones.
    """

    weights: Tensor

    def __init__(self, in_shape: Shape, weights: Weights = "mean") -> None:
        in_shape = _check_channels(in_shape, weights)
        super().__init__(in_shape, (1, *in_shape[1:]))
        w = torch.tensor(LUMA) if weights == "luma" else torch.full((in_shape[0],), 1 / in_shape[0])
        self.register_buffer("weights", w.reshape(-1, *(1,) * (len(in_shape) - 1)))

    @property
    def singular_values(self) -> Tensor:
        """The norm of the weights, for every pixel."""
        return _norm(self.weights)

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Shapes: (B, C, ...) → (B, 1, ...)."""
        return (self._unit(x) * x).sum(1, keepdim=True)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Shapes: (B, 1, ...) → (B, C, ...)."""
        return self._unit(c) * c

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The data themselves."""
        return y

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The grey picture, from itself or from one with as many channels as the image.   Shapes: → (B, 1, ...)."""
        return self(picture) if picture.shape[1:] == self.in_shape else super().data_from_image(picture)

    def _unit(self, like: Tensor) -> Tensor:
        w = self.weights.to(like.dtype)
        return w / _norm(w)

    def _guess(self, y: Tensor) -> Tensor:
        return y.expand(-1, *self.in_shape).clone()


def _norm(weights: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weights, dim=0, keepdim=True)
    return norm


def _check_channels(shape: Shape, weights: Weights) -> Shape:
    shape = check_image_shape(shape)
    if len(shape) < 3:
        raise ShapeError(
            f"Grayscale expected an image with channels, such as (3, 256, 256), got {shape}; add the axis."
        )
    if weights == "luma" and shape[0] != 3:
        raise ShapeError(f"Grayscale expected red, green and blue for luma, got {shape[0]} channels; use the mean.")
    return shape


class GrayscaleSpec(OperatorSpec):
    """A grey photograph, to be given its colours (colourisation)."""

    title: ClassVar[str] = "Lost colour"
    kind: Literal["grayscale"] = "grayscale"
    weights: Annotated[Weights, Field(description="Mean of the channels, or luma as of video and JPEG.")] = "mean"

    @property
    def offers(self) -> frozenset[Need]:
        """What `Grayscale` offers."""
        return Grayscale.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Grayscale:
        """The operator on real images (C, H, W) or (C, D, H, W); see `OperatorSpec.build`."""
        return Grayscale(in_shape, self.weights)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Three channels, whether the grey picture came as one or as three."""
        return (3, *_check_channels(picture_shape, "mean")[1:])

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape`, if it has the channels.

        Raises:
            ShapeError: luma of anything but three channels.
        """
        return _check_channels(image_shape, self.weights)
