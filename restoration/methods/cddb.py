"""CDDB: a bridge whose estimates are held to the data."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.errors import NeedError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source, Ui
from restoration.bridge import BilledBridge, required_bridge, start, step, unit
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.steps import data_scale, linear_operator, misfit_slope

# What is corrected in the image is not what the decoder makes of its latent: E and D are no inverses.
LATENT = "Expected a bridge between images for CDDB, got one between latents; use the direct bridge (kind 'bridge')."


class CDDB(Method):
    """Consistent direct diffusion bridge: each clean estimate is moved towards the data, with A as it really is.

    - "shallow": x0 - rate/|A|² A* (A x0 - y), then the bridge's step. No gradient through the network.
    - "deep": the bridge's step, then minus rate/|A|² J* A* (A x0 - y) with J = dx0/dx_t through the network.
    - "projection": the image nearest to x0 with these data, `Operator.project`. Also for JPEG and other roundings.

    Any bridge between images and any such operator, also one of another width than the bridge was trained with. `rate`
    is relative: a shallow step is stable below 2, and 1 fits the best measured direction at once. Inpainting with rate
    1, or by projection, keeps the measured pixels as they are, noise included.

    Source: Chung et al. 2023, Algorithms 1 and 2 (arXiv:2305.15086). The released step s is rate / (2 |A|²): for means
    of 4x4 pixels rate 1 is s = 8, and the released s = 1 is rate 1/8.
    Deviations: the step is divided by |A|², per sample and not over the batch; projection is on x0 in unit range.
    """

    kind: Literal["cddb"] = "cddb"
    title: ClassVar[str] = "CDDB"
    source: ClassVar[Source] = Source(
        paper="Chung et al., Direct Diffusion Bridge using Data Consistency for Inverse Problems, NeurIPS 2023",
        equation="Algorithms 1 and 2",
        arxiv="2305.15086",
        code="HJ-harry/CDDB",
        licence="not checked",
    )

    form: Annotated[
        Literal["shallow", "deep", "projection"], Field(description="How estimates are held to the data.")
    ] = "shallow"
    rate: Annotated[
        float, Field(ge=0, lt=2, description="Step towards the data, relative to 1 / |A|²."), Ui(scale="linear")
    ] = 1.0
    steps: Annotated[
        int | None, Field(ge=1, le=10_000, description="Network calls; none is as the path's authors have it.")
    ] = None
    eta: Annotated[
        float | None, Field(ge=0, le=1, description="Share of fresh noise; none is as the path's authors have it.")
    ] = None

    @property
    def needs(self) -> frozenset[Need]:
        form = {"shallow": {Need.LINEAR}, "deep": {Need.LINEAR, Need.VJP}, "projection": {Need.PROJECTION}}
        return frozenset({Need.BRIDGE, *form[self.form]})

    @torch.no_grad()
    def run(self, prior: Prior | BilledBridge | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a step, and one pullback with "deep"."""
        model = required_bridge(prior, self)
        if model.bridge.latent:
            raise NeedError(LATENT)
        self._suits(likelihood)
        table, eta, times = model.bridge.walk(self.steps, self.eta)
        rate = 0.0 if self.form == "projection" else self.rate * data_scale(likelihood)
        model, y = model.begun(likelihood, rng)
        x = start(table, y, rng)
        for i, (t, to) in enumerate(times, 1):
            if self.form == "deep":
                x0, ahead, pullback = model.estimate_vjp(x, t, y)
                downhill = 2 * rate * pullback(misfit_slope(likelihood, unit(x0)))
                x = step(table, t, to, x, x0, ahead, eta, rng) - downhill
            else:
                x0, ahead = model.estimate(x, t, y)
                x0 = self._held(x0, likelihood, rate)
                x = step(table, t, to, x, x0, ahead, eta, rng)
            shown = x if to == 0 else x0
            yield Step(i, len(times), table.noise * float(table.s[to]) / 2, unit(x), unit(shown))

    def _suits(self, likelihood: Likelihood) -> None:
        if self.form != "projection":
            linear_operator(likelihood, self)
        elif Need.PROJECTION not in likelihood.operator.offers:
            raise NeedError(
                f"Expected an operator that offers projections for CDDB, got {type(likelihood.operator).__name__}; "
                'use "shallow", or the bridge alone.'
            )

    def _held(self, x0: Tensor, likelihood: Likelihood, rate: float) -> Tensor:
        clean = unit(x0)
        if self.form == "projection":
            return 2 * likelihood.operator.project(clean, likelihood.y) - 1
        return x0 - 2 * rate * misfit_slope(likelihood, clean)
