"""The noise of X-ray transmission measurements: few photons, read with electronic noise, and then the logarithm."""

from math import log
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.noise import RINGING, Noise
from operators.rng import Rng
from operators.spec import Ui


class LowDose(Noise):
    """Transmission: N = Poisson(photons · exp(−clean)) + electronic · n counts, y = −ln(max(N, floor) / photons).

    Clean data are line integrals of the whole attenuation, without a unit; `photons` arrive where they are zero, that
    is through an image of zeros. `CT` with a window that does not begin at −1000 HU leaves a background out of its
    data; recipes refuse that pair. The logarithm makes the noise of y strongly unequal between rays: its variance is
    about (exp(y) + electronic² exp(2 y) / photons) / photons, the inverse of which is the weight of a ray in least
    squares (`data_variance`). Where fewer counts than `floor` are left a ray is starved: its y is a lower bound and no
    more (`starved`).

    `log_prob` is the law of the counts, not a Gaussian one of y. With electronic noise it is that of N + electronic² as
    Poisson counts of mean photons · exp(−clean) + electronic², which has the exact mean and variance; without, it is
    exact. Counts at the floor are taken as measured. Below clean = 0, where more would arrive than was sent, the
    expected counts are continued by a parabola, so that slopes stay finite.

    Source: the law itself; shifted counts as in Snyder et al. 1993 and, for transmission,
    Yavuz & Fessler 1998; floor 0.1 and 4096 photons as in LoDoPaB-CT. Deviations:
    the continuation below zero.
    """

    title: ClassVar[str] = "Low-dose CT"
    lowest_clean: ClassVar[float] = -RINGING
    kind: Literal["low-dose"] = "low-dose"
    photons: Annotated[
        float,
        Field(ge=1, le=1e8, description="Photons per ray that nothing attenuates: 1e5 usual, 1e4 low, 4096 very low."),
        Ui(scale="log"),
    ] = 1e4
    electronic: Annotated[
        float, Field(ge=0, le=1e4, description="Standard deviation of the electronic noise."), Ui(unit="counts")
    ] = 5.0
    floor: Annotated[
        float, Field(gt=0, le=100, description="Counts below this are raised to it."), Ui("counts", advanced=True)
    ] = 0.1

    @model_validator(mode="after")
    def _check_floor(self) -> Self:
        if self.floor >= self.photons:
            raise ValueError(
                f"Expected a floor below the photons, {self.photons:g}, got {self.floor:g}; lower the floor."
            )
        return self

    def starved(self, y: Tensor) -> Tensor:
        """Share of rays that are at the floor.   Shapes: y (B, ...) → (B,).   Units: from 0 to 1."""
        return (y >= log(self.photons / self.floor) - 1e-4).flatten(1).double().mean(1)

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        # counts are drawn on the CPU in double precision, which not every device has
        there = rng.to("cpu", torch.float64)
        rate = self.photons * (-clean.detach().to("cpu", torch.float64)).exp()
        counts = there.poisson(rate.expand(rng.batch, *rate.shape[1:]))
        if self.electronic > 0:
            counts = counts + self.electronic * there.randn(clean.shape[1:])
        return -(counts.clamp(min=self.floor) / self.photons).log().to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """Shifted Poisson, measured from its best value: (N + v) ln((rate + v) / (N + v)) − rate + N, v = electronic².

        See `Noise.log_prob`.
        """
        variance = self.electronic**2
        # differences of large counts; in double precision the sum is good to the last digit of a single
        kind, y, clean = torch.promote_types(y.dtype, clean.dtype), y.double(), clean.double()
        counts, rate = self._counts(y), self.photons * _transmitted(clean)
        # the logarithm of a rate that underflows is still known
        log_rate = log(self.photons) + torch.where(clean < 0, _transmitted(clean.clamp(max=0)).log(), -clean)
        level = torch.logaddexp(log_rate, log_rate.new_tensor(variance).log())
        value = (counts + variance) * (level - (counts + variance).log()) - rate + counts
        return value.flatten(1).sum(1).to(kind)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The slope rate − (N + v) rate / (rate + v), photons · (exp(−clean) − exp(−y)) without electronic noise.

        See `Noise.score`.
        """
        variance = self.electronic**2
        rate = self.photons * _transmitted(clean)
        # −(d rate / d clean) / rate: one, but for the continuation
        steepness = torch.where(clean < 0, (1 - clean) / _transmitted(clean.clamp(max=0)), 1.0)
        share = rate / (rate + variance) if variance > 0 else torch.ones_like(rate)
        return steepness * (rate - (self._counts(y) + variance) * share)

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(rate − N) / sqrt(rate + electronic²): the residual of the counts, in which its variance is exactly one.

        See `Noise.whiten`.
        """
        rate = (self.photons * _transmitted(clean)).clamp(min=self.floor)
        return (rate - self._counts(y)) / (rate + self.electronic**2).sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """(N + electronic²) / N²; see `Noise.data_variance`."""
        counts = self._counts(y)
        return (counts + self.electronic**2) / counts.square()

    def _counts(self, y: Tensor) -> Tensor:
        return (self.photons * (-y).exp()).clamp(min=self.floor)


def _transmitted(clean: Tensor) -> Tensor:
    """exp(−clean), continued below zero by its parabola there."""
    return torch.where(clean < 0, 1 - clean + 0.5 * clean.square(), (-clean.clamp(min=0)).exp())
