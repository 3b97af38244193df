"""Priors: denoisers D(x, sigma) = E[x0 | x0 + sigma n = x], and the wrappers that adapt them."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.errors import NeedError, ShapeError
from operators.spec import Need


class Denoiser(nn.Module, ABC):
    """Posterior mean of the clean image under white Gaussian noise.

    Shapes: x (B, *shape), sigma (B,) → (B, *shape), float32 or float64 as x.   Units: unit range, sigma too.
    Those that offer NOISE_MAP also take sigma (B, *shape), a level for every pixel.
    `shape` has None where any size will do; `sigma_range` is the range the denoiser was made for.
    """

    shape: tuple[int | None, ...]
    sigma_range: tuple[float, float]
    offers: ClassVar[frozenset[Need]] = frozenset({Need.DENOISER, Need.VJP})

    if TYPE_CHECKING:  # nn.Module types its call as Any

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma)."""


@dataclass
class Cost:
    """What a run asked of the network: images denoised, images pulled back, and the seconds spent on both."""

    denoised: int = 0
    pulled_back: int = 0
    seconds: float = 0.0

    @contextmanager
    def timed(self, x: Tensor) -> Iterator[None]:
        """Adds the time of what is done within to `seconds`."""
        # A GPU runs behind the clock: both ends wait for it.
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        began = time.perf_counter()
        yield
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        self.seconds += time.perf_counter() - began


