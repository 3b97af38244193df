"""Networks as denoisers: the only file that knows beta, abar and the clock of a network.

Every adapter is D(x, sigma) = c_skip x + c_out N(c_in x, clock(sigma)) with its own four coefficients
(Karras et al. 2022, eq. 7). x is in variance-exploding coordinates and in the network's own range.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from restoration.preconditioning import edm
from restoration.prior import Denoiser

Arithmetic = Literal["fp32", "bf16"]
Net = Callable[[Tensor, Tensor], Tensor]


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _prepared(net: Net, precision: Arithmetic) -> Net:
    # bf16 convolutions on a CPU are several times slower without this layout.
    if precision == "bf16" and isinstance(net, nn.Module):
        prepared: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs
        return prepared
    return net


def _evaluate(net: Net, x: Tensor, clock: Tensor, precision: Arithmetic) -> Tensor:
    """N(x, clock) in the network's arithmetic, with the dtype of x."""
    if precision == "bf16":
        with torch.autocast(x.device.type, torch.bfloat16):
            raw = net(x.float().contiguous(memory_format=torch.channels_last), clock.float())
    else:
        # A float64 state meets float32 weights; networks without weights take what they get.
        weight = next(net.parameters(), x) if isinstance(net, nn.Module) else x
        raw = net(x.to(weight.dtype), clock.to(weight.dtype))
    return raw.to(x.dtype)


class Raw(Denoiser):
    """A network's own answer at a clock, in a denoiser's place so that it can be padded and tiled: for bridges."""

    def __init__(self, net: Net, shape: tuple[int | None, ...], precision: Arithmetic = "fp32") -> None:
        super().__init__()
        self.net, self.shape, self.precision = _prepared(net, precision), shape, precision
        self.sigma_range = (0.0, 0.0)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return _evaluate(self.net, x, sigma, self.precision)


