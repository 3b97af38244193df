"""The likelihood: slopes against autograd, steps against closed forms, draws against the exact posterior."""

import pytest
import torch

from operators import (
    BlurSpec,
    DownsampleSpec,
    Gaussian,
    Identity,
    InpaintingSpec,
    Likelihood,
    LinearOperator,
    Noise,
    Operator,
    Poisson,
    Rng,
)
from operators.errors import NeedError, ShapeError
from operators.kernels import DiskKernel, MotionKernel
from operators.masks import RandomMask

SHAPE = (1, 4, 6)
SPECS = [
    BlurSpec(boundary="circular", kernel=MotionKernel(size=3)),
    BlurSpec(boundary="reflect", kernel=DiskKernel(size=3, radius=1.2)),
    DownsampleSpec(factor=2),
    InpaintingSpec(mask=RandomMask(fraction=0.5)),
]


class Cubic(Operator):
    """A pointwise non-linear operator."""

    def __init__(self) -> None:
        super().__init__(SHAPE, SHAPE)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * x**3

    def _guess(self, y: torch.Tensor) -> torch.Tensor:
        return y


class Blind(Cubic):
    """One without a gradient."""

    offers = frozenset()


def operators() -> list[Operator]:
    return [*(spec.build(SHAPE).double() for spec in SPECS), Cubic().double()]


def likelihood(operator: Operator, noise: Noise, batch: int = 3) -> tuple[Likelihood, torch.Tensor]:
    rng = Rng(range(batch), dtype=torch.float64)
    truth = rng.rand(operator.in_shape)
    held = Likelihood(operator, noise, noise.sample(operator(truth).clamp(min=0), rng))
    return held, truth + 0.1 * rng.randn(operator.in_shape)


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.1), Poisson(peak=30)], ids=repr)
@pytest.mark.parametrize("operator", operators(), ids=lambda op: type(op).__name__)
def test_slopes_equal_autograd(operator: Operator, noise: Noise) -> None:
    held, x = likelihood(operator, noise)
    leaf = x.clone().requires_grad_()
    value = held.log_prob(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    ours, ours_value = held.grad(x)
    assert torch.allclose(ours, slope, rtol=1e-9, atol=1e-9)
    assert torch.allclose(ours_value, value)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(held.misfit(leaf).sum(), leaf)
    misfit, ours = held.misfit_and_slope(x)
    assert torch.allclose(ours, slope, rtol=1e-9, atol=1e-9)
    assert torch.allclose(misfit, held.misfit(x))
    assert not ours.requires_grad


@pytest.mark.parametrize("operator", operators(), ids=lambda op: type(op).__name__)
def test_samples_do_not_touch_each_other(operator: Operator) -> None:
    held, x = likelihood(operator, Gaussian(sigma=0.1))
    together = (held.grad(x)[0], held.misfit_and_slope(x)[1], held.residual_sigma(x), held.log_prob(x))
    for k in range(3):
        alone = Likelihood(operator, held.noise, held.y[k : k + 1])
        one = x[k : k + 1]
        parts = (alone.grad(one)[0], alone.misfit_and_slope(one)[1], alone.residual_sigma(one), alone.log_prob(one))
        for a, b in zip(parts, together, strict=True):
            assert torch.allclose(a, b[k : k + 1], rtol=1e-9, atol=1e-12)


def test_one_measurement_serves_all_samples() -> None:
    operator = SPECS[0].build(SHAPE).double()
    held, x = likelihood(operator, Gaussian(sigma=0.1))
    shared = Likelihood(operator, held.noise, held.y[:1])
    repeated = Likelihood(operator, held.noise, held.y[:1].expand(3, *operator.out_shape))
    assert torch.allclose(shared.grad(x)[0], repeated.grad(x)[0])
    assert torch.allclose(shared.prox(x, 0.2), repeated.prox(x, 0.2))
    assert torch.equal(shared.misfit(x), repeated.misfit(x))
    assert shared.draw(x, 0.2, Rng([0, 1, 2])).shape == x.shape


def test_zero_misfit_has_zero_slope() -> None:
    operator = Identity(SHAPE)
    x = Rng([0, 1]).rand(SHAPE)
    y = x.clone()
    y[1] += 1
    misfit, slope = Likelihood(operator, Gaussian(), y).misfit_and_slope(x)
    assert float(misfit[0]) == 0
    assert not slope[0].any()
    assert float(slope[1].norm()) == pytest.approx(1)


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.05), Poisson(peak=40)], ids=repr)
def test_residual_of_the_truth_is_about_one(noise: Noise) -> None:
    operator = Identity((3, 64, 64))
    truth = 0.2 + 0.6 * Rng([0]).rand((3, 64, 64))
    held = Likelihood(operator, noise, noise.sample(truth, Rng([1])))
    assert float(held.residual_sigma(truth)) == pytest.approx(1, abs=0.03)
    assert float(held.residual_sigma(held.y)) == 0


