"""Noise of coherent imaging, seen in what is kept of a complex signal: magnitudes (MRI) and intensities (radar)."""

from math import pi, sqrt
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.noise import RINGING, Noise, Sigma, below
from operators.rng import Rng
from operators.spec import Ui


class Rician(Noise):
    """Magnitude of a signal with complex Gaussian noise: y = |clean + sigma (n1 + i n2)|, n1, n2 ~ N(0, 1).

    The law of magnitude MR images; `sigma` is per real component, as in `Gaussian`. It depends on |clean| alone, so
    clean data may have either sign; negative data, which it cannot give, count as their magnitude.

    Source: Gudbjartsson & Patz 1995 (density and moments). Deviations: none.
    """

    title: ClassVar[str] = "Rician"
    kind: Literal["rician"] = "rician"
    sigma: Annotated[Sigma, Field(description="Standard deviation of the complex noise, per real component.")] = 0.05

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        noise = self.sigma * rng.randn((*clean.shape[1:], 2)).to(clean)
        return torch.hypot(clean + noise[..., 0], noise[..., 1])

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """−(y² + clean²) / (2 sigma²) + log I0(y clean / sigma²); see `Noise.log_prob`."""
        # i0e(a) = e^-|a| I0(a) neither overflows nor cancels
        gap = y.abs() - clean.abs()
        value: Tensor = torch.special.i0e(y * clean / self.sigma**2).log() - 0.5 * (gap / self.sigma).square()
        return value.flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y I1/I0(y clean / sigma²) − clean) / sigma²; see `Noise.score`."""
        a = y * clean / self.sigma**2
        slope: Tensor = (y * torch.special.i1e(a) / torch.special.i0e(a) - clean) / self.sigma**2
        return slope

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """y − E[y | clean] in units of the standard deviation, both of which the law bends at low signal."""
        mean, variance = self._moments(clean)
        return (y - mean) / variance.sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """The variance at the signal that y² − 2 sigma² estimates without bias; see `Noise.data_variance`."""
        return self._moments((y.square() - 2 * self.sigma**2).clamp(min=0).sqrt())[1]

    def _moments(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of y, the latter to 1e-6 of itself."""
        r = clean.abs() / self.sigma
        x = r.square() / 4
        mean = sqrt(pi / 2) * ((1 + 2 * x) * torch.special.i0e(x) + 2 * x * torch.special.i1e(x))
        # beyond r = 30 the difference would cancel, and its expansion is exact enough
        variance = torch.where(r < 30, 2 + r.square() - mean.square(), 1 - 0.5 / r.clamp(min=1).square())
        return self.sigma * mean, self.sigma**2 * variance


# Clean values below which the logarithm of the speckle law is continued by a parabola (unit range).
_DARK = 0.01


class Speckle(Noise):
    """Multiplicative noise of coherent intensities: y = clean · g, g ~ Gamma(looks, 1/looks) of mean 1.

    One look is fully developed speckle (an exponential law); averaging `looks` independent ones divides the variance,
    which is clean² / looks. Clean data are meant to be >= 0: in `sample`, values from −0.25 to 0 give zero and smaller
    ones are refused; negative data count as zero. In `log_prob`, below clean = 0.01, where the density is unbounded,
    the exact log-density is continued by a parabola with the same value and slope, chosen such that y = 0 is best
    explained by clean = 0; slopes stay finite and negative images are pushed back.

    Source: Goodman 2007, Speckle Phenomena in Optics (the gamma law of intensities); the law itself.
    Deviations: the continuation below clean = 0.01.
    """

    title: ClassVar[str] = "Speckle"
    lowest_clean: ClassVar[float] = -RINGING
    kind: Literal["speckle"] = "speckle"
    looks: Annotated[
        float,
        Field(gt=0, le=1e4, description="Independent looks averaged; the relative variance is 1/looks."),
        Ui(scale="log"),
    ] = 4.0

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        return clean.clamp(min=0) * (rng.gamma(self.looks, clean.shape[1:]) / self.looks).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """−looks · (log clean + y / clean) above clean = 0.01; see `Noise.log_prob`."""
        y = y.clamp(min=0)
        safe, gap = clean.clamp(min=_DARK), below(clean, _DARK) / _DARK
        bend = 0.5 + y / _DARK
        value = -safe.log() - y / safe + (y / _DARK - 1) * gap - bend * gap.square()
        return self.looks * value.flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """looks · (y − clean) / clean² above clean = 0.01; see `Noise.score`."""
        y = y.clamp(min=0)
        safe, gap = clean.clamp(min=_DARK), below(clean, _DARK) / _DARK
        return self.looks * ((y / safe - 1) / safe - (1 + 2 * y / _DARK) / _DARK * gap)

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) sqrt(looks) / clean, clean held above 0.01 in the divisor; see `Noise.whiten`."""
        return (y - clean) * sqrt(self.looks) / clean.clamp(min=_DARK)

    def data_variance(self, y: Tensor) -> Tensor:
        """y² / (looks + 1), which is right on average, held above the variance at 0.01; see `Noise.data_variance`."""
        return (y.square() / (self.looks + 1)).clamp(min=_DARK**2 / self.looks)
