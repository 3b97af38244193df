"""What holds for every method: a sample is the same alone and in company, seeds count, steps end at no noise."""

from itertools import pairwise

import pytest
import torch

from operators import Gaussian, Inpainting, Likelihood, Rng
from operators.errors import NeedError, RecipeError
from restoration.analytic import GaussianPrior
from restoration.best_of import BestOf
from restoration.draws import HMC, Langevin, Metropolis
from restoration.method import Method
from restoration.methods.daps import DAPS
from restoration.methods.ddnm import DDNM
from restoration.methods.ddrm import DDRM
from restoration.methods.dds import DDS
from restoration.methods.dps import DPS, ZetaGuidance
from restoration.methods.flow_chef import FlowChef
from restoration.methods.flow_dps import FlowDPS
from restoration.methods.lgd import LGD, LogMeanExp
from restoration.methods.mcg import MCG, Sart
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.pnp_flow import PnPFlow
from restoration.methods.rad import RAD
from restoration.methods.red_diff import REDDiff
from restoration.methods.sitcom import SITCOM
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import MASK, SMALL, Conjugate, last, world

FIVE = Karras(steps=5)
METHODS: dict[str, Method] = {
    "ddrm": DDRM(schedule=FIVE),
    "ddnm": DDNM(schedule=FIVE),
    "ddnm-scalar": DDNM(schedule=FIVE, form="scalar", travel_length=2, travel_repeat=2),
    "ddnm-noise-free": DDNM(schedule=FIVE, form="noise-free"),
    "pigdm": PiGDM(schedule=FIVE),
    "pigdm-released": PiGDM(schedule=FIVE, step="released", eta=0.2),
    "moments-full": MomentMatching(schedule=FIVE),
    "moments-rows": MomentMatching(schedule=FIVE, covariance="row-sums"),
    "dds": DDS(schedule=FIVE),
    "dds-noise-free": DDS(schedule=FIVE, iterations=2, gamma=None),
    "mcg": MCG(schedule=FIVE),
    "lgd": LGD(schedule=FIVE),
    "lgd-log-mean-exp": LGD(schedule=FIVE, average=LogMeanExp(weight=0.01)),
    "dps-zeta": DPS(schedule=FIVE, guidance=ZetaGuidance()),
    "daps-hmc": DAPS(schedule=FIVE, inner=HMC(steps=4), ode_steps=2, ode_min=0.005, ode_end="level", shed=False),
    "daps-metropolis": DAPS(schedule=FIVE, inner=Metropolis(steps=4), shed=False),
    "pnp-dm": PnPDM(schedule=FIVE, hold=0, reverse_steps=4),
    "pnp-dm-langevin": PnPDM(schedule=FIVE, hold=0, reverse_steps=2, inner=Langevin(steps=3)),
    "red-diff": REDDiff(schedule=FIVE),
    "sitcom": SITCOM(schedule=FIVE, iterations=5, weight=0.1),
    "pnp-flow": PnPFlow(schedule=FIVE, draws=2),
    "flow-dps": FlowDPS(schedule=FIVE),
    "flow-chef": FlowChef(schedule=FIVE),
    "rad": RAD(schedule=FIVE),
    "mcg-diff": MCGDiff(schedule=FIVE, particles=6),
    "best-of": BestOf(runs=3, method=DPS(schedule=FIVE)),
}
TASKS = ("inpainting", "correlated blur", "dense")


