"""DPS: both published step conventions, written out in the coordinates of the paper."""

import pytest
import torch

from operators import Rng
from restoration.methods.dps import DPS, NormGuidance, ZetaGuidance
from restoration.schedule import Karras
from tests.oracle import SMALL, last, world


@pytest.mark.parametrize("convention", ["code", "paper"])
def test_the_step_is_the_published_one_in_vp_coordinates(convention: str) -> None:
    """Code: scale grad |y - A x0|. Paper: zeta' / |y - A x0| grad |y - A x0|². Both over x_vp, images on [-1, 1]."""
    w = world("dense")
    now, then = 0.9, 0.6
    guidance = NormGuidance(scale=0.4) if convention == "code" else ZetaGuidance(zeta=0.4)
    x = 0.5 + now * Rng([6], dtype=torch.float64).randn(SMALL)
    alpha = [1 / (1 + (2 * s) ** 2) ** 0.5 for s in (now, then)]  # sqrt(abar) of both levels
    x_vp = ((2 * x - 1) * alpha[0]).requires_grad_()
    estimate = 2 * w.prior.denoiser((x_vp / alpha[0] + 1) / 2, torch.tensor([now]).double()) - 1
    operator = w.likelihood.operator
    gap = 2 * w.likelihood.y - operator(torch.ones(1, *SMALL).double()) - operator(estimate)
    size = gap.square().sum().sqrt()
    objective = size if convention == "code" else gap.square().sum() / size.detach()
    (slope,) = torch.autograd.grad(objective, x_vp)
    expected = -0.4 * slope / alpha[1] / 2
    x0, pullback = w.prior.denoise_vjp(x, now)
    assert torch.allclose(pullback(guidance.slope(w.likelihood, x0, now, then)), expected, atol=1e-10)


def test_zeta_is_half_a_released_scale() -> None:
    w = world("inpainting")
    both = NormGuidance(scale=0.6), ZetaGuidance(zeta=0.3)
    one, other = (last(DPS(schedule=Karras(steps=5), guidance=g), w, [1]) for g in both)
    assert torch.equal(one, other)
