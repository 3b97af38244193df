"""Numerical moves that methods share; all in variance-exploding coordinates x = x0 + sigma n."""

import math

from torch import Tensor

from operators.base import LinearOperator, SpectralOperator
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.noise import Gaussian
from operators.rng import Rng
from operators.solve import per_sample
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
    return mean + then * math.sqrt(1 - ratio) * white(x, rng)


def euler(x: Tensor, x0: Tensor, now: float, then: float) -> Tensor:
    """One Euler step of the probability-flow ODE dx/dsigma = (x - D) / sigma (Karras et al. 2022, eq. 4)."""
    return x0 + (then / now) * (x - x0)


def ddim(x: Tensor, x0: Tensor, now: float, then: float, eta: float, rng: Rng) -> Tensor:
    """A step of the family between the flow (eta = 0, `euler`) and the ancestral step (eta = 1, `ancestral`).

    x_then = x0 + sqrt(then² - c²) (x - x0) / now + c n with c = eta then sqrt(1 - (then/now)²).
    Source: Song et al. 2021 (DDIM), eq. 12 and 16, in VE coordinates.
    """
    fresh = eta * then * math.sqrt(1 - (then / now) ** 2)
    x = x0 + math.sqrt(then**2 - fresh**2) / now * (x - x0)
    return x + fresh * white(x, rng) if fresh > 0 else x


def renoise(x: Tensor, estimate: Tensor, x0: Tensor, now: float, then: float, eta: float, rng: Rng) -> Tensor:
    """x0 plus the noise of the next level: a share sqrt(1 - eta²) of the noise that `estimate` leaves in x, eta fresh.

    x_then = x0 + then (sqrt(1 - eta²) (x - estimate) / now + eta n), as DDRM, DDNM and DDS use it.
    """
    if then == 0:
        return x0
    return x0 + then * (math.sqrt(1 - eta**2) / now * (x - estimate) + eta * white(x, rng))


def white(like: Tensor, rng: Rng) -> Tensor:
    """White noise of standard deviation 1 per real component for images such as `like`: (B, *shape)."""
    return rng.randn(tuple(like.shape[1:]), complex=like.is_complex())


def noisy_start(likelihood: Likelihood, sigma: float, rng: Rng) -> Tensor:
    """The likelihood's guess plus noise of the first level: (B, *shape)."""
    operator = likelihood.operator
    return likelihood.guess() + sigma * rng.randn(operator.in_shape, complex=operator.in_complex)


def centred_start(likelihood: Likelihood, sigma: float, rng: Rng) -> Tensor:
    """The centre plus noise of the first level: the N(0, sigma² I) of papers, whose images are in [-1, 1]."""
    operator = likelihood.operator
    return centre(likelihood) + sigma * rng.randn(operator.in_shape, complex=operator.in_complex)


def centre(likelihood: Likelihood) -> Tensor | float:
    """Mid-grey, or 0 for complex images; the likelihood's `start`, (1 or B, *shape), where it has one."""
    if likelihood.start is not None:
        return likelihood.start
    return 0.0 if likelihood.operator.in_complex else 0.5


def vp_factor(now: float, then: float) -> float:
    """What carries a step x_vp(then) <- x_vp(then) - scale grad_{x_vp(now)} of a norm on [-1, 1] to this package.

    With u = 2 x - 1 at levels 2 now and 2 then, x_vp = u / sqrt(1 + level²), so that the gradient gains
    sqrt(1 + (2 now)²), the step sqrt(1 + (2 then)²), and u is twice as long as x.
    """
    factor: float = 0.5 * ((1 + 4 * now**2) * (1 + 4 * then**2)) ** 0.5
    return factor


def flow_time(sigma: float) -> float:
    """Time of a rectified flow on [-1, 1], whose state (1 - t) x0 + t n is 1 - t times a state at level 2 sigma."""
    return 2 * sigma / (1 + 2 * sigma)


def local_variance(sigma: float, std: float) -> float:
    """Variance of x0 given x = x0 + sigma n, if x0 were Gaussian of standard deviation `std` in every direction.

    The sigma² / (1 + sigma²) of papers is this with std 1 on [-1, 1], that is 0.5 in unit range.
    """
    return (sigma * std / math.hypot(sigma, std)) ** 2


def data_scale(likelihood: Likelihood) -> float:
    """1 / |A|² for a linear operator, else 1: with it a gradient step means the same for data in any unit."""
    operator = likelihood.operator
    return 1 / operator.norm_squared() if isinstance(operator, LinearOperator) else 1.0


def misfit_slope(likelihood: Likelihood, x: Tensor) -> Tensor:
    """A* (A x - y), the gradient of |A x - y|² / 2; for operators that are not linear the adjoint is the derivative's.

    Shapes: x (B, *shape) → the same.
    """
    misfit, slope = likelihood.misfit_and_slope(x)
    return per_sample(misfit, x.ndim) * slope


def linear_operator(likelihood: Likelihood, method: Spec) -> LinearOperator:
    """The operator if it is linear, or one sentence on why the method cannot run."""
    if not isinstance(likelihood.operator, LinearOperator):
        raise NeedError(
            f"Expected a linear operator for {type(method).__name__}, got {type(likelihood.operator).__name__}; "
            "use DPS or DAPS."
        )
    return likelihood.operator


def spectral_operator(likelihood: Likelihood, method: Spec) -> SpectralOperator:
    """The operator if its singular values are known, or one sentence on why the method cannot run."""
    if not isinstance(likelihood.operator, SpectralOperator):
        raise NeedError(
            f"Expected an operator with known singular values for {type(method).__name__}, "
            f"got {type(likelihood.operator).__name__}; use PiGDM or DiffPIR."
        )
    return likelihood.operator


def noise_sigma(likelihood: Likelihood, method: Spec) -> float:
    """Standard deviation of the noise if it is Gaussian, or one sentence on why the method cannot run."""
    if not isinstance(likelihood.noise, Gaussian):
        raise NeedError(
            f"Expected Gaussian noise for {type(method).__name__}, got {type(likelihood.noise).__name__}; "
            "use DPS or LGD."
        )
    return likelihood.noise.sigma


def required(prior: Prior | None, method: Spec) -> Prior:
    """The prior, or one sentence on what is missing."""
    if prior is None:
        raise NeedError(
            f"Expected a prior for {type(method).__name__}, got none; choose one, such as the asset 'photo'."
        )
    return prior
