"""BlindDPS and its prior of kernels: the released step in VP coordinates, the denoiser by integration."""

import pytest
import torch

from operators import Gaussian, Identity, Likelihood, Rng, UnknownKernelSpec
from operators.errors import NeedError, RecipeError
from operators.kernels import GaussianKernel
from restoration.kernel_prior import SparseKernelPrior
from restoration.methods.blind_dps import BlindDPS
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import CorrelatedPrior, stationary

SHAPE = (1, 8, 8)
PRIOR = Prior(CorrelatedPrior(0.5, stationary(SHAPE, 0.25, 1.0), SHAPE))


def problem(seed: int = 0) -> Likelihood:
    """A blurred Gaussian image."""
    family = UnknownKernelSpec(size=3, boundary="circular", kernel=GaussianKernel(size=3, std=0.8)).build(SHAPE)
    x = 0.5 + 0.25 * Rng([seed], dtype=torch.float64).randn(SHAPE)
    return Likelihood.simulate(family.double(), Gaussian(sigma=0.01), x, Rng([1], dtype=torch.float64))


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_the_kernel_denoiser_is_the_posterior_mean(share: float, sigma: float) -> None:
    z = torch.tensor([[-1.0, 0.1], [0.5, 2.0]], dtype=torch.float64)[None]
    found = SparseKernelPrior(2, share, 0.3)(z, torch.tensor([sigma]).double())
    v = torch.linspace(0, 12, 400_001, dtype=torch.float64)
    for place, estimate in zip(z.flatten(), found.flatten(), strict=True):
        # relative to the largest, where all would vanish
        nearest = place.clamp(min=0)
        slab = share / 0.3 * torch.exp(-v / 0.3 - 0.5 * ((place - v) ** 2 - (place - nearest) ** 2) / sigma**2)
        spike = (1 - share) * torch.exp(-0.5 * (place**2 - (place - nearest) ** 2) / sigma**2)
        expected = torch.trapezoid(slab * v, v) / (torch.trapezoid(slab, v) + spike)
        assert estimate == pytest.approx(float(expected), rel=1e-4)


def test_a_kernel_of_low_precision_is_that_of_high() -> None:
    z = 20 * Rng([0, 1]).randn((4, 4))
    prior, level = SparseKernelPrior(4, 0.1, 3.0), torch.tensor([20.0, 0.01])
    found = prior(z, level)
    assert found.dtype == torch.float32
    assert bool((found >= 0).all())
    assert torch.allclose(found.double(), prior(z.double(), level.double()), rtol=1e-5)


