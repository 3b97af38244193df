"""Paths from a degraded image to the clean one: tables of x_t = a_t x0 + b_t y + s_t n, t = 0 (clean) ... T (degraded).

A path is a frozen value of JSON scalars; its `table` holds the numbers. Everything is on [-1, 1], the range of the
published networks, and in float64.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from operators.spec import Source, Spec
from restoration.convert import cosine_betas, linear_betas, scaled_linear_betas

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """x_t = a x0 + b y + s n for t = 0 ... T, and how a state is carried to an earlier time.

    The step from t to an earlier u keeps the share r of what x_t is off its mean and adds noise of deviation c:
    x_u = a_u x0 + b_u y + r (x_t - a_t x0 - b_t y) + c n with r² s_t² + c² = s_u². For a path that is Markov from u
    to t with factor A = g_t / g_u, Bayes' rule gives r = A s_u² / s_t².

    Attributes:
        a, b, s: (T + 1,), weights of clean and degraded image and deviation of the noise.
        g: (T + 1,), the factor of the Markov process up to scale; where it is 0 nothing is carried.
        displacement: (T + 1,), what networks that predict the displacement (x_t - x0) divide it by (I2SB).
        resnoise: (T + 1,), weight of the residual y - x0 in what they predict beside the noise (Resfusion).
        scale: (T + 1,), what the network's input is multiplied by.
        noise: share of c and s that is really there: 0 makes the path a deterministic one with the same r.
        modulated: whether the noise is multiplied by the residual x0 - y (RDBM).
    """

    a: Array
    b: Array
    s: Array
    g: Array
    displacement: Array | None = None
    resnoise: Array | None = None
    scale: Array | None = None
    noise: float = 1.0
    modulated: bool = False

    @property
    def last(self) -> int:
        """T."""
        return len(self.a) - 1

    def carry(self, t: int, to: int, eta: float = 1.0) -> tuple[float, float]:
        """r and c of the step from t to `to`.

        `eta` 1 draws from the path's own posterior, 0 keeps all of the noise that is in x_t (DDIM, MRS), between
        them c is eta times that of the posterior. A path without noise has one way to be walked.
        """
        eta = eta if self.noise else 1.0
        now, then = float(self.s[t]), float(self.s[to])
        if then == 0 or now == 0 or self.g[to] == 0:  # no noise to come, or none yet
            return 0.0, self.noise * then
        kept = float(self.g[t] / self.g[to]) * then**2 / now
        fresh = eta * math.sqrt(max(0.0, then**2 - kept**2))
        return math.sqrt(then**2 - fresh**2) / now, self.noise * fresh

    def times(self, steps: int) -> list[tuple[int, int]]:
        """Pairs (t, next t) of at most `steps` steps from T to 0, as evenly spaced as whole numbers are."""
        grid = np.linspace(self.last, 0, min(steps, self.last) + 1).round().astype(int)
        return [(int(t), int(to)) for t, to in pairwise(grid)]


class Path(Spec, ABC):
    """A path by its few constants. `eta` and `calls` are how its authors walk it: fresh noise, and network calls."""

    source: ClassVar[Source]
    eta: ClassVar[float] = 1.0
    calls: ClassVar[int] = 10

    @cached_property
    def table(self) -> Table:
        """The numbers; made once."""
        return self._table()

    @abstractmethod
    def _table(self) -> Table: ...


class I2SB(Path):
    """A Brownian bridge from y to x0 whose clock runs slowly at both ends.

    With sigma_t² the sum of the first t betas and S that of all: a = 1 - sigma²/S, b = sigma²/S,
    s² = sigma² (S - sigma²)/S. With `ode` the noise is left out and the weights are kept.

    Source: Liu et al. 2023, eq. 11 and Algorithm 2 (arXiv:2302.05872).
    Deviations: the released table counts beta_t on both sides, so that its training marginals differ by beta_t / S
    (2e-3 at most); its sampler starts on y and so walks this path. The last step ends on x0, not 0.01 before it.
    """

    kind: Literal["i2sb"] = "i2sb"
    source: ClassVar[Source] = Source(
        paper="Liu et al., I2SB: Image-to-Image Schrödinger Bridge, ICML 2023",
        equation="eq. 11, Algorithm 2",
        arxiv="2302.05872",
        code="NVlabs/I2SB",
        licence="NVIDIA Source Code License (non-commercial)",
    )

    steps: Annotated[int, Field(ge=2, le=10_000, description="Times of the path.")] = 1000
    beta_max: Annotated[float, Field(gt=0, le=10, description="Noise in the middle; released: 0.3 and 1.")] = 0.3
    ode: Annotated[bool, Field(description="Leave the noise out (released for blur and inpainting).")] = False

    def _table(self) -> Table:
        first = 0.1 / self.steps  # 1e-4 for the published 1000
        rising = scaled_linear_betas(first, max(self.beta_max / self.steps, first), self.steps)[: (self.steps + 1) // 2]
        betas = np.concatenate([rising, rising[::-1][self.steps % 2 :]])
        variance = np.concatenate([[0.0], betas.cumsum()])
        total = variance[-1]
        b = variance / total
        spread = np.sqrt(variance * (total - variance) / total)
        return Table(1 - b, b, spread, 1 - b, displacement=np.sqrt(variance), noise=float(not self.ode))


class InDI(Path):
    """A straight line from y to x0: a = 1 - t, b = t, s = epsilon t, with t = 0 ... 1 in equal steps.

    Source: Delbracio and Milanfar 2023, eq. 4 and 9 (arXiv:2303.11435).
    Deviations: none.
    """

    kind: Literal["indi"] = "indi"
    eta: ClassVar[float] = 0.0
    source: ClassVar[Source] = Source(
        paper="Delbracio and Milanfar, Inversion by Direct Iteration, TMLR 2023",
        equation="eq. 4 and 9",
        arxiv="2303.11435",
        code="none",
        licence="none",
    )

    steps: Annotated[int, Field(ge=1, le=10_000, description="Times of the path.")] = 1000
    epsilon: Annotated[float, Field(ge=0, le=2, description="Noise on [-1, 1] that is added to y.")] = 0.0

    def _table(self) -> Table:
        t = np.linspace(0, 1, self.steps + 1)
        # the spread is proportional to t whether or not any of it is there: r = t_then / t_now
        return Table(1 - t, t, (self.epsilon or 1.0) * t, t, noise=float(self.epsilon > 0))


class IRSDE(Path):
    """A mean-reverting process that drifts from x0 to y and ends as y plus noise of `lam`.

    a = exp(-integral of theta), b = 1 - a, s = lam sqrt(1 - a²). Its fast sampler (MRS, first order, the form that
    predicts the data) is the step with eta 0, its own posterior the one with eta 1.

    Source: Luo et al. 2023, eq. 6 and 9 (arXiv:2301.11699); Li et al. 2025 (MaRS, arXiv:2502.07856).
    Deviations: starts with the path's own deviation at T, lam sqrt(1 - 0.005²), not with lam.
    """

    kind: Literal["ir-sde"] = "ir-sde"
    eta: ClassVar[float] = 0.0
    source: ClassVar[Source] = Source(
        paper="Luo et al., Image Restoration with Mean-Reverting Stochastic Differential Equations, ICML 2023",
        equation="eq. 6 and 9",
        arxiv="2301.11699",
        code="Algolzw/image-restoration-sde",
        licence="MIT",
    )

    steps: Annotated[int, Field(ge=2, le=10_000, description="Times of the path.")] = 100
    lam: Annotated[float, Field(gt=0, le=2, description="Noise on [-1, 1] at the degraded end.")] = 20 / 255
    left: Annotated[float, Field(gt=0, lt=0.5, description="Weight of the clean image at the degraded end.")] = 0.005

    def _table(self) -> Table:
        n = self.steps + 2
        abar = np.cos(np.pi / 2 * (np.arange(n + 1) / n + 0.008) / 1.008) ** 2
        theta = 1 - abar[2:-1] / abar[0]  # the first one belongs to no step
        passed = np.concatenate([[0.0], theta.cumsum()])
        a = np.exp(math.log(self.left) * passed / passed[-1])
        return Table(a, 1 - a, self.lam * np.sqrt(1 - a**2), a)


class RDBM(Path):
    """A mean-reverting bridge that ends exactly on y: a = sinh(T - t)/sinh T, s² = 2 lam sinh t sinh(T - t)/sinh T.

    `modulated` multiplies the noise by the residual x0 - y, so that pixels without damage get none, as the paper has it
    and the released code does not.

    Source: Residual Diffusion Bridge Model, CVPR 2026, released code.
    Deviations: none.
    """

    kind: Literal["rdbm"] = "rdbm"
    eta: ClassVar[float] = 0.0
    source: ClassVar[Source] = Source(
        paper="Residual Diffusion Bridge Model for Image Restoration, CVPR 2026",
        code="MiliLab/RDBM",
        licence="not checked",
    )

    steps: Annotated[int, Field(ge=2, le=10_000, description="Times of the path.")] = 100
    lam: Annotated[float, Field(gt=0, le=1, description="The paper's lambda; noise is sqrt(lambda) at most.")] = 1e-4
    modulated: Annotated[bool, Field(description="Noise in proportion to the residual.")] = False

    def _table(self) -> Table:
        t = np.concatenate([[0.0], cosine_betas(self.steps).cumsum()])
        a = np.sinh(t[-1] - t) / np.sinh(t[-1])
        spread = np.sqrt(2 * self.lam * np.sinh(t) * a)
        return Table(a, 1 - a, spread, a, modulated=self.modulated)


class ResShift(Path):
    """The residual is shifted in while noise grows: a = 1 - eta, b = eta, s = kappa sqrt(eta).

    Released: 4 steps from `first` 0.2, or 15 from 0.04; sqrt(eta_1) is `first` / kappa. The network's input is divided
    by sqrt(kappa² eta + 1).

    Source: Yue et al. 2023, eq. 1 to 10 (arXiv:2307.12348).
    Deviations: none.
    """

    kind: Literal["resshift"] = "resshift"
    source: ClassVar[Source] = Source(
        paper="Yue et al., ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting, "
        "NeurIPS 2023",
        equation="eq. 1 to 10",
        arxiv="2307.12348",
        code="zsyOAOA/ResShift",
        licence="S-Lab License 1.0 (non-commercial)",
    )
    calls: ClassVar[int] = 10_000  # all of the few there are

    steps: Annotated[int, Field(ge=2, le=1000, description="Times of the path; released: 4 and 15.")] = 4
    kappa: Annotated[float, Field(gt=0, le=10, description="Noise at the degraded end on [-1, 1].")] = 2.0
    power: Annotated[float, Field(gt=0, le=3, description="The paper's p: how late the shift comes.")] = 0.3
    first: Annotated[float, Field(gt=0, lt=1, description="Noise at the first time; 0.2, or 0.04 for 15.")] = 0.2
    final: Annotated[float, Field(gt=0, le=1, description="sqrt(eta) at the degraded end.")] = 0.99

    def _table(self) -> Table:
        root = min(self.first / self.kappa, self.first)
        exponent = (np.arange(self.steps) / (self.steps - 1)) ** self.power
        eta = np.concatenate([[0.0], (root * (self.final / root) ** exponent) ** 2])
        spread = self.kappa * np.sqrt(eta)
        return Table(1 - eta, eta, spread, np.ones_like(eta), scale=1 / np.sqrt(spread**2 + 1))


class Resfusion(Path):
    """A DDPM of x0 with the residual R = y - x0 added as the signal fades, cut off where x0 has weight 0.

    a = 2 sqrt(abar) - 1, b = 1 - sqrt(abar), s = sqrt(1 - abar); the last sqrt(abar) is 1/2, or the nearest there is
    where one is nearer than 0.01, so that the path begins without a clean image. `steps` is that of the whole DDPM:
    12 leave 5, 25 leave 10.

    Source: Shi et al. 2024, eq. 5 to 12 and section 3.3 (arXiv:2311.14900).
    Deviations: none.
    """

    kind: Literal["resfusion"] = "resfusion"
    source: ClassVar[Source] = Source(
        paper="Shi et al., Resfusion: Denoising Diffusion Probabilistic Models for Image Restoration Based on Prior "
        "Residual Noise, NeurIPS 2024",
        equation="eq. 5 to 12",
        arxiv="2311.14900",
        code="nkicsl/Resfusion",
        licence="not checked",
    )
    calls: ClassVar[int] = 10_000

    steps: Annotated[int, Field(ge=6, le=1000, description="Times of the DDPM that is cut off; published: 12.")] = 12

    def _table(self) -> Table:
        betas = np.minimum(linear_betas(steps=self.steps) * 1000 / self.steps, 0.999)
        signal = np.sqrt(np.cumprod(1 - betas))  # sqrt(abar)
        below = int((signal < 0.5).argmax())
        kept = signal[: int(np.abs(signal - 0.5).argmin()) + 1]
        if signal[below] < 0.49:
            kept = np.append(signal[:below], 0.5)
        signal = np.concatenate([[1.0], kept])
        spread = np.sqrt(1 - signal**2)
        alpha = np.concatenate([[1.0], signal[1:] / signal[:-1]])  # its root, in DDPM's terms
        weight = np.concatenate([[0.0], (1 - alpha[1:]) * spread[1:] / (1 - alpha[1:] ** 2)])
        return Table(2 * signal - 1, 1 - signal, spread, signal, resnoise=weight)


class RDDM(Path):
    """The residual and noise of their own clocks: a = 1 - abar, b = abar, s = bbar.

    abar rises to 1 by shares that fall linearly; bbar² to `total` by shares that rise linearly. With `total` 0 there is
    no noise and each step takes its share of the residual away, x - (abar_t - abar_to) R: with a network that predicts
    "residual", restoration by the residual alone.

    Source: Liu et al. 2024, eq. 8 to 13 (arXiv:2308.13712), released schedules.
    Deviations: none.
    """

    kind: Literal["rddm"] = "rddm"
    eta: ClassVar[float] = 0.0
    calls: ClassVar[int] = 5
    source: ClassVar[Source] = Source(
        paper="Liu et al., Residual Denoising Diffusion Models, CVPR 2024",
        equation="eq. 8 to 13",
        arxiv="2308.13712",
        code="nachifur/RDDM",
        licence="MIT",
    )

    steps: Annotated[int, Field(ge=2, le=10_000, description="Times of the path.")] = 1000
    total: Annotated[float, Field(ge=0, le=4, description="Variance of the noise on [-1, 1] at the end.")] = 0.01

    def _table(self) -> Table:
        falling = np.linspace(1, 0, self.steps)
        shift = np.concatenate([[0.0], falling.cumsum()])
        shift = shift / shift[-1]
        if not self.total:  # what a state is off its mean is kept whole
            return Table(1 - shift, shift, np.sign(shift), np.ones_like(shift), noise=0.0)
        variance = np.concatenate([[0.0], falling[::-1].cumsum() / falling.sum()]) * self.total
        return Table(1 - shift, shift, np.sqrt(variance), np.ones_like(shift))


AnyPath = Annotated[
    I2SB | InDI | IRSDE | RDBM | ResShift | Resfusion | RDDM,
    Field(discriminator="kind"),
]
