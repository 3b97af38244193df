"""What happens to each number of an image by itself: clipping, exposure and rounding to few levels."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import Operator, OperatorSpec, Shape, check_image_shape
from operators.errors import ShapeError
from operators.files import read_plane
from operators.gain import Gain, check_broadcast
from operators.spec import DataRef, Need, Ui

CELL = 0.5 - 1e-3
"""Half the width of a rounding cell, in steps, less a margin that rounding errors of single precision do not cross."""


def round_through(x: Tensor) -> Tensor:
    """x rounded, with the slope of x itself (straight-through).   Shapes: any → the same.

    Source: Bengio, Léonard and Courville 2013 (arXiv:1308.3432), section 3. Deviations: none.
    """
    # the second term is exactly zero
    return x.detach().round() + (x - x.detach())


class Clipping(Operator):
    """Stretched about a pivot and clipped: y = clip(pivot + gain (x − pivot), 0, 1).

    What is clipped has no slope, so methods that follow slopes alone leave it as it is; the projection moves it beyond
    the border. Data of 1 and above, or of 0 and below, count as clipped.

    Shapes: x (B, *in_shape) → the same.

    Args:
        in_shape: shape of an image, without batch.
        gain: > 1.
        pivot: the value that stays, from 0 to 1: 0.5 clips darks and lights alike, 0 the lights.

    Source: pivot 0.5 and gain 2 is the high dynamic range task of DAPS (Zhang et al. 2025, arXiv:2407.01521) and
    RED-diff (Mardani et al. 2023, arXiv:2305.04391), clip(2x, −1, 1) for x in [−1, 1]; pivot 0 is a long exposure.
    Deviations: none.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.PROJECTION}

    def __init__(self, in_shape: Shape, gain: float = 2.0, pivot: float = 0.5) -> None:
        in_shape = check_image_shape(in_shape)
        if not 1 < gain < float("inf") or not 0 <= pivot <= 1:
            raise ShapeError(
                f"Clipping expected a gain above 1 and a pivot from 0 to 1, got {gain} and {pivot}; choose others."
            )
        super().__init__(in_shape, in_shape)
        self.gain = gain
        self.pivot = pivot

    def _forward(self, x: Tensor) -> Tensor:
        return (self.pivot + self.gain * (x - self.pivot)).clamp(0, 1)

    def _guess(self, y: Tensor) -> Tensor:
        return self.pivot + (y - self.pivot) / self.gain

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        x = self._guess(y.clamp(0, 1))
        return torch.where(y >= 1, torch.maximum(x, z), torch.where(y <= 0, torch.minimum(x, z), x))


