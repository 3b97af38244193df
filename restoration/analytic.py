"""Priors with a closed-form denoiser: the oracles of the tests, and an honest prior where no trained one fits."""

import math

import torch
from torch import Tensor

from operators.spec import Need
from restoration.prior import Denoiser


class GaussianPrior(Denoiser):
    """Independent Gaussian components N(mean, variance): D = (variance x + sigma² mean) / (variance + sigma²).

    Shapes: mean and variance broadcast against `shape`.
    """

    offers = Denoiser.offers | {Need.NOISE_MAP}

    def __init__(self, mean: Tensor, variance: Tensor, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.shape, self.sigma_range = shape, (0.0, math.inf)

    mean: Tensor
    variance: Tensor

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        noise = _level(sigma, x) ** 2
        return (self.variance * x + noise * self.mean) / (self.variance + noise)


class MixturePrior(Denoiser):
    """A mixture of isotropic Gaussians: sum_k weights_k N(means_k, std_k² I).

    Shapes: weights (K,), means (K, *shape), std (K,).
    """

    offers = Denoiser.offers | {Need.NOISE_MAP}

    def __init__(self, weights: Tensor, means: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("std", std)
        self.shape, self.sigma_range = tuple(means.shape[1:]), (0.0, math.inf)

    weights: Tensor
    means: Tensor
    std: Tensor

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = self.std.view(-1, *[1] * (x.ndim - 1)) ** 2
        total = variance + _level(sigma, x)[:, None] ** 2  # of x under each component: (B, K, 1 ...) or (B, K, *shape)
        gap = x[:, None] - self.means  # (B, K, *shape)
        logits = self.weights.log() - 0.5 * (gap.square() / total + total.log()).flatten(2).sum(-1)
        shares = torch.softmax(logits, dim=1)
        # Within a component: mean_k + std² / (std² + sigma²) (x - mean_k).
        estimates = self.means + variance / total * gap
        return (shares.view(*shares.shape, *[1] * (x.ndim - 1)) * estimates).sum(1)


def _level(sigma: Tensor, x: Tensor) -> Tensor:
    # One level per sample or per pixel, to broadcast against images.
    return sigma if sigma.ndim == x.ndim else sigma.view(-1, *[1] * (x.ndim - 1))


class PowerLawPrior(Denoiser):
    """A stationary Gaussian whose spectrum falls as 1/f^(2 exponent), the oldest model of photographs; any image size.

    The spectrum is scaled so that a pixel has standard deviation `std` about `mean`. Boundary: periodic. Channels are
    independent; `channels` none takes any number of them.
    Source: Field 1987 (natural images have exponent near 1).
    """

    def __init__(self, mean: float = 0.5, std: float = 0.25, exponent: float = 1.0, channels: int | None = 3) -> None:
        super().__init__()
        self.level, self.std, self.exponent = mean, std, exponent
        self.shape, self.sigma_range = (channels, None, None), (0.0, math.inf)

    def spectrum(self, height: int, width: int, like: Tensor) -> Tensor:
        """Variance of each Fourier coefficient (orthonormal transform), (height, width // 2 + 1)."""
        fy = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)[:, None]
        fx = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
        fullx = torch.fft.fftfreq(width, dtype=like.dtype, device=like.device)
        lowest = 1 / max(height, width)

        def power(squared: Tensor) -> Tensor:
            return (squared + lowest**2) ** -self.exponent

        total = power(fy**2 + fullx**2).mean()
        variance: Tensor = self.std**2 * power(fy**2 + fx**2) / total
        return variance

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = self.spectrum(x.shape[-2], x.shape[-1], x)
        shrink = variance / (variance + sigma.view(-1, 1, 1, 1) ** 2)
        centred = torch.fft.rfft2(x - self.level, norm="ortho")
        estimate: Tensor = torch.fft.irfft2(shrink * centred, s=x.shape[-2:], norm="ortho")
        return self.level + estimate
