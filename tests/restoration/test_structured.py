"""Joint sampling of image and noise: the exact posterior of Gaussian images under correlated Gaussian noise."""

import pytest
import torch

from operators import (
    CircularBlur,
    Correlated,
    Gaussian,
    Identity,
    Inpainting,
    Likelihood,
    LinearOperator,
    Rng,
    UnknownWidthSpec,
)
from operators.errors import NeedError, RecipeError
from operators.kernels import gaussian_kernel
from operators.testing import check_operator
from restoration.analytic import GaussianPrior
from restoration.methods.dps import DPS, LikelihoodGuidance
from restoration.methods.moment_matching import MomentMatching
from restoration.prior import Prior
from restoration.schedule import Karras
from restoration.structured import StationaryNoise, Structured, WithNoise, _Sum
from tests.oracle import MASK, SMALL, CorrelatedPrior, assert_law, dense, stationary

LAW, FLOOR = Correlated(sigma=0.15, exponent=2), 0.05
IMAGES = stationary(SMALL, 0.25, 1.0)
PRIOR = Prior(CorrelatedPrior(0.5, IMAGES, SMALL))
OPERATORS: dict[str, LinearOperator] = {
    "identity": Identity(SMALL),
    "blur": CircularBlur(gaussian_kernel(5, 0.7), SMALL),
    "inpainting": Inpainting(MASK, SMALL),
}


def covariance(shape: tuple[int, ...]) -> torch.Tensor:
    """Covariance of the noise, column by column from its own filter."""
    n = int(torch.tensor(shape).prod())
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    return LAW._filtered(basis, 1).reshape(n, n)


def problem(name: str) -> tuple[Likelihood, torch.Tensor, torch.Tensor]:
    """The likelihood, and mean and covariance of the exact posterior for noise of covariance C + floor²."""
    operator = OPERATORS[name].double()
    values, vectors = torch.linalg.eigh(IMAGES)
    drawn = Rng([1], dtype=torch.float64).randn((16,)) @ (vectors * values.clamp_min(0).sqrt()).T
    likelihood = Likelihood.simulate(operator, LAW, (0.5 + drawn).reshape(1, *SMALL), Rng([2], dtype=torch.float64))
    a, y = dense(operator), operator.gather(likelihood.y)
    noise = covariance(tuple(y.shape[1:])) + FLOOR**2 * torch.eye(len(a)).double()
    gain = IMAGES @ a.T @ torch.linalg.inv(a @ IMAGES @ a.T + noise)
    mean = 0.5 + gain @ (y.flatten() - a @ torch.full((16,), 0.5).double())
    return likelihood, mean, IMAGES - gain @ a @ IMAGES


@pytest.mark.parametrize("name", ["blur", "inpainting"])
def test_the_law_tends_to_the_joint_posterior(name: str) -> None:
    """Moment matching of the pair: the spread is that of the posterior, and its error halves with twice the levels."""
    likelihood, mean, after = problem(name)
    spread, gaps = after.diagonal().sqrt(), []
    for steps in (25, 50):
        method = Structured(method=MomentMatching(schedule=Karras(steps=steps, sigma_max=5)), floor=FLOOR)
        *_, step = method.run(PRIOR, likelihood, Rng(range(1000), dtype=torch.float64))
        samples = step.x0.flatten(1)
        assert ((samples.mean(0) - mean) / spread).abs().max() < 5 / 1000**0.5 + 0.03
        gaps.append(float(1 - (samples.std(0) / spread).mean()))
    assert gaps[1] < 0.08
    assert 0.3 < gaps[1] / gaps[0] < 0.7


def test_the_noise_denoiser_is_that_of_its_covariance() -> None:
    for shape in ((2, 5, 6), (7,)):
        x = Rng([0, 1], dtype=torch.float64).randn(shape)
        level = torch.tensor([0.1, 0.7], dtype=torch.float64)
        found = StationaryNoise(LAW, shape)(x, level)
        block = covariance(shape)
        for k in (0, 1):
            n = len(block)
            expected = block @ torch.linalg.solve(block + level[k] ** 2 * torch.eye(n).double(), x[k].flatten())
            assert torch.allclose(found[k].flatten(), expected, atol=1e-10)


