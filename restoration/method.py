"""The protocol of every method: a frozen value whose `run` yields steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from operators.likelihood import Likelihood
from operators.parametric import Parametric, hold
from operators.rng import Rng
from operators.spec import Need, Source, Spec
from restoration.prior import Prior


@dataclass(frozen=True, slots=True)
class Found:
    """What a blind method found of the measurement, for each sample.

    Shapes: parameters (B, *parameter_shape) of a `Parametric` operator, sigma (B,) of Gaussian noise.
    """

    parameters: Tensor | None
    sigma: Tensor | None = None

    def held(self, likelihood: Likelihood) -> Likelihood:
        """The likelihood at these values."""
        return hold(likelihood, self.parameters, self.sigma)

    def values(self, likelihood: Likelihood) -> dict[str, Tensor]:
        """The values by the names that people use, (B, ...) each."""
        operator = likelihood.operator
        named = {} if self.sigma is None else {"sigma": self.sigma}
        if self.parameters is not None and isinstance(operator, Parametric):
            named |= operator.describe(self.parameters)
        return named

    def of(self, sample: int) -> "Found":
        """Those of one sample, as a batch of 1."""
        return Found(*(None if part is None else part[sample : sample + 1] for part in (self.parameters, self.sigma)))


@dataclass(frozen=True)
class Step:
    """Where a run is: `index` of `total` (from 1), noise level of x after the step, iterate and clean estimate.

    Shapes: x and x0 (B, *shape), in the prior's space; in the latent of a model that has one, x is a latent and x0 an
    image all the same. At the end sigma is 0 and x0 is the result.
    `estimate` is x0, or what makes it: decoding a latent costs more than the step, and few look at each.
    `effective` (B,) is the effective number of particles of methods that weigh several behind each sample;
    `found` is what blind methods have made of the measurement by then.
    """

    index: int
    total: int
    sigma: float
    x: Tensor
    estimate: Tensor | Callable[[], Tensor]
    effective: Tensor | None = None
    found: Found | None = None

    @cached_property
    def x0(self) -> Tensor:
        """The clean estimate, made once."""
        return self.estimate if isinstance(self.estimate, Tensor) else self.estimate()


class Method(Spec, ABC):
    """A sampler or restorer. State lives in local variables of `run`; whoever consumes the steps owns the loop."""

    title: ClassVar[str]
    source: ClassVar[Source]
    deterministic: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Need]:
        """What operator, noise and model must offer together."""
        return frozenset()

    def check(self, trained: tuple[float, float]) -> None:
        """Raise RecipeError where the settings cannot be carried out with a prior of that range of noise levels."""

    @abstractmethod
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """Yield a step per outer iteration; sample k uses stream k of `rng` alone.

        The run may be closed after any step: the `x0` of the last one is the result so far, and is never changed later.

        `prior` is None only for methods that do not need a denoiser.
        """
