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


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


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
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.shape, self.sigma_range, self.sigma_data, self.precision = shape, sigma_range, sigma_data, precision
        if precision == "bf16":
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from its stubs
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in, c_noise = edm(sigma, self.sigma_data)
        scaled = _column(c_in, x) * x
        if self.precision == "bf16":
            with torch.autocast(x.device.type, torch.bfloat16):
                raw = self.net(scaled.float().contiguous(memory_format=torch.channels_last), c_noise.float())
        else:
            # A float64 state meets float32 weights; networks without weights take what they get.
            weight = next(self.net.parameters(), scaled)
            raw = self.net(scaled.to(weight.dtype), c_noise.to(weight.dtype))
        estimate: Tensor = _column(c_skip, x) * x + _column(c_out, x) * raw.to(x.dtype)
        return estimate


class VP(Denoiser):
    """A variance-preserving (DDPM) network that predicts epsilon or v at a discrete, possibly fractional, time index.

    With x_vp = x / sqrt(1 + sigma²) and k = index(sigma):
    epsilon: D = x - sigma N(x_vp, k);   v: D = x / (1 + sigma²) - sigma / sqrt(1 + sigma²) N(x_vp, k).

    `clock` "exact" interpolates k against log sigma on the training table; "edm-vp" is the closed form that EDM and
    DAPS use, which is off by +0.5 ... +3.4 indices.

    Source: Ho et al. 2020 (schedule); Salimans and Ho 2022 (v); Karras et al. 2022, Table 1, column VP ("edm-vp").
    """

    def __init__(
        self,
        net: Callable[[Tensor, Tensor], Tensor],
        shape: tuple[int | None, ...],
        predicts: Literal["epsilon", "v"] = "epsilon",
        clock: Literal["exact", "edm-vp"] = "exact",
        betas: tuple[float, float, int] = (1e-4, 0.02, 1000),
    ) -> None:
        super().__init__()
        self.net, self.shape, self.predicts, self.clock = net, shape, predicts, clock
        self.betas = betas
        self.table = vp_sigmas(*betas)
        self.sigma_range = (float(self.table[0]), float(self.table[-1]))

    def index(self, sigma: Tensor) -> Tensor:
        """Time index (B,) of noise levels (B,), a float in [0, steps - 1]."""
        first, last, steps = self.betas
        if self.clock == "edm-vp":
            low, slope = first * steps, (last - first) * steps
            t = ((low**2 + 2 * slope * (1 + sigma**2).log()).sqrt() - low) / slope
            return (steps - 1) * t
        k = np.interp(sigma.detach().double().log().cpu().numpy(), np.log(self.table), np.arange(steps))
        return torch.as_tensor(k, dtype=sigma.dtype, device=sigma.device)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = _column(sigma, x)
        scale = (1 + s**2).rsqrt()
        raw = self.net(x * scale, self.index(sigma))
        if self.predicts == "epsilon":
            return x - s * raw
        return x * scale**2 - s * scale * raw


class Flow(Denoiser):
    """A rectified-flow network v(x_t, t) with x_t = (1 - t) x0 + t n:  sigma = t / (1 - t), D = x_t - t v.

    Source: Liu et al. 2023 (arXiv:2209.03003).
    """

    def __init__(
        self, net: Callable[[Tensor, Tensor], Tensor], shape: tuple[int | None, ...], t_range: tuple[float, float]
    ) -> None:
        super().__init__()
        self.net, self.shape = net, shape
        low, high = t_range
        self.sigma_range = (low / (1 - low), high / (1 - high))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma / (1 + sigma)
        column = _column(t, x)
        x_t = (1 - column) * x
        return x_t - column * self.net(x_t, t)


def vp_sigmas(beta_first: float = 1e-4, beta_last: float = 0.02, steps: int = 1000) -> np.ndarray:
    """Noise levels sigma_k = sqrt((1 - abar_k) / abar_k) of the linear schedule, increasing, on [-1, 1] data."""
    abar = np.cumprod(1 - np.linspace(beta_first, beta_last, steps))
    return np.sqrt((1 - abar) / abar)
