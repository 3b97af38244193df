"""Noise found in pictures and in k-space: known noise on known pictures."""

import numpy as np
import pytest
import torch
from skimage import data, restoration
from skimage.util import img_as_float

from operators import Gaussian, PoissonGaussian, Quantised, Rng
from operators.errors import ShapeError
from operators.noise_level import estimate_kspace_sigma, estimate_poisson_gaussian, estimate_sigma


def photo(name: str) -> torch.Tensor:
    array = np.atleast_3d(img_as_float(getattr(data, name)()))
    return torch.from_numpy(array).movedim(-1, 0)[None, :, :384, :384].contiguous()


COLOUR, GREY = ["astronaut", "coffee", "chelsea"], ["camera", "moon"]


@pytest.mark.parametrize("name", COLOUR + GREY)
@pytest.mark.parametrize(("sigma", "grey", "colour"), [(0.02, 0.06, 0.03), (0.1, 0.04, 0.015)])
def test_photographs(name: str, sigma: float, grey: float, colour: float) -> None:
    y = Gaussian(sigma=sigma).sample(photo(name), Rng([1], dtype=torch.float64))
    error = float(estimate_sigma(y)) / sigma - 1
    assert abs(error) < (colour if name in COLOUR else grey)


def test_it_beats_the_wavelet_median_on_faint_noise() -> None:
    ours, theirs = [], []
    for name in COLOUR:
        y = Gaussian(sigma=0.015).sample(photo(name), Rng([1], dtype=torch.float64))
        ours.append(abs(float(estimate_sigma(y)) / 0.015 - 1))
        theirs.append(abs(restoration.estimate_sigma(y[0].numpy(), channel_axis=0, average_sigmas=True) / 0.015 - 1))
    assert max(ours) < 0.05
    assert min(theirs) > 2 * max(ours)


@pytest.mark.parametrize("shape", [(1, 256, 256), (3, 130, 97), (1, 64, 64)])
@pytest.mark.parametrize("complex_picture", [False, True])
def test_noise_alone(shape: tuple[int, ...], complex_picture: bool) -> None:
    sigmas = estimate_sigma(0.3 * Rng(range(4), dtype=torch.float64).randn(shape, complex=complex_picture))
    assert sigmas.shape == (4,)
    assert sigmas.dtype == torch.float64
    # too low by half a per cent on average, since the largest eigenvalues of noise look like texture
    small = shape[-1] == 64
    assert float(sigmas.mean()) == pytest.approx(0.3, rel=0.03 if small else 0.012)
    assert bool(((sigmas / 0.3 - 1).abs() < (0.06 if small else 0.02)).all())


def test_a_sample_has_the_same_sigma_in_any_batch_scale_and_precision() -> None:
    y = 0.1 * Rng([0, 1]).randn((2, 40, 50)) + torch.linspace(0, 1, 50)
    both = estimate_sigma(y)
    assert both.dtype == torch.float32
    assert torch.allclose(estimate_sigma(y[1:]), both[1:], rtol=1e-6)
    assert torch.allclose(estimate_sigma(7 * y - 3), 7 * both, rtol=1e-3)


def test_clipped_parts_do_not_count() -> None:
    rng = Rng([1], dtype=torch.float64)
    half = torch.where(torch.arange(256) < 128, 0.5, 1.4).double().expand(1, 1, 256, 256)
    y = Gaussian(sigma=0.05).sample(half, rng).clamp(0, 1)
    assert float(estimate_sigma(y)) == pytest.approx(0.05, rel=0.02)
    with pytest.raises(ShapeError, match="not clipped"):
        estimate_sigma(torch.ones(1, 1, 32, 32))


def test_rounded_data_have_the_variance_of_rounding_as_well() -> None:
    y = Quantised(step=0.05, sigma=0.05).sample(photo("chelsea"), Rng([0], dtype=torch.float64))
    assert float(estimate_sigma(y)) == pytest.approx((0.05**2 + 0.05**2 / 12) ** 0.5, rel=0.03)


