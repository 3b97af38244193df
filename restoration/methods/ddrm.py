"""DDRM: denoising restoration in the coordinates in which the measurement is diagonal."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import SpectralOperator
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import centred_start, noise_sigma, required, spectral_operator, white


class DDRM(Method):
    """Denoising diffusion restoration models.

    With A = U diag(s) V*, a bar for coordinates along V, and ybar = U* y / s, each coordinate of the next state is

    - s = 0:             x0 + sqrt(1 - eta²) then eps + eta then n, with eps = (x - x0) / now;
    - s then < sigma_y:  x0bar + sqrt(1 - eta²) then (ybar - x0bar) / (sigma_y / s) + eta then n;
    - s then >= sigma_y: (1 - etab) x0bar + etab ybar + sqrt(then² - etab² sigma_y² / s²) n.

    The paper is in VE coordinates already, on [-1, 1], where its code doubles the sigma_y it is given: 0.05 there is
    0.05 here. DDRM is not calibrated: see docs/calibration.md.

    Source: Kawar et al. 2022, eq. 4 to 8 (arXiv:2201.11793).
    Deviations: levels of EDM instead of DDPM's. No factor sqrt(2) on the noise, which one public port has.
    """

    kind: Literal["ddrm"] = "ddrm"
    title: ClassVar[str] = "DDRM"
    source: ClassVar[Source] = Source(
        paper="Kawar et al., Denoising Diffusion Restoration Models, NeurIPS 2022",
        equation="eq. 4 to 8",
        arxiv="2201.11793",
        code="bahjat-kawar/ddrm",
        licence="MIT",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels (published: 20).")] = Karras()
    eta: Annotated[
        float, Field(ge=0, le=1, description="Share of fresh noise where the data say little (published: 0.85).")
    ] = 0.85
    eta_data: Annotated[
        float, Field(ge=0, le=1, description="The paper's eta_b, trust in the data elsewhere (published: 1).")
    ] = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.SPECTRUM, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level."""
        prior = required(prior, self)
        operator, sigma_y = spectral_operator(likelihood, self), noise_sigma(likelihood, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = self._start(operator, likelihood.y, sigma_y, centred_start(likelihood, sigmas[0], rng), sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0 = prior.denoise(x, now)
            x = self._next(operator, likelihood.y, sigma_y, x, x0, now, then, rng) if then > 0 else x0
            yield Step(i, len(sigmas), then, x, x0)

    def _start(
        self, operator: SpectralOperator, y: Tensor, sigma_y: float, x: Tensor, sigma: float, rng: Rng
    ) -> Tensor:
        """N(ybar, sigma² - sigma_y² / s²) where s sigma > sigma_y; x, which is N(0.5, sigma² I), elsewhere."""
        s = operator.singular_values.to(x.real.dtype)
        heard = s * sigma > sigma_y
        error = sigma_y / torch.where(heard, s, sigma_y / sigma)
        spread = (sigma**2 - error.square()).clamp_min(0).sqrt()
        c = operator.to_spectrum(x)
        drawn = operator.data_to_spectrum(y) * error / sigma_y + spread * operator.to_spectrum(white(x, rng))
        return x + operator.from_spectrum(torch.where(heard, drawn - c, torch.zeros_like(c)))

    def _next(
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
        missing = x0 + then * (keep / now * (x - x0) + self.eta * noise)
        s = operator.singular_values.to(x.real.dtype)
        c, n = operator.to_spectrum(x0), operator.to_spectrum(noise)
        gap = operator.data_to_spectrum(y) - s * c  # s (ybar - x0bar)
        faint = c + then * (keep / sigma_y * gap + self.eta * n)
        heard = s * then >= sigma_y
        inverse = 1 / torch.where(heard, s, sigma_y / then)
        spread = (then**2 - (self.eta_data * sigma_y * inverse).square()).clamp_min(0).sqrt()
        clear = c + self.eta_data * inverse * gap + spread * n
        free = operator.to_spectrum(missing)
        wanted = torch.where(s > 0, torch.where(heard, clear, faint), free)
        return missing + operator.from_spectrum(wanted - free)
