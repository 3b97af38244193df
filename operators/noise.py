"""How data are corrupted: the laws of y given the clean data A x, and the Gaussian ones.

The other laws: `noise_counts` (photons), `noise_coherent` (magnitudes, intensities), `noise_digital` (converters).
"""

from abc import ABC, abstractmethod
from math import inf
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.errors import ShapeError
from operators.rng import Rng
from operators.spec import Need, Spec, Ui

# The most negative clean value that is read as zero by laws of data >= 0 (unit range). A sharp-edged image rings by up
# to about 0.15 after bicubic reduction; an image on [-1, 1] goes far below this and is refused.
RINGING = 0.25

Sigma = Annotated[float, Field(gt=0, le=10), Ui(unit="unit range", scale="log")]


class Noise(Spec, ABC):
    """A corruption law. Everything is per sample; y and `clean` may have a batch of 1 where the other has B.

    A subclass writes `_sample`; `sample` checks its input first. Every law has a slope everywhere, also where noise-
    free data cannot be, so that every method that needs no more than a gradient can use it.
    """

    kind: str
    title: ClassVar[str]
    takes_complex: ClassVar[bool] = False
    lowest_clean: ClassVar[float] = -inf
    offers: ClassVar[frozenset[Need]] = frozenset()

    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """Noisy data.

        Shapes: clean (1 or B, ...) → (B, ...), with B the number of streams of `rng`, in the dtype of `clean`.

        Raises:
            ShapeError: batches do not match, or `clean` is not in the range of the law.
        """
        if clean.shape[0] not in (1, rng.batch):
            raise ShapeError(
                f"Expected clean data for 1 or {rng.batch} samples, got {clean.shape[0]}; match the seeds."
            )
        if clean.is_complex() and not self.takes_complex:
            raise ShapeError(f"{self.title} noise expected real data, got complex; choose Gaussian noise.")
        if self.lowest_clean > -inf and clean.numel() and (lowest := float(clean.min())) < self.lowest_clean:
            raise ShapeError(
                f"{self.title} noise expected clean data >= 0, got a minimum of {lowest:.3g}; use images in unit range."
            )
        return self._sample(clean, rng)

    @abstractmethod
    def _sample(self, clean: Tensor, rng: Rng) -> Tensor: ...

    @abstractmethod
    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The log-probability log p(y | clean), up to a constant in `clean`.   Shapes: (1 or B, ...) twice → (B,)."""

    @abstractmethod
    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The gradient of `log_prob` with respect to `clean`.   Shapes: (1 or B, ...), (1 or B, ...) → (B, ...)."""

    @abstractmethod
    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """The residual y − E[y | clean] in units of its standard deviation (per real component).

        Shapes: (1 or B, ...), (1 or B, ...) → (B, ...).
        """

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
    takes_complex: ClassVar[bool] = True
    offers: ClassVar[frozenset[Need]] = frozenset({Need.GAUSSIAN})
    kind: Literal["gaussian"] = "gaussian"
    sigma: Annotated[
        Sigma, Field(description="Standard deviation of the noise; 1 is the step from black to white.")
    ] = 0.02

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
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


class Correlated(Noise):
    """Gaussian noise whose power falls with frequency: y = clean + n, n a stationary field with spectrum S.

    S(f) ∝ (|f|² + f0²)^(−exponent/2) with f in cycles per sample and f0 one cycle over the longest side, scaled so that
    every pixel has standard deviation `sigma`. Exponent 0 is white, 1 pink (1/f, amplifiers and sensors), 2 brown
    (drift). The field is periodic. It spans all axes behind the channels, and channels are independent; where data are
    a list, such as the pixels that inpainting measures, it runs along the list. Complex data get two such fields.

    Source: the Gaussian law with a circulant covariance, which the Fourier transform diagonalises. Deviations: none.
    """

    title: ClassVar[str] = "Correlated Gaussian"
    takes_complex: ClassVar[bool] = True
    offers: ClassVar[frozenset[Need]] = frozenset({Need.NOISE_PRIOR})
    kind: Literal["correlated"] = "correlated"
    sigma: Annotated[Sigma, Field(description="Standard deviation of the noise in a pixel.")] = 0.05
    exponent: Annotated[
        float, Field(ge=0, le=4, description="Power falls as 1/f^exponent: 0 is white noise, 1 pink, 2 brown.")
    ] = 1.0

    def spectrum(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Variance of each Fourier coefficient (orthonormal transform).   Shapes: → `shape`, in `like`'s precision."""
        squared = torch.zeros(shape, dtype=like.real.dtype, device=like.device)
        for axis, size in enumerate(shape):
            f = torch.fft.fftfreq(size, dtype=squared.dtype, device=squared.device)
            squared = squared + f.square().reshape(-1, *(1,) * (len(shape) - axis - 1))
        power = (squared + 1 / max(shape) ** 2) ** (-self.exponent / 2)
        return self.sigma**2 * power / power.mean()

    def _sample(self, clean: Tensor, rng: Rng) -> Tensor:
        white = rng.randn(clean.shape[1:], complex=clean.is_complex()).to(clean)
        return clean + self._filtered(white, 0.5)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """−½ (y − clean)* C⁻¹ (y − clean) with C the covariance of the field; see `Noise.log_prob`."""
        white = self.whiten(y, clean)
        return -0.5 * (white.conj() * white).real.flatten(1).sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """C⁻¹ (y − clean); see `Noise.score`."""
        return self._filtered(y - clean, -1)

    def whiten(self, y: Tensor, clean: Tensor) -> Tensor:
        """C^(−1/2) (y − clean), which is white; see `Noise.whiten`."""
        return self._filtered(y - clean, -0.5)

    def data_variance(self, y: Tensor) -> Tensor:
        """sigma², the variance of a pixel; see `Noise.data_variance`."""
        return torch.tensor(self.sigma**2, dtype=y.real.dtype, device=y.device)

    def _filtered(self, field: Tensor, power: float) -> Tensor:
        """C^power applied to a field (B, ...)."""
        axes = tuple(range(min(2, field.ndim - 1), field.ndim))
        gain = self.spectrum(tuple(field.shape[1:])[-len(axes) :], field) ** power
        filtered: Tensor = torch.fft.ifftn(gain * torch.fft.fftn(field, dim=axes), dim=axes)
        return filtered if field.is_complex() else filtered.real


def below(value: Tensor, threshold: float) -> Tensor:
    """min(value − threshold, 0), with slope 0 at the threshold itself, where a clamp would have slope 1."""
    return torch.where(value < threshold, value - threshold, 0)
