"""Several runs: the one that fits the data best, sample by sample."""

from collections.abc import Iterator
from typing import Literal

import torch

from operators import Likelihood, Rng
from restoration.best_of import BestOf
from restoration.method import Method, Step
from restoration.methods.daps import DAPS
from restoration.methods.dps import DPS, NormGuidance
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import last, world

ONE = DPS(schedule=Karras(steps=5), guidance=NormGuidance(scale=0.05))


def test_each_sample_is_the_run_that_fits_best() -> None:
    w, seeds = world("inpainting"), [0, 1, 2, 3, 4]
    rng = Rng(seeds, dtype=torch.float64)
    runs = []
    for k in range(3):
        *_, step = ONE.run(w.prior, w.likelihood, rng.child(f"run {k}"))
        runs.append(step.x0)
    residuals = torch.stack([w.likelihood.residual_sigma(x) for x in runs])
    best = residuals.argmin(0)
    assert len(set(best.tolist())) > 1
    found = last(BestOf(runs=3, method=ONE), w, seeds)
    for sample, run in enumerate(best.tolist()):
        assert torch.equal(found[sample], runs[run][sample].flatten())


def test_more_runs_never_fit_worse() -> None:
    w, seeds = world("inpainting"), range(10)
    few, many = (last(BestOf(runs=n, method=ONE), w, seeds).reshape(10, 1, 4, 4) for n in (2, 5))
    assert (w.likelihood.residual_sigma(many) <= w.likelihood.residual_sigma(few)).all()


class _Half(Method):
    """A stand-in whose first run diverges."""

    kind: Literal["half"] = "half"

    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        x = rng.randn((1, 4, 4)) + (torch.nan if rng._path == ("run 0",) else 0.0)
        yield Step(1, 1, 0.0, x, x)


def test_a_run_that_diverges_is_not_chosen() -> None:
    w = world("inpainting")
    method = BestOf(runs=2).model_copy(update={"method": _Half()})
    assert last(method, w, [0, 1]).isfinite().all()


def test_it_needs_what_its_method_needs() -> None:
    assert BestOf(method=DAPS()).needs == DAPS().needs
    assert BestOf(method=ONE).needs == ONE.needs
