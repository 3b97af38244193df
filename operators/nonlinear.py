"""Blur as a camera records it: light is blurred, the sensor saturates, and the picture is encoded afterwards."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import Operator, OperatorSpec, Shape
from operators.blur import BlurSpec, Boundary, make_blur
from operators.errors import ShapeError
from operators.kernels import AnyKernel, MotionKernel
from operators.spec import Need, Ui

# The curve of sRGB: a power of 2.4 with an offset of 0.055, and a straight toe that meets it without a kink.
_POWER, _OFFSET = 2.4, 0.055
_TOE = _OFFSET / (_POWER - 1)
_TOE_LIGHT = ((_TOE + _OFFSET) / (1 + _OFFSET)) ** _POWER


def to_light(value: Tensor) -> Tensor:
    """Linear light from sRGB values; below black the straight toe goes on.   Shapes: any → the same.

    Units: unit range, 0 and 1 stay.

    Source: IEC 61966-2-1:1999. Deviations: the toe ends at 0.03929 instead of 0.04045 and has slope 1 / 12.9232 instead
        of 1 / 12.92, so that the slope has no jump; values differ by less than 1e-5.
    """
    curve = ((value.clamp(min=_TOE) + _OFFSET) / (1 + _OFFSET)) ** _POWER
    return torch.where(value > _TOE, curve, value * (_TOE_LIGHT / _TOE))


def from_light(light: Tensor) -> Tensor:
    """SRGB values from linear light, the inverse of `to_light`.   Shapes: any → the same.   Units: unit range."""
    curve: Tensor = (1 + _OFFSET) * light.clamp(min=_TOE_LIGHT) ** (1 / _POWER) - _OFFSET
    return torch.where(light > _TOE_LIGHT, curve, light * (_TOE / _TOE_LIGHT))


def saturate(light: Tensor, shoulder: float) -> Tensor:
    """Light up to 1 − shoulder as it is, and 1 − shoulder + shoulder · tanh((light − 1 + shoulder) / shoulder) above.

    The slope has no jump and is nowhere zero in exact arithmetic; 1 is never exceeded.   Shapes: any → the same.
    """
    return torch.where(
        light > 1 - shoulder, 1 - shoulder + shoulder * torch.tanh((light - 1 + shoulder) / shoulder), light
    )


class ExposureBlur(Operator):
    """A long exposure in motion: y = encode(saturate(gain · K decode(x))), with K a blur and sRGB as the code.

    Motion mixes light, not encoded values, so bright points draw bright streaks; what is too bright for the sensor
    saturates along a smooth shoulder, where the slope becomes small but stays true.

    Shapes: x (B, ..., H, W) → the same, or smaller by the kernel's size less one for the boundary "valid".

    Args:
        kernel: (k_h, k_w) real, the path of the camera during the exposure; see `make_blur`.
        in_shape: (..., H, W), without batch.
        gain: exposure, > 0; 1 leaves white where it is before saturation.
        shoulder: how far below white saturation begins, above 0 and at most 1.
        boundary: what lies beyond the border.

    Raises:
        ShapeError: a bad gain or shoulder, or a kernel that the blur refuses.

    Source: the order of the steps as in Nah et al. 2017 (arXiv:1612.02177, eq. 1 and 2): a mean of frames in linear
        light, then the camera's curve. Deviations: sRGB's curve instead of a power of 2.2; the saturation.
    """

    def __init__(
        self, kernel: Tensor, in_shape: Shape, gain: float = 1.5, shoulder: float = 0.2, boundary: Boundary = "reflect"
    ) -> None:
        if not 0 < gain < float("inf") or not 0 < shoulder <= 1:
            raise ShapeError(
                f"ExposureBlur expected a gain > 0 and a shoulder above 0 and up to 1, got {gain} and {shoulder}; "
                "choose others."
            )
        blur = make_blur(kernel, in_shape, boundary)
        super().__init__(blur.in_shape, blur.out_shape)
        self.blur = blur
        self.gain = gain
        self.shoulder = shoulder

    def _forward(self, x: Tensor) -> Tensor:
        return from_light(saturate(self.gain * self.blur(to_light(x)), self.shoulder))

    def _guess(self, y: Tensor) -> Tensor:
        return from_light(self.blur.guess(to_light(y)) / self.gain)


class ExposureBlurSpec(OperatorSpec):
    """A long exposure in motion, with lights that burn out."""

    title: ClassVar[str] = "Blur with burnt-out lights"
    kind: Literal["exposure-blur"] = "exposure-blur"
    kernel: Annotated[AnyKernel, Field(description="The path of the camera, or another kernel.")] = MotionKernel(
        size=15
    )
    gain: Annotated[float, Field(gt=0, le=16, description="Exposure; above 1 lights burn out."), Ui(scale="log")] = 1.5
    shoulder: Annotated[float, Field(gt=0, le=1, description="How far below white the sensor begins to saturate.")] = (
        0.2
    )
    boundary: Annotated[Boundary, Field(description="What lies beyond the border, as for the plain blur.")] = "reflect"

    @property
    def offers(self) -> frozenset[Need]:
        """What `ExposureBlur` offers."""
        return ExposureBlur.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> ExposureBlur:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return ExposureBlur(self.kernel.build(base), in_shape, self.gain, self.shoulder, self.boundary)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """As for the plain blur; see `BlurSpec.image_shape`."""
        return BlurSpec(kernel=self.kernel, boundary=self.boundary).image_shape(picture_shape)
