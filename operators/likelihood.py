"""What the data say about an image: operator, noise and the data at hand, in one value. Everything is per sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator, Shape
from operators.errors import NeedError, ShapeError
from operators.noise import Gaussian, Noise
from operators.rng import Rng
from operators.solve import norm, per_sample
from operators.spec import Need


@dataclass(frozen=True, eq=False)
class Likelihood:
    """p(y | x) for the y you hold.

    Attributes:
        operator: A, with images (B, *in_shape) and data (B, *out_shape).
        noise: the law of y given A x.
        y: data, (1 or B, *out_shape); a batch of 1 serves every sample. Zero is put where nothing was measured.
        start: an image to begin from in place of the operator's guess, (1 or B, *in_shape).

    Raises:
        ShapeError: y is not a batch of the operator's data, or `start` not one of its images.
        NeedError: the data are complex and the noise is not meant for complex data.
    """

    operator: Operator
    noise: Noise
    y: Tensor
    start: Tensor | None = None

    def __post_init__(self) -> None:
        self.operator.check_data(self.y)
        if self.start is not None:
            self.operator.check_image(self.start)
        if self.operator.out_complex and not self.noise.takes_complex:
            raise NeedError(f"{self.noise.title} noise expected real data, got complex; choose Gaussian noise.")
        object.__setattr__(self, "y", self.operator.scatter(self.operator.gather(self.y)))

    @classmethod
    def simulate(cls, operator: Operator, noise: Noise, x: Tensor, rng: Rng) -> "Likelihood":
        """The likelihood of noisy data of known images.   Shapes: x (1 or B, *in_shape), with B streams in `rng`."""
        return cls(operator, noise, operator.scatter(noise.sample(operator.gather(operator(x)), rng)))

    def guess(self) -> Tensor:
        """`start` where there is one, else the operator's guess from the data: (1 or B, *in_shape)."""
        return self.operator.guess(self.y) if self.start is None else self.start

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probability log p(y | x) up to a constant in x; differentiable.   Shapes: x (B, *in_shape) → (B,)."""
        self._check_batch(x)
        return self.noise.log_prob(*self._measured(self.operator(x)))

    def grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of log p(y | x), and log p(y | x) itself, each per sample.

        Shapes: x (B, *in_shape) → (B, *in_shape), (B,).
        """
        self._check_batch(x)
        clean, pullback = self.operator.vjp(x)
        pair = self._measured(clean)
        return pullback(self.operator.scatter(self.noise.score(*pair))), self.noise.log_prob(*pair)

    def misfit(self, x: Tensor) -> Tensor:
        """|y − A x|.   Shapes: x (B, *in_shape) → (B,).   Units: data units."""
        self._check_batch(x)
        return norm(self.y - self.operator(x))

    def misfit_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """|y − A x| and its gradient in x, which is taken as zero where the misfit is zero.

        Shapes: x (B, *in_shape) → (B,), (B, *in_shape).
        """
        self._check_batch(x)
        clean, pullback = self.operator.vjp(x)
        residual = clean - self.y
        misfit = norm(residual)
        unit = residual / per_sample(misfit.clamp(min=torch.finfo(misfit.dtype).tiny), residual.ndim)
        return misfit, pullback(unit)

    def residual_sigma(self, x: Tensor) -> Tensor:
        """Root mean square of the whitened residual; about 1 where x explains the data as well as the truth does.

        Shapes: x (B, *in_shape) → (B,).   Units: standard deviations of the noise.
        """
        self._check_batch(x)
        white = self.noise.whiten(*self._measured(self.operator(x)))
        components = torch.view_as_real(white) if white.is_complex() else white
        return components.square().flatten(1).mean(1).sqrt()

    def prox(self, z: Tensor, step: Tensor | float) -> Tensor:
        """The minimiser over x of −log p(y | x) + |x − z|² / (2 step).

        Shapes: z (B, *in_shape), step > 0 a number or (B,) → (B, *in_shape).   Units: step in squared image units.

        Raises:
            NeedError: unless the operator is linear and the noise Gaussian.
            ShapeError: wrong shape, or `step` not positive.
        """
        operator, noise = self._linear_gaussian()
        return operator.prox(z, self.y, noise.sigma**2 / _positive(step))

    def draw(self, mean: Tensor, step: Tensor | float, rng: Rng) -> Tensor:
        """A draw of x from the normalised product N(x; mean, step I) · N(y; A x, sigma² I).

        Both the mean and the data are perturbed by their own noise and the least-squares problem is solved: the
        solution has exactly the law wanted (as exactly as `operator.prox` solves).

        Shapes: mean (B, *in_shape), step > 0 a number or (B,) → (B, *in_shape). Complex: variances per real component.

        Raises:
            NeedError: unless the operator is linear and the noise Gaussian.
            ShapeError: wrong shape, `step` not positive, or `rng` has not one stream per sample.

        Source: Papandreou & Yuille 2010, "Gaussian sampling by local perturbations". Deviations: none.
        """
        operator, noise = self._linear_gaussian()
        operator.check_image(mean)
        if rng.batch != mean.shape[0]:
            raise ShapeError(f"Expected random streams for {mean.shape[0]} samples, got {rng.batch}; match the seeds.")
        rho = noise.sigma**2 / _positive(step)
        spread = torch.as_tensor(step, dtype=mean.real.dtype, device=mean.device).sqrt()
        jitter = rng.randn(operator.in_shape, complex=operator.in_complex).to(mean)
        z = mean + per_sample(spread, mean.ndim) * jitter
        values = operator.gather(self.y)
        values = values + noise.sigma * rng.randn(values.shape[1:], complex=operator.out_complex).to(values)
        return operator.prox(z, operator.scatter(values), rho)

    def through(self, decode: Callable[[Tensor], Tensor], in_shape: Shape = ()) -> "Likelihood":
        """The likelihood of a latent z with x = decode(z).

        Args:
            decode: differentiable, (B, ...) → (B, *in_shape of the operator), sample by sample.
            in_shape: shape of z without batch, to be checked; () checks nothing.
        """
        return Likelihood(Decoded(self.operator, decode, in_shape), self.noise, self.y)

    def _linear_gaussian(self) -> tuple[LinearOperator, Gaussian]:
        if not isinstance(self.operator, LinearOperator):
            raise NeedError(f"{Need.PROX.sentence} {type(self.operator).__name__} has none; choose another method.")
        if not isinstance(self.noise, Gaussian):
            raise NeedError(
                f"The method needs Gaussian noise for its proximal step, got {self.noise.kind}; choose another method."
            )
        return self.operator, self.noise

    def _measured(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        return self.operator.gather(self.y), self.operator.gather(clean)

    def _check_batch(self, x: Tensor) -> None:
        if self.y.shape[0] not in (1, x.shape[0]):
            raise ShapeError(
                f"Expected images for {self.y.shape[0]} samples, got {x.shape[0]}; match the data's batch."
            )


def _positive(step: Tensor | float) -> Tensor | float:
    if not bool((step > 0).all() if isinstance(step, Tensor) else step > 0):
        raise ShapeError(f"Expected step > 0, got {step}; a step of 0 leaves the image as it is.")
    return step


class Decoded(Operator):
    """z ↦ A decode(z): an operator seen through a decoder.

    Args:
        operator: A.
        decode: latent to image, differentiable, sample by sample.
        in_shape: shape of z without batch; () checks nothing.
    """

    def __init__(self, operator: Operator, decode: Callable[[Tensor], Tensor], in_shape: Shape = ()) -> None:
        super().__init__(in_shape, operator.out_shape, out_complex=operator.out_complex)
        self.operator = operator
        self.decode = decode

    def check_image(self, x: Tensor) -> None:
        """Check the latent's shape if it is known; the inner operator checks the decoded image."""
        if self.in_shape:
            super().check_image(x)

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Data from a picture of them, as the inner operator reads it."""
        return self.operator.data_from_image(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """A picture of the data, as the inner operator shows it."""
        return self.operator.data_as_image(y)

    def gather(self, y: Tensor) -> Tensor:
        """What the inner operator measured; see `Operator.gather`."""
        return self.operator.gather(y)

    def scatter(self, values: Tensor) -> Tensor:
        """The inner operator's data; see `Operator.scatter`."""
        return self.operator.scatter(values)

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator(self.decode(x))

    def _guess(self, y: Tensor) -> Tensor:
        raise NeedError("A latent operator has no guess of its own; encode the guess of the image operator instead.")
