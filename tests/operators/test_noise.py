"""Noise laws: moments, log-probabilities and slopes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import special, stats

from operators import (
    AnyNoise,
    Correlated,
    Gaussian,
    Need,
    Noise,
    Poisson,
    PoissonGaussian,
    Quantised,
    Rician,
    Rng,
    SaltPepper,
    Speckle,
    Uniform,
    kinds,
)
from operators.errors import ShapeError

ALL = [kind() for kind in kinds(AnyNoise).values()]


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


@pytest.mark.parametrize("noise", ALL, ids=repr)
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
    for noise in ALL:
        assert noise.sample(torch.ones(1, 3), Rng([0, 1])).shape == (2, 3)
        with pytest.raises(ShapeError, match="2 samples, got 3"):
            noise.sample(torch.ones(3, 3), Rng([0, 1]))


def test_sample_alone_equals_sample_in_a_batch() -> None:
    clean = Rng([9, 8, 7]).rand((3, 4))
    for noise in ALL:
        together = noise.sample(clean, Rng([5, 6, 7]))
        assert torch.equal(noise.sample(clean[1:2], Rng([6])), together[1:2])
        assert torch.equal(noise.sample(clean.flip(0), Rng([7, 6, 5])), together.flip(0))
        assert not torch.equal(noise.sample(clean[1:2], Rng([7])), together[1:2])


def test_data_variance() -> None:
    y = torch.tensor([[0.0, 0.5]])
    assert torch.allclose(Gaussian(sigma=0.1).data_variance(y), torch.tensor(0.01))
    assert torch.allclose(Poisson(peak=10).data_variance(y), torch.tensor([[0.01, 0.05]]))


@pytest.mark.parametrize("bad", [{"sigma": 0}, {"sigma": 11}, {"sigma": float("nan")}, {"sigma": 0.1, "extra": 1}])
def test_bad_parameters_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Gaussian.model_validate(bad)


# What each law is, in scipy's words: log p(y | clean), with what depends on y alone.


def log_poisson_gaussian(y: np.ndarray, clean: float, noise: PoissonGaussian) -> np.ndarray:
    largest = noise.peak * max(clean, y.max())
    k = np.arange(int(largest + 12 * largest**0.5) + 20)[:, None]
    parts = stats.poisson.logpmf(k, noise.peak * clean) + stats.norm.logpdf(y, k / noise.peak, noise.sigma)
    return special.logsumexp(parts, axis=0)


def log_rician(y: np.ndarray, clean: float, noise: Rician) -> np.ndarray:
    return stats.rice.logpdf(y, clean / noise.sigma, scale=noise.sigma)


def log_speckle(y: np.ndarray, clean: float, noise: Speckle) -> np.ndarray:
    return stats.gamma.logpdf(y, noise.looks, scale=clean / noise.looks)


def log_cell(y: np.ndarray, clean: float, noise: Quantised | Uniform) -> np.ndarray:
    half = noise.step / 2 if isinstance(noise, Quantised) else noise.half_width
    nearer = -np.abs(y - clean)  # on the side where the distribution function keeps its digits
    return np.log(stats.norm.cdf((nearer + half) / noise.sigma) - stats.norm.cdf((nearer - half) / noise.sigma))


def log_salt_pepper(y: np.ndarray, clean: float, noise: SaltPepper) -> np.ndarray:
    f, dead, alive = noise.fraction, stats.norm([[0], [1]], noise.sigma), stats.norm(clean, noise.sigma)
    return np.log((1 - f) * alive.pdf(y) + f / 2 * dead.pdf(y).sum(0))


LAWS = [
    (PoissonGaussian(peak=15, sigma=0.02), log_poisson_gaussian),  # read-out of 0.3 photons: peaks stand apart
    (PoissonGaussian(peak=15, sigma=0.2), log_poisson_gaussian),
    (PoissonGaussian(peak=600, sigma=0.05), log_poisson_gaussian),
    (Rician(sigma=0.1), log_rician),
    (Rician(sigma=0.002), log_rician),
    (Speckle(looks=1), log_speckle),
    (Speckle(looks=5.5), log_speckle),
    (Quantised(step=0.1, sigma=0.03), log_cell),
    (Quantised(step=1 / 255, sigma=0.1), log_cell),
    (Uniform(half_width=0.2, sigma=0.03), log_cell),
    (Uniform(half_width=0.05, sigma=0.2), log_cell),
    (SaltPepper(fraction=0.3, sigma=0.05), log_salt_pepper),
]
CLEAN = [0.02, 0.07, 0.3, 0.55, 1.4]


def values(noise: Noise, y: np.ndarray, clean: float) -> np.ndarray:
    return noise.log_prob(torch.from_numpy(y)[:, None], torch.full((1, 1), clean, dtype=torch.float64)).numpy()


@pytest.mark.parametrize(("noise", "law"), LAWS, ids=[repr(law[0]) for law in LAWS])
def test_log_prob_is_the_law(noise: Noise, law) -> None:
    for clean in CLEAN:
        y = noise.sample(torch.full((1, 100), clean, dtype=torch.float64), Rng([0], dtype=torch.float64))[0].numpy()
        for other in (clean - 0.4 * min(y.std(), clean), clean + 0.1 * y.std(), clean + 2 * y.std()):
            ours = values(noise, y, clean) - values(noise, y, other)
            theirs = law(y, clean, noise) - law(y, other, noise)
            assert np.allclose(ours, theirs, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize(("noise", "law"), LAWS, ids=[repr(law[0]) for law in LAWS])
def test_every_law_adds_up_to_the_same_whatever_the_clean_value(noise: Noise, law) -> None:
    totals = []
    for clean in CLEAN:
        whole = noise.sample(torch.full((1, 4000), clean, dtype=torch.float64), Rng([0], dtype=torch.float64))
        low, high = float(whole.min()), float(whole.max())
        grid = np.linspace(low - 1.5 * (high - low), high + 4 * (high - low), 12001)
        if isinstance(noise, Rician | Speckle):
            # what these leave out is a power of y, which is positive
            grid = np.linspace(max(grid[0], 0), grid[-1], 12001)
            factor = grid if isinstance(noise, Rician) else grid ** (noise.looks - 1)
            totals.append(np.trapezoid(factor * np.exp(values(noise, grid, clean)), grid))
        elif isinstance(noise, Quantised):
            levels = noise.step * np.arange(round(grid[0] / noise.step), round(grid[-1] / noise.step) + 1)
            totals.append(np.exp(values(noise, levels, clean)).sum())
            assert totals[-1] == pytest.approx(1)
        else:
            totals.append(np.trapezoid(np.exp(values(noise, grid, clean)), grid))
    assert np.allclose(totals, totals[0], rtol=2e-6)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 12), (2, 3, 4, 3), (7,)])
def test_correlated_noise_is_a_gaussian_with_that_covariance(shape: tuple[int, ...], exponent: float) -> None:
    noise = Correlated(sigma=0.3, exponent=exponent)
    size = math.prod(shape)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    precision = noise.score(basis, torch.zeros_like(basis)).reshape(size, size)
    covariance = torch.linalg.inv(precision)
    assert torch.allclose(covariance.diagonal(), torch.full((size,), 0.09, dtype=torch.float64))
    if len(shape) > 1:  # channels are independent
        pixels = size // shape[0]
        assert not covariance[:pixels, pixels:].abs().gt(1e-12).any()
    rng = Rng([0, 1, 2], dtype=torch.float64)
    y, clean = rng.randn(shape), rng.randn(shape)
    law = stats.multivariate_normal(cov=covariance.numpy())
    theirs = law.logpdf((y - clean).flatten(1).numpy()) - law.logpdf(np.zeros(size))
    assert np.allclose(noise.log_prob(y, clean).numpy(), theirs)
    if exponent == 0:
        assert torch.allclose(noise.log_prob(y, clean), Gaussian(sigma=0.3).log_prob(y, clean))
    else:
        neighbours = covariance[0, 1] / 0.09
        assert 0.02 < float(neighbours) < 1


@pytest.mark.parametrize("complex_data", [False, True])
def test_correlated_samples_have_their_spectrum(complex_data: bool) -> None:
    noise = Correlated(sigma=0.2, exponent=1.5)
    dtype = torch.complex128 if complex_data else torch.float64
    clean = torch.zeros(1, 1, 16, 18, dtype=dtype)
    y = noise.sample(clean, Rng(range(600)))
    power = torch.fft.fft2(y, norm="ortho").abs().square().mean((0, 1))
    expected = noise.spectrum((16, 18), clean) * (2 if complex_data else 1)
    # |F|² of a real field has as much variance as twice its square at the self-conjugate frequencies
    assert bool(((power / expected - 1).abs() < 5 * (2 / 600) ** 0.5).all())
    components = [y.real, y.imag] if complex_data else [y]
    for part in components:
        assert float(part.std()) == pytest.approx(0.2, rel=0.05)


SIMULATED = [
    (Gaussian(sigma=0.1), 0.4),
    (Correlated(sigma=0.1, exponent=0.5), 0.4),
    (Correlated(sigma=0.1, exponent=2), 0.4),
    (PoissonGaussian(peak=3, sigma=0.1), 0.5),
    (PoissonGaussian(peak=200, sigma=0.02), 0.0),
    (PoissonGaussian(peak=200, sigma=0.02), 1.5),
    (Rician(sigma=0.1), 0.0),
    (Rician(sigma=0.1), 0.12),
    (Rician(sigma=0.1), 0.7),
    (Rician(sigma=0.02), -0.7),  # beyond 30 sigma, where the variance is an expansion
    (Speckle(looks=1), 0.3),
    (Speckle(looks=16.5), 2.0),
    (Quantised(step=0.1, sigma=0.2), 0.437),
    (Uniform(half_width=0.3, sigma=0.05), 0.4),
    (Uniform(half_width=0.05, sigma=0.3), 0.4),
    (SaltPepper(fraction=0.2, sigma=0.05), 0.9),
    (SaltPepper(fraction=0.9, sigma=0.3), 0.1),
]


@pytest.mark.parametrize(("noise", "level"), SIMULATED, ids=repr)
def test_whitened_samples_have_mean_zero_and_variance_one(noise: Noise, level: float) -> None:
    clean = torch.full((1, 200000), level, dtype=torch.float64)
    y = noise.sample(clean, Rng([3], dtype=torch.float64))
    assert y.dtype == torch.float64
    white = noise.whiten(y, clean)
    count = white.numel() ** 0.5
    assert abs(float(white.mean())) < 5 / count
    square = white.square()
    assert abs(float(square.mean()) - 1) < 5 * float(square.std()) / count


def test_rounding_whitens_over_whole_cells_and_lands_on_levels() -> None:
    noise = Quantised(step=0.1, sigma=0.004)
    clean = 1.0 * Rng([0], dtype=torch.float64).rand((200000,))
    y = noise.sample(clean, Rng([3], dtype=torch.float64))
    assert torch.allclose(y * 10, (y * 10).round(), atol=1e-12)
    square = noise.whiten(y, clean).square()
    assert abs(float(square.mean()) - 1) < 5 * float(square.std()) / 200000**0.5


STEADY = [pair for pair in SIMULATED if pair[1] != 0 and not isinstance(pair[0], Correlated | SaltPepper)]


@pytest.mark.parametrize(("noise", "level"), STEADY, ids=repr)
def test_data_variance_is_about_the_variance_of_the_data(noise: Noise, level: float) -> None:
    clean = torch.full((1, 50000), level, dtype=torch.float64)
    y = noise.sample(clean, Rng([3], dtype=torch.float64))
    judged = noise.data_variance(y).expand_as(y)
    assert bool((judged > 0).all())
    assert float(judged.mean()) == pytest.approx(float(y.var()), rel=0.12)


def test_data_variance_where_no_one_clean_value_can_tell() -> None:
    y = torch.linspace(0, 1, 5, dtype=torch.float64)[None]
    assert torch.allclose(Correlated(sigma=0.1).data_variance(y), torch.tensor(0.01).double())
    judged = SaltPepper(fraction=0.2, sigma=0.02).data_variance(y)[0]
    assert torch.allclose(judged[1:4], torch.full((3,), 4e-4, dtype=torch.float64))
    # at black, the density of dead pixels is 0.1 / (sqrt(2 pi) sigma), that of living ones 0.8
    assert torch.allclose(judged[::4], torch.full((2,), 4e-4 * (1 + 0.125 / (2 * math.pi) ** 0.5 / 0.02)).double())


@pytest.mark.parametrize("noise", ALL, ids=repr)
def test_single_precision_agrees_with_double(noise: Noise) -> None:
    rng = Rng([0, 1], dtype=torch.float64)
    clean = rng.rand((3, 8, 8)) - 0.1
    y = noise.sample(clean, rng)
    score, value, white = noise.score(y, clean), noise.log_prob(y, clean), noise.whiten(y, clean)
    a, b = y.float(), clean.float()
    assert noise.score(a, b).dtype == noise.log_prob(a, b).dtype == noise.whiten(a, b).dtype == torch.float32
    assert torch.allclose(noise.score(a, b).double(), score, rtol=1e-3, atol=2e-4 * float(score.abs().max()))
    assert torch.allclose(noise.log_prob(a, b).double(), value, rtol=1e-3)
    assert torch.allclose(noise.whiten(a, b).double(), white, rtol=1e-3, atol=1e-3)
    assert noise.data_variance(a).dtype == torch.float32
    # one y for many clean values, and the other way round
    shared = noise.score(y[:1], clean)
    assert torch.allclose(shared[1:], noise.score(y[:1], clean[1:]))
    assert noise.log_prob(y, clean[:1]).shape == (2,)


@given(
    noise=st.one_of(
        st.builds(PoissonGaussian, peak=st.floats(0.1, 1e6), sigma=st.floats(1e-5, 10)),
        st.builds(Rician, sigma=st.floats(1e-4, 10)),
        st.builds(Speckle, looks=st.floats(0.1, 1e4)),
        st.builds(Quantised, step=st.floats(1e-5, 10), sigma=st.floats(1e-4, 10)),
        st.builds(Uniform, half_width=st.floats(1e-5, 10), sigma=st.floats(1e-4, 10)),
        st.builds(SaltPepper, fraction=st.floats(1e-6, 0.999), sigma=st.floats(1e-4, 10)),
        st.builds(Correlated, sigma=st.floats(1e-4, 10), exponent=st.floats(0, 4)),
    ),
    level=st.floats(-1, 2),
)
def test_slopes_are_finite_and_those_of_log_prob(noise: Noise, level: float) -> None:
    clean = torch.linspace(-1, 2, 62, dtype=torch.float64)[:, None].requires_grad_()
    y = torch.full((1, 1), level, dtype=torch.float64)
    value = noise.log_prob(y, clean)
    (slope,) = torch.autograd.grad(value.sum(), clean)
    score = noise.score(y, clean)
    assert torch.isfinite(score).all()
    assert torch.isfinite(value).all()
    assert torch.allclose(score, slope, rtol=1e-5, atol=1e-6 * float(score.detach().abs().max()) + 1e-12)
    # the slope of autograd is that of the values too
    middle = 0.5 * (clean[1:] + clean[:-1]).detach()
    h = 1e-5
    change = (noise.log_prob(y, middle + h) - noise.log_prob(y, middle - h)) / (2 * h)
    size = float(value.detach().abs().max())
    assert torch.allclose(
        change, noise.score(y, middle)[:, 0], rtol=1e-2, atol=1e-3 * float(change.abs().max()) + size * 1e-8
    )


@pytest.mark.parametrize("noise", [Poisson(), PoissonGaussian(), Speckle()], ids=repr)
def test_negative_images_are_refused_or_pushed_back(noise: Noise) -> None:
    with pytest.raises(ShapeError, match=f"{noise.title} noise expected clean data >= 0, got a minimum of -0.5"):
        noise.sample(torch.full((1, 4), -0.5), Rng([0]))
    dark = noise.sample(torch.full((1, 400), -0.1, dtype=torch.float64), Rng([0], dtype=torch.float64))
    assert float(dark.abs().max()) < 0.1
    below = torch.linspace(-2, -0.01, 20, dtype=torch.float64)[:, None]
    y = torch.zeros(1, 1, dtype=torch.float64)
    assert bool((noise.score(y, below) > 0).all())
    # zero data are best explained by black
    black = float(noise.score(y, 0 * below[:1]))
    assert black >= 0 if isinstance(noise, PoissonGaussian) else abs(black) < 1e-9


def test_the_read_out_vanishes_and_takes_over() -> None:
    rng = Rng([0], dtype=torch.float64)
    clean = 0.1 + rng.rand((200,))
    other = 0.1 + rng.rand((200,))
    counts = Poisson(peak=40).sample(clean, rng)
    a, b = PoissonGaussian(peak=40, sigma=1e-4), Poisson(peak=40)
    assert torch.allclose(a.score(counts, clean), b.score(counts, clean), rtol=1e-9)
    change = a.log_prob(counts, clean) - a.log_prob(counts, other)
    assert torch.allclose(change, b.log_prob(counts, clean) - b.log_prob(counts, other))
    many, gauss = PoissonGaussian(peak=1e6, sigma=0.1), Gaussian(sigma=0.1)
    y = gauss.sample(clean, rng)
    assert torch.allclose(many.score(y, clean), gauss.score(y, clean), rtol=1e-3, atol=1e-3)


def test_a_dead_pixel_does_not_pull() -> None:
    noise, plain = SaltPepper(fraction=0.1, sigma=0.02), Gaussian(sigma=0.02)
    clean = torch.full((1, 2), 0.5, dtype=torch.float64)
    y = torch.tensor([[1.0, 0.52]], dtype=torch.float64)
    dead, alive = noise.score(y, clean)[0]
    assert abs(float(dead)) < 1e-6
    assert float(alive) == pytest.approx(float(plain.score(y, clean)[0, 1]), rel=1e-6)
    share = noise.sample(torch.full((1, 100000), 0.5), Rng([0]))
    assert float((share > 0.8).double().mean()) == pytest.approx(0.05, abs=5 * (0.05 / 1e5) ** 0.5)
    assert float((share < 0.2).double().mean()) == pytest.approx(0.05, abs=5 * (0.05 / 1e5) ** 0.5)


def test_only_white_gaussian_noise_is_offered_as_such_and_complex_data_are_for_gaussians() -> None:
    for noise in ALL:
        assert (Need.GAUSSIAN in noise.offers) == isinstance(noise, Gaussian)
        assert noise.takes_complex == isinstance(noise, Gaussian | Correlated)
        if not noise.takes_complex:
            with pytest.raises(ShapeError, match=f"{noise.title} noise expected real data, got complex"):
                noise.sample(torch.zeros(1, 4, dtype=torch.complex64), Rng([0]))


@pytest.mark.parametrize("kind", sorted({type(law) for law, _ in SIMULATED}, key=str), ids=lambda kind: kind.__name__)
def test_bad_parameters_of_every_law_are_refused(kind: type[Noise]) -> None:
    for name, field in kind.model_fields.items():
        if name == "kind":
            continue
        assert field.description
        for bad in (-1, math.inf, math.nan, 1e9, "much"):
            with pytest.raises(ValidationError):
                kind.model_validate({name: bad})
        if name != "exponent":
            with pytest.raises(ValidationError):
                kind.model_validate({name: 0})
