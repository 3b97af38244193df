"""A norm-free, fully convolutional residual U-Net conditioned on the noise level.

No normalisation and no attention: an output pixel depends on a bounded neighbourhood and on nothing global, so one
set of weights serves any image size and tiles without seams.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """SiLU-conv-scale-SiLU-conv with a skip; the noise level enters as a per-channel scale (FiLM)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Linear(embedding, channels)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(x)) * (1 + self.scale(embedding)[:, :, None, None])
        return x + self.conv2(F.silu(h))


class ResidualUNet(nn.Module):
    """F(x, c_noise) of the EDM parameterisation.

    Shapes: x (B, C, H, W) with H and W multiples of `multiple`; c_noise (B,) → (B, C, H, W). With `seen_channels` x has
    that many more, which are looked at and not answered for; `out_channels` answers with another number than C.
    Source: layout after Zhang et al. 2021 (DRUNet: strided 2x2 down, transposed 2x2 up, additive skips); FiLM noise
    conditioning and Fourier features after Karras et al. 2022.
    Deviations: FiLM noise embedding in place of a noise-map channel, biases kept.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 144, 192),
        blocks: int = 2,
        embedding: int = 128,
        image_channels: int = 3,
        seen_channels: int = 0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.multiple = 2 ** (len(channels) - 1)
        self.embed1 = nn.Linear(64, embedding)
        self.embed2 = nn.Linear(embedding, embedding)
        self.head = nn.Conv2d(image_channels + seen_channels, channels[0], 3, padding=1)
        self.tail = nn.Conv2d(channels[0], out_channels or image_channels, 3, padding=1)
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairs)

        def stack(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, embedding) for _ in range(blocks))

        self.encoder = nn.ModuleList(stack(c) for c in channels)
        self.decoder = nn.ModuleList(stack(c) for c in channels[:-1])
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(50), 32)))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        e = F.silu(self.embed2(F.silu(self.embed1(features))))
        x, skips = self.head(x), []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:
                x = block(x, e)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](x) + skips[level]
            for block in self.decoder[level]:
                x = block(x, e)
        return self.tail(x)
