"""The flow methods: the papers' algorithms in flow coordinates, their predicted laws, and where they tend."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from operators import CircularBlur, Gaussian, Likelihood, Rng
from operators.errors import RecipeError
from operators.kernels import gaussian_kernel
from restoration.convert import Flow
from restoration.method import Method, Step
from restoration.methods.flow_chef import FlowChef
from restoration.methods.flow_dps import FlowDPS
from restoration.methods.pnp_flow import PnPFlow
from restoration.prior import Prior, UnitRange
from restoration.schedule import FlowTimes, Karras
from restoration.steps import data_scale, flow_time
from tests.oracle import SMALL, Conjugate, Law, assert_covariance, assert_law, last, world

CHAINS = 400
TASKS = ("correlated inpainting", "correlated blur", "dense")
STEP = 5.0  # of FlowChef


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """Some field that is not linear, v(x_t, t) on [-1, 1]."""
    column = t.view(-1, 1, 1, 1)
    return torch.tanh(1.3 * x.roll(1, -1) - column * x) + 0.4 * column.square() * x


def blurred() -> Likelihood:
    operator = CircularBlur(gaussian_kernel(5, 1.0), SMALL).double()
    y = operator(Rng([1], dtype=torch.float64).rand(SMALL))
    return Likelihood(operator, Gaussian(sigma=0.1), y)


def times(levels: list[float]) -> list[float]:
    return [flow_time(s) for s in levels]


class Paper:
    """What the papers write: states x_t = (1 - t) x0 + t n on [-1, 1], data of [-1, 1] images."""

    def __init__(self, likelihood: Likelihood, seeds: list[int], levels: list[float]) -> None:
        self.operator = likelihood.operator
        self.y = 2 * likelihood.y - likelihood.operator(torch.ones(1, *SMALL).double())
        self.rng, self.t = Rng(seeds, dtype=torch.float64), times(levels)

    def noise(self) -> Tensor:
        return self.rng.randn(SMALL)

    def v(self, x: Tensor, t: float) -> Tensor:
        return velocity(x, torch.full((len(x),), t, dtype=torch.float64))

    def slope(self, x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        leaf = x.detach().requires_grad_()
        residual = (self.y - self.operator(leaf)).flatten(1)
        (gradient,) = torch.autograd.grad(of(residual.square()).sum(), leaf)
        return gradient


def chef(paper: Paper, method: FlowChef) -> Tensor:
    x = paper.t[0] * paper.noise()
    for t, then in pairwise([*paper.t, 0.0]):
        v = paper.v(x, t)
        if then > 0:
            # The released step: on the mean of squares, there with 100 for many more data.
            x = x - STEP * paper.slope(x - t * v, lambda squares: squares.mean(1))
        x = x + (then - t) * v
    return x


def dps(paper: Paper, method: FlowDPS) -> Tensor:
    x = paper.t[0] * paper.noise()
    for t, then in pairwise([*paper.t, 0.0]):
        v = paper.v(x, t)
        x0, eps = x - t * v, x + (1 - t) * v
        x0_y = x0
        for _ in range(method.iterations):
            x0_y = x0_y - method.rate * paper.slope(x0_y, lambda squares: 0.5 * squares.sum(1))
        x0 = (1 - t) * x0 + t * x0_y
        if then > 0:
            eps = math.sqrt(then) * eps + math.sqrt(1 - then) * paper.noise()
        x = (1 - then) * x0 + then * eps
    return x


def pnp(paper: Paper, method: PnPFlow) -> Tensor:
    # Counted as in the paper: 0 is noise, 1 is the image.
    x = torch.zeros(1)
    for tau in [0.0, *(1 - t for t in paper.t)]:
        if tau == 0:
            # What the flow at t = 1 would leave is not seen here.
            x = (2 * paper.operator.guess((paper.y + 1) / 2) - 1).expand(2, *SMALL)
            continue
        z = x - method.rate * (1 - tau) ** method.alpha * paper.slope(x, lambda squares: 0.5 * squares.sum(1))
        total = torch.zeros_like(z)
        for _ in range(method.draws):
            mixed = tau * z + (1 - tau) * paper.noise()
            total += mixed - (1 - tau) * paper.v(mixed, 1 - tau)
        x = total / method.draws
    return x


CASES: dict[str, tuple[Method, Callable[..., Tensor]]] = {
    "flow-chef": (FlowChef(rate=2 * STEP / 16, schedule=FlowTimes(steps=12)), chef),
    "flow-dps": (FlowDPS(rate=0.7), dps),
    "pnp-flow": (PnPFlow(schedule=FlowTimes(steps=15), draws=3), pnp),
}


@pytest.mark.parametrize("name", CASES)
def test_with_a_flow_prior_it_is_the_papers_algorithm(name: str) -> None:
    method, paper = CASES[name]
    prior, likelihood = Prior(UnitRange(Flow(velocity, SMALL, (0.0, 0.999)))), blurred()
    *_, step = method.run(prior, likelihood, Rng([0, 5], dtype=torch.float64))
    levels = method.schedule.sigmas(prior.denoiser.sigma_range)  # type: ignore[attr-defined]
    expected = paper(Paper(likelihood, [0, 5], levels), method)
    assert torch.allclose(2 * step.x0 - 1, expected, rtol=1e-10, atol=1e-10)


def test_flow_times_are_the_papers_grid() -> None:
    assert times(FlowTimes(steps=10).sigmas((0, 100))) == pytest.approx([0.1 * k for k in range(9, 0, -1)])
    shifted = [3 * t / (1 + 2 * t) for t in (0.75, 0.5, 0.25)]
    assert times(FlowTimes(steps=4, shift=3).sigmas((0, 100))) == pytest.approx(shifted)
    assert len(FlowTimes(steps=10).sigmas((0.1, 1.3))) == 6  # t = 0.7 to 0.2
    with pytest.raises(RecipeError, match="more steps"):
        FlowTimes(steps=10).sigmas((0.3, 0.4))


def chef_law(w: Conjugate, method: FlowChef, levels: list[float]) -> Law:
    a, n = w.matrix, w.matrix.shape[1]
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    law = Law(torch.full((n,), 0.5).double(), levels[0] ** 2 * eye)
    for now, then in pairwise([*levels, 0.0]):
        shrink = w.shrink(now)
        offset = (eye - shrink) @ centre
        push = (
            method.rate * data_scale(w.likelihood) / (1 - flow_time(then)) * a.T if then > 0 else torch.zeros_like(a.T)
        )
        step = (1 - then / now) * shrink + then / now * eye - push @ a @ shrink
        law = law.step(step, (1 - then / now) * offset + push @ (w.data - a @ offset), 0 * eye)
    return law


def dps_law(w: Conjugate, method: FlowDPS, levels: list[float]) -> Law:
    a, n = w.matrix, w.matrix.shape[1]
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    law = Law(torch.full((n,), 0.5).double(), levels[0] ** 2 * eye)
    rate = method.rate * data_scale(w.likelihood)
    powers = [torch.linalg.matrix_power(eye - rate * a.T @ a, k) for k in range(method.iterations + 1)]
    kept, pulled = powers[-1], torch.stack(powers[:-1]).sum(0) @ (rate * a.T @ w.data)
    for now, then in pairwise([*levels, 0.0]):
        shrink, t = w.shrink(now), flow_time(now)
        offset = (eye - shrink) @ centre
        fit = (1 - t) * eye + t * kept
        old, fresh = then / now * math.sqrt(flow_time(then)), then * math.sqrt(1 - flow_time(then))
        law = law.step(fit @ shrink + old * (eye - shrink), fit @ offset + t * pulled - old * offset, fresh**2 * eye)
    return law


def pnp_law(w: Conjugate, method: PnPFlow, levels: list[float]) -> Law:
    a, n = w.matrix, w.matrix.shape[1]
    eye, centre = torch.eye(n).double(), torch.full((n,), w.mean).double()
    law = Law(w.likelihood.operator.guess(w.likelihood.y).flatten(), 0 * eye)
    for now in levels:
        shrink, gamma = w.shrink(now), method.rate * data_scale(w.likelihood) * flow_time(now) ** method.alpha
        move = shrink @ (eye - gamma * a.T @ a)
        constant = gamma * shrink @ a.T @ w.data + (eye - shrink) @ centre
        law = law.step(move, constant, now**2 / method.draws * shrink @ shrink.T)
    return law


LAWS: dict[str, tuple[Method, Callable[..., Law]]] = {
    "flow-chef": (FlowChef(rate=0.3), chef_law),
    "flow-dps": (FlowDPS(rate=0.5), dps_law),
    "pnp-flow": (PnPFlow(schedule=FlowTimes(steps=12), draws=2), pnp_law),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", LAWS)
def test_it_has_its_predicted_law(name: str, task: str) -> None:
    w, (method, predicted) = world(task), LAWS[name]
    law = predicted(w, method, method.schedule.sigmas((0, 100)))  # type: ignore[attr-defined]
    samples = last(method, w, range(CHAINS))
    assert_law(samples, law.mean, law.covariance.diagonal())
    assert_covariance(samples, law.covariance)
    # None of them is the posterior, which needs no samples to be seen.
    exact = w.posterior_covariance.diagonal()
    off = (law.mean - w.posterior_mean).abs() / exact.sqrt() + (law.covariance.diagonal() / exact - 1).abs()
    assert off.max() > 0.3


@pytest.mark.parametrize("draws", [1, 5])
def test_pnp_flow_fits_what_is_measured_and_cools_the_rest(draws: int) -> None:
    """With many times: the data themselves, without spread, and 1 / sqrt(2 draws) of the prior's elsewhere."""
    w, gaps, spreads = world("inpainting"), [], []
    seen = w.matrix.sum(0) > 0
    y = w.matrix.T @ w.data
    for steps in (50, 200, 800):
        method = PnPFlow(schedule=FlowTimes(steps=steps), draws=draws)
        law = pnp_law(w, method, method.schedule.sigmas((0, 1e9)))
        std = law.covariance.diagonal().clamp_min(0).sqrt() / 0.25
        gaps.append(float((law.mean - y)[seen].abs().max() + std[seen].max()))
        spreads.append(abs(float(std[~seen].mean()) * math.sqrt(2 * draws) - 1))
        assert (law.mean - 0.5)[~seen].abs().max() < 0.02
    assert all(b < 0.5 * a for a, b in pairwise(gaps))
    assert all(b < 0.7 * a for a, b in pairwise(spreads))
    assert gaps[-1] < 0.05
    assert spreads[-1] < 0.05


