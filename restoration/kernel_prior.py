"""A prior of blur kernels with a closed-form denoiser: most entries are nothing, the others exponential."""

import math

import torch
from torch import Tensor

from restoration.prior import Denoiser


class SparseKernelPrior(Denoiser):
    """Independent entries: 0 with probability 1 - share, else exponential with the given mean.

    Given z = v + sigma n, an exponential v is a normal one of mean z - sigma² / mean and variance sigma², cut off
    below 0; D mixes its mean with 0 by the two likelihoods of z. A kernel is v divided by its sum: with share 1 that
    makes it uniform on the simplex, and the smaller the share, the sparser it is.

    Shapes: (B, size, size). The scale of v means nothing by itself: it says at which noise levels a kernel shows.
    Source: the posterior of a spike and an exponential slab under Gaussian noise. Deviations: none.
    """

    def __init__(self, size: int, share: float, mean: float) -> None:
        super().__init__()
        self.share, self.mean = share, mean
        self.shape, self.sigma_range = (size, size), (0.0, math.inf)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        z, s = x.double(), sigma.double().reshape(-1, 1, 1)
        centre = z - s**2 / self.mean
        t = centre / s
        tail = torch.special.log_ndtr(t)
        # the mean of a normal cut off below 0, and the log-odds of slab and spike
        slab: Tensor = centre + s * (-0.5 * t**2 - 0.5 * math.log(2 * math.pi) - tail).exp()
        if self.share == 1:
            return slab.to(x)
        odds = math.log(self.share / (1 - self.share) / self.mean) + tail + 0.5 * t**2
        odds = odds + s.log() + 0.5 * math.log(2 * math.pi)
        mixed: Tensor = torch.sigmoid(odds) * slab
        return mixed.to(x)
