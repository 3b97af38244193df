"""Sequences: later images start from the last result at a lower level, and what moves less than that is as good."""

import pytest
import torch

from operators import CircularBlur, Gaussian, Inpainting, Likelihood, Rng
from operators.errors import RecipeError, ShapeError
from operators.kernels import gaussian_kernel
from restoration.analytic import PowerLawPrior
from restoration.best_of import BestOf
from restoration.method import Method
from restoration.methods.daps import DAPS
from restoration.methods.ddrm import DDRM
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.pnp_flow import PnPFlow
from restoration.methods.red_diff import REDDiff
from restoration.methods.tv import TV
from restoration.prior import Prior
from restoration.schedule import Karras, Tail
from restoration.sequence import from_level, sequence
from tests.oracle import SMALL, world

TWELVE = Karras(steps=12)
METHODS: dict[str, Method] = {
    "diffpir": DiffPIR(schedule=TWELVE),
    "daps": DAPS(schedule=TWELVE, shed=False),
    "dps": DPS(schedule=TWELVE),
    "ddrm": DDRM(schedule=TWELVE),
    "pigdm": PiGDM(schedule=TWELVE),
    "pnp-dm": PnPDM(schedule=TWELVE, hold=1, reverse_steps=3),
    "red-diff": REDDiff(schedule=TWELVE),
    "mcg-diff": MCGDiff(schedule=TWELVE, particles=3),
    "pnp-flow": PnPFlow(schedule=TWELVE),
    "best-of": BestOf(runs=2, method=DPS(schedule=TWELVE)),
}


def test_the_tail_of_a_walk() -> None:
    whole = TWELVE.sigmas((0, 10))
    assert Tail(of=TWELVE, top=0.3).sigmas((0, 10)) == [s for s in whole if s <= 0.3]
    with pytest.raises(RecipeError, match="higher top"):
        Tail(of=TWELVE, top=0.011).sigmas((0, 10))
    with pytest.raises(RecipeError, match="trained range"):
        Tail(of=TWELVE).sigmas((0.5, 1.0))


@pytest.mark.parametrize("name", METHODS)
def test_later_images_start_where_the_last_one_ended(name: str) -> None:
    """Image by image it is the method itself: all levels, then the lower ones from a likelihood with that start."""
    w, method, seeds = world("inpainting"), METHODS[name], [4, 0]
    calls = w.prior.cost
    found = dict(sequence(method, w.prior, [w.likelihood] * 3, Rng(seeds, dtype=torch.float64), level=0.3))
    assert list(found) == [0, 1, 2]
    total, start = calls.denoised, None
    for frame in range(3):
        likelihood = Likelihood(w.likelihood.operator, w.likelihood.noise, w.likelihood.y, start)
        chosen = method if frame == 0 else from_level(method, 0.3)
        rng = Rng(seeds, dtype=torch.float64).child(f"frame {frame}")
        before = calls.denoised
        *_, step = chosen.run(w.prior, likelihood, rng)
        assert torch.equal(found[frame].x0, step.x0)
        start, spent = step.x0, calls.denoised - before
        if frame == 0:
            first = spent
    assert spent < 0.75 * first
    assert total == first + 2 * spent


@pytest.mark.parametrize("name", METHODS)
def test_the_start_is_seen(name: str) -> None:
    """A result that does not depend on where it starts would make all of this pointless."""
    w, low = world("inpainting"), from_level(METHODS[name], 0.05)
    grey = torch.full((1, *SMALL), 0.5).double()
    results = []
    for start in (grey, grey + 1):
        likelihood = Likelihood(w.likelihood.operator, w.likelihood.noise, w.likelihood.y, start)
        *_, step = low.run(w.prior, likelihood, Rng([1], dtype=torch.float64))
        results.append(step.x0.flatten())
    hidden = w.matrix.sum(0) == 0
    assert (results[1] - results[0])[hidden].mean() > 0.1


def test_a_batch_equals_single_sequences() -> None:
    w, seeds, method = world("correlated inpainting"), [3, 0, 8], METHODS["diffpir"]
    frames = [w.likelihood] * 2
    together = list(sequence(method, w.prior, frames, Rng(seeds, dtype=torch.float64), level=0.3))
    apart = [list(sequence(method, w.prior, frames, Rng([s], dtype=torch.float64), level=0.3)) for s in seeds]
    for (frame, step), *singles in zip(together, *apart, strict=True):
        assert [f for f, _ in singles] == [frame] * 3
        assert torch.allclose(step.x0, torch.cat([s.x0 for _, s in singles]), rtol=0, atol=1e-12)


def test_fewer_calls_are_as_good_where_little_moves() -> None:
    """A picture that drifts by a pixel an image, by 0.15 in root mean square; another fifth of it is seen each time.

    From 0.2 down 35 calls beat 120; as many calls without a start, and starts far below the change, are worse.
    """
    size, frames, rng = 24, 6, Rng([2], dtype=torch.float64)
    prior = Prior(PowerLawPrior(0.5, 0.2, 1.2, 1))
    basis = torch.fft.rfft2(rng.randn((1, size, size)), norm="ortho")
    spectrum = PowerLawPrior(0.5, 0.2, 1.2, 1).spectrum(size, size, basis.real)
    still = 0.5 + torch.fft.irfft2(spectrum.sqrt() * basis, s=(size, size), norm="ortho")
    film = [still.roll(k, -1) for k in range(frames)]
    assert float((film[1] - film[0]).square().mean().sqrt()) == pytest.approx(0.15, abs=0.01)
    seen = rng.rand((frames, size, size))[0] < 0.2
    data = [
        Likelihood.simulate(Inpainting(mask, (1, size, size)).double(), Gaussian(sigma=0.02), x, rng)
        for mask, x in zip(seen, film, strict=True)
    ]

    def error(levels: int, level: float) -> tuple[float, int]:
        """Root mean square over the last four images, and the calls for all six."""
        method, before = DiffPIR(schedule=Karras(steps=levels)), prior.cost.denoised
        ends = dict(sequence(method, prior, data, Rng(range(4), dtype=torch.float64), level=level))
        gaps = [(ends[f].x0 - film[f]).square().mean() for f in range(2, frames)]
        return float(torch.stack(gaps).mean().sqrt()), (prior.cost.denoised - before) // 4

    (whole, many), (short, few), (thin, same) = error(20, 1.5), error(10, 0.2), error(6, 1.5)
    assert (many, few, same) == (120, 35, 36)
    assert short < 0.96 * whole
    assert short < 0.96 * thin
    assert error(10, 0.05)[0] > 1.08 * short


def test_a_start_of_another_shape_is_refused() -> None:
    operator = CircularBlur(gaussian_kernel(5, 1.0), SMALL)
    with pytest.raises(ShapeError, match="batch of that shape"):
        Likelihood(operator, Gaussian(sigma=0.1), torch.zeros(1, *SMALL), torch.zeros(1, 1, 5, 5))


def test_methods_without_levels_are_refused() -> None:
    w = world("inpainting")
    with pytest.raises(RecipeError, match="noise levels"):
        next(sequence(TV(), w.prior, [w.likelihood], Rng([0]), level=0.2))
    with pytest.raises(RecipeError, match="at or below"):
        next(sequence(DiffPIR(), w.prior, [w.likelihood], Rng([0]), level=0.001))
    assert from_level(from_level(DiffPIR(), 0.2), 0.4) == from_level(DiffPIR(), 0.2)