@pytest.mark.parametrize(("peak", "sigma"), [(30.0, 0.05), (1000.0, 0.02)])
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_the_noise_of_a_camera(name: str, peak: float, sigma: float) -> None:
    y = PoissonGaussian(peak=peak, sigma=sigma).sample(photo(name), Rng([2], dtype=torch.float64))
    gain, read = (float(v) for v in estimate_poisson_gaussian(y))
    assert gain * peak == pytest.approx(1, rel=0.1)
    assert read == pytest.approx(sigma, rel=0.1)
    for level in (0.1, 0.4, 0.8):  # the curve is known better than its parameters
        assert (gain * level + read**2) ** 0.5 == pytest.approx((level / peak + sigma**2) ** 0.5, rel=0.04)


def test_a_camera_that_is_all_read_out_or_all_photons() -> None:
    ramp = torch.linspace(0.05, 1, 192, dtype=torch.float64).expand(2, 1, 192, 192)
    gain, read = estimate_poisson_gaussian(Gaussian(sigma=0.1).sample(ramp, Rng([0, 1], dtype=torch.float64)))
    assert gain.shape == read.shape == (2,)
    assert bool((gain < 0.1 * 0.1**2).all())
    assert torch.allclose(read, torch.tensor(0.1).double(), rtol=0.04)
    photons = PoissonGaussian(peak=50, sigma=1e-4).sample(ramp, Rng([0, 1], dtype=torch.float64))
    gain, read = estimate_poisson_gaussian(photons)
    assert torch.allclose(gain, torch.tensor(0.02).double(), rtol=0.05)
    assert bool((read < 0.04).all())  # against 0.14 of photon noise where it is white


def test_kspace_noise_is_found_exactly_up_to_chance() -> None:
    noise = 0.02 * Rng(range(3), dtype=torch.float64).randn((4, 90, 101), complex=True)
    sigma = estimate_kspace_sigma(noise)
    count = int(0.15 * noise[0].numel())
    # the median of a Rayleigh law has the relative standard error 1 / (2 log 2 sqrt(n))
    assert bool(((sigma / 0.02 - 1).abs() < 5 * 0.7213 / count**0.5).all())


def test_kspace_noise_under_anatomy_and_a_mask() -> None:
    image = photo("camera")[0, 0, :200, :180]
    clean = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image), norm="ortho"))
    y = Gaussian(sigma=0.05).sample(clean[None, None], Rng([0, 1], dtype=torch.float64))
    assert torch.allclose(estimate_kspace_sigma(y), torch.tensor(0.05).double(), rtol=0.06)
    keep = Rng([5]).rand((1, 1, 180))[0] < 0.3
    assert torch.allclose(estimate_kspace_sigma(y * keep), torch.tensor(0.05).double(), rtol=0.12)
    single = estimate_kspace_sigma(y.to(torch.complex64))
    assert single.dtype == torch.float32


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 32 x 32"):
        estimate_sigma(torch.rand(1, 3, 31, 40))
    with pytest.raises(ShapeError, match=r"\(B, C, H, W\)"):
        estimate_sigma(torch.rand(3, 40, 40))
    with pytest.raises(ShapeError, match="finite"):
        estimate_sigma(torch.full((1, 1, 32, 32), float("nan")))
    with pytest.raises(ShapeError, match="at least 64 x 64"):
        estimate_poisson_gaussian(torch.rand(1, 1, 63, 80))
    with pytest.raises(ShapeError, match="got complex"):
        estimate_poisson_gaussian(torch.zeros(1, 1, 64, 64, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="complex k-space"):
        estimate_kspace_sigma(torch.rand(1, 64, 64))
    with pytest.raises(ShapeError, match="at least 100"):
        estimate_kspace_sigma(torch.zeros(1, 64, 64, dtype=torch.complex64))