@dataclass(frozen=True)
class Prior:
    """What a method is given: a denoiser and its vector-Jacobian product. `cost` is the bill; no method reads it."""

    denoiser: Denoiser
    cost: Cost = field(default_factory=Cost, compare=False)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The clean estimate of x (B, *shape) at noise level sigma; no graph is kept.

        `sigma` is a number, or one per sample (B,), or one per pixel (1 or B, *shape) if the denoiser offers that.

        Raises:
            NeedError: levels per pixel for a denoiser that takes one per sample.
        """
        with self.cost.timed(x), torch.no_grad():
            self.cost.denoised += len(x)
            return self.denoiser(x, self._levels(x, sigma))

    def denoise_vjp(
        self, x: Tensor, sigma: float | Tensor, *, keep: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The clean estimate and v ↦ Jᵀ v with J = dD/dx, both (B, *shape).

        The pullback may be used once, or as often as wanted with `keep`, which holds the network's activations.
        """
        with self.cost.timed(x), torch.enable_grad():
            self.cost.denoised += len(x)
            leaf = x.detach().requires_grad_()
            estimate = self.denoiser(leaf, self._levels(x, sigma))

        def pullback(v: Tensor) -> Tensor:
            with self.cost.timed(x):
                self.cost.pulled_back += len(x)
                return torch.autograd.grad(estimate, leaf, v, retain_graph=keep)[0]

        return estimate.detach(), pullback

    def _levels(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        # Levels are real where images are complex.
        real = x.real if x.is_complex() else x
        if isinstance(sigma, Tensor) and sigma.ndim > 1:
            if Need.NOISE_MAP not in self.denoiser.offers:
                raise NeedError(f"{Need.NOISE_MAP.sentence} {type(self.denoiser).__name__} takes one per image.")
            return sigma.to(real).expand(x.shape)
        if isinstance(sigma, Tensor):
            return sigma.to(real).expand(len(x))
        return torch.full((len(x),), sigma, dtype=real.dtype, device=x.device)


class UnitRange(Denoiser):
    """A denoiser of [-1, 1] images seen in unit range: x ↦ 2x - 1, sigma ↦ 2 sigma."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner
        self.shape = inner.shape
        self.sigma_range = (inner.sigma_range[0] / 2, inner.sigma_range[1] / 2)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (self.inner(2 * x - 1, 2 * sigma) + 1) / 2


class Grey(Denoiser):
    """A denoiser of colour pictures, asked for grey ones.

    Three equal channels of a noisy grey picture would have the same noise three times over, which the network, made for
    independent noise, takes for content. So noise without a mean over the channels is added, by which theirs becomes
    independent and sqrt(3) times as strong; the mean of the answers is the grey one. The added noise knows nothing of
    the picture and is always the same, so that this is a function like any other denoiser.

    Shapes: x (B, 1, H, W), sigma (B,) or (B, 1, H, W) → (B, 1, H, W).

    Source: ours. On nine luminance pictures of CBSD68 at noise 25 of 255: 28.8 dB, equal channels at sigma 23.1 dB;
    the mean over two such noises gains 0.01 dB.
    """

    _extra: Tensor

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        if inner.shape[0] != 3:
            raise ShapeError(f"Expected a denoiser of 3 channels, got {inner.shape[0]}; use it as it is.")
        self.inner = inner
        self.shape = (1, *inner.shape[1:])
        low, high = inner.sigma_range
        self.sigma_range = (low / math.sqrt(3), high / math.sqrt(3))
        self.offers = inner.offers  # type: ignore[misc]  # known only here, unlike those of other denoisers
        self.register_buffer("_extra", torch.empty(0), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = math.sqrt(3) * sigma
        levels = level.reshape(-1, 1, 1, 1) if level.ndim == 1 else level.expand(-1, 3, -1, -1)
        extra = self._noise(x.shape[-2:]).to(x)
        mean: Tensor = self.inner(x + levels * extra, level if level.ndim == 1 else levels).mean(1, keepdim=True)
        return mean

    def _noise(self, size: torch.Size) -> Tensor:
        """(3, H, W) with the covariance 1 - 1/3 at every pixel."""
        if self._extra.shape[-2:] != size:
            noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
            self._extra = noise - noise.mean(0, keepdim=True)
        return self._extra


class Padded(Denoiser):
    """Pads height and width up to a multiple by mirroring and crops the result, for networks that halve their input."""

    def __init__(self, inner: Denoiser, multiple: int) -> None:
        super().__init__()
        self.inner, self.multiple = inner, multiple
        self.shape, self.sigma_range = inner.shape, inner.sigma_range

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if not down and not right:
            return self.inner(x, sigma)
        if down >= height or right >= width:
            raise ShapeError(
                f"Expected an image of at least {self.multiple // 2 + 1} pixels a side, got {height}x{width}; "
                "this prior cannot take so small a picture."
            )
        padded = F.pad(x, (0, right, 0, down), mode="reflect")
        return self.inner(padded, sigma)[..., :height, :width]


class Tiled(Denoiser):
    """Large images by overlapping tiles, blended without seams.

    Each tile of `tile` pixels a side gives its outer `halo` no weight (except at the picture's own border) and fades
    in over the next `blend` pixels. With a halo as wide as the denoiser's reach the result equals the untiled one.
    Tiles start at multiples of `step_of`, so that a network that halves its input sees the same grid everywhere.
    """

    def __init__(self, inner: Denoiser, tile: int = 768, halo: int = 64, blend: int = 32, step_of: int = 8) -> None:
        super().__init__()
        if tile <= 2 * (halo + blend) or tile % step_of:
            raise ShapeError(
                f"Expected a tile wider than {2 * (halo + blend)} (twice halo + blend) and a multiple of {step_of}, "
                f"got {tile}; use a larger tile."
            )
        self.inner, self.tile, self.halo, self.blend, self.step_of = inner, tile, halo, blend, step_of
        self.shape, self.sigma_range = inner.shape, inner.sigma_range

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height <= self.tile and width <= self.tile:
            return self.inner(x, sigma)
        total, weight = x.new_zeros(()), x.new_zeros(height, width)
        for top, left in product(self._starts(height), self._starts(width)):
            rows, columns = slice(top, min(top + self.tile, height)), slice(left, min(left + self.tile, width))
            window = self._window(rows, height, x)[:, None] * self._window(columns, width, x)
            part = window * self.inner(x[..., rows, columns], sigma)
            if total.ndim == 0:  # a network may answer with other channels than it is given
                total = part.new_zeros(*part.shape[:-2], height, width)
            total[..., rows, columns] += part
            weight[rows, columns] += window
        return total / weight

    def _starts(self, extent: int) -> list[int]:
        if extent <= self.tile:
            return [0]
        stride = (self.tile - 2 * self.halo - self.blend) // self.step_of * self.step_of
        starts = list(range(0, extent - self.tile, stride))
        last = (extent - self.tile + self.step_of - 1) // self.step_of * self.step_of
        return [*starts, last]

    def _window(self, span: slice, extent: int, like: Tensor) -> Tensor:
        position = torch.arange(span.start, span.stop, dtype=like.dtype, device=like.device)
        window = torch.ones_like(position)
        if span.start > 0:
            window = window * ((position - span.start - self.halo + 0.5) / self.blend).clamp(0, 1)
        if span.stop < extent:
            window = window * ((span.stop - self.halo - position - 0.5) / self.blend).clamp(0, 1)
        return window
