"""Several runs, of which the one that explains the data best is kept."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.likelihood import Likelihood
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

Repeated = Annotated[
    DAPS | DPS | LGD | PnPDM | REDDiff | SITCOM | DiffPIR | BlindDPS | GDP,
    Field(discriminator="kind"),
]


class BestOf(Method):
    """Runs of one method from different noise; each sample is the run with the smallest whitened residual.

    For measurements where a run may end in a minimum that does not fit, above all phase retrieval. The choice is made
    by the data alone, never by the truth. Among runs that all fit it favours those that fit the noise as well, so that
    its samples are no longer posterior samples.

    The runs go in step, so that the estimate of each step is the best at that moment; run k draws from the child stream
    "run k". A run that diverges is never chosen while another is finite.

    Source: Zhang et al. 2025 (DAPS), four runs for phase retrieval.
    Deviations: their tables take the run nearest to the truth.
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

    @property
    def needs(self) -> frozenset[Need]:
        return self.method.needs

    def check(self, trained: tuple[float, float]) -> None:
        self.method.check(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """The network calls of `runs` runs."""
        going = [self.method.run(prior, likelihood, rng.child(f"run {k}")) for k in range(self.runs)]
        for steps in zip(*going, strict=True):
            held = [likelihood if s.found is None else s.found.held(likelihood) for s in steps]
            residuals = torch.stack([h.residual_sigma(s.x0) for h, s in zip(held, steps, strict=True)])
            best = residuals.nan_to_num(nan=torch.inf).argmin(0)
            first = steps[0]
            x, x0 = _chosen([s.x for s in steps], best), _chosen([s.x0 for s in steps], best)
            found = _found([s.found for s in steps if s.found is not None], best)
            yield Step(first.index, first.total, first.sigma, x, x0, found=found)


def _found(runs: list[Found], best: Tensor) -> Found | None:
    if not runs:
        return None
    parameters = [f.parameters for f in runs if f.parameters is not None]
    sigmas = [f.sigma for f in runs if f.sigma is not None]
    return Found(_chosen(parameters, best) if parameters else None, _chosen(sigmas, best) if sigmas else None)


def _chosen(runs: list[Tensor], best: Tensor) -> Tensor:
    return torch.stack(runs)[best, torch.arange(len(best), device=best.device)]
