"""The wrappers around denoisers: tiles without seams, padding, precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from app.pictures import read_picture
from operators.errors import ShapeError
from restoration.assets import AssetStore, load_denoiser
from restoration.convert import EDM
from restoration.nets.unet import ResidualUNet
from restoration.precision import resolve_precision
from restoration.prior import Denoiser, Grey, Padded, Prior, Tiled


class Local(Denoiser):
    """A denoiser with a reach of `reach` pixels: a box mean, so that a seam would show."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.shape, self.sigma_range, self.reach = (3, None, None), (0.0, 10.0), reach

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        padded = F.pad(x, (self.reach,) * 4, mode="replicate")
        return F.avg_pool2d(padded, 2 * self.reach + 1, stride=1) * (1 - sigma.view(-1, 1, 1, 1) / 20)


def picture(height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height), dtype=torch.float64)


@given(height=st.integers(20, 150), width=st.integers(20, 150))
def test_tiles_leave_no_seam(height: int, width: int) -> None:
    inner = Local(reach=5)
    x, sigma = picture(height, width), torch.tensor([0.2, 1.0], dtype=torch.float64)
    tiled = Tiled(inner, tile=48, halo=8, blend=8, step_of=8)
    assert torch.allclose(tiled(x, sigma), inner(x, sigma), atol=1e-12)


def test_a_halo_narrower_than_the_reach_shows_and_fades() -> None:
    inner, sigma = Local(reach=5), torch.tensor([0.2, 1.0], dtype=torch.float64)
    x = picture(100, 100)
    error = (Tiled(inner, tile=48, halo=0, blend=8, step_of=8)(x, sigma) - inner(x, sigma)).abs()
    assert 0 < float(error.max()) < 1.0


def test_tiles_must_be_wide_enough() -> None:
    with pytest.raises(ShapeError, match="wider"):
        Tiled(Local(1), tile=32, halo=16, blend=8)


def test_tiles_are_differentiable() -> None:
    x, v = picture(70, 60, 1), picture(70, 61, 1)[..., :60]
    direct, tiled = Prior(Local(5)), Prior(Tiled(Local(5), tile=48, halo=8, blend=8))
    assert torch.allclose(direct.denoise_vjp(x, 0.3)[1](v), tiled.denoise_vjp(x, 0.3)[1](v), atol=1e-12)


@given(height=st.integers(16, 40), width=st.integers(16, 40))
def test_padding_gives_back_the_size(height: int, width: int) -> None:
    class Strict(Local):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            assert x.shape[-1] % 8 == 0
            assert x.shape[-2] % 8 == 0
            return super().forward(x, sigma)

    x = picture(height, width)
    out = Padded(Strict(1), 8)(x, torch.tensor([0.1, 0.1], dtype=torch.float64))
    assert out.shape == x.shape
    # Away from the padded edge nothing changes.
    assert torch.allclose(out[..., :-2, :-2], Local(1)(x, torch.tensor([0.1, 0.1]).double())[..., :-2, :-2])


def test_padding_refuses_what_it_cannot_mirror() -> None:
    with pytest.raises(ShapeError, match="at least"):
        Padded(Local(1), 8)(picture(4, 9), torch.tensor([0.1, 0.1]).double())


def small_net() -> ResidualUNet:
    with torch.random.fork_rng():
        net = ResidualUNet((8, 12), 1, 16)
    g = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = 0.1 * torch.randn(p.shape, generator=g)
    return net


def test_bf16_is_close_to_fp32_and_keeps_the_state_in_fp32() -> None:
    shape = (3, None, None)
    exact, rough = (EDM(small_net(), shape, (0.01, 10), precision=p) for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    x, sigma = picture(32, 40).float(), torch.tensor([0.1, 1.0])
    with torch.no_grad():
        a, b = exact(x, sigma), rough(x, sigma)
    assert a.dtype == b.dtype == torch.float32
    assert 0 < float((a - b).abs().max()) < 0.05


def test_precision_follows_the_machine() -> None:
    cpu = torch.device("cpu")
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    assert resolve_precision("auto", cpu) == ("bf16" if fast else "fp32")
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"


@pytest.fixture(scope="module")
def photo() -> Prior:
    store = AssetStore()
    card = store.card("photo", "prior")
    return Prior(load_denoiser(card, store.resolve(card), torch.device("cpu"), "fp32"))


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (16, 200)])
def test_the_photo_prior_denoises_any_size(photo: Prior, size: tuple[int, int]) -> None:
    from app.pictures import read_picture

    clean = read_picture(AssetStore().picture("coffee")).pixels[None, :, 100 : 100 + size[0], 60 : 60 + size[1]]
    clean = clean if clean.shape[-2:] == size else F.interpolate(clean, size=size, mode="bilinear")
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    error = (photo.denoise(noisy, 0.1) - clean).square().mean()
    assert float(error) < 0.2 * 0.01