def fits(method: Method, w: Conjugate) -> bool:
    offered = w.likelihood.operator.offers | w.likelihood.noise.offers | w.prior.denoiser.offers
    return method.needs <= offered


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_single_runs(name: str, task: str) -> None:
    w, method, seeds = world(task), METHODS[name], [7, 0, 12345678901]
    if not fits(method, w):
        with pytest.raises(NeedError, match="use"):
            last(method, w, seeds)
        return
    together = method.run(w.prior, w.likelihood, Rng(seeds, dtype=torch.float64))
    apart = [method.run(w.prior, w.likelihood, Rng([s], dtype=torch.float64)) for s in seeds]
    for step, *singles in zip(together, *apart, strict=True):
        assert torch.allclose(step.x, torch.cat([s.x for s in singles]), rtol=0, atol=1e-10)
        assert torch.allclose(step.x0, torch.cat([s.x0 for s in singles]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_seed_zero_counts_and_seeds_differ(name: str) -> None:
    w = world("inpainting")
    zero, again, one = (last(METHODS[name], w, [s]) for s in (0, 0, 1))
    assert torch.equal(zero, again)
    assert not torch.allclose(zero, one)


@pytest.mark.parametrize("name", METHODS)
def test_steps_count_up_and_end_at_zero_noise(name: str) -> None:
    w, method = world("inpainting"), METHODS[name]
    steps = list(method.run(w.prior, w.likelihood, Rng([0], dtype=torch.float64)))
    assert [s.index for s in steps] == list(range(1, len(steps) + 1))
    assert {s.total for s in steps} == {len(steps)}
    assert steps[-1].sigma == 0
    assert torch.equal(steps[-1].x, steps[-1].x0)
    if not (isinstance(method, DDNM) and method.travel_repeat > 1):
        assert all(a.sigma > b.sigma for a, b in pairwise(steps))


@pytest.mark.parametrize("name", METHODS)
def test_single_precision_stays_single_and_close(name: str) -> None:
    w = world("inpainting")
    operator, y = w.likelihood.operator.float(), w.likelihood.y.float()
    level, spread = torch.tensor(0.5), torch.tensor(0.0625)
    prior = Prior(GaussianPrior(level, spread, SMALL))
    *_, step = METHODS[name].run(prior, Likelihood(operator, Gaussian(sigma=0.1), y), Rng([3]))
    assert step.x0.dtype == torch.float32
    assert step.x0.isfinite().all()
    *_, exact = METHODS[name].run(
        w.prior, Likelihood(operator.double(), Gaussian(sigma=0.1), w.likelihood.y), _Rounded([3])
    )
    assert torch.allclose(step.x0.double(), exact.x0, atol=2e-3)


class _Rounded(Rng):
    """The single-precision numbers of a stream, delivered in double precision."""

    def __init__(self, seeds: list[int]) -> None:
        super().__init__(seeds)
        self.inner = Rng(seeds)

    def randn(self, shape: tuple[int, ...], *, complex: bool = False) -> torch.Tensor:  # noqa: A002
        drawn = self.inner.randn(shape, complex=complex)
        return drawn.to(torch.complex128 if complex else torch.float64)

    def rand(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self.inner.rand(shape).double()

    def child(self, name: str) -> "_Rounded":
        other = _Rounded(list(self.seeds))
        other.inner = self.inner.child(name)
        return other


@pytest.mark.parametrize("name", METHODS)
def test_complex_images_run(name: str) -> None:
    operator = Inpainting(MASK, SMALL, in_complex=True).double()
    y = Rng([1], dtype=torch.float64).randn(operator.out_shape, complex=True)
    prior = Prior(GaussianPrior(torch.tensor(0.0).double(), torch.tensor(0.0625).double(), SMALL))
    likelihood = Likelihood(operator, Gaussian(sigma=0.1), y)
    *_, step = METHODS[name].run(prior, likelihood, Rng([0, 1], dtype=torch.float64))
    assert step.x0.is_complex()
    assert step.x0.shape == (2, *SMALL)
    assert step.x0.isfinite().all()
    assert float(step.x0.imag.abs().max()) > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_without_a_prior_the_reason_is_given(name: str) -> None:
    w = world("inpainting")
    with pytest.raises(NeedError, match="prior"):
        next(iter(METHODS[name].run(None, w.likelihood, Rng([0]))))


@pytest.mark.parametrize("name", METHODS)
def test_levels_outside_the_prior_are_known_beforehand(name: str) -> None:
    with pytest.raises(RecipeError, match="trained range"):
        METHODS[name].check((0.5, 1.0))


def test_sart_needs_more_than_the_recipe_can_know() -> None:
    assert MCG(projection=Sart()).needs == MCG().needs
