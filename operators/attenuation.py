"""Hounsfield units, linear attenuation and images in unit range: three scales of one quantity, affine in each other."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor

from operators.spec import Spec, Ui

MU_WATER = 0.02
"""Attenuation of water in 1/mm, near 70 keV (from 0.0192 to 0.0206 in the literature)."""

MU_AIR = 0.00002
"""Attenuation of air in 1/mm."""


def mu_from_hu(hu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """Attenuation in 1/mm from Hounsfield units: HU (mu_water − mu_air) / 1000 + mu_water.

    Source: the definition of the scale; constants as in LoDoPaB-CT (Leuschner et al. 2021,
    doi 10.1038/s41597-021-00893-z). Deviations: none.
    """
    return hu * ((mu_water - MU_AIR) / 1000) + mu_water


def hu_from_mu(mu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """Hounsfield units from attenuation in 1/mm; undoes `mu_from_hu`."""
    return (mu - mu_water) * (1000 / (mu_water - MU_AIR))


class HounsfieldWindow(Spec):
    """The Hounsfield units that the image values 0 and 1 stand for.

    Attenuation *above that of air*, which is what a scanner calibrated in air measures, is then
    `slope` v + `intercept` in 1/mm for an image value v. The intercept is zero for a window that begins at −1000 HU.
    Values outside the window are not clipped.
    """

    low: Annotated[float, Field(ge=-2000, le=30_000, description="What 0, black, stands for."), Ui(unit="HU")] = -1000.0
    high: Annotated[float, Field(ge=-2000, le=30_000, description="What 1, white, stands for."), Ui(unit="HU")] = 1000.0
    mu_water: Annotated[
        float,
        Field(ge=0.001, le=1, description="Attenuation of water at the scan's energy."),
        Ui("1/mm", advanced=True),
    ] = MU_WATER

    @model_validator(mode="after")
    def _wide(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"Expected a window from low to high, got {self.low:g} to {self.high:g} HU; swap them.")
        return self

    @property
    def slope(self) -> float:
        """Attenuation between the image values 0 and 1, in 1/mm."""
        return (self.high - self.low) * (self.mu_water - MU_AIR) / 1000

    @property
    def intercept(self) -> float:
        """Attenuation of the image value 0 above that of air, in 1/mm."""
        return (self.low + 1000) * (self.mu_water - MU_AIR) / 1000

    def to_unit(self, hu: Tensor) -> Tensor:
        """Image values from Hounsfield units."""
        return (hu - self.low) / (self.high - self.low)

    def to_hu(self, v: Tensor) -> Tensor:
        """Hounsfield units from image values; undoes `to_unit`."""
        return v * (self.high - self.low) + self.low
