"""Pixels that are dimmed by known factors: uneven columns of a sensor, haze."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.errors import ShapeError
from operators.files import read_plane
from operators.rng import generator
from operators.spec import DataRef, Need


class Gain(SpectralOperator):
    """Every pixel times its own known factor: diagonal.

    A known offset, the part of a picture of the data that the image has no share in (haze), is no part of the data:
    `data_from_image` takes it away and `data_as_image` adds it, so that the operator is linear.

    The guess divides by the gain, but by no less than a tenth of the largest one.

    Shapes: x (B, *in_shape) → the same.

    Args:
        gain: >= 0, not all zero, broadcasts against an image.
        in_shape: shape of an image, without batch.
        offset: added to pictures of the data, broadcasts against an image; none when absent.

    Raises:
        ShapeError: the gain or the offset does not fit the image, or a gain is negative.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, gain: Tensor, in_shape: Shape, offset: Tensor | None = None) -> None:
        in_shape = check_image_shape(in_shape)
        offset = torch.zeros(()) if offset is None else offset
        for values in (gain, offset):
            check_broadcast(values, in_shape)
        if not bool((gain >= 0).all()) or not bool(gain.any()):
            raise ShapeError(
                f"Gain expected factors >= 0 that are not all 0, got a minimum of {float(gain.min()):.3g}; check them."
            )
        super().__init__(in_shape, in_shape)
        self.register_buffer("gain", gain.to(torch.get_default_dtype(), copy=True))
        self.register_buffer("offset", offset.to(torch.get_default_dtype(), copy=True))

    @property
    def singular_values(self) -> Tensor:
        """The gain."""
        return self.gain

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x

    def from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The data themselves."""
        return y

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The picture without the offset.   Shapes: (B, *in_shape) → the same."""
        self.check_data(picture)
        return picture - self.offset.to(picture.dtype)

    def data_as_image(self, y: Tensor) -> Tensor:
        """The data with the offset.   Shapes: (B, *in_shape) → the same."""
        self.check_data(y)
        return y + self.offset.to(y.dtype)

    def _guess(self, y: Tensor) -> Tensor:
        gain = self.gain.to(y.dtype)
        return y / gain.clamp(min=0.1 * float(gain.amax()))


def check_broadcast(values: Tensor, shape: Shape) -> None:
    """Raise ShapeError unless `values` broadcasts against images of `shape` and is finite."""
    sizes = zip(reversed(values.shape), reversed(shape), strict=False)
    if values.ndim > len(shape) or any(a not in (1, b) for a, b in sizes) or not bool(values.isfinite().all()):
        raise ShapeError(
            f"Expected a finite map for images {shape}, got {tuple(values.shape)}; resize or clean the map."
        )


class StripesSpec(OperatorSpec):
    """Columns or rows of a sensor that differ in sensitivity, by known factors."""

    title: ClassVar[str] = "Stripes"
    kind: Literal["stripes"] = "stripes"
    axis: Annotated[Literal["columns", "rows"], Field(description="Which way the stripes run.")] = "columns"
    strength: Annotated[
        float, Field(gt=0, le=1, description="Standard deviation of the logarithm of the sensitivity.")
    ] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which stripes; the same seed gives the same.")] = 0

    @property
    def offers(self) -> frozenset[Need]:
        """What `Gain` offers."""
        return Gain.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Gain:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        height, width = check_image_shape(in_shape)[-2:]
        draw = generator(self.seed)
        shape = (1, width) if self.axis == "columns" else (height, 1)
        return Gain(torch.from_numpy(np.exp(self.strength * draw.standard_normal(shape))), in_shape)


class HazeSpec(OperatorSpec):
    """Haze: light from afar is dimmed, and the haze itself shines, y = x t + a (1 − t) with t = exp(−density · depth).

    The airlight a (1 − t) is known and taken away from a picture of the data, which leaves y = x t. Noise must be as
    large without it as with it: Gaussian noise is, photon noise is not.

    Source: Koschmieder 1924, as written by He, Sun and Tang 2009 (CVPR), Eq. 1-2. Deviations: none.
    """

    title: ClassVar[str] = "Haze"
    kind: Literal["haze"] = "haze"
    density: Annotated[float, Field(gt=0, le=10, description="How much haze there is, per unit of depth.")] = 1.5
    airlight: Annotated[float, Field(ge=0, le=2, description="Brightness of the haze itself.")] = 0.9
    depth: Annotated[
        DataRef | None,
        Field(description="Depth map (white is far); empty takes ground from 0 at the bottom to 1 at the top."),
    ] = None

    @property
    def offers(self) -> frozenset[Need]:
        """What `Gain` offers."""
        return Gain.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Gain:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        height = check_image_shape(in_shape)[-2]
        if self.depth is None:
            depth = torch.linspace(1, 0, height, dtype=torch.float64)[:, None]
        else:
            depth = torch.from_numpy(read_plane(self.depth, base))
            if bool((depth < 0).any()):
                raise ShapeError(f"Expected depths >= 0, got a minimum of {float(depth.min()):.3g}; shift the map.")
            check_broadcast(depth, in_shape)
        transmission = torch.exp(-self.density * depth)
        return Gain(transmission, in_shape, self.airlight * (1 - transmission))
