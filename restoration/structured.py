"""Structured noise: the image and the noise that covers it, each with its own prior, sampled together."""

from collections.abc import Iterator
from math import inf, prod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator, Operator
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.noise import Correlated, Gaussian
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.methods.daps import DAPS
from restoration.methods.dps import DPS
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.prior import Denoiser, Prior
from restoration.steps import linear_operator, required

Joint = Annotated[PiGDM | MomentMatching | DPS | DAPS | PnPDM, Field(discriminator="kind")]


class WithNoise(Denoiser):
    """A prior of images and a prior of the noise in their data; by itself it is the prior of images.

    Args:
        image: denoiser of images.
        noise: denoiser of the noise, whose images are what the operator measured, `operator.gather(y)`.
    """

    def __init__(self, image: Denoiser, noise: Denoiser) -> None:
        super().__init__()
        self.image, self.noise = image, noise
        self.shape = image.shape
        pairs = zip(image.sigma_range, noise.sigma_range, strict=True)
        lows, highs = next(pairs), next(pairs)
        self.sigma_range = (max(lows), min(highs))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.image(x, sigma)


class StationaryNoise(Denoiser):
    """The closed-form denoiser of correlated Gaussian noise: S / (S + sigma²) for every frequency."""

    def __init__(self, law: Correlated, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.law, self.shape, self.sigma_range = law, shape, (0.0, inf)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        axes = tuple(range(min(2, x.ndim - 1), x.ndim))
        power = self.law.spectrum(tuple(x.shape[axes[0] :]), x)
        shrink = power / (power + sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2)
        denoised: Tensor = torch.fft.ifftn(shrink * torch.fft.fftn(x, dim=axes), dim=axes)
        return denoised if x.is_complex() else denoised.real


class Structured(Method):
    """Joint sampling of x and n from p(x) p(n) given y = A x + n.

    The pair (x, n) is one long image with the prior D(x, n) = (D(x), D(n)) and the linear operator (A, 1), to which
    `method` is applied: PiGDM is the paper's joint PiGDM, DPS its joint DPS. What holds for `method` holds here: with
    moment matching the law tends to the joint posterior for all Gaussian images and noises.

    The noise's prior is that of correlated noise in the recipe, or, in Python, the second one of a `WithNoise`
    denoiser; the likelihood's own noise must then be Gaussian and comes on top.

    Source: Stevens et al. 2025, section 3 (TMLR, arXiv:2302.05290).
    Deviations: vector-Jacobian products where the released code multiplies by the gradient of a sum; A x + n equals y
    to a small white noise, `floor`, which solvers need.
    """

    kind: Literal["structured"] = "structured"
    title: ClassVar[str] = "Joint sampling of image and noise"
    source: ClassVar[Source] = Source(
        paper="Stevens et al., Removing Structured Noise using Diffusion Models, TMLR 2025",
        equation="section 3",
        arxiv="2302.05290",
        code="tristan-deep/joint-diffusion",
        licence="MIT",
    )

    method: Annotated[Joint, Field(description="What the pair is sampled by.")] = PiGDM()
    floor: Annotated[
        float,
        Field(gt=0, le=1, description="Standard deviation to which image and noise must explain the data together."),
        Ui(unit="unit range", scale="log"),
    ] = 0.01

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.LINEAR, Need.NOISE_PRIOR})

    def check(self, trained: tuple[float, float]) -> None:
        self.method.check(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """The network calls of `method`."""
        prior, operator = required(prior, self), linear_operator(likelihood, self)
        if operator.in_complex or operator.out_complex:
            raise NeedError("Expected real images and data for joint sampling, got complex ones; use DPS.")
        image, noise, floor = self._priors(prior, likelihood)
        joint = Prior(_Pair(image, noise, operator), prior.cost)
        pair = Likelihood(_Sum(operator), Gaussian(sigma=floor), operator.gather(likelihood.y))
        for step in self.method.run(joint, pair, rng):
            x, x0 = (_split(z, operator)[0] for z in (step.x, step.x0))
            yield Step(step.index, step.total, step.sigma, x, x0)

    def _priors(self, prior: Prior, likelihood: Likelihood) -> tuple[Denoiser, Denoiser, float]:
        """Denoisers of image and noise, and the standard deviation of the white noise beside them."""
        denoiser, law = prior.denoiser, likelihood.noise
        if isinstance(denoiser, WithNoise) and isinstance(law, Gaussian):
            return denoiser.image, denoiser.noise, law.sigma
        if isinstance(law, Correlated):
            return denoiser, StationaryNoise(law, _measured_shape(likelihood.operator)), self.floor
        raise NeedError(
            f"Expected correlated noise, or Gaussian noise and a prior with one of noise, got {law.title}; use DPS."
        )


class _Sum(LinearOperator):
    """(x, n) ↦ A x + n for pairs in one row; n, and the data, are the numbers that were measured."""

    def __init__(self, operator: LinearOperator) -> None:
        shape = _measured_shape(operator)
        super().__init__((prod(operator.in_shape) + prod(shape),), shape)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        image, noise = _split(x, self.operator)
        return self.operator.gather(self.operator._forward(image)) + noise

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([self.operator._adjoint(self.operator.scatter(y)).flatten(1), y.flatten(1)], 1)

    def _guess(self, y: Tensor) -> Tensor:
        image = self.operator._guess(self.operator.scatter(y))
        return torch.cat([image.flatten(1), torch.zeros_like(y).flatten(1)], 1)


class _Pair(Denoiser):
    """Both denoisers on pairs in one row."""

    def __init__(self, image: Denoiser, noise: Denoiser, operator: LinearOperator) -> None:
        super().__init__()
        self.image, self.noise, self.operator = image, noise, operator
        both = WithNoise(image, noise)
        self.shape, self.sigma_range = _Sum(operator).in_shape, both.sigma_range

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        image, noise = _split(x, self.operator)
        return torch.cat([self.image(image, sigma).flatten(1), self.noise(noise, sigma).flatten(1)], 1)


def _split(x: Tensor, operator: LinearOperator) -> tuple[Tensor, Tensor]:
    shape = _measured_shape(operator)
    image, noise = x.split([prod(operator.in_shape), prod(shape)], 1)
    return image.reshape(-1, *operator.in_shape), noise.reshape(-1, *shape)


def _measured_shape(operator: Operator) -> tuple[int, ...]:
    device = next((b.device for b in operator.buffers()), None)
    return tuple(operator.gather(torch.zeros(1, *operator.out_shape, device=device)).shape[1:])
