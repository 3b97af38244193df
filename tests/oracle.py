"""Worlds in which everything is known: Gaussian and mixture priors, linear operators, exact posteriors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import CircularBlur, Gaussian, Identity, Inpainting, Likelihood, LinearOperator, Rng
from operators.kernels import gaussian_kernel
from restoration.analytic import GaussianPrior, MixturePrior
from restoration.method import Method
from restoration.prior import Denoiser, Prior


def dense(operator: LinearOperator) -> Tensor:
    """The matrix (measured numbers, image) of an operator, in double precision."""
    n = int(torch.tensor(operator.in_shape).prod())
    basis = torch.eye(n, dtype=torch.float64).view(n, *operator.in_shape)
    return operator.gather(operator.double()(basis)).flatten(1).T


class Matrix(LinearOperator):
    """Any matrix as an operator: real images to real data."""

    def __init__(self, matrix: Tensor, in_shape: tuple[int, ...]) -> None:
        super().__init__(in_shape, (matrix.shape[0],))
        self.register_buffer("matrix", matrix)

    matrix: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).reshape(-1, *self.in_shape)


class CorrelatedPrior(Denoiser):
    """N(mean, covariance) for images of one shape: D = mean + C (C + sigma² I)⁻¹ (x - mean)."""

    def __init__(self, mean: float, covariance: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean, self.shape, self.sigma_range = mean, shape, (0.0, float("inf"))
        values, vectors = torch.linalg.eigh(covariance)
        self.register_buffer("values", values.clamp_min(0))
        self.register_buffer("vectors", vectors)

    values: Tensor
    vectors: Tensor

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        shrink = self.values / (self.values + sigma[:, None] ** 2)
        centred = (x - self.mean).flatten(1) @ self.vectors.to(x)
        return self.mean + ((shrink * centred) @ self.vectors.T.to(x)).reshape(x.shape)


def stationary(shape: tuple[int, ...], std: float, length: float) -> Tensor:
    """Covariance of periodic images (C, H, W) with a pixel deviation `std`, falling off over `length` pixels."""
    channels, height, width = shape
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    apart = [torch.minimum(d, n - d) for d, n in ((rows, height), (columns, width))]
    # A Gaussian in distance, wrapped: its spectrum is made positive by squaring.
    bell = torch.exp(-0.5 * (apart[0][:, None] ** 2 + apart[1] ** 2) / length**2)
    spectrum = torch.fft.fft2(bell).abs() ** 2
    first = torch.fft.ifft2(spectrum).real
    first = first * std**2 / first[0, 0]
    index = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    gap = index[:, None] - index
    block = first[gap[..., 0] % height, gap[..., 1] % width]
    return torch.block_diag(*[block] * channels)


@dataclass(frozen=True)
class Conjugate:
    """Prior N(mean, covariance), data y = A x + N(0, sigma² I); the posterior's mean and covariance are exact.

    The covariance is `variance` I unless another was given.
    """

    prior: Prior
    likelihood: Likelihood
    posterior_mean: Tensor
    posterior_covariance: Tensor
    matrix: Tensor
    mean: float
    variance: float
    sigma: float
    covariance: Tensor
    truth: Tensor

    @classmethod
    def make(
        cls,
        operator: LinearOperator,
        *,
        mean: float = 0.5,
        std: float = 0.25,
        sigma: float = 0.1,
        seed: int = 3,
        covariance: Tensor | None = None,
    ) -> "Conjugate":
        operator = operator.double()
        a = dense(operator)
        n = a.shape[1]
        rng = Rng([seed], dtype=torch.float64)
        if covariance is None:
            truth = mean + std * rng.randn(operator.in_shape)
            level = torch.tensor(mean, dtype=torch.float64)
            spread = torch.tensor(std**2, dtype=torch.float64)
            prior = Prior(GaussianPrior(level, spread, operator.in_shape))
            covariance = std**2 * torch.eye(n, dtype=torch.float64)
        else:
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp_min(0).sqrt()
            truth = mean + (rng.randn((n,)) @ root.T).reshape(1, *operator.in_shape)
            prior = Prior(CorrelatedPrior(mean, covariance, operator.in_shape))
        likelihood = Likelihood.simulate(operator, Gaussian(sigma=sigma), truth, rng)
        flat = torch.full((n,), mean, dtype=torch.float64)
        gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + sigma**2 * torch.eye(len(a)).double())
        posterior = flat + gain @ (operator.gather(likelihood.y).flatten() - a @ flat)
        after = covariance - gain @ a @ covariance
        return cls(prior, likelihood, posterior, after, a, mean, std**2, sigma, covariance, truth)

    @property
    def data(self) -> Tensor:
        """The measured numbers, a row of `matrix` each."""
        return self.likelihood.operator.gather(self.likelihood.y).flatten()

    def shrink(self, sigma: float) -> Tensor:
        """dD/dx = C (C + sigma² I)⁻¹, (n, n)."""
        return torch.linalg.solve(
            self.covariance + sigma**2 * torch.eye(len(self.covariance)).double(), self.covariance
        )


@dataclass(frozen=True)
class Law:
    """A Gaussian law of an image that affine steps carry along: the prediction for a sampler on a Gaussian problem."""

    mean: Tensor
    covariance: Tensor

    def step(self, matrix: Tensor, constant: Tensor, noise: Tensor) -> "Law":
        """Law of matrix x + constant + N(0, noise)."""
        return Law(matrix @ self.mean + constant, matrix @ self.covariance @ matrix.T + noise)


@dataclass(frozen=True)
class Mixture:
    """Prior sum_k w_k N(m_k, s_k² I), data y = A x + N(0, sigma² I); the posterior is a mixture too, known exactly.

    Shapes: weights (K,), means (K, n), covariances (K, n, n), those of the posterior.
    """

    prior: Prior
    likelihood: Likelihood
    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def make(
        cls, operator: LinearOperator, weights: Tensor, means: Tensor, std: Tensor, *, y: Tensor, sigma: float = 0.1
    ) -> "Mixture":
        """Shapes: weights (K,), means (K, *in_shape), std (K,), y the measured numbers (1, ...); all double."""
        operator = operator.double()
        a, data = dense(operator), y.flatten()
        n, m = a.shape[1], a.shape[0]
        logs, centres, spreads = [], [], []
        for weight, mean, s in zip(weights / weights.sum(), means.flatten(1), std, strict=True):
            seen = s**2 * a @ a.T + sigma**2 * torch.eye(m).double()
            gain = s**2 * a.T @ torch.linalg.inv(seen)
            gap = data - a @ mean
            logs.append(weight.log() - 0.5 * gap @ torch.linalg.solve(seen, gap) - 0.5 * torch.logdet(seen))
            centres.append(mean + gain @ gap)
            spreads.append(s**2 * (torch.eye(n).double() - gain @ a))
        prior = Prior(MixturePrior(weights, means, std))
        likelihood = Likelihood(operator, Gaussian(sigma=sigma), operator.scatter(y))
        return cls(prior, likelihood, torch.softmax(torch.stack(logs), 0), torch.stack(centres), torch.stack(spreads))

    @property
    def mean(self) -> Tensor:
        """Mean of the posterior, (n,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Covariance of the posterior, (n, n)."""
        gaps = self.means - self.mean
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + (gaps.T * self.weights) @ gaps

    def shares(self, samples: Tensor) -> Tensor:
        """Share of samples (N, n) nearest to each mode, (K,)."""
        nearest = torch.cdist(samples, self.means).argmin(1)
        return torch.bincount(nearest, minlength=len(self.means)) / len(samples)


def last(method: Method, world: "Conjugate | Mixture", seeds: Sequence[int]) -> Tensor:
    """The samples of a method, (n, d)."""
    *_, step = method.run(world.prior, world.likelihood, Rng(seeds, dtype=torch.float64))
    return step.x0.flatten(1)


def assert_law(samples: Tensor, mean: Tensor, variance: Tensor, errors: float = 5.0) -> None:
    """Sample mean and variance of every component within `errors` standard errors of a Gaussian's.

    Shapes: samples (n, d), mean and variance (d,).
    """
    n = len(samples)
    z_mean = (samples.mean(0) - mean) / (variance / n).sqrt()
    z_variance = (samples.var(0) / variance - 1) / (2 / (n - 1)) ** 0.5
    assert z_mean.abs().max() < errors, f"mean is off by {z_mean.abs().max():.1f} standard errors"
    assert z_variance.abs().max() < errors, f"variance is off by {z_variance.abs().max():.1f} standard errors"


def assert_covariance(samples: Tensor, covariance: Tensor, errors: float = 5.0) -> None:
    """Every entry of the sample covariance within `errors` standard errors of a Gaussian's.

    Shapes: samples (n, d), covariance (d, d).
    """
    spread = covariance.diagonal()
    error = ((spread[:, None] * spread + covariance**2) / len(samples)).sqrt()
    worst = ((torch.cov(samples.T) - covariance).abs() / error).max()
    assert worst < errors, f"covariance is off by {worst:.1f} standard errors"


SMALL = (1, 4, 4)
MASK = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)


def world(name: str, *, std: float = 0.25, sigma: float = 0.1) -> Conjugate:
    """One of the Gaussian problems on 4x4 images that the methods are held to.

    "identity", "inpainting" and "blur" have independent pixels; "correlated inpainting" (prior and operator do not
    commute), "correlated blur" (they do) and "dense" (any matrix, 7 data) have neighbours that go together.
    """
    together = stationary(SMALL, std, 1.0)
    match name:
        case "identity":
            return Conjugate.make(Identity(SMALL), std=std, sigma=sigma)
        case "inpainting":
            return Conjugate.make(Inpainting(MASK, SMALL), std=std, sigma=sigma)
        case "blur":
            return Conjugate.make(CircularBlur(gaussian_kernel(5, 1.0), SMALL), std=std, sigma=sigma)
        case "correlated inpainting":
            return Conjugate.make(Inpainting(MASK, SMALL), covariance=together, std=std, sigma=sigma)
        case "correlated blur":
            blur = CircularBlur(gaussian_kernel(5, 1.0), SMALL)
            return Conjugate.make(blur, covariance=together, std=std, sigma=sigma)
        case "dense":
            matrix = Rng([11], dtype=torch.float64).randn((7, 16))[0] / 4
            return Conjugate.make(Matrix(matrix, SMALL), covariance=together, std=std, sigma=sigma)
    raise KeyError(name)


WORLDS = ("identity", "inpainting", "blur", "correlated inpainting", "correlated blur", "dense")
SPECTRAL_WORLDS = WORLDS[:-1]
