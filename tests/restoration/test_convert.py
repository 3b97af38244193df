"""One analytic denoiser seen through every parameterisation gives the same numbers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from restoration.analytic import GaussianPrior, MixturePrior, PowerLawPrior
from restoration.convert import EDM, VE, VP, Flow, cosine_betas, linear_betas, scaled_linear_betas, vp_sigmas
from restoration.preconditioning import edm
from restoration.prior import Denoiser, Prior, UnitRange

SHAPE = (2, 3, 4)


def mixture() -> MixturePrior:
    g = torch.Generator().manual_seed(1)
    means = torch.randn(3, *SHAPE, generator=g, dtype=torch.float64)
    std = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    return MixturePrior(torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64), means, std)


def column(v: Tensor) -> Tensor:
    return v.view(-1, 1, 1, 1)


class RawEDM(nn.Module):
    """F such that EDM preconditioning around it is the given denoiser."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        sigma = (4 * c_noise).exp()
        c_skip, c_out, c_in, _ = (column(c) for c in edm(sigma, 0.5))
        x = scaled / c_in
        return (self.inner(x, sigma) - c_skip * x) / c_out


def table_sigma(k: Tensor) -> Tensor:
    table = np.log(vp_sigmas())
    return torch.from_numpy(np.exp(np.interp(k.numpy(), np.arange(1000), table)))