def test_two_priors_in_python_are_the_same_problem() -> None:
    likelihood, _, _ = problem("inpainting")
    shape = tuple(likelihood.operator.gather(likelihood.y).shape[1:])
    pair = Prior(WithNoise(PRIOR.denoiser, StationaryNoise(LAW, shape)))
    white = Likelihood(likelihood.operator, Gaussian(sigma=FLOOR), likelihood.y)
    method = Structured(method=MomentMatching(schedule=Karras(steps=5)), floor=FLOOR)
    ends = [
        [*method.run(prior, held, Rng([3], dtype=torch.float64))][-1].x0
        for prior, held in ((PRIOR, likelihood), (pair, white))
    ]
    assert torch.equal(*ends)
    x, level = ends[0], torch.tensor([0.3], dtype=torch.float64)
    assert torch.equal(pair.denoiser(x, level), PRIOR.denoiser(x, level))


def test_without_noise_to_speak_of_dps_of_the_pair_is_dps() -> None:
    """White noise under a prior of all but nothing leaves the image's own DPS with noise of size `floor`."""
    operator = OPERATORS["blur"].double()
    likelihood = Likelihood(operator, Gaussian(sigma=0.5), problem("blur")[0].y)
    nothing = GaussianPrior(torch.tensor(0.0).double(), torch.tensor(1e-20).double(), SMALL)
    dps = DPS(schedule=Karras(steps=30, sigma_max=4), guidance=LikelihoodGuidance())
    pair = Prior(WithNoise(PRIOR.denoiser, nothing))
    *_, joint = Structured(method=dps).run(pair, likelihood, Rng(range(400), dtype=torch.float64))
    *_, alone = dps.run(PRIOR, likelihood, Rng(range(1000, 1400), dtype=torch.float64))
    other = alone.x0.flatten(1)
    # two sets of samples of one law: the errors of both add up
    assert_law(joint.x0.flatten(1), other.mean(0), other.var(0), errors=5 * 2**0.5)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_pair_is_a_linear_operator(name: str) -> None:
    check_operator(_Sum(OPERATORS[name]))


def test_a_batch_equals_single_runs() -> None:
    likelihood, _, _ = problem("inpainting")
    method, seeds = Structured(floor=FLOOR), [7, 0]
    *_, together = method.run(PRIOR, likelihood, Rng(seeds, dtype=torch.float64))
    assert together.x0.shape == (2, *SMALL)
    for k, seed in enumerate(seeds):
        *_, alone = method.run(PRIOR, likelihood, Rng([seed], dtype=torch.float64))
        assert torch.allclose(together.x0[k : k + 1], alone.x0, atol=1e-9)


def test_unfit_problems_are_refused() -> None:
    likelihood, _, _ = problem("blur")
    white = Likelihood(likelihood.operator, Gaussian(sigma=0.1), likelihood.y)
    with pytest.raises(NeedError, match="correlated noise"):
        next(iter(Structured().run(PRIOR, white, Rng([0], dtype=torch.float64))))
    unknown = UnknownWidthSpec().build(SMALL)
    with pytest.raises(NeedError, match="linear"):
        next(iter(Structured().run(PRIOR, Likelihood(unknown, LAW, likelihood.y), Rng([0]))))
    complex_ = Identity(SMALL, in_complex=True)
    held = Likelihood(complex_, LAW, torch.zeros(1, *SMALL, dtype=torch.complex64))
    with pytest.raises(NeedError, match="real images"):
        next(iter(Structured().run(PRIOR, held, Rng([0]))))
    with pytest.raises(NeedError, match="prior"):
        next(iter(Structured().run(None, likelihood, Rng([0]))))
    with pytest.raises(RecipeError, match="trained range"):
        Structured().check((0.5, 1.0))
