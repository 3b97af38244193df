"""Exposures of one scene whose factors are not known: a picture taken in too little light, a bracketed series."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import Operator, OperatorSpec, Shape, check_image_shape
from operators.errors import ShapeError
from operators.parametric import Parametric
from operators.spec import Need


class Bracket(Operator):
    """Exposures of one image side by side, each times its factor and clipped to [0, 1].

    Shapes: x (B, C, H, W) → (B, C, H, frames · W).

    Args:
        gains: factors > 0, one a frame.
        in_shape: (C, H, W), without batch.
    """

    gains: Tensor

    def __init__(self, gains: Tensor, in_shape: Shape) -> None:
        *rest, width = check_image_shape(in_shape)
        super().__init__(in_shape, (*rest, len(gains) * width))
        self.register_buffer("gains", gains.to(torch.get_default_dtype()))

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([(gain * x).clamp(0, 1) for gain in self.gains.to(x.dtype)], -1)

    def _guess(self, y: Tensor) -> Tensor:
        return torch.stack(y.tensor_split(len(self.gains), -1)).mean(0)


class UnknownExposure(Parametric):
    """Frame e of the data is gain_e x clipped to [0, 1], with, if wanted, an offset for every pixel: GDP's f x + M.

    Parameters are (frames, 1) gains, or (frames, 1 + C H W) with the offsets behind them, in units that make a gradient
    step of size 1 down the mean squared misfit take up a share `offsets` of each pixel's misfit.

    Args:
        truth: exposures that simulated data are.
        offsets: that share; 0 is without offsets. The released code amounts to 2 / (C H W), next to nothing.
        clipped: whether white in the data means at least white; else the model is linear, as published.

    Source: Fei et al. 2023 (GDP, arXiv:2304.01247), section 3.3.
    Deviations: offsets are for all channels, and optional; clipping.
    """

    DARKEST: ClassVar[float] = 1e-3

    def __init__(self, truth: Bracket, offsets: float = 0.0, clipped: bool = True) -> None:
        pixels = prod(truth.in_shape) if offsets > 0 else 0
        super().__init__(truth, (len(truth.gains), 1 + pixels))
        self.clipped, self._unit = clipped, (offsets * pixels / 2) ** 0.5

    def apply_with(self, x: Tensor, u: Tensor) -> Tensor:
        """See `Parametric.apply_with`."""
        frames = []
        for values in u.unbind(1):
            frame = values[:, 0].reshape(-1, *(1,) * len(self.in_shape)) * x
            frames.append(frame + self._offsets(values).reshape(-1, *self.in_shape) if u.shape[-1] > 1 else frame)
        data: Tensor = torch.cat(frames, -1)
        return data.clamp(0, 1) if self.clipped else data

    def start(self, y: Tensor) -> Tensor:
        """The darkest gains: the first step makes them what suits the first estimate."""
        return self.constrain(y.new_zeros(len(y), *self.parameter_shape))

    def constrain(self, u: Tensor) -> Tensor:
        """Gains of at least 0.001; a negative one would leave nothing but clipped pixels, which have no slope."""
        return torch.cat([u[..., :1].clamp(min=self.DARKEST), u[..., 1:]], -1)

    def describe(self, u: Tensor) -> Mapping[str, Tensor]:
        """Gains (B, frames) and, if there are any, offsets (B, frames, *in_shape)."""
        offsets = {"offset": self._offsets(u).reshape(*u.shape[:2], *self.in_shape)} if u.shape[-1] > 1 else {}
        return {"gain": u[..., 0], **offsets}

    def _offsets(self, u: Tensor) -> Tensor:
        offsets: Tensor = self._unit * u[..., 1:]
        return offsets


class UnknownExposureSpec(OperatorSpec):
    """One or more exposures whose factors are to be found together with the image; data are side by side."""

    title: ClassVar[str] = "Exposures, factors unknown"
    kind: Literal["unknown-exposure"] = "unknown-exposure"
    gains: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        Field(
            min_length=1,
            max_length=9,
            description="Factors that simulated data have, one a frame; what restores them is told their number.",
        ),
    ] = (0.25,)
    offsets: Annotated[
        float,
        Field(ge=0, le=1, description="Share of its misfit that a pixel's offset takes up in a step; 0: no offsets."),
    ] = 0.0
    clipped: Annotated[bool, Field(description="Whether white in the data means at least white.")] = True

    @property
    def offers(self) -> frozenset[Need]:
        """What `UnknownExposure` offers."""
        return UnknownExposure.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> UnknownExposure:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        return UnknownExposure(Bracket(torch.tensor(self.gains), in_shape), self.offsets, self.clipped)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """The shape of one of the frames that lie side by side."""
        *rest, width = check_image_shape(picture_shape)
        if width % len(self.gains):
            raise ShapeError(
                f"Expected {len(self.gains)} frames of equal width side by side, got a picture {width} pixels wide; "
                "put them together anew."
            )
        return (*rest, width // len(self.gains))
