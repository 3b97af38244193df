"""What samples say together: what the data fixed and what the prior imagined, intervals and their coverage."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import NeedError, ShapeError
from operators.likelihood import Likelihood
from operators.noise import Gaussian


def imagined(likelihood: Likelihood, x: Tensor, spread: Tensor | float) -> Tensor:
    """The part of images that the data say nothing about; x less it is the part that was measured.

    The operator sees a direction v with strength s = |A v|. Data with noise of size sigma know it to sigma / s, and
    the picture itself varies by about `spread` there, so that the share sigma² / (sigma² + s² spread²) of it is the
    prior's: 1 in the null space of A, near 0 where the data are precise. This is what is left of x when the Wiener
    estimate of it is taken away, x − A*(A A* + sigma² / spread²)⁻¹ A x. As `spread` is the same in all directions,
    while fine detail varies less than coarse, the data are given too much credit rather than too little for detail.

    For other noise than Gaussian it is the null-space part itself, x − A⁺ A x, to which the other tends when sigma
    does to zero.

    Shapes: x (B, *in_shape) → (B, *in_shape).

    Args:
        likelihood: operator and noise; the data themselves are not looked at.
        x: images, best less their mean level.
        spread: standard deviation of the pictures, > 0, in unit range: a number or (B,).

    Raises:
        NeedError: the operator is not linear, so that images have no such parts.
        ShapeError: wrong shape, or `spread` not positive.

    Source: range and null space of Schwab et al. 2019 (arXiv:1806.06137); Wiener filter. Deviations: soft where
    the noise is known.
    """
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator):
        raise NeedError(
            f"Expected a linear measurement to tell measured from imagined, got {type(operator).__name__}; "
            "look at the spread of several samples instead."
        )
    if not bool((spread > 0).all() if isinstance(spread, Tensor) else spread > 0):
        raise ShapeError(f"Expected a spread > 0, got {spread}; give the standard deviation of the picture.")
    silence = torch.zeros_like(likelihood.y[:1]).expand(len(x), *operator.out_shape)
    if isinstance(likelihood.noise, Gaussian):
        return operator.prox(x, silence, (likelihood.noise.sigma / spread) ** 2)
    return operator.project(x, silence)


def imagined_share(likelihood: Likelihood, samples: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the contrast of samples is imagined, and where. Each sample by itself.

    The level of a sample is taken off first (one number a channel), so that the share is about what can be seen:
    |imagined|² / |x − level|², from 0 (all was measured) to 1; 0 for a picture of nothing.

    Shapes: samples (n, C, ..., H, W) → share (n,), imagined parts (n, C, ..., H, W).   Units: parts in unit range.

    Raises:
        NeedError: see `imagined`.
    """
    centred = samples - samples.mean(tuple(range(2, samples.ndim)), keepdim=True)
    energy = centred.abs().square().flatten(1).mean(1)
    # rounding alone is no picture
    flat = energy <= torch.finfo(energy.dtype).eps ** 2 * samples.abs().square().flatten(1).mean(1)
    energy = energy.where(~flat, torch.ones_like(energy))
    parts = imagined(likelihood, centred, energy.sqrt())
    share = parts.abs().square().flatten(1).mean(1) / energy
    return share.where(~flat, torch.zeros_like(share)), parts


def interval(samples: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
    """The pixelwise interval that holds the middle `level` of the samples.   Shapes: (n, ...) → (...), (...).

    With few samples it is too narrow: the outermost of n enclose n − 1 gaps of the n + 1 that equally likely values
    make, so that less than 19 samples cannot give an honest interval of 90 %.

    Raises:
        ShapeError: fewer than two samples, or a level that is not between 0 and 1.
    """
    if len(samples) < 2 or not 0 < level < 1:
        raise ShapeError(f"Expected 2 samples and a level below 1, got {len(samples)} and {level}; draw more samples.")
    # Weibull's positions k / (n + 1): unbiased for the probability between two order statistics
    ordered = samples.sort(0).values
    n, tail = len(samples), (1 - level) / 2

    def at(p: float) -> Tensor:
        place = min(max(p * (n + 1) - 1, 0.0), n - 1.0)
        low = min(int(place), n - 2)
        return torch.lerp(ordered[low], ordered[low + 1], place - low)

    return at(tail), at(1 - tail)


def coverage(truth: Tensor, low: Tensor, high: Tensor) -> float:
    """Share of the pixels of a known truth inside an interval.   Shapes: (...), (...), (...)."""
    return float(((truth >= low) & (truth <= high)).double().mean())