def test_the_photo_prior_stays_sane_up_to_sigma_ten(photo: Prior) -> None:
    """On [-1, 1]; 5 in unit range. From pure noise the estimate must look like a mean picture, not like noise."""
    noise = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    for sigma in (0.5, 1.0, 2.5, 5.0):
        estimate = photo.denoise(0.5 + sigma * noise, sigma)
        assert float(estimate.min()) > -0.5
        assert float(estimate.max()) < 1.5
        assert float(estimate.std()) < 0.35
        assert 0.2 < float(estimate.mean()) < 0.8


def test_the_photo_prior_treats_samples_apart(photo: Prior) -> None:
    x = torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(4))
    levels = torch.tensor([0.02, 0.3, 2.0])
    together = photo.denoise(x, levels)
    apart = torch.cat([photo.denoise(x[i : i + 1], levels[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, apart, atol=2e-5)


def test_the_photo_prior_tiles_without_a_visible_seam(photo: Prior) -> None:
    """A halo of 64 px is less than the network's reach: what remains must be far below a grey level."""
    store = AssetStore()
    card = store.card("photo", "prior")
    inner = load_denoiser(card, store.resolve(card), torch.device("cpu"), "fp32")
    from app.pictures import read_picture

    clean = read_picture(store.picture("astronaut")).pixels[None, :, :256, :256]
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.1])
    with torch.no_grad():
        difference = (Tiled(inner, tile=200, halo=64, blend=32)(noisy, sigma) - inner(noisy, sigma)).abs()
    assert float(difference.max()) < 0.5 / 255


def test_weights_that_do_not_fit_are_refused() -> None:
    from operators.errors import AssetCorrupt
    from restoration.assets import load_state

    store = AssetStore()
    path = store.resolve(store.card("photo", "prior"))
    with pytest.raises(AssetCorrupt, match="weights for this network"):
        load_state(small_net(), path)


class Asked(Denoiser):
    """Keeps what it was asked, and answers with the posterior mean of independent channels N(0.5, 0.2²)."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.sigma_range, self.seen = (3, None, None), (0.01, 10.0), torch.empty(0)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.seen = x
        noise = sigma.view(-1, 1, 1, 1) ** 2 if sigma.ndim == 1 else sigma**2
        return (0.04 * x + noise * 0.5) / (0.04 + noise)


def test_grey_pictures_of_a_colour_prior_have_the_law_of_its_mean_channel() -> None:
    # the mean of three independent channels is N(0.5, 0.2² / 3): its posterior mean is known
    x, sigma = picture(24, 20)[:, :1], torch.tensor([0.1, 0.7], dtype=torch.float64)
    noise = sigma.view(-1, 1, 1, 1) ** 2
    exact = (0.04 / 3 * x + noise * 0.5) / (0.04 / 3 + noise)
    assert torch.allclose(Grey(Asked())(x, sigma), exact, atol=1e-7)


def test_a_colour_prior_is_shown_independent_noise_of_the_level_it_is_told() -> None:
    inner = Asked()
    sigma, size = 0.3, 256
    noise = sigma * torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    Grey(inner)(noise, torch.tensor([sigma], dtype=torch.float64))
    values = inner.seen[0].flatten(1)
    covariance = values @ values.T / size**2
    # the standard error of each is about sqrt(2) * 3 sigma² / size, 0.4 % of the variance
    assert torch.allclose(covariance, 3 * sigma**2 * torch.eye(3, dtype=torch.float64), atol=0.025 * 3 * sigma**2)
    assert torch.allclose(inner.seen.mean(1, keepdim=True), noise, atol=1e-6)  # the pattern has 32 bits


def test_grey_is_a_function_with_a_derivative_and_a_range() -> None:
    grey = Grey(Asked())
    assert grey.shape == (1, None, None)
    assert grey.sigma_range == pytest.approx((0.01 / 3**0.5, 10 / 3**0.5))
    x, v = picture(16, 18, 1)[:, :1], picture(18, 16, 1)[:, :1].transpose(2, 3)
    value, pull = Prior(grey).denoise_vjp(x, 0.2)
    assert torch.equal(value, Prior(grey).denoise(x, 0.2))
    assert torch.allclose(pull(v), 0.04 / (0.04 + 3 * 0.04) * v, atol=1e-12)
    two = torch.cat([x, x.flip(-1)])
    assert torch.equal(grey(two, torch.full((2,), 0.2, dtype=torch.float64))[:1], value)
    with pytest.raises(ShapeError, match="3 channels"):
        Grey(grey)


@pytest.mark.weights
def test_the_photo_prior_takes_noise_off_grey_pictures() -> None:
    store = AssetStore()
    card = store.card("photo", "prior")
    prior = load_denoiser(card, store.resolve(card), torch.device("cpu"), "fp32")
    pixels = read_picture(store.picture("chelsea")).pixels[:, 30:126, 60:156].mean(0)[None, None]
    noisy = pixels + 0.05 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.05])

    def decibels(estimate: Tensor) -> float:
        return float(-10 * (estimate - pixels).square().mean().log10())

    with torch.no_grad():
        grey = decibels(Grey(prior)(noisy, level))
        equal = decibels(prior(noisy.expand(-1, 3, -1, -1), level).mean(1, keepdim=True))
    assert decibels(noisy) == pytest.approx(26, abs=0.2)
    assert grey > equal + 3
    assert grey > 31