def test_pnp_flow_whose_data_fade_with_the_prior_is_langevin() -> None:
    """alpha 2: on rate |A x - y|² / 2 - log p, of [-1, 1], at temperature 1 / (2 draws), with many times."""
    w, errors = world("correlated inpainting"), []
    precision = torch.linalg.inv(4 * w.covariance)
    for steps in (200, 800):
        method = PnPFlow(schedule=FlowTimes(steps=steps), alpha=2, rate=1, draws=2)
        law = pnp_law(w, method, method.schedule.sigmas((0, 1e9)))
        curvature = w.matrix.T @ w.matrix + precision
        centre = torch.full((16,), w.mean).double()
        target = torch.linalg.solve(curvature, w.matrix.T @ w.data + precision @ centre)
        spread = torch.linalg.inv(curvature) / (2 * method.draws) / 4  # back in unit range
        off = (law.covariance.diagonal() / spread.diagonal()).sqrt() - 1
        errors.append(float((law.mean - target).abs().max() / 0.25 + off.abs().max()))
    assert errors[-1] < 0.12
    assert errors[1] < 0.7 * errors[0]


def test_flow_chef_ends_on_an_estimate_and_moves_only_its_start() -> None:
    """The only randomness is the start; with no data term it is the flow itself."""
    w = world("identity")
    method = FlowChef(schedule=Karras(steps=300, sigma_max=20, sigma_min=0.002), rate=1e-9)
    samples = last(method, w, range(CHAINS))
    assert_law(samples, torch.full((16,), 0.5).double(), torch.full((16,), 0.0625 * 0.96).double())


@pytest.mark.parametrize(("name", "calls"), [("flow-chef", 19), ("flow-dps", 27), ("pnp-flow", 22)])
def test_the_bill(name: str, calls: int) -> None:
    w, (method, _) = world("dense"), LAWS[name]
    steps: list[Step] = list(method.run(w.prior, w.likelihood, Rng([0, 1], dtype=torch.float64)))
    assert w.prior.cost.denoised == 2 * calls
    assert w.prior.cost.pulled_back == 0
    assert steps[-1].sigma == 0
