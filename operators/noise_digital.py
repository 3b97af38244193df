"""Noise of converters and pixels: rounding, uniform errors, dead pixels."""

from abc import abstractmethod
from math import log, pi, sqrt
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.noise import Noise, Sigma
from operators.rng import Rng
from operators.spec import Ui

_Width = Annotated[float, Field(ge=1e-5, le=10), Ui(unit="unit range", scale="log")]


class _Cell(Noise):
    """A Gaussian value known to lie within a of y: log [Φ((y + a − clean) / sigma) − Φ((y − a − clean) / sigma)].

    Computed in double precision, in which the difference keeps its accuracy.
    """

    sigma: Sigma

    @property
    @abstractmethod
    def _half(self) -> float:
        """a, half the width of the cell."""

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The logarithm of the Gaussian's mass in the cell around y; see `Noise.log_prob`."""
        value = self._log_mass((y.double() - clean.double()).abs())
        return value.flatten(1).sum(1).to(torch.promote_types(y.dtype, clean.dtype))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The density's difference between the ends of the cell over the mass inside; see `Noise.score`."""
        residual = y.double() - clean.double()
        away = residual.abs()
        near = (self._half - away) / self.sigma
        log_density = -0.5 * near.square() - 0.5 * log(2 * pi) - log(self.sigma)
        fall = -torch.expm1(-2 * self._half * away / self.sigma**2)  # 1 − density at the far end over the near end's
        slope = residual.sign() * (log_density - self._log_mass(away)).exp() * fall
        return slope.to(torch.promote_types(y.dtype, clean.dtype))

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sqrt(sigma² + a²/3); see `Noise.whiten`."""
        return (y - clean) / sqrt(self.sigma**2 + self._half**2 / 3)

    def data_variance(self, y: Tensor) -> Tensor:
        """sigma² + a²/3, a 0-dimensional tensor; see `Noise.data_variance`."""
        return torch.tensor(self.sigma**2 + self._half**2 / 3, dtype=y.dtype, device=y.device)

    def _log_mass(self, away: Tensor) -> Tensor:
        # seen from the nearer side, both ends lie in the lower half or tail of Φ, where its logarithm is accurate
        near = torch.special.log_ndtr((self._half - away) / self.sigma)
        far = torch.special.log_ndtr(-(self._half + away) / self.sigma)
        mass: Tensor = near + torch.log(-torch.expm1(far - near))
        return mass


class Quantised(_Cell):
    """Rounding of a noisy value: y = step · round((clean + sigma n) / step), n ~ N(0, 1).

    The probability of y is the Gaussian's mass in its cell, exact and smooth; a small `sigma` comes near to plain
    rounding, which tells nothing but the cell and has no slope to follow. Levels are the multiples of `step`, without
    an end: 1/255 is the step of 8-bit data in unit range. The rounding error depends on the clean value; `whiten` has
    unit variance where clean values are spread over whole cells, exactly so if evenly.

    Source: the law itself; variance sigma² + step²/12, Sheppard 1898. Deviations: none.
    """

    title: ClassVar[str] = "Gaussian, rounded"
    kind: Literal["quantised"] = "quantised"
    step: Annotated[_Width, Field(description="Distance between two levels; 1/255 for 8-bit data.")] = 1 / 255
    sigma: Annotated[Sigma, Field(description="Standard deviation of the noise before rounding.")] = 0.01

    @property
    def _half(self) -> float:
        return 0.5 * self.step

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        return self.step * ((clean + self.sigma * rng.randn(clean.shape[1:]).to(clean)) / self.step).round()


class Uniform(_Cell):
    """An error anywhere between −half_width and half_width, and a small Gaussian one: y = clean + u + sigma n.

    The Gaussian part makes the density smooth; without it, the logarithm is flat inside the interval and minus infinity
    outside, and no method that follows slopes could use it.

    Source: the law itself. Deviations: none.
    """

    title: ClassVar[str] = "Uniform"
    kind: Literal["uniform"] = "uniform"
    half_width: Annotated[_Width, Field(description="Largest error of the uniform part.")] = 0.05
    sigma: Annotated[Sigma, Field(description="Standard deviation of the Gaussian part.")] = 0.01

    @property
    def _half(self) -> float:
        return self.half_width

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        even = 2 * rng.rand(clean.shape[1:]).to(clean) - 1
        return clean + self.half_width * even + self.sigma * rng.randn(clean.shape[1:]).to(clean)


class SaltPepper(Noise):
    """Dead pixels and a little Gaussian noise: y = v + sigma n, v black or white with probability fraction/2 each.

    Otherwise v = clean. The Gaussian noise is that of the read-out and is on dead pixels as well: the density is a
    smooth mixture that forgives rounding, and a pixel pulls at the image by the probability that it is alive. Where it
    is known which pixels are dead, inpainting says more.

    Source: the law itself. Deviations: none.
    """

    title: ClassVar[str] = "Salt and pepper"
    kind: Literal["salt-pepper"] = "salt-pepper"
    fraction: Annotated[float, Field(gt=0, lt=1, description="Share of the pixels that are black or white.")] = 0.1
    sigma: Annotated[Sigma, Field(description="Standard deviation of the Gaussian noise.")] = 0.02

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        lot = rng.rand(clean.shape[1:]).to(clean.device)
        value = torch.where(lot < self.fraction, (lot < 0.5 * self.fraction).to(clean), clean)
        return value + self.sigma * rng.randn(clean.shape[1:]).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """log [(1 − fraction) N(y; clean) + fraction/2 (N(y; 0) + N(y; 1))], without sqrt(2π) sigma."""
        alive, dead = self._logs(y, clean)
        return torch.logaddexp(alive, dead).flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sigma² times the probability that the pixel is alive; see `Noise.score`."""
        alive, dead = self._logs(y, clean)
        return torch.sigmoid(alive - dead) * (y - clean) / self.sigma**2

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """y − E[y | clean] in units of the standard deviation, dead pixels included; see `Noise.whiten`."""
        mean = (1 - self.fraction) * clean + 0.5 * self.fraction
        square = (1 - self.fraction) * clean.square() + 0.5 * self.fraction
        return (y - mean) / (square - mean.square() + self.sigma**2).sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """sigma² over the probability that the pixel is alive, clean values being anywhere from 0 to 1 beforehand."""
        _, dead = self._logs(y, y)
        return self.sigma**2 * (1 + dead.exp() / ((1 - self.fraction) * sqrt(2 * pi) * self.sigma))

    def _logs(self, y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the parts of the density of living and of dead pixels, without the common constant."""
        black, white = (-0.5 * ((y - level) / self.sigma).square() for level in (0, 1))
        alive = log(1 - self.fraction) - 0.5 * ((y - clean) / self.sigma).square()
        return alive, log(0.5 * self.fraction) + torch.logaddexp(black, white)
