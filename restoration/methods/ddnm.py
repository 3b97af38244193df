"""DDNM and DDNM+: the measured part of the image comes from the data, the rest from the prior."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator, Operator, SpectralOperator
from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import linear_operator, noise_sigma, noisy_start, renoise, required, spectral_operator, white


class DDNM(Method):
    """Denoising diffusion null-space models.

    Every estimate is corrected along the range of A* and left alone in its null space, x0 + lambda A⁺ (y - A x0),
    and gets the noise of the next level, then (sqrt(1 - eta²) eps + eta n) with eps = (x - x0) / now. `form` says how
    the noise of the data is met; with abar' = 1 / (1 + then²), the papers' sqrt(1 - abar') / sqrt(abar') is `then`.

    - "noise-free" (DDNM): lambda = 1, the image nearest to x0 that has these data. The result has A x = y, noise
      included. Also for operators that are not linear and offer projections: JPEG, rounding, clipping.
    - "scalar" (DDNM+, simplified): lambda = min(1, then / sigma_y), and the noise along the range has variance
      gamma = then² - lambda² sigma_y². Right where the singular values of A are near 1; small ones multiply the
      noise by 1 / s, so deblurring with it fails.
    - "spectrum" (DDNM+): lambda and gamma per singular value: lambda = 1, gamma = then² - (sigma_y / s)² where
      s then >= sigma_y, else lambda = s then sqrt(1 - eta²) / sigma_y, gamma = eta² then². These are DDRM's steps with
      eta_b = 1.

    Time travel: after every `travel_length` levels, noise is added back to where these levels began and they are walked
    again, `travel_repeat` times in all. DDNM is not calibrated: see docs/calibration.md.

    Source: Wang et al. 2023, Algorithms 1 and 2, eq. 13 and 17 to 19, appendix on the SVD (arXiv:2212.00490).
    Deviations: levels of EDM instead of DDPM's; the start is the operator's guess plus noise. "scalar" keeps the noise
    in the null space at the full level, as "spectrum" does; the released simplified sampler uses abar in place of its
    root and scales the noise twice, the formula is followed here. The paper has linear operators alone; for others
    `Operator.project` takes the place of x0 + A⁺ (y - A x0), which it is for linear ones.
    """

    kind: Literal["ddnm"] = "ddnm"
    title: ClassVar[str] = "DDNM"
    source: ClassVar[Source] = Source(
        paper="Wang et al., Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, ICLR 2023",
        equation="Algorithms 1 and 2, eq. 13, 17 to 19",
        arxiv="2212.00490",
        code="wyhuai/DDNM",
        licence="not checked",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 100).")] = Karras(steps=100)
    form: Annotated[
        Literal["spectrum", "scalar", "noise-free"], Field(description="How the noise of the data is met.")
    ] = "spectrum"
    eta: Annotated[float, Field(ge=0, le=1, description="Share of fresh noise at each level (published: 0.85).")] = 0.85
    travel_length: Annotated[
        int, Field(ge=1, le=100, description="Levels walked again (released: 1; paper: up to 10)."), Ui(advanced=True)
    ] = 1
    travel_repeat: Annotated[
        int, Field(ge=1, le=20, description="Times they are walked (released: 1; paper: 3)."), Ui(advanced=True)
    ] = 1

    @property
    def needs(self) -> frozenset[Need]:
        form = {
            "spectrum": {Need.SPECTRUM, Need.GAUSSIAN},
            "scalar": {Need.LINEAR, Need.GAUSSIAN},
            "noise-free": {Need.PROJECTION},
        }
        return frozenset({Need.DENOISER, *form[self.form]})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level, and `travel_repeat` of them where levels are walked again."""
        prior = required(prior, self)
        advance = self._advance(likelihood)
        levels = [*self.schedule.sigmas(prior.denoiser.sigma_range), 0.0]
        x = noisy_start(likelihood, levels[0], rng)
        path = list(pairwise(self._path(len(levels) - 1)))
        total, i = sum(b > a for a, b in path), 0
        for here, there in path:
            now, then = levels[here], levels[there]
            if then > now:
                x = x + math.sqrt(then**2 - now**2) * white(x, rng)
                continue
            x0 = prior.denoise(x, now)
            x = advance(x, x0, now, then, rng)
            i += 1
            yield Step(i, total, then, x, x if then == 0 else x0)

    def _advance(self, likelihood: Likelihood) -> Callable[[Tensor, Tensor, float, float, Rng], Tensor]:
        """The chosen form's map of (state, estimate, its level, next level, rng) to the next state."""
        y = likelihood.y
        match self.form:
            case "spectrum":
                return partial(self._spectrum, spectral_operator(likelihood, self), y, noise_sigma(likelihood, self))
            case "scalar":
                return partial(self._scalar, linear_operator(likelihood, self), y, noise_sigma(likelihood, self))
            case "noise-free":
                if Need.PROJECTION not in likelihood.operator.offers:
                    raise NeedError(
                        f"Expected an operator that offers projections for DDNM, got "
                        f"{type(likelihood.operator).__name__}; use DPS or DAPS."
                    )
                return partial(self._noise_free, likelihood.operator, y)

    def _path(self, last: int) -> list[int]:
        """Numbers of the levels in the order of visit, from 0 to `last`."""
        again = dict.fromkeys(range(self.travel_length, last, self.travel_length), self.travel_repeat - 1)
        path = [0]
        while path[-1] < last:
            here = path[-1] + 1
            path.append(here)
            if again.get(here, 0) > 0:
                again[here] -= 1
                path.append(here - self.travel_length)
        return path

    def _noise_free(
        self, operator: Operator, y: Tensor, x: Tensor, x0: Tensor, now: float, then: float, rng: Rng
    ) -> Tensor:
        return renoise(x, x0, operator.project(x0, y), now, then, self.eta, rng)

    def _scalar(
        self,
        operator: LinearOperator,
        y: Tensor,
        sigma_y: float,
        x: Tensor,
        x0: Tensor,
        now: float,
        then: float,
        rng: Rng,
    ) -> Tensor:
        trust = min(1.0, then / sigma_y)
        gamma = max(0.0, then**2 - (trust * sigma_y) ** 2)
        noise = white(x, rng)
        hidden = then * (math.sqrt(1 - self.eta**2) / now * (x - x0) + self.eta * noise)
        # One pseudo-inverse for the correction and for exchanging the noise along the range.
        seen = trust * (y - operator(x0)) + operator(math.sqrt(gamma) * noise - hidden)
        return x0 + hidden + operator.pinv(seen)

    def _spectrum(
        self,
        operator: SpectralOperator,
        y: Tensor,
        sigma_y: float,
        x: Tensor,
        x0: Tensor,
        now: float,
        then: float,
        rng: Rng,
    ) -> Tensor:
        keep, noise = math.sqrt(1 - self.eta**2), white(x, rng)
        hidden = then * (keep / now * (x - x0) + self.eta * noise)
        s = operator.singular_values.to(x.real.dtype)
        gap = operator.data_to_spectrum(y) - s * operator.to_spectrum(x0)
        heard = s * then >= sigma_y
        inverse = 1 / torch.where(heard & (s > 0), s, torch.ones_like(s))
        trust = torch.where(heard, inverse, torch.full_like(s, then * keep / sigma_y))  # lambda / s
        fresh = torch.where(heard, (then**2 - (sigma_y * inverse).square()).clamp_min(0).sqrt(), then * self.eta)
        n, h = operator.to_spectrum(noise), operator.to_spectrum(hidden)
        seen = torch.where(s > 0, trust * gap + fresh * n - h, torch.zeros_like(h))
        return x0 + hidden + operator.from_spectrum(seen)
