"""Numerical moves that methods share; all in variance-exploding coordinates x = x0 + sigma n."""

import math

from torch import Tensor

from operators.errors import NeedError
from operators.rng import Rng
from operators.spec import Spec
from restoration.prior import Prior


def ancestral(x: Tensor, x0: Tensor, now: float, then: float, rng: Rng) -> Tensor:
    """A draw from q(x_then | x_now, x0): the DDPM ancestral step.

    mean = x0 + (then/now)² (x - x0), variance = then² (now² - then²) / now².
    Source: Ho et al. 2020, eq. 7, in VE coordinates.
    """
    ratio = (then / now) ** 2
    mean = x0 + ratio * (x - x0)
    if then == 0:
        return mean
    return mean + then * math.sqrt(1 - ratio) * rng.randn(tuple(x.shape[1:]))


def euler(x: Tensor, x0: Tensor, now: float, then: float) -> Tensor:
    """One Euler step of the probability-flow ODE dx/dsigma = (x - D) / sigma (Karras et al. 2022, eq. 4)."""
    return x0 + (then / now) * (x - x0)


def flow_to_clean(prior: Prior, x: Tensor, sigmas: list[float]) -> Tensor:
    """Follow the probability-flow ODE through decreasing levels and end on a denoised image: len(sigmas) calls."""
    for now, then in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        x = euler(x, prior.denoise(x, now), now, then)
    return x


def required(prior: Prior | None, method: Spec) -> Prior:
    """The prior, or one sentence on what is missing."""
    if prior is None:
        raise NeedError(
            f"Expected a prior for {type(method).__name__}, got none; choose one, such as the asset 'photo'."
        )
    return prior
