"""Several runs, of which the one that explains the data best is kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.errors import NeedError, RecipeError
from operators.likelihood import Likelihood
from operators.phase import PhaseRetrieval
from operators.phase_solvers import retrieve_from
from operators.rng import Rng
from operators.spec import Need, Source
from restoration.draws import Langevin
from restoration.method import Found, Method, Step
from restoration.methods.blind_dps import BlindDPS
from restoration.methods.daps import DAPS
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS
from restoration.methods.gdp import GDP
from restoration.methods.lgd import LGD
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.red_diff import REDDiff
from restoration.methods.sitcom import SITCOM
from restoration.prior import Prior
from restoration.schedule import Karras

_TOGETHER = 16  # restarts that are transformed at once

Repeated = Annotated[
    DAPS | DPS | LGD | PnPDM | REDDiff | SITCOM | DiffPIR | BlindDPS | GDP,
    Field(discriminator="kind"),
]


class BestOf(Method):
    """Runs of one method from different noise; each sample is the run with the smallest whitened residual.

    For measurements where a run may end in a minimum that does not fit, above all phase retrieval. The choice is made
    by the data alone, never by the truth. Among runs that all fit it favours those that fit the noise as well, so that
    its samples are no longer posterior samples.

    With `restarts`, classical phase retrieval (HIO) goes before: the runs begin at the restarts that fit the data best
    plus the noise of the first level, which should then be low (0.2). Channels of a restart, which the data do not bind
    together, are all turned the way of the first.

    The runs go in step, so that the estimate of each step is the best at that moment; run k draws from the child stream
    "run k". A run that diverges is never chosen while another is finite.

    Source: Zhang et al. 2025 (DAPS), four runs for phase retrieval.
    Deviations: their tables take the run nearest to the truth; they have no restarts.
    """

    kind: Literal["best-of"] = "best-of"
    title: ClassVar[str] = "Best of several runs"
    source: ClassVar[Source] = Source(
        paper="Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, CVPR 2025",
        equation="section 4.2, phase retrieval",
        arxiv="2407.01521",
    )

    runs: Annotated[int, Field(ge=2, le=64, description="Number of runs for each sample.")] = 4
    method: Annotated[Repeated, Field(description="What is run.")] = DAPS(
        schedule=Karras(steps=100, sigma_max=5, sigma_min=0.02), inner=Langevin(rate=1.25e-5, tau=0.005), shed=False
    )

    restarts: Annotated[
        int, Field(ge=0, le=1024, description="Restarts of HIO, the best of which begin the runs; 0 for none.")
    ] = 0

    @property
    def needs(self) -> frozenset[Need]:
        return self.method.needs | ({Need.FOURIER} if self.restarts else frozenset())

    def check(self, trained: tuple[float, float]) -> None:
        self.method.check(trained)
        if 0 < self.restarts < self.runs:
            raise RecipeError(
                f"Expected at least as many restarts as runs ({self.runs}), got {self.restarts}; give more or 0."
            )

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """The network calls of `runs` runs."""
        starts = self._starts(likelihood, rng.child("restarts")) if self.restarts else [likelihood] * self.runs
        going = [self.method.run(prior, start, rng.child(f"run {k}")) for k, start in enumerate(starts)]
        for steps in zip(*going, strict=True):
            held = [likelihood if s.found is None else s.found.held(likelihood) for s in steps]
            residuals = torch.stack([h.residual_sigma(s.x0) for h, s in zip(held, steps, strict=True)])
            best = residuals.nan_to_num(nan=torch.inf).argmin(0)
            first = steps[0]
            x, x0 = _chosen([s.x for s in steps], best), _chosen([s.x0 for s in steps], best)
            found = _found([s.found for s in steps if s.found is not None], best)
            yield Step(first.index, first.total, first.sigma, x, x0, found=found)

    def _starts(self, likelihood: Likelihood, rng: Rng) -> list[Likelihood]:
        """For each run, the likelihood with a start for every sample."""
        operator = likelihood.operator
        if not isinstance(operator, PhaseRetrieval):
            raise NeedError(f"{Need.FOURIER.sentence} {type(operator).__name__} has others; set restarts to 0.")
        noise = rng.rand((self.restarts, *operator.in_shape[:-2], *operator.grid))
        data = likelihood.y.expand(rng.batch, *likelihood.y.shape[1:])
        each = [self._fitting(operator, y[None], one) for y, one in zip(data, noise, strict=True)]
        return [replace(likelihood, start=start) for start in torch.stack(each, 1)]

    def _fitting(self, operator: PhaseRetrieval, y: Tensor, noise: Tensor) -> Tensor:
        """The restarts that fit best, channel by channel.

        Shapes: y (1, *out_shape), noise (restarts, ..., *grid) → (runs, *in_shape).
        """
        found = [retrieve_from(operator, y, part) for part in noise.split(_TOGETHER)]
        order = torch.cat([f.residuals for f in found]).argsort(0)[: self.runs, ..., None, None]
        restarts = torch.cat([f.restarts for f in found])
        best = restarts.gather(0, order.expand(self.runs, *operator.in_shape))
        channels = best.flatten(1, -3) if best.ndim > 3 else best[:, None]
        turned = channels.flip((-2, -1))
        as_is, around = ((c * channels[:, :1]).sum((-2, -1), keepdim=True) for c in (channels, turned))
        return torch.where(around > as_is, turned, channels).reshape(best.shape)


def _found(runs: list[Found], best: Tensor) -> Found | None:
    if not runs:
        return None
    parameters = [f.parameters for f in runs if f.parameters is not None]
    sigmas = [f.sigma for f in runs if f.sigma is not None]
    return Found(_chosen(parameters, best) if parameters else None, _chosen(sigmas, best) if sigmas else None)


def _chosen(runs: list[Tensor], best: Tensor) -> Tensor:
    return torch.stack(runs)[best, torch.arange(len(best), device=best.device)]
