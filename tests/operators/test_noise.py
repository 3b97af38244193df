"""Noise laws: moments, log-probabilities and slopes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import AnyNoise, Gaussian, Noise, Poisson, Rng, kinds
from operators.errors import ShapeError


def test_gaussian_moments() -> None:
    noise = Gaussian(sigma=0.3)
    clean = torch.full((1, 40000), 0.5, dtype=torch.float64)
    y = noise.sample(clean, Rng([0, 1]))
    assert y.shape == (2, 40000)
    assert y.dtype == torch.float64
    assert float((y.mean() - 0.5).abs()) < 5 * 0.3 / 80000**0.5
    assert float(y.std()) == pytest.approx(0.3, rel=5 / (2 * 80000) ** 0.5)
    assert float(noise.whiten(y, clean).std()) == pytest.approx(1, rel=0.02)


def test_complex_gaussian_has_sigma_per_real_component() -> None:
    y = Gaussian(sigma=0.3).sample(torch.zeros(1, 40000, dtype=torch.complex64), Rng([0]))
    assert float(y.real.std()) == pytest.approx(0.3, rel=0.02)
    assert float(y.imag.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float((y.real * y.imag).mean())) < 5 * 0.09 / 200


@pytest.mark.parametrize("level", [0.02, 0.5, 3.0])
def test_poisson_moments(level: float) -> None:
    noise = Poisson(peak=50)
    clean = torch.full((1, 60000), level)
    y = noise.sample(clean, Rng([0])).double()
    assert float((y.mean() - level).abs()) < 5 * (level / 50 / 60000) ** 0.5
    assert float(y.var()) == pytest.approx(level / 50, rel=0.05)
    assert torch.allclose(y * 50, (y * 50).round(), atol=1e-4)
    assert float(noise.whiten(y, clean).square().mean()) == pytest.approx(1, rel=0.05)


def test_poisson_log_prob_is_the_law() -> None:
    noise = Poisson(peak=20)
    rate = torch.linspace(0.3, 40, 9, dtype=torch.float64)
    counts = torch.arange(9, dtype=torch.float64)
    law = torch.distributions.Poisson(rate).log_prob(counts).sum()
    other = torch.distributions.Poisson(rate * 1.3).log_prob(counts).sum()
    ours = noise.log_prob(counts[None] / 20, rate[None] / 20)
    assert float(ours - noise.log_prob(counts[None] / 20, 1.3 * rate[None] / 20)) == pytest.approx(float(law - other))


def test_gaussian_log_prob_is_the_law() -> None:
    noise = Gaussian(sigma=0.4)
    rng = Rng([0], dtype=torch.float64)
    y, a, b = rng.randn((7,)), rng.randn((7,)), rng.randn((7,))
    law = torch.distributions.Normal(a, 0.4).log_prob(y).sum() - torch.distributions.Normal(b, 0.4).log_prob(y).sum()
    assert float(noise.log_prob(y, a) - noise.log_prob(y, b)) == pytest.approx(float(law))


@pytest.mark.parametrize("noise", [kind() for kind in kinds(AnyNoise).values()], ids=repr)
def test_score_is_the_slope_of_log_prob(noise: Noise) -> None:
    rng = Rng([0, 1, 2], dtype=torch.float64)
    clean = (rng.randn((50,)) * 0.3).requires_grad_()
    y = rng.rand((50,))
    (slope,) = torch.autograd.grad(noise.log_prob(y, clean).sum(), clean)
    assert torch.allclose(noise.score(y, clean), slope, rtol=1e-9)
    if noise.takes_complex:
        wave = rng.randn((50,), complex=True).requires_grad_()
        data = rng.randn((50,), complex=True)
        (slope,) = torch.autograd.grad(noise.log_prob(data, wave).sum(), wave)
        assert torch.allclose(noise.score(data, wave), slope)


@given(peak=st.floats(0.5, 1e5), count=st.integers(0, 5))
def test_poisson_stays_finite_and_pushes_back(peak: float, count: int) -> None:
    noise = Poisson(peak=peak)
    clean = torch.linspace(-2, 2, 401, dtype=torch.float64)[:, None]
    y = torch.full((1, 1), count / peak, dtype=torch.float64)
    score, value = noise.score(y, clean), noise.log_prob(y, clean)
    assert torch.isfinite(score).all()
    assert torch.isfinite(value).all()
    assert (score[clean < -1e-9] > 0).all()
    assert (score[clean > count / peak + 1e-9] <= 1e-9).all()
    # concave: slopes never rise
    assert (score.diff(dim=0) <= 1e-9 * score.abs().max()).all()


def test_poisson_refuses_what_it_cannot_count() -> None:
    rng = Rng([0])
    with pytest.raises(ShapeError, match="unit range"):
        Poisson().sample(torch.full((1, 4), -1.0), rng)
    with pytest.raises(ShapeError, match="complex"):
        Poisson().sample(torch.zeros(1, 4, dtype=torch.complex64), rng)
    assert not Poisson().sample(torch.full((1, 4), -0.1), rng).any()


def test_batches_must_match() -> None:
    for noise in (Gaussian(), Poisson()):
        assert noise.sample(torch.ones(1, 3), Rng([0, 1])).shape == (2, 3)
        with pytest.raises(ShapeError, match="2 samples, got 3"):
            noise.sample(torch.ones(3, 3), Rng([0, 1]))


def test_sample_alone_equals_sample_in_a_batch() -> None:
    clean = Rng([9, 8, 7]).rand((3, 4))
    for noise in (Gaussian(), Poisson()):
        together = noise.sample(clean, Rng([5, 6, 7]))
        assert torch.equal(noise.sample(clean[1:2], Rng([6])), together[1:2])


def test_data_variance() -> None:
    y = torch.tensor([[0.0, 0.5]])
    assert torch.allclose(Gaussian(sigma=0.1).data_variance(y), torch.tensor(0.01))
    assert torch.allclose(Poisson(peak=10).data_variance(y), torch.tensor([[0.01, 0.05]]))


@pytest.mark.parametrize("bad", [{"sigma": 0}, {"sigma": 11}, {"sigma": float("nan")}, {"sigma": 0.1, "extra": 1}])
def test_bad_parameters_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Gaussian.model_validate(bad)
