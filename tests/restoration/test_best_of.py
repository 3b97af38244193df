"""Several runs: the one that fits the data best, sample by sample."""

from collections.abc import Iterator
from typing import Literal

import pytest
import torch

from operators import Gaussian, Likelihood, PhaseRetrieval, Rng
from operators.errors import NeedError, RecipeError
from operators.spec import Need
from restoration.analytic import PowerLawPrior
from restoration.best_of import BestOf
from restoration.draws import Langevin
from restoration.method import Method, Step
from restoration.methods.daps import DAPS
from restoration.methods.dps import DPS, NormGuidance
from restoration.pipeline import Pipeline
from restoration.prior import Prior
from restoration.recipe import Recipe
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


def framed() -> tuple[torch.Tensor, Likelihood]:
    """Three channels of one bright, lopsided shape, and exact magnitudes of them."""
    shape = torch.zeros(16, 16)
    shape[4:9, 3:12], shape[9:13, 4:6] = 0.6, 1.0
    truth = torch.stack([shape, 0.8 * shape, 0.5 * shape + 0.3 * (shape > 0.8)])
    operator = PhaseRetrieval((3, 16, 16), 6.0)
    return truth, Likelihood(operator, Gaussian(sigma=0.01), operator(truth[None]))


STARTED = BestOf(runs=2, restarts=6, method=DAPS(schedule=Karras(steps=2, sigma_max=0.02), inner=Langevin(steps=1)))


def test_runs_begin_at_the_restarts_that_fit_with_channels_one_way_up() -> None:
    truth, likelihood = framed()
    starts = STARTED._starts(likelihood, Rng([0, 1]).child("restarts"))
    assert len(starts) == 2
    residuals = [likelihood.residual_sigma(start.guess()) for start in starts]
    assert (torch.stack(residuals) < 0.2 * likelihood.residual_sigma(likelihood.guess())).all()
    for start in starts:
        for image in start.guess():
            ways = [
                torch.stack([(c * t).sum() for c, t in zip(turned, truth, strict=True)])
                for turned in (image, image.flip((-2, -1)))
            ]
            agree = ways[0] >= ways[1]
            assert bool(agree.all()) or not bool(agree.any())


def test_starts_of_a_sample_are_its_own() -> None:
    _, likelihood = framed()
    together = STARTED._starts(likelihood, Rng([7, 8]).child("restarts"))
    alone = STARTED._starts(likelihood, Rng([8]).child("restarts"))
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both.guess()[1:], one.guess())
    prior = Prior(PowerLawPrior(0.3, 0.3, 1.0, 3))
    *_, pair = STARTED.run(prior, likelihood, Rng([7, 8]))
    *_, single = STARTED.run(prior, likelihood, Rng([8]))
    assert torch.allclose(pair.x0[1:], single.x0, atol=1e-6)


def test_restarts_are_for_fourier_magnitudes() -> None:
    assert STARTED.needs == STARTED.method.needs | {Need.FOURIER}
    with pytest.raises(RecipeError, match="at least as many restarts as runs"):
        BestOf(runs=4, restarts=3).check((0.0, 10.0))
    recipe = {"operator": {"kind": "coded-diffraction"}, "method": {"kind": "best-of", "restarts": 8}}
    with pytest.raises(NeedError, match="Fourier magnitudes of a picture in a frame"):
        Pipeline.load(Recipe.model_validate(recipe))
    w = world("inpainting")
    with pytest.raises(NeedError, match="set restarts to 0"):
        next(BestOf(runs=2, restarts=2, method=ONE).run(w.prior, w.likelihood, Rng([0])))
