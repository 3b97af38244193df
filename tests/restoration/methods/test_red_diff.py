"""RED-diff beside the published loss, and its end."""

import pytest
import torch

from operators import Rng
from restoration.methods.red_diff import REDDiff
from restoration.schedule import Karras
from tests.oracle import last, world

FINE = Karras(steps=6, sigma_max=2, sigma_min=0.05)


@pytest.mark.parametrize("task", ["inpainting", "dense"])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_it_is_the_published_loop(task: str, power: float) -> None:
    """VP coordinates, [-1, 1], eps-network, autograd and torch's Adam: written as the paper has it."""
    w = world(task)
    a, y = w.matrix, 2 * w.data - w.matrix.sum(1)  # data of the image in [-1, 1]
    guess = w.likelihood.operator.guess(w.likelihood.y).flatten()
    mu = (2 * guess - 1).clone().requires_grad_()
    optimiser = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99), eps=1e-12)
    rng = Rng([5], dtype=torch.float64)
    for sigma in FINE.sigmas((0, 10)):
        level = 2 * sigma
        abar = torch.tensor(1 / (1 + level**2)).double()
        eps = rng.randn((1, 4, 4)).flatten()
        x = abar.sqrt() * mu.detach() + (1 - abar).sqrt() * eps
        clean = 2 * w.prior.denoise(((x / abar.sqrt() + 1) / 2).reshape(1, 1, 4, 4), sigma).flatten() - 1
        network = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        weight = 0.25 * ((1 - abar) / abar).sqrt() ** power
        loss = 0.5 * (y - a @ mu).square().mean() + weight * ((network - eps) * mu).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = last(REDDiff(schedule=FINE, weighting=power), w, [5])[0]
    assert torch.allclose(2 * found - 1, mu.detach(), atol=1e-6)


def test_with_a_prior_that_knows_its_image_it_ends_at_the_minimiser() -> None:
    """D is then the mean itself, the loss is quadratic, and Adam with small steps finds its minimum."""
    w = world("dense", std=1e-4)
    method = REDDiff(schedule=Karras(steps=2000, sigma_max=2, sigma_min=0.05), rate=0.01, weight=0.5)
    a, y = w.matrix, w.data
    hessian = 16 / 7 * a.T @ a + 0.5 * torch.eye(16).double()
    expected = torch.linalg.solve(hessian, 16 / 7 * a.T @ y + 0.5 * torch.full((16,), 0.5).double())
    assert torch.allclose(last(method, w, [0])[0], expected, atol=2e-3)


def test_it_optimises_and_does_not_sample() -> None:
    w = world("inpainting")
    samples = last(REDDiff(schedule=Karras(steps=100, sigma_max=2)), w, range(40))
    ratio, measured = samples.std(0) / w.posterior_covariance.diagonal().sqrt(), w.matrix.sum(0) > 0
    assert float(ratio[measured].max()) < 0.1  # 0.05: the data are fitted, not sampled
    assert float(ratio[~measured].max()) < 0.9  # what noise Adam has not averaged out
    assert w.prior.cost.denoised == 40 * 100
    assert w.prior.cost.pulled_back == 0


def test_sums_weigh_the_data_by_their_number() -> None:
    w = world("inpainting")
    means, sums = (REDDiff(schedule=FINE, balance=b, data_weight=v) for b, v in (("means", 1.0), ("sums", 2.0)))
    assert torch.allclose(last(means, w, [0]), last(sums, w, [0]), atol=1e-9)  # 16 pixels, 8 data
