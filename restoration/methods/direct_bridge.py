"""A bridge walked from the degraded image to the clean one, as it was trained to."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source
from restoration.bridge import BilledBridge, required_bridge, start, step
from restoration.method import Method, Step
from restoration.prior import Prior


class DirectBridge(Method):
    """The bridge's own sampler: estimate the clean image, step along the path, again. No data term.

    The path decides which published sampler this is: I2SB (stochastic or its ODE), InDI, IR-SDE with MRS (`eta` 0) or
    its posterior (1), RDBM, ResShift, Resfusion or RDDM. One step is a regression; more steps give more detail and a
    smaller PSNR.

    Source: that of the path, see `restoration.bridge_paths`.
    Deviations: fewer steps than the path has times are spread evenly over them.
    """

    kind: Literal["bridge"] = "bridge"
    title: ClassVar[str] = "Direct bridge"
    source: ClassVar[Source] = Source(paper="that of the bridge's path")

    steps: Annotated[
        int | None, Field(ge=1, le=10_000, description="Network calls; none is as the path's authors have it.")
    ] = None
    eta: Annotated[
        float | None, Field(ge=0, le=1, description="Share of fresh noise; none is as the path's authors have it.")
    ] = None

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.BRIDGE})

    @torch.no_grad()
    def run(self, prior: Prior | BilledBridge | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a step."""
        model, y = required_bridge(prior, self).begun(likelihood, rng)
        table, eta, times = model.bridge.walk(self.steps, self.eta)
        x = start(table, y, rng)
        for i, (t, to) in enumerate(times, 1):
            x0, ahead = model.estimate(x, t, y)
            x = step(table, t, to, x, x0, ahead, eta, rng)
            yield Step(i, len(times), table.noise * float(table.s[to]) / 2, *model.shown(x, x0))
