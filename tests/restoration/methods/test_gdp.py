"""GDP: the released step in VP coordinates, parameters at their least squares, the terms for light and colour."""

import pytest
import torch

from operators import Gaussian, Identity, Likelihood, Rng, UnknownExposureSpec
from operators.errors import NeedError, RecipeError
from restoration.methods.gdp import GDP
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import CorrelatedPrior, stationary

SHAPE = (1, 8, 8)
PRIOR = Prior(CorrelatedPrior(0.5, stationary(SHAPE, 0.15, 2.0), SHAPE))
GAINS = (0.4, 1.3)


def problem(*, clipped: bool = False) -> tuple[Likelihood, torch.Tensor]:
    """Two exposures of an image of the prior."""
    family = UnknownExposureSpec(gains=GAINS, clipped=clipped).build(SHAPE).double()
    values, vectors = torch.linalg.eigh(stationary(SHAPE, 0.15, 2.0))
    drawn = Rng([4], dtype=torch.float64).randn((64,)) @ (vectors * values.clamp_min(0).sqrt()).T
    x = (0.5 + drawn).reshape(1, *SHAPE).clamp(0, 0.75)
    return Likelihood.simulate(family, Gaussian(sigma=0.01), x, Rng([1], dtype=torch.float64)), x


def test_one_level_is_the_released_step_on_vp_images() -> None:
    """x_vp: posterior mean and noise of DDPM, less s times the slope of mean (f (x + 1) / 2 - y)² in x0 on [-1, 1]."""
    likelihood, _ = problem()
    now, then, s = 0.8, 0.3, 40.0
    method = GDP(schedule=Karras(steps=2, sigma_max=now, sigma_min=then), rate=s / (2 * 64), repeats=3, step=0.8)
    first = next(iter(method.run(PRIOR, likelihood, Rng([5], dtype=torch.float64))))
    rng = Rng([5], dtype=torch.float64)
    sizes = [(1 + 4 * level**2) ** 0.5 for level in (now, then)]
    state = (2 * (0.5 + now * rng.randn(SHAPE)) - 1) / sizes[0]
    clean = (2 * PRIOR.denoise((state * sizes[0] + 1) / 2, now) - 1).requires_grad_()
    frames = likelihood.y.tensor_split(2, -1)
    gains = torch.full((2,), 1e-3, dtype=torch.float64)
    for _ in range(3):
        gains = gains.requires_grad_()
        loss = sum(((g * (clean + 1) / 2 - y) ** 2).mean() for g, y in zip(gains, frames, strict=True))
        gains = (gains - 0.8 * torch.autograd.grad(loss, gains)[0]).detach()
    loss = sum(((g * (clean + 1) / 2 - y) ** 2).mean() for g, y in zip(gains, frames, strict=True))
    (slope,) = torch.autograd.grad(loss, clean)
    abar_now, abar_then = 1 / sizes[0] ** 2, 1 / sizes[1] ** 2
    alpha = abar_now / abar_then
    mean = abar_then**0.5 * (1 - alpha) / (1 - abar_now) * clean.detach()
    mean = mean + alpha**0.5 * (1 - abar_then) / (1 - abar_now) * state
    moved = mean + ((1 - alpha) * (1 - abar_then) / (1 - abar_now)) ** 0.5 * rng.randn(SHAPE) - s * slope
    assert torch.allclose(2 * first.x - 1, moved * sizes[1], atol=1e-10)
    assert first.found is not None
    assert torch.allclose(first.found.values(likelihood)["gain"][0], gains, atol=1e-12)


def test_gains_end_at_their_least_squares_and_their_ratio_is_found() -> None:
    """The data fix the ratio of the gains; their scale is the prior's guess."""
    likelihood, x = problem()
    method = GDP(schedule=Karras(steps=100), rate=0.3)
    *steps, final = method.run(PRIOR, likelihood, Rng(range(4), dtype=torch.float64))
    assert final.found is not None
    gains = final.found.values(likelihood)["gain"]
    estimate, frames = steps[-1].x0, likelihood.y.tensor_split(2, -1)
    best = torch.stack([(y * estimate).flatten(1).sum(1) / estimate.square().flatten(1).sum(1) for y in frames], 1)
    assert torch.allclose(gains, best, rtol=0.01)
    assert torch.allclose(gains[:, 1] / gains[:, 0], torch.tensor(GAINS[1] / GAINS[0]).double(), rtol=0.02)
    shape = final.x0 / final.x0.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(shape, (x / x.mean()).expand_as(shape), atol=0.12)


def test_wishes_are_the_slopes_of_their_terms() -> None:
    x = Rng([1, 2], dtype=torch.float64).rand((3, 16, 24)).requires_grad_()
    other = GDP(exposure=0.7, colour=0.3, brightness=0.6)
    u = 2 * x - 1
    patches = u.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-2, -1))
    light = (patches - 0.2).square().flatten(1).mean(1)
    r, g, b = u.mean((-2, -1)).unbind(1)
    cast = ((r - g) ** 4 + (r - b) ** 4 + (g - b) ** 4).sqrt()
    (slope,) = torch.autograd.grad((0.7 * light + 0.3 * cast).sum(), x)
    assert torch.allclose(other._wishes(x), slope, atol=1e-12)
    grey = torch.full((1, 3, 8, 8), 0.6, dtype=torch.float64)
    assert torch.allclose(other._wishes(grey), torch.zeros_like(grey), atol=1e-15)


def test_brightness_can_be_asked_for() -> None:
    likelihood, _ = problem()
    means = []
    for brightness in (0.3, 0.7):
        method = GDP(schedule=Karras(steps=100), rate=0.3, exposure=1, brightness=brightness)
        *_, step = method.run(PRIOR, likelihood, Rng([0], dtype=torch.float64))
        means.append(float(step.x0.mean()))
    assert means[1] > means[0] + 0.1


def test_what_has_no_parameters_is_refused() -> None:
    known = Likelihood(Identity(SHAPE), Gaussian(sigma=0.1), torch.zeros(1, *SHAPE))
    with pytest.raises(NeedError, match="unknown-exposure"):
        next(iter(GDP().run(PRIOR, known, Rng([0]))))
    with pytest.raises(NeedError, match="prior"):
        next(iter(GDP().run(None, known, Rng([0]))))
    with pytest.raises(RecipeError, match="trained range"):
        GDP(schedule=Karras()).check((0.5, 1.0))