@pytest.mark.parametrize(
    "inner", [mixture(), GaussianPrior(torch.tensor(0.1).double(), torch.tensor(0.3).double(), SHAPE)]
)
@given(log_sigma=st.floats(-4.0, 4.5))
def test_all_parameterisations_agree(inner: Denoiser, log_sigma: float) -> None:
    g = torch.Generator().manual_seed(2)
    sigma = torch.tensor([np.exp(log_sigma), np.exp(-log_sigma / 2)], dtype=torch.float64).clamp(0.011, 150)
    x = torch.randn(2, *SHAPE, generator=g, dtype=torch.float64) * column(1 + sigma)

    def epsilon(x_vp: Tensor, k: Tensor) -> Tensor:
        s = table_sigma(k)
        z = x_vp * column((1 + s**2).sqrt())
        return (z - inner(z, s)) / column(s)

    def velocity(x_vp: Tensor, k: Tensor) -> Tensor:
        s = table_sigma(k)
        root = column((1 + s**2).sqrt())
        x0 = inner(x_vp * root, s)
        eps = (x_vp * root - x0) / column(s)
        return eps / root - column(s) / root * x0

    def clean(x_vp: Tensor, k: Tensor) -> Tensor:
        s = table_sigma(k)
        return inner(x_vp * column((1 + s**2).sqrt()), s)

    def score(x_vp: Tensor, k: Tensor) -> Tensor:
        # Of the density of x_vp, whose noise has variance 1 - abar.
        s = table_sigma(k)
        return (clean(x_vp, k) * column((1 + s**2).rsqrt()) - x_vp) * column(1 + 1 / s**2)

    def reversed_flow(x_t: Tensor, time: Tensor) -> Tensor:
        return -flow(x_t, 1 - time / 999)

    def ve(power: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The VE score times sigma^power, of a network whose clock is log sigma."""
        return lambda z, clock: (inner(z, clock.exp()) - z) * column(clock.exp()) ** (power - 2)

    def flow(x_t: Tensor, t: Tensor) -> Tensor:
        s = t / (1 - t)
        return (x_t - inner(x_t / column(1 - t), s)) / column(t)

    expected = inner(x, sigma)
    adapters = {
        "edm": EDM(RawEDM(inner), SHAPE, (0.01, 160)),
        "epsilon": VP(epsilon, SHAPE, "epsilon"),
        "v": VP(velocity, SHAPE, "v"),
        "x0": VP(clean, SHAPE, "x0"),
        "score": VP(score, SHAPE, "score"),
        "flow": Flow(flow, SHAPE, (0.01, 0.995)),
        "reversed flow": Flow(reversed_flow, SHAPE, (0.01, 0.995), noise_at=0, time_scale=999),
        "ve score": VE(ve(0), SHAPE, (0.01, 160), torch.log, "score"),
        "ve scaled score": VE(ve(1), SHAPE, (0.01, 160), torch.log, "scaled-score"),
        "ve epsilon": VE(lambda z, c: -ve(1)(z, c), SHAPE, (0.01, 160), torch.log, "epsilon"),
        "ve x0": VE(lambda z, c: inner(z, c.exp()), SHAPE, (0.01, 160), torch.log, "x0"),
    }
    for name, adapter in adapters.items():
        worst = float((adapter(x, sigma) - expected).abs().max())
        assert worst < 1e-10 * max(1.0, float(expected.abs().max())), f"{name} is off by {worst:.2g}"


def test_vp_table_has_the_published_ends() -> None:
    table = vp_sigmas()
    assert table[[0, 100, 500, 999]] == pytest.approx([0.0100005, 0.34226, 3.44297, 157.407], rel=1e-5)


def test_schedules_of_betas_by_their_definitions() -> None:
    assert linear_betas()[[0, -1]] == pytest.approx([1e-4, 0.02])
    assert np.sqrt(scaled_linear_betas(0.0015, 0.0195))[499] == pytest.approx(
        np.sqrt(0.0015) + 499 / 999 * (np.sqrt(0.0195) - np.sqrt(0.0015))
    )
    # abar of the cosine schedule is cos² of its angle, over that at 0, until betas are cut off near the end.
    abar = np.cumprod(1 - cosine_betas())
    angle = np.pi / 2 * (0.5 + 0.008) / 1.008
    assert abar[499] == pytest.approx(np.cos(angle) ** 2 / np.cos(np.pi / 2 * 0.008 / 1.008) ** 2)
    assert cosine_betas().max() == 0.999


@pytest.mark.parametrize(("k", "offset"), [(0, 0.92), (10, 0.65), (100, 0.51), (500, 1.10), (999, 3.38)])
def test_closed_form_clock_is_off_as_published(k: int, offset: float) -> None:
    sigma = torch.tensor([vp_sigmas()[k]])
    exact, closed = (VP(lambda x, _: x, SHAPE, clock=c).index(sigma) for c in ("exact", "edm-vp"))
    assert float(exact) == pytest.approx(k, abs=1e-6)
    assert float(closed - exact) == pytest.approx(offset, abs=0.01)


def test_unit_range_doubles_the_noise() -> None:
    inner = mixture()
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, *SHAPE, generator=g, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.4], dtype=torch.float64)
    outer = UnitRange(inner)
    assert torch.allclose(outer(x, sigma), (inner(2 * x - 1, 2 * sigma) + 1) / 2, atol=1e-14)
    # Around a Gaussian of mean m and variance v on [-1, 1], unit range is mean (m + 1) / 2, variance v / 4.
    wide = GaussianPrior(torch.tensor(0.2).double(), torch.tensor(0.36).double(), SHAPE)
    narrow = GaussianPrior(torch.tensor(0.6).double(), torch.tensor(0.09).double(), SHAPE)
    assert torch.allclose(UnitRange(wide)(x, sigma), narrow(x, sigma), atol=1e-14)


@pytest.mark.parametrize("denoiser", [mixture(), PowerLawPrior(channels=2)])
def test_pullback_is_the_transposed_jacobian(denoiser: Denoiser) -> None:
    g = torch.Generator().manual_seed(5)
    x, u, v = (torch.randn(2, *SHAPE, generator=g, dtype=torch.float64) for _ in range(3))
    prior, h = Prior(denoiser), 1e-5
    x0, pullback = prior.denoise_vjp(x, 0.4)
    assert torch.equal(x0, prior.denoise(x, 0.4))
    along = (prior.denoise(x + h * u, 0.4) - prior.denoise(x - h * u, 0.4)) / (2 * h)
    left = (along * v).flatten(1).sum(1)
    right = (pullback(v) * u).flatten(1).sum(1)
    assert torch.allclose(left, right, rtol=1e-6)


def test_mixture_denoiser_is_the_posterior_mean() -> None:
    # One dimension, by quadrature over x0.
    prior = MixturePrior(
        torch.tensor([0.3, 0.7]), torch.tensor([[[[-1.0]]], [[[0.5]]]]), torch.tensor([0.2, 0.4])
    ).double()
    grid = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    density = sum(w * torch.exp(-0.5 * ((grid - m) / s) ** 2) / s for w, m, s in [(0.3, -1.0, 0.2), (0.7, 0.5, 0.4)])
    for sigma in (0.1, 0.6, 2.0):
        for x in (-1.2, 0.0, 0.9):
            weights = density * torch.exp(-0.5 * ((x - grid) / sigma) ** 2)
            expected = float((weights * grid).sum() / weights.sum())
            got = prior(torch.full((1, 1, 1, 1), x, dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64))
            assert float(got) == pytest.approx(expected, abs=1e-6)


def test_power_law_prior_has_the_stated_spread() -> None:
    prior = PowerLawPrior(std=0.2)
    full = prior.spectrum(16, 16, torch.zeros((), dtype=torch.float64))
    mirrored = torch.cat([full, full[:, 1:-1].flip(1)], dim=1)  # the half spectrum stands for both signs of fx
    assert float(mirrored.mean()) == pytest.approx(0.04, rel=1e-9)


def test_prior_counts_images_not_calls() -> None:
    prior = Prior(mixture())
    x = torch.zeros(5, *SHAPE, dtype=torch.float64)
    prior.denoise(x, 0.5)
    _, pullback = prior.denoise_vjp(x[:2], 0.5)
    pullback(x[:2])
    assert (prior.cost.denoised, prior.cost.pulled_back) == (7, 2)
    assert prior.cost.seconds > 0
