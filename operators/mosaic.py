"""Raw pictures of a colour sensor: behind its filters, every pixel sees one colour."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import conv2d, pad

from operators.base import OperatorSpec, OrthonormalOperator, Shape, check_image_shape
from operators.errors import ShapeError
from operators.spec import Need

Pattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


class Bayer(OrthonormalOperator):
    """Keep of every pixel the colour of its filter; recovery is demosaicing.

    The guess is the linear interpolation of Malvar, He and Cutler, with the raw plane mirrored at its borders.

    Shapes: x (B, ..., 3, H, W), red, green and blue → (B, ..., 1, H, W), the raw plane.

    Args:
        in_shape: (..., 3, H, W), without batch.
        pattern: colours of the upper left 2x2 filters, row by row.

    Raises:
        ShapeError: the image has not three colours, or is smaller than 3x3.

    Source: the filter array of Bayer 1976 (US 3,971,065); the guess is Malvar, He and Cutler 2004 (ICASSP), Fig. 2.
    Deviations: none.
    """

    mask: Tensor
    _weights: Tensor
    _filters: Tensor
    _choice: Tensor

    def __init__(self, in_shape: Shape, pattern: Pattern = "RGGB") -> None:
        in_shape = _check_colours(in_shape)
        height, width = in_shape[-2:]
        super().__init__(in_shape, (*in_shape[:-3], 1, height, width))
        tile = torch.tensor(["RGB".index(letter) for letter in pattern]).reshape(2, 2)
        tiles = ((height + 1) // 2, (width + 1) // 2)
        colour = tile.tile(tiles)[:height, :width]
        beside = tile.flip(1).tile(tiles)[:height, :width]
        self.register_buffer("mask", torch.stack([colour == c for c in range(3)]))
        self.register_buffer("_weights", self.mask.to(torch.get_default_dtype()))
        self.register_buffer("_filters", torch.tensor(_MALVAR)[:, None] / 8)
        self.register_buffer("_choice", torch.stack([_choose(c, colour, beside) for c in range(3)]))

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The raw plane.   Shapes: (B, ..., 3, H, W) → (B, ..., 1, H, W)."""
        red, green, blue = x.unbind(-3)
        return torch.where(self.mask[1], green, torch.where(self.mask[0], red, blue)).unsqueeze(-3)

    def from_spectrum(self, c: Tensor) -> Tensor:
        """Each pixel in its own colour, zero in the others.   Shapes: (B, ..., 1, H, W) → (B, ..., 3, H, W)."""
        return c * self._weights.to(c.dtype)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The raw plane, from itself or from a picture of three channels that shows it in grey or in its own colours.

        Shapes: picture (B, ..., 1 or 3, H, W) → (B, ..., 1, H, W).
        """
        if picture.shape[1:] == self.in_shape:
            return self(picture)
        return super().data_from_image(picture)

    def _normal(self, x: Tensor) -> Tensor:
        return x * self._weights.to(x.dtype)

    def _guess(self, y: Tensor) -> Tensor:
        planes = y.reshape(-1, 1, *self.in_shape[-2:])
        # a mirror that does not repeat the edge keeps the order of the filters
        filtered = conv2d(pad(planes, (2, 2, 2, 2), mode="reflect"), self._filters.to(y.dtype))
        return filtered.gather(1, self._choice.expand(len(planes), -1, -1, -1)).reshape(-1, *self.in_shape)


_MALVAR = [
    # the pixel itself
    [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 8, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    # green at red or blue
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]],
    # at green: the colour of its neighbours to the left and right
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
    # at green: the colour of its neighbours above and below
    [[0, 0, -1, 0, 0], [0, -1, 4, -1, 0], [0.5, 0, 5, 0, 0.5], [0, -1, 4, -1, 0], [0, 0, -1, 0, 0]],
    # red at blue, blue at red
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]],
]
"""The interpolating filters, times 8."""


def _choose(wanted: int, colour: Tensor, beside: Tensor) -> Tensor:
    """Which of the filters gives colour `wanted`, from each pixel's own colour and that of its row: (H, W) int64."""
    if wanted == 1:
        return (colour != 1).long()
    at_green = torch.where(beside == wanted, 2, 3)
    return torch.where(colour == wanted, 0, torch.where(colour == 1, at_green, 4))


def _check_colours(shape: Shape) -> Shape:
    shape = check_image_shape(shape)
    if len(shape) < 3 or shape[-3] != 3 or min(shape[-2:]) < 3:
        raise ShapeError(
            f"Bayer expected an image (3, H, W) of three colours and at least 3x3 pixels, got {shape}; "
            "use a colour picture and a prior for colours."
        )
    return shape


class BayerSpec(OperatorSpec):
    """A raw picture of a colour sensor, one colour for each pixel (demosaicing)."""

    title: ClassVar[str] = "Raw colour mosaic"
    kind: Literal["bayer"] = "bayer"
    pattern: Annotated[Pattern, Field(description="Colours of the upper left 2x2 filters, row by row.")] = "RGGB"

    @property
    def offers(self) -> frozenset[Need]:
        """What `Bayer` offers."""
        return Bayer.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Bayer:
        """The operator on real images (..., 3, H, W); see `OperatorSpec.build`."""
        return Bayer(in_shape, self.pattern)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Three colours, whether the raw plane came as one channel or as three."""
        *rest, height, width = check_image_shape(picture_shape)
        return _check_colours((*rest[:-1], 3, height, width))

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape`, if it has three colours.

        Raises:
            ShapeError: it has not, or is smaller than 3x3.
        """
        return _check_colours(image_shape)