def test_one_level_is_the_released_step_on_vp_images() -> None:
    """Both networks in VP coordinates on [-1, 1] (the kernel's own range is 0 to 1), gradients by autograd alone."""
    likelihood, now, then = problem(), 0.8, 0.3
    method = BlindDPS(schedule=Karras(steps=2, sigma_max=now, sigma_min=then), scale=1, kernel_scale=0.7, mean=0.5)
    first = next(iter(method.run(PRIOR, likelihood, Rng([5], dtype=torch.float64))))
    family, y = likelihood.operator, likelihood.y
    assert isinstance(family, type(problem().operator))
    image, kernel = (Rng([5], dtype=torch.float64).child(name) for name in ("image", "kernel"))
    prior_k, sizes = SparseKernelPrior(3, 0.1, 0.5), [(1 + 4 * s**2) ** 0.5 for s in (now, then)]
    # states as a DDPM holds them: u = 2 x - 1 at level 2 sigma, over sqrt(1 + level²)
    start = 0.5 + now * image.randn(SHAPE), now * kernel.randn((3, 3))
    states = [((2 * start[0] - 1) / sizes[0]).requires_grad_(), (2 * start[1] / sizes[0]).requires_grad_()]
    level = torch.tensor([now], dtype=torch.float64)
    x0 = PRIOR.denoiser((states[0] * sizes[0] + 1) / 2, level)
    v0 = prior_k(states[1] * sizes[0] / 2, level)
    data = family.apply_with(2 * x0 - 1, v0 / v0.sum())  # type: ignore[operator]
    # the kernel sums to 1, so that [-1, 1] data are 2 y - 1
    misfit = (2 * y - 1 - data).norm()
    slopes = torch.autograd.grad(misfit, states)
    total = 9 * 0.1 * 0.5
    expected = []
    for state, slope, clean, rng, scale, shape in zip(
        states, slopes, (2 * x0 - 1, 2 * v0), (image, kernel), (1, 0.7 * total**2), (SHAPE, (3, 3)), strict=True
    ):
        # DDPM's posterior mean and variance, by abar
        abar_now, abar_then = 1 / sizes[0] ** 2, 1 / sizes[1] ** 2
        alpha = abar_now / abar_then
        mean = abar_then**0.5 * (1 - alpha) / (1 - abar_now) * clean
        mean = mean + alpha**0.5 * (1 - abar_then) / (1 - abar_now) * state
        spread = ((1 - alpha) * (1 - abar_then) / (1 - abar_now)) ** 0.5
        moved = mean + spread * rng.randn(shape) - scale * abar_now**0.5 * slope
        expected.append((moved * sizes[1]).detach())
    assert torch.allclose(2 * first.x - 1, expected[0], atol=1e-10)
    second = [*method.run(PRIOR, likelihood, Rng([5], dtype=torch.float64))][1]
    assert second.found is not None
    v0 = prior_k(expected[1] / 2, torch.tensor([then]).double())
    # the last step of the kernel has no noise: it ends on its estimate less the slope
    _, _, slope = family.misfit_and_slopes(  # type: ignore[operator]
        y, PRIOR.denoise(first.x, then), v0
    )
    leaf = (expected[1] / 2).detach().requires_grad_()
    (pulled,) = torch.autograd.grad(prior_k(leaf, torch.tensor([then]).double()), leaf, slope)
    last = family.constrain(v0 - 0.7 * total**2 / 2 * pulled)  # type: ignore[operator]
    assert torch.allclose(second.found.parameters, last, atol=1e-10)  # type: ignore[arg-type]


def test_found_kernels_are_kernels_and_explain_the_data() -> None:
    likelihood = problem()
    method = BlindDPS(schedule=Karras(steps=200, sigma_max=5), scale=0.5, kernel_scale=0.1)
    *_, step = method.run(PRIOR, likelihood, Rng(range(6), dtype=torch.float64))
    assert step.found is not None
    kernels = step.found.values(likelihood)["kernel"]
    assert bool((kernels >= 0).all())
    assert torch.allclose(kernels.sum((1, 2)), torch.ones(6).double())
    held = step.found.held(likelihood)
    flat = torch.full_like(step.x0, 0.5)
    assert bool((held.residual_sigma(step.x0) < 0.2 * held.residual_sigma(flat)).all())


def test_a_batch_equals_single_runs() -> None:
    likelihood, method, seeds = problem(), BlindDPS(schedule=Karras(steps=4)), [7, 0]
    *_, together = method.run(PRIOR, likelihood, Rng(seeds, dtype=torch.float64))
    for k, seed in enumerate(seeds):
        *_, alone = method.run(PRIOR, likelihood, Rng([seed], dtype=torch.float64))
        assert together.found is not None
        assert alone.found is not None
        assert torch.allclose(together.x0[k : k + 1], alone.x0, atol=1e-10)
        assert torch.allclose(together.found.parameters[k : k + 1], alone.found.parameters, atol=1e-10)  # type: ignore[index,arg-type]


def test_a_known_blur_is_refused() -> None:
    known = Likelihood(Identity(SHAPE), Gaussian(sigma=0.1), torch.zeros(1, *SHAPE))
    with pytest.raises(NeedError, match="unknown-kernel"):
        next(iter(BlindDPS().run(PRIOR, known, Rng([0]))))
    with pytest.raises(RecipeError, match="trained range"):
        BlindDPS(schedule=Karras()).check((0.5, 1.0))
