"""Noise levels to walk through: frozen values whose `sigmas` gives a decreasing list, in unit range."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from operators.errors import RecipeError
from operators.spec import Spec, Ui
from restoration.convert import vp_sigmas

Sigma = Annotated[float, Field(gt=0, le=100), Ui(scale="log", unit="unit range")]


class Schedule(Spec, ABC):
    """A decreasing walk of noise levels."""

    @abstractmethod
    def sigmas(self, trained: tuple[float, float]) -> list[float]:
        """Decreasing positive levels; those outside the trained range of the prior are an error or are left out."""


class Karras(Schedule):
    """(max^(1/rho) + i/(n-1) (min^(1/rho) - max^(1/rho)))^rho, i = 0 ... n-1.

    Source: Karras et al. 2022, eq. 5 (arXiv:2206.00364); levels in unit range (half of those on [-1, 1]).
    """

    kind: Literal["karras"] = "karras"
    steps: Annotated[int, Field(ge=2, le=2000, description="Number of noise levels.")] = 20
    sigma_max: Annotated[Sigma, Field(description="First and largest noise level.")] = 1.5
    sigma_min: Annotated[Sigma, Field(description="Last and smallest noise level.")] = 0.01
    rho: Annotated[float, Field(ge=1, le=20, description="How strongly the levels crowd at the low end.")] = 7.0

    def sigmas(self, trained: tuple[float, float]) -> list[float]:
        """n levels from sigma_max to sigma_min."""
        if self.sigma_min >= self.sigma_max:
            raise RecipeError(
                f"Expected sigma_min below sigma_max, got {self.sigma_min} and {self.sigma_max}; swap or change them."
            )
        _inside(self.sigma_min, self.sigma_max, trained)
        ramp = np.linspace(0, 1, self.steps)
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return [float(s) for s in (ends[0] + ramp * (ends[1] - ends[0])) ** self.rho]


class LinearVP(Schedule):
    """The levels of a DDPM with linear beta, every (1000 / steps)-th of them, as the prior's range allows.

    Levels above the trained range are left out: a prior trained up to sigma 10 on [-1, 1] starts at DDPM index 673.
    Source: Ho et al. 2020; sigma² = (1 - abar) / abar, halved for unit range.
    """

    kind: Literal["linear-vp"] = "linear-vp"
    steps: Annotated[int, Field(ge=2, le=1000, description="Levels over the whole of DDPM's 1000.")] = 1000

    def sigmas(self, trained: tuple[float, float]) -> list[float]:
        """Levels inside the trained range, largest first."""
        index = np.linspace(999, 0, self.steps).round().astype(int)
        return _kept(vp_sigmas()[index] / 2, trained)


class FlowTimes(Schedule):
    """The times of a rectified flow, t = 1 ... 1/steps in equal steps, as noise levels: sigma = t / (1 - t) / 2.

    A flow's state (1 - t) x0 + t n on [-1, 1] is x0 + 2 sigma n times 1 - t. `shift` replaces t by
    shift t / (1 + (shift - 1) t), which multiplies every level. Levels outside the trained range are left out, t = 1
    always: pure noise, of which a denoiser of x0 + sigma n knows nothing.

    Source: Liu et al. 2023 (arXiv:2209.03003); shift: Esser et al. 2024, section 5.3.2 (arXiv:2403.03206).
    """

    kind: Literal["flow"] = "flow"
    steps: Annotated[int, Field(ge=3, le=2000, description="Times from 1 to 0, 0 not counted.")] = 100
    shift: Annotated[float, Field(gt=0, le=100, description="Factor of every level; SD3 has 3.")] = 1.0

    def sigmas(self, trained: tuple[float, float]) -> list[float]:
        """Levels inside the trained range, largest first."""
        times = np.arange(self.steps - 1, 0, -1) / self.steps
        levels = self.shift * times / (1 - times) / 2
        return _kept(levels, trained)


class Tail(Schedule):
    """The levels of another walk from `top` down: for a start that is near, such as the last image of a film."""

    kind: Literal["tail"] = "tail"
    of: Annotated[Karras | LinearVP | FlowTimes, Field(discriminator="kind", description="The whole walk.")] = Karras()
    top: Annotated[Sigma, Field(description="Largest level that is kept.")] = 0.2

    def sigmas(self, trained: tuple[float, float]) -> list[float]:
        """Levels of the whole walk that are at most `top`."""
        kept = [s for s in self.of.sigmas(trained) if s <= self.top * (1 + 1e-9)]
        if len(kept) < 2:
            raise RecipeError(
                f"Expected at least two noise levels at or below {self.top:g}, got {len(kept)}; use more steps or a "
                "higher top."
            )
        return kept


def _kept(levels: np.ndarray, trained: tuple[float, float]) -> list[float]:
    kept = levels[(levels >= trained[0]) & (levels <= trained[1])]
    if len(kept) < 2:
        raise RecipeError(
            f"Expected at least two of the levels inside the prior's range {trained}, got {len(kept)}; use more steps."
        )
    return [float(s) for s in kept]


def _inside(low: float, high: float, trained: tuple[float, float]) -> None:
    if low < trained[0] * (1 - 1e-6) or high > trained[1] * (1 + 1e-6):
        raise RecipeError(
            f"Expected noise levels inside the prior's trained range {trained[0]:g} to {trained[1]:g} (unit range), "
            f"got {low:g} to {high:g}; change sigma_min or sigma_max."
        )


AnySchedule = Annotated[Karras | LinearVP | FlowTimes | Tail, Field(discriminator="kind")]
