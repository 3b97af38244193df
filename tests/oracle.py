"""A world in which everything is known: Gaussian prior, linear operator, Gaussian noise, exact posterior."""

from dataclasses import dataclass

import torch
from torch import Tensor

from operators import Gaussian, Likelihood, LinearOperator, Rng
from restoration.analytic import GaussianPrior
from restoration.prior import Prior


def dense(operator: LinearOperator) -> Tensor:
    """The matrix (data, image) of an operator, in double precision."""
    n = int(torch.tensor(operator.in_shape).prod())
    basis = torch.eye(n, dtype=torch.float64).view(n, *operator.in_shape)
    return operator.double()(basis).flatten(1).T


@dataclass(frozen=True)
class Conjugate:
    """Prior N(mean, variance I), data y = A x + N(0, sigma² I); the posterior's mean and covariance are exact."""

    prior: Prior
    likelihood: Likelihood
    posterior_mean: Tensor
    posterior_covariance: Tensor
    matrix: Tensor
    mean: float
    variance: float
    sigma: float

    @classmethod
    def make(
        cls, operator: LinearOperator, *, mean: float = 0.5, std: float = 0.25, sigma: float = 0.1, seed: int = 3
    ) -> "Conjugate":
        operator = operator.double()
        a = dense(operator)
        n = a.shape[1]
        rng = Rng([seed], dtype=torch.float64)
        truth = mean + std * rng.randn(operator.in_shape)
        y = operator(truth) + sigma * rng.randn(operator.out_shape)
        precision = torch.eye(n, dtype=torch.float64) / std**2 + a.T @ a / sigma**2
        covariance = torch.linalg.inv(precision)
        flat = torch.full((n,), mean, dtype=torch.float64)
        posterior = covariance @ (flat / std**2 + a.T @ y.flatten() / sigma**2)
        level = torch.tensor(mean, dtype=torch.float64)
        spread = torch.tensor(std**2, dtype=torch.float64)
        prior = Prior(GaussianPrior(level, spread, operator.in_shape))
        likelihood = Likelihood(operator, Gaussian(sigma=sigma), y)
        return cls(prior, likelihood, posterior, covariance, a, mean, std**2, sigma)


def assert_law(samples: Tensor, mean: Tensor, variance: Tensor, errors: float = 5.0) -> None:
    """Sample mean and variance of every component within `errors` standard errors of a Gaussian's.

    Shapes: samples (n, d), mean and variance (d,).
    """
    n = len(samples)
    z_mean = (samples.mean(0) - mean) / (variance / n).sqrt()
    z_variance = (samples.var(0) / variance - 1) / (2 / (n - 1)) ** 0.5
    assert z_mean.abs().max() < errors, f"mean is off by {z_mean.abs().max():.1f} standard errors"
    assert z_variance.abs().max() < errors, f"variance is off by {z_variance.abs().max():.1f} standard errors"