class EDM(Denoiser):
    """A network trained with EDM preconditioning, in fp32 or under bf16 autocast.

    The state that enters and leaves keeps its dtype; only the network runs in bf16, in channels_last layout (bf16
    convolutions on a CPU are several times slower without it).

    Source: Karras et al. 2022, Table 1 (arXiv:2206.00364).
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int | None, ...],
        sigma_range: tuple[float, float],
        sigma_data: float = 0.5,
        precision: Arithmetic = "fp32",
    ) -> None:
        super().__init__()
        self.shape, self.sigma_range, self.sigma_data, self.precision = shape, sigma_range, sigma_data, precision
        self.net = _prepared(net, precision)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in, c_noise = edm(sigma, self.sigma_data)
        raw = _evaluate(self.net, _column(c_in, x) * x, c_noise, self.precision)
        return _column(c_skip, x) * x + _column(c_out, x) * raw


class VP(Denoiser):
    """A variance-preserving (DDPM) network with a discrete, possibly fractional, time index.

    With s = 1 / sqrt(1 + sigma²), x_vp = s x, k = index(sigma) and N its output at (x_vp, k):
    epsilon: D = x - sigma N;   v: D = s² x - sigma s N;   x0: D = N;   score of x_vp: D = x + sigma² s N.

    `table` holds the noise level of each index, increasing; None is DDPM's linear one. `clock` "exact" interpolates k
    against log sigma on it; "edm-vp" is the closed form of the continuous process with beta from 0.1 to 20, which EDM
    and DAPS use for discrete networks as well, where it is off by +0.5 ... +3.4 indices.

    Source: Ho et al. 2020 (schedule); Salimans and Ho 2022 (v); Karras et al. 2022, Table 1, column VP ("edm-vp").
    """

    def __init__(
        self,
        net: Net,
        shape: tuple[int | None, ...],
        predicts: Literal["epsilon", "v", "x0", "score"] = "epsilon",
        clock: Literal["exact", "edm-vp"] = "exact",
        table: np.ndarray | None = None,
        precision: Arithmetic = "fp32",
    ) -> None:
        super().__init__()
        self.net, self.shape, self.predicts, self.clock = _prepared(net, precision), shape, predicts, clock
        self.table, self.precision = vp_sigmas() if table is None else table, precision
        self.sigma_range = (float(self.table[0]), float(self.table[-1]))

    def index(self, sigma: Tensor) -> Tensor:
        """Time index (B,) of noise levels (B,), a float in [0, steps - 1]."""
        if self.clock == "edm-vp":
            return 999 * ((0.01 + 39.8 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        k = np.interp(sigma.detach().double().log().cpu().numpy(), np.log(self.table), np.arange(len(self.table)))
        return torch.as_tensor(k, dtype=sigma.dtype, device=sigma.device)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = _column(sigma, x)
        s = (1 + level**2).rsqrt()
        raw = _evaluate(self.net, x * s, self.index(sigma), self.precision)
        if self.predicts == "x0":
            return raw
        if self.predicts == "v":
            return x * s**2 - level * s * raw
        return x - level * raw if self.predicts == "epsilon" else x + level**2 * s * raw


class VE(Denoiser):
    """A variance-exploding network N(x, clock(sigma)), x = x0 + sigma n unscaled.

    epsilon: D = x - sigma N;   x0: D = N;   score: D = x + sigma² N;   scaled-score (sigma times it): D = x + sigma N.
    Source: Song et al. 2021 (arXiv:2011.13456).
    """

    def __init__(
        self,
        net: Net,
        shape: tuple[int | None, ...],
        sigma_range: tuple[float, float],
        clock: Callable[[Tensor], Tensor],
        predicts: Literal["epsilon", "x0", "score", "scaled-score"] = "score",
        precision: Arithmetic = "fp32",
    ) -> None:
        super().__init__()
        self.net, self.shape, self.sigma_range = _prepared(net, precision), shape, sigma_range
        self.clock, self.predicts, self.precision = clock, predicts, precision

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        raw = _evaluate(self.net, x, self.clock(sigma), self.precision)
        if self.predicts == "x0":
            return raw
        level = _column(sigma, x)
        return x + {"epsilon": -level, "score": level**2, "scaled-score": level}[self.predicts] * raw


class Flow(Denoiser):
    """A rectified-flow network v(x_t, t) with x_t = (1 - t) x0 + t n:  sigma = t / (1 - t), D = x_t - t v.

    `time_scale` is the network's time at t = 1. Papers that walk from noise at 0 to the data at 1 have `noise_at` 0:
    their network is given time_scale (1 - t) and answers x0 - n.

    Source: Liu et al. 2023 (arXiv:2209.03003).
    """

    def __init__(
        self,
        net: Net,
        shape: tuple[int | None, ...],
        t_range: tuple[float, float],
        noise_at: Literal[0, 1] = 1,
        time_scale: float = 1.0,
        precision: Arithmetic = "fp32",
    ) -> None:
        super().__init__()
        self.net, self.shape, self.precision = _prepared(net, precision), shape, precision
        self.noise_at, self.time_scale = noise_at, time_scale
        low, high = t_range
        self.sigma_range = (low / (1 - low), high / (1 - high))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma / (1 + sigma)
        column = _column(t, x)
        x_t = (1 - column) * x
        time, sign = (t, 1) if self.noise_at == 1 else (1 - t, -1)
        return x_t - sign * column * _evaluate(self.net, x_t, self.time_scale * time, self.precision)


def vp_sigmas(betas: np.ndarray | None = None) -> np.ndarray:
    """Noise levels sigma_k = sqrt((1 - abar_k) / abar_k), increasing, on [-1, 1] data; DDPM's linear by default."""
    abar = np.cumprod(1 - (linear_betas() if betas is None else betas))
    return np.sqrt((1 - abar) / abar)


def linear_betas(first: float = 1e-4, last: float = 0.02, steps: int = 1000) -> np.ndarray:
    """Betas of DDPM (Ho et al. 2020)."""
    betas: np.ndarray = np.linspace(first, last, steps)
    return betas


def scaled_linear_betas(first: float, last: float, steps: int = 1000) -> np.ndarray:
    """Betas whose square roots are evenly spaced, as latent diffusion has them."""
    betas: np.ndarray = np.linspace(first**0.5, last**0.5, steps) ** 2
    return betas


def cosine_betas(steps: int = 1000) -> np.ndarray:
    """Betas of abar(t) = cos²(pi/2 (t + 0.008) / 1.008), at most 0.999 each (Nichol and Dhariwal 2021, eq. 17)."""
    abar = np.cos(np.pi / 2 * (np.arange(steps + 1) / steps + 0.008) / 1.008) ** 2
    betas: np.ndarray = np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    return betas
