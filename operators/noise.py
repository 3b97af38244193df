"""How data are corrupted: the laws of y given the clean data A x."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.errors import ShapeError
from operators.rng import Rng
from operators.spec import Need, Spec, Ui


class Noise(Spec, ABC):
    """A corruption law. Everything is per sample; y and `clean` may have a batch of 1 where the other has B."""

    kind: str
    title: ClassVar[str]
    takes_complex: ClassVar[bool] = True
    offers: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """Noisy data.

        Shapes: clean (1 or B, ...) → (B, ...), with B the number of streams of `rng`, in the dtype of `clean`.

        Raises:
            ShapeError: batches do not match, or `clean` is not in the range of the law.
        """

    @abstractmethod
    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The log-probability log p(y | clean), up to a constant in `clean`.   Shapes: (1 or B, ...) twice → (B,)."""

    @abstractmethod
    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The gradient of `log_prob` with respect to `clean`.   Shapes: (1 or B, ...), (1 or B, ...) → (B, ...)."""

    @abstractmethod
    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """The residual y − clean in units of its standard deviation (per real component).   Shapes: → (B, ...)."""

    @abstractmethod
    def data_variance(self, y: Tensor) -> Tensor:
        """Variance of the data (per real component) judged from the data alone, for weighted least squares.

        Shapes: y (B, ...) → real, broadcasts against y.   Units: squared data units.
        """


class Gaussian(Noise):
    """Independent Gaussian noise of one size: y = clean + sigma n, n ~ N(0, 1).

    Complex data get `sigma` per real component, E|noise|² = 2 sigma².
    """

    title: ClassVar[str] = "Gaussian"
    offers: ClassVar[frozenset[Need]] = frozenset({Need.GAUSSIAN})
    kind: Literal["gaussian"] = "gaussian"
    sigma: Annotated[
        float,
        Field(gt=0, le=10, description="Standard deviation of the noise; 1 is the step from black to white."),
        Ui(unit="unit range", scale="log"),
    ] = 0.02

    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """The clean data plus sigma n; see `Noise.sample`."""
        _check_batch(clean, rng)
        return clean + self.sigma * rng.randn(clean.shape[1:], complex=clean.is_complex()).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """−|y − clean|² / (2 sigma²); see `Noise.log_prob`."""
        residual = y - clean
        return -0.5 / self.sigma**2 * (residual.conj() * residual).real.flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sigma²; see `Noise.score`."""
        return (y - clean) / self.sigma**2

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sigma; see `Noise.whiten`."""
        return (y - clean) / self.sigma

    def data_variance(self, y: Tensor) -> Tensor:
        """sigma², a 0-dimensional tensor; see `Noise.data_variance`."""
        return torch.tensor(self.sigma**2, dtype=y.real.dtype, device=y.device)


# Poisson: counts below which the logarithm is continued by a parabola, and the most negative clean value that is read
# as zero (unit range). A sharp-edged image rings by up to about 0.15 after bicubic reduction; an image on [-1, 1] goes
# far below this and is refused.
_FEW_COUNTS = 0.1
_RINGING = 0.25


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
    takes_complex: ClassVar[bool] = False
    kind: Literal["poisson"] = "poisson"
    peak: Annotated[
        float,
        Field(gt=0, le=1e6, description="Photons counted on average where the clean data are 1."),
        Ui(unit="photons", scale="log"),
    ] = 100.0

    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """Poisson(peak · clean) / peak; see `Noise.sample`."""
        _check_batch(clean, rng)
        if clean.is_complex():
            raise ShapeError("Poisson noise expected real data, got complex; choose Gaussian noise.")
        lowest = float(clean.min()) if clean.numel() else 0.0
        if lowest < -_RINGING:
            raise ShapeError(
                f"Poisson noise expected clean data >= 0, got a minimum of {lowest:.3g}; use images in unit range."
            )
        # counts are drawn on the CPU in double precision, which not every device has
        rate = self.peak * clean.detach().to("cpu", torch.float64).clamp(min=0)
        counts = rng.to("cpu", torch.float64).poisson(rate.expand(rng.batch, *rate.shape[1:]))
        return (counts / self.peak).to(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The exact sum of peak · (y log clean − clean) above 0.1 expected photons; see `Noise.log_prob`."""
        counts, rate = self.peak * y.clamp(min=0), self.peak * clean
        safe = rate.clamp(min=_FEW_COUNTS)
        below = (rate - _FEW_COUNTS).clamp(max=0) / _FEW_COUNTS
        # log continued to second order; the exposure term gains ½ below², whose slope at rate 0 cancels its own
        value = counts * (safe.log() + below - 0.5 * below.square()) - rate - 0.5 * _FEW_COUNTS * below.square()
        # measured from its best value, the sum stays small enough for single precision at high peaks
        best: Tensor = torch.xlogy(counts, counts) - counts
        return (value - best).flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The slope peak · (y / clean − 1) where more than 0.1 photons are expected; see `Noise.score`."""
        counts, rate = self.peak * y.clamp(min=0), self.peak * clean
        safe = rate.clamp(min=_FEW_COUNTS)
        below = (rate - _FEW_COUNTS).clamp(max=0) / _FEW_COUNTS
        return self.peak * (counts * (1 - below) / safe - 1 - below)

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y − clean) / sqrt(clean / peak), the variance held above that of 0.1 photons; see `Noise.whiten`."""
        return (y - clean) / (clean.clamp(min=_FEW_COUNTS / self.peak) / self.peak).sqrt()

    def data_variance(self, y: Tensor) -> Tensor:
        """max(y, 1/peak) / peak; see `Noise.data_variance`."""
        return y.clamp(min=1 / self.peak) / self.peak


AnyNoise = Annotated[Gaussian | Poisson, Field(discriminator="kind")]


def _check_batch(clean: Tensor, rng: Rng) -> None:
    if clean.shape[0] not in (1, rng.batch):
        raise ShapeError(f"Expected clean data for 1 or {rng.batch} samples, got {clean.shape[0]}; match the seeds.")
