"""Photon noise: counts, and counts read with Gaussian noise."""

from math import log, pi, sqrt
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.noise import RINGING, Noise, Sigma, below
from operators.rng import Rng
from operators.spec import Ui

# Counts below which the logarithm is continued by a parabola.
_FEW_COUNTS = 0.1

_Peak = Annotated[
    float,
    Field(gt=0, le=1e6, description="Photons counted on average where the clean data are 1."),
    Ui(unit="photons", scale="log"),
]


class Poisson(Noise):
    """Photon noise: y = Poisson(peak · clean) / peak, so that clean = 1 means `peak` photons on average.

    Clean data are meant to be >= 0. In `sample`, values from −0.25 to 0 (the ringing of a sharp filter) give zero
    photons and smaller ones are refused; negative data count as zero photons. In `log_prob`, below 0.1 expected
    photons, where the logarithm has an unbounded slope, the exact log-probability is continued by a parabola with the
    same value and slope, chosen such that zero photons are best explained by clean = 0; slopes stay finite and
    negative images are pushed back.

    Source: the law itself. Deviations: the continuation below 0.1 expected photons.
    """

    title: ClassVar[str] = "Poisson"
    lowest_clean: ClassVar[float] = -RINGING
    kind: Literal["poisson"] = "poisson"
    peak: _Peak = 100.0

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        return (_counts(self.peak, clean, rng) / self.peak).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The exact sum of peak · (y log clean − clean) above 0.1 expected photons; see `Noise.log_prob`."""
        counts, rate = self.peak * y.clamp(min=0), self.peak * clean
        safe = rate.clamp(min=_FEW_COUNTS)
        gap = below(rate, _FEW_COUNTS) / _FEW_COUNTS
        # log continued to second order; the exposure term gains ½ gap², whose slope at rate 0 cancels its own
        value = counts * (safe.log() + gap - 0.5 * gap.square()) - rate - 0.5 * _FEW_COUNTS * gap.square()
        # measured from its best value, the sum stays small enough for single precision at high peaks
        best: Tensor = torch.xlogy(counts, counts) - counts
        return (value - best).flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The slope peak · (y / clean − 1) where more than 0.1 photons are expected; see `Noise.score`."""
        counts, rate = self.peak * y.clamp(min=0), self.peak * clean
        safe = rate.clamp(min=_FEW_COUNTS)
        gap = below(rate, _FEW_COUNTS) / _FEW_COUNTS
        return self.peak * (counts * (1 - gap) / safe - 1 - gap)

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sqrt(clean / peak), the variance held above that of 0.1 photons; see `Noise.whiten`."""
        return (y - clean) / (clean.clamp(min=_FEW_COUNTS / self.peak) / self.peak).sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """max(y, 1/peak) / peak; see `Noise.data_variance`."""
        return y.clamp(min=1 / self.peak) / self.peak


class PoissonGaussian(Noise):
    """A camera's noise: y = Poisson(peak · clean) / peak + sigma n, photons and then the read-out.

    Clean data are treated as by `Poisson`: −0.25 to 0 gives no photons, and below 0.1 expected photons the
    log-probability is continued by a parabola. Above, it is the sum over photon counts,
    log sum_k Poisson(k; peak · clean) N(y; k / peak, sigma²), exact to 1e-7 per pixel
    and computed in double precision.

    Source: the law itself (Foi et al. 2008 for cameras). Deviations: the continuation below 0.1 photons.
    """

    title: ClassVar[str] = "Poisson and Gaussian"
    lowest_clean: ClassVar[float] = -RINGING
    kind: Literal["poisson-gaussian"] = "poisson-gaussian"
    peak: _Peak = 100.0
    sigma: Annotated[Sigma, Field(description="Standard deviation of the read-out noise.")] = 0.02

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        photons = (_counts(self.peak, clean, rng) / self.peak).to(clean)
        return photons + self.sigma * rng.randn(clean.shape[1:]).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The exact log-density of y · peak above 0.1 expected photons; see `Noise.log_prob`."""
        rate = self.peak * clean.double()
        value, count = _mixture(self.peak * y.double(), rate.clamp(min=_FEW_COUNTS), self.peak * self.sigma)
        gap = below(rate, _FEW_COUNTS)
        bend = 0.5 * (count + _FEW_COUNTS) / _FEW_COUNTS**2
        value = value + gap * (count / _FEW_COUNTS - 1) - bend * gap.square()
        return value.flatten(1).sum(1).to(torch.promote_types(y.dtype, clean.dtype))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """peak · (E[photons | y] / (peak · clean) − 1) above 0.1 expected photons; see `Noise.score`."""
        rate = self.peak * clean.double()
        safe = rate.clamp(min=_FEW_COUNTS)
        _, count = _mixture(self.peak * y.double(), safe, self.peak * self.sigma)
        gap = below(rate, _FEW_COUNTS)
        slope = count / safe - 1 - (count + _FEW_COUNTS) / _FEW_COUNTS**2 * gap
        return (self.peak * slope).to(torch.promote_types(y.dtype, clean.dtype))

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sqrt(clean / peak + sigma²); see `Noise.whiten`."""
        return (y - clean) / self.data_variance(clean).sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """max(y, 0) / peak + sigma²; see `Noise.data_variance`."""
        return y.clamp(min=0) / self.peak + self.sigma**2


def _counts(peak: float, clean: Tensor, rng: Rng) -> Tensor:
    """Photon counts (B, ...), drawn on the CPU in double precision, which not every device has."""
    rate = peak * clean.detach().to("cpu", torch.float64).clamp(min=0)
    return rng.to("cpu", torch.float64).poisson(rate.expand(rng.batch, *rate.shape[1:]))


def _mixture(z: Tensor, rate: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """log sum_k Poisson(k; rate) N(z; k, sigma²), and the mean of k given z.

    Shapes: z, rate double, broadcast → both alike.   Units: photons throughout.

    Where the summand's peak lies above 25 counts and is wider than one, the sum is a trapezoidal one with steps of the
    width, which is exact to 1e-8 for such smooth summands; elsewhere it runs over the counts themselves. It ends 6.5
    widths below and 7 above the peak.
    """
    z, rate = torch.broadcast_tensors(z, rate)
    with torch.no_grad():
        mode = _mode(z, rate.log(), sigma)
        width = (1 / mode.clamp(min=1e-12) + 1 / sigma**2).rsqrt()
        first = (mode - 6.5 * width).clamp(min=0)
        many = (mode > 25) & (width > 1)
    value, mean = torch.zeros_like(rate), torch.zeros_like(rate)
    if bool(many.any()):
        parts = _sum(z[many], rate[many], sigma, mode[many], first[many], width[many], 14)
        value[many], mean[many] = parts
    few = ~many
    if bool(few.any()):
        # few counts have a longer tail; what is not finite stays so in the answer
        spans = 13.5 * width[few] + torch.where(mode[few] > 25, 1, 9)
        terms = int(spans.nan_to_num(0, 0, 0).max().ceil())
        parts = _sum(z[few], rate[few], sigma, mode[few], first[few].floor(), torch.ones_like(first[few]), terms)
        value[few], mean[few] = parts
    return value, mean


def _sum(
    z: Tensor, rate: Tensor, sigma: float, mode: Tensor, first: Tensor, step: Tensor, terms: int
) -> tuple[Tensor, Tensor]:
    """The sum over k = first, first + step, ... and the mean of k.   Shapes: all (n,) → (n,), (n,)."""
    log_rate = rate.log()

    def summand(k: Tensor) -> Tensor:
        return k * log_rate - torch.lgamma(k + 1) - ((z - k) / (sqrt(2) * sigma)).square()

    shift = torch.maximum(summand(mode.floor()), summand(mode.ceil())).detach()
    total, moment = torch.zeros_like(shift), torch.zeros_like(shift)
    for j in range(terms + 1):
        k = first + j * step
        share = (summand(k) - shift).exp()
        total = total + share
        moment = moment + k * share
    return (total * step).log() + shift - rate - log(sigma) - 0.5 * log(2 * pi), moment / total


def _mode(z: Tensor, log_rate: Tensor, sigma: float) -> Tensor:
    """The real k where the summand is largest, by Stirling's formula: log rate − log k = (k − z) / sigma²."""
    a = z / sigma**2 + log_rate - 2 * log(sigma)
    t = torch.where(a < 1, a, a.clamp(min=1).log())  # t = log(k / sigma²) solves e^t + t = a; Newton from above
    for _ in range(6):
        t = t - (t.exp() + t - a) / (t.exp() + 1)
    return sigma**2 * t.exp()
