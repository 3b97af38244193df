"""The draws near an estimate, and the two published forms; the law of DAPS is tested in `test_analytic`."""

import pytest
import torch

from operators import Rng
from operators.errors import RecipeError
from operators.spec import Need
from restoration.draws import HMC, Exact, Inner, Langevin, Metropolis
from restoration.methods.daps import DAPS
from restoration.schedule import Karras
from tests.oracle import assert_law, last, world

CHAINS = 500
R = 0.1
# Rates at which the bias of unadjusted steps (about rate |curvature| / 4 of the spread) is far below the error bars.
DRAWS: dict[str, Inner] = {
    "exact": Exact(),
    "langevin": Langevin(steps=300, rate=1e-4),
    "hmc": HMC(steps=150, rate=1e-4, momentum=0.6),
    "metropolis": Metropolis(steps=500, rate=1.2e-3),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("task", ["inpainting", "dense"])
def test_a_draw_has_the_law_of_the_estimate_given_the_data(name: str, task: str) -> None:
    w, a = world(task), world(task).matrix
    estimate = torch.full((CHAINS, 1, 4, 4), 0.4).double()
    rng = Rng(range(CHAINS), dtype=torch.float64)
    drawn = DRAWS[name].draw(estimate, R, 0.0, w.likelihood, rng).flatten(1)
    covariance = torch.linalg.inv(torch.eye(16).double() / R**2 + a.T @ a / w.sigma**2)
    mean = covariance @ (estimate[0].flatten() / R**2 + a.T @ w.data / w.sigma**2)
    assert_law(drawn, mean, covariance.diagonal())


def test_without_momentum_a_damped_step_is_a_langevin_step() -> None:
    w, estimate = world("dense"), torch.full((2, 1, 4, 4), 0.4).double()
    one, other = Rng([0, 1], dtype=torch.float64), Rng([0, 1], dtype=torch.float64)
    other.randn((1, 4, 4))  # the velocity it starts with, which is forgotten
    damped = HMC(steps=7, rate=1e-4, momentum=0.0, tau=0.05).draw(estimate, R, 0.5, w.likelihood, one)
    plain = Langevin(steps=7, rate=1e-4, tau=0.05).draw(estimate, R, 0.5, w.likelihood, other)
    assert torch.allclose(damped, plain, atol=1e-12)


def test_counting_the_data_twice_is_a_lower_temperature() -> None:
    w, estimate = world("dense"), torch.full((1, 1, 4, 4), 0.4).double()
    twice = Langevin(steps=5, rate=1e-4, tau=0.05, doubled=True)
    cooler = Langevin(steps=5, rate=1e-4, tau=0.05 / 2**0.5)
    one, other = (
        method.draw(estimate, R, 0.0, w.likelihood, Rng([0], dtype=torch.float64)) for method in (twice, cooler)
    )
    assert torch.allclose(one, other, atol=1e-12)


def test_metropolis_needs_no_gradient() -> None:
    assert Metropolis().needs == frozenset()
    assert Metropolis(tau=0.1).needs == {Need.GAUSSIAN}
    assert Need.GRADIENT not in DAPS(inner=Metropolis(), shed=False).needs


def test_the_published_levels() -> None:
    """Facts of the two public codes, on [-1, 1]."""
    legacy, main = DAPS.published("legacy"), DAPS.published("main", rate=1e-5, steps=200)
    old, new = (torch.tensor(d.schedule.sigmas((0, 1000))) * 2 for d in (legacy, main))
    assert len(old) == len(new) == 200
    assert torch.allclose(new[:3], torch.tensor([100, 97.825, 95.691]), atol=1e-3)
    assert float(new[-1]) == pytest.approx(0.10604, abs=1e-5)
    assert float(old[-1]) == pytest.approx(0.1)
    walk = torch.tensor(main._walk(50.0, 0.053)) * 2
    assert torch.allclose(walk, torch.tensor([100, 33.03, 8.856, 1.748, 0.2106, 0.01]), rtol=1e-3)
    walk = torch.tensor(legacy._walk(50.0, 0.05)) * 2
    assert len(walk) == 6
    assert float(walk[-2]) == pytest.approx(0.01)
    assert float(walk[-1]) == 0
    assert main.inner == Langevin(steps=200, rate=2.5e-6, last_rate=0.01, tau=0.005, doubled=True)
    assert legacy.inner == Langevin(steps=100, rate=2.5e-5, last_rate=0.01, tau=0.005)


@pytest.mark.parametrize("form", ["legacy", "main"])
def test_the_published_forms_run_and_call_the_network_five_times_a_level(form: str) -> None:
    w = world("inpainting", sigma=0.025)
    method = DAPS.published(form, steps=20).model_copy(  # type: ignore[arg-type]
        update={"schedule": Karras(steps=10, sigma_max=50, sigma_min=0.05)}
    )
    samples = last(method, w, [0, 1])
    assert w.prior.cost.denoised == 2 * 10 * 5
    assert float(w.likelihood.residual_sigma(samples.reshape(-1, 1, 4, 4)).max()) < 2


def test_a_walk_that_ends_at_a_level_needs_the_level() -> None:
    with pytest.raises(RecipeError, match="ode_min"):
        DAPS(ode_end="level").check((0, 10))
    with pytest.raises(RecipeError, match="trained range"):
        DAPS(ode_end="level", ode_min=0.001).check((0.002, 10))