def test_residual_of_complex_data_is_per_component() -> None:
    operator = Identity((1, 80, 80), in_complex=True)
    truth = Rng([0]).randn((1, 80, 80), complex=True)
    held = Likelihood(operator, Gaussian(sigma=0.2), Gaussian(sigma=0.2).sample(truth, Rng([1])))
    assert float(held.residual_sigma(truth)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_prox_is_stationary(spec: BlurSpec | DownsampleSpec | InpaintingSpec) -> None:
    held, z = likelihood(spec.build(SHAPE).double(), Gaussian(sigma=0.1))
    step = torch.tensor([0.01, 0.1, 3.0], dtype=torch.float64)
    best = held.prox(z, step)
    slope = -held.grad(best)[0] + (best - z) / step.reshape(3, 1, 1, 1)
    assert float(slope.abs().max()) < 1e-3 * float(held.grad(z)[0].abs().max())
    assert torch.allclose(held.prox(z, 0.1)[1], best[1], atol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_draws_have_the_exact_law(spec: BlurSpec | DownsampleSpec | InpaintingSpec) -> None:
    operator = spec.build(SHAPE).double()
    assert isinstance(operator, LinearOperator)
    sigma, step, count, size = 0.4, 0.3, 4000, 24
    rng = Rng(range(count), dtype=torch.float64)
    mean = Rng([77], dtype=torch.float64).randn(SHAPE)
    y = Rng([78], dtype=torch.float64).randn(operator.out_shape)
    held = Likelihood(operator, Gaussian(sigma=sigma), y)
    drawn = held.draw(mean.expand(count, *SHAPE), step, rng).reshape(count, size)
    matrix = operator(torch.eye(size, dtype=torch.float64).reshape(size, *SHAPE)).flatten(1).T
    precision = torch.eye(size, dtype=torch.float64) / step + matrix.T @ matrix / sigma**2
    covariance = torch.linalg.inv(precision)
    centre = covariance @ (mean.flatten() / step + matrix.T @ y.flatten() / sigma**2)
    spread = covariance.diagonal().sqrt()
    assert bool(((drawn.mean(0) - centre).abs() < 5 * spread / count**0.5).all())
    found = torch.cov(drawn.T)
    error = ((spread[:, None] * spread) ** 2 + covariance**2).sqrt() / count**0.5
    assert bool(((found - covariance).abs() < 5 * error).all())


def test_draws_of_a_batch_are_those_of_its_samples() -> None:
    operator = SPECS[2].build(SHAPE)
    mean = Rng([3, 4]).randn(SHAPE)
    held = Likelihood(operator, Gaussian(sigma=0.1), Rng([9]).rand(operator.out_shape))
    step = torch.tensor([0.1, 0.7])
    together = held.draw(mean, step, Rng([5, 6]))
    alone = held.draw(mean[1:], 0.7, Rng([6]))
    assert torch.allclose(together[1:], alone, atol=1e-6)


def test_complex_draws_have_their_variance_per_component() -> None:
    operator = Identity((1, 60, 60), in_complex=True)
    held = Likelihood(operator, Gaussian(sigma=0.5), torch.zeros(1, 1, 60, 60, dtype=torch.complex64))
    drawn = held.draw(torch.zeros(4, 1, 60, 60, dtype=torch.complex64), 0.25, Rng(range(4)))
    assert float(drawn.real.var()) == pytest.approx(0.125, rel=0.06)
    assert float(drawn.imag.var()) == pytest.approx(0.125, rel=0.06)


def test_latent_likelihood() -> None:
    operator = SPECS[0].build(SHAPE).double()
    held, _ = likelihood(operator, Gaussian(sigma=0.1))
    grow = torch.nn.Upsample(scale_factor=2)

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(grow(z))

    latent = held.through(decode)
    z = Rng([0, 1, 2], dtype=torch.float64).randn((1, 2, 3))
    assert torch.equal(latent.log_prob(z), held.log_prob(decode(z)))
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(held.log_prob(decode(leaf)).sum(), leaf)
    assert torch.allclose(latent.grad(z)[0], slope)
    with pytest.raises(NeedError):
        latent.prox(z, 0.1)
    with pytest.raises(NeedError, match="encode"):
        latent.operator.guess(held.y)
    checked = held.through(decode, (1, 2, 3))
    assert torch.equal(checked.misfit(z), latent.misfit(z))
    with pytest.raises(ShapeError, match="Decoded expected"):
        checked.misfit(z[..., :2])
    assert torch.equal(latent.operator.data_from_image(held.y), held.y)
    assert torch.equal(latent.operator.data_as_image(held.y), held.y)


def test_what_is_not_offered_is_named() -> None:
    held, x = likelihood(Cubic().double(), Gaussian(sigma=0.1))
    with pytest.raises(NeedError, match="proximal step"):
        held.prox(x, 0.1)
    with pytest.raises(NeedError, match="proximal step"):
        held.draw(x, 0.1, Rng([0, 1, 2]))
    held, x = likelihood(SPECS[0].build(SHAPE).double(), Poisson())
    with pytest.raises(NeedError, match="Gaussian noise for its proximal step, got poisson"):
        held.prox(x, 0.1)
    held, x = likelihood(Blind().double(), Gaussian(sigma=0.1))
    with pytest.raises(NeedError, match="differentiated"):
        held.grad(x)
    with pytest.raises(NeedError, match="real data, got complex"):
        Likelihood(Identity(SHAPE, in_complex=True), Poisson(), torch.zeros(1, *SHAPE, dtype=torch.complex64))


def test_batches_and_shapes_are_checked() -> None:
    held, x = likelihood(Identity(SHAPE).double(), Gaussian())
    with pytest.raises(ShapeError, match="3 samples, got 2"):
        held.misfit(x[:2])
    with pytest.raises(ShapeError, match="Identity data expected"):
        Likelihood(Identity(SHAPE), Gaussian(), torch.zeros(1, 4, 6))
    with pytest.raises(ShapeError, match="streams for 3 samples, got 1"):
        held.draw(x, 0.1, Rng([0]))
    for step in (0, -1.0, float("nan"), torch.tensor([1.0, 0.0, 1.0])):
        with pytest.raises(ShapeError, match="step > 0"):
            held.prox(x, step)
        with pytest.raises(ShapeError, match="step > 0"):
            held.draw(x, step, Rng([0, 1, 2]))
    with pytest.raises(ShapeError, match="rho as a number"):
        held.prox(x, torch.ones(2))