class Exposure(Operator):
    """Too little light, through the curve of a camera: y = (gain x)^gamma, with the sign kept below zero.

    Shapes: x (B, *in_shape) → the same.

    Args:
        gain: > 0, broadcasts against an image: exposure times illumination.
        gamma: > 1; for gamma 1 the measurement is linear, see `Gain`.
        in_shape: shape of an image, without batch.

    Raises:
        ShapeError: the gain does not fit the image or is not positive, or `gamma` is not above 1.

    Source: the gamma and gain adjustment by which Lore et al. 2017 (LLNet, arXiv:1511.03995, section III-C) and Lv et
    al. 2018 (MBLLEN, BMVC, section 4.1) darken photographs. Deviations: none.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.PROJECTION}

    gain: Tensor

    def __init__(self, gain: Tensor, gamma: float, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        check_broadcast(gain, in_shape)
        if not bool((gain > 0).all()):
            raise ShapeError(
                f"Exposure expected light everywhere, got a minimum of {float(gain.min()):.3g}; lift the map."
            )
        if not 1 < gamma < float("inf"):
            raise ShapeError(f"Exposure expected a gamma above 1, got {gamma}; use Gain for a gamma of 1.")
        super().__init__(in_shape, in_shape)
        self.gamma = gamma
        self.register_buffer("gain", gain.to(torch.get_default_dtype(), copy=True))

    def _forward(self, x: Tensor) -> Tensor:
        return _signed_power(self.gain.to(x.dtype) * x, self.gamma)

    def _guess(self, y: Tensor) -> Tensor:
        return _signed_power(y, 1 / self.gamma) / self.gain.to(y.dtype)

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        return self._guess(y).expand_as(z).clone()


def _signed_power(v: Tensor, exponent: float) -> Tensor:
    # where v is zero, torch's slope of a power is not a number
    nonzero = torch.where(v == 0, torch.ones_like(v), v)
    return torch.where(v == 0, torch.zeros_like(v), nonzero.sign() * nonzero.abs() ** exponent)


class Quantisation(Operator):
    """Rounding to evenly spaced levels, y = round(x (levels − 1)) / (levels − 1): `levels` of them from 0 to 1.

    Values outside [0, 1] are rounded to levels beyond, not clipped. Rounding has no slope; `vjp` gives that of the
    image itself (see `round_through`). For rounding after noise see the noise `Quantised`.

    Shapes: x (B, *in_shape) → the same.

    Args:
        in_shape: shape of an image, without batch.
        levels: from 2 to 256.
    """

    offers: ClassVar[frozenset[Need]] = Operator.offers | {Need.PROJECTION}
    exact_gradient: ClassVar[bool] = False

    def __init__(self, in_shape: Shape, levels: int) -> None:
        in_shape = check_image_shape(in_shape)
        if not 2 <= levels <= 256:
            raise ShapeError(
                f"Quantisation expected from 2 to 256 levels, got {levels}; choose a number in that range."
            )
        super().__init__(in_shape, in_shape)
        self.steps = levels - 1

    def _forward(self, x: Tensor) -> Tensor:
        return round_through(x * self.steps) / self.steps

    def _guess(self, y: Tensor) -> Tensor:
        return y

    def _project(self, z: Tensor, y: Tensor, tol: float, max_iter: int) -> Tensor:
        level = (y * self.steps).round()
        return (z * self.steps).clamp(level - CELL, level + CELL) / self.steps


class ClippingSpec(OperatorSpec):
    """Lights, or lights and darks, beyond what a picture can hold: high dynamic range."""

    title: ClassVar[str] = "Clipped range"
    kind: Literal["clipping"] = "clipping"
    form: Annotated[
        Literal["symmetric", "exposure"],
        Field(description="Stretch about mid-grey, clipping darks and lights, or expose longer, clipping lights."),
    ] = "symmetric"
    gain: Annotated[float, Field(gt=1, le=16, description="How much contrast or exposure is raised.")] = 2.0

    @property
    def offers(self) -> frozenset[Need]:
        """What `Clipping` offers."""
        return Clipping.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Clipping:
        """The operator on real images; see `OperatorSpec.build`."""
        return Clipping(in_shape, self.gain, 0.5 if self.form == "symmetric" else 0.0)


class ExposureSpec(OperatorSpec):
    """Low light: a short exposure, uneven light or a steep camera curve; linear where gamma is 1."""

    title: ClassVar[str] = "Low light"
    kind: Literal["exposure"] = "exposure"
    gain: Annotated[float, Field(gt=0, le=4, description="Part of the light that is left."), Ui(scale="log")] = 0.4
    gamma: Annotated[float, Field(ge=1, le=5, description="Power of the camera's curve; 1 is linear.")] = 1.0
    illumination: Annotated[
        DataRef | None, Field(description="Map of the light (white is full light); empty is even light.")
    ] = None

    @property
    def offers(self) -> frozenset[Need]:
        """What `Gain` offers for gamma 1, else what `Exposure` does."""
        return Gain.offers if self.gamma == 1 else Exposure.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Gain | Exposure:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        light = torch.ones(()) if self.illumination is None else torch.from_numpy(read_plane(self.illumination, base))
        gain = self.gain * light
        return Gain(gain, in_shape) if self.gamma == 1 else Exposure(gain, self.gamma, in_shape)


class QuantisationSpec(OperatorSpec):
    """Too few grey levels: posterised, or read by a coarse converter."""

    title: ClassVar[str] = "Few levels"
    kind: Literal["quantisation"] = "quantisation"
    levels: Annotated[int, Field(ge=2, le=256, description="Levels from black to white; 2 to the power of bits.")] = 8

    @property
    def offers(self) -> frozenset[Need]:
        """What `Quantisation` offers."""
        return Quantisation.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Quantisation:
        """The operator on real images; see `OperatorSpec.build`."""
        return Quantisation(in_shape, self.levels)
