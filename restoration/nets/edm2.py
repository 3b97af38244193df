"""The magnitude-preserving U-Net of EDM2, built from the shapes of a checkpoint's tensors, under EDM2's names."""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = Mapping[str, tuple[int, ...]]


def normalized(weight: Tensor) -> Tensor:
    """A stored weight as the network applies it: each output's weights have length 1 (eq. 47 and 66)."""
    fan = weight[0].numel()
    length = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
    return weight / (1e-4 * math.sqrt(fan) + length)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


def _mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Weighted sum that keeps the magnitude of uncorrelated inputs (eq. 88)."""
    return ((1 - share) * a + share * b) / math.hypot(1 - share, share)


def _pixel_norm(x: Tensor, dim: int) -> Tensor:
    return x / (1e-4 + x.square().mean(dim, keepdim=True).sqrt())


class Weight(nn.Module):
    """A convolution or a matrix without bias, already `normalized`."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shapes[f"{name}.weight"]))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Block(nn.Module):
    """Encoder and decoder block (Figure 21)."""

    def __init__(self, shapes: Shapes, name: str, resample: str) -> None:
        super().__init__()
        self.encoder, self.resample = name.startswith("enc."), resample
        self.emb_gain = nn.Parameter(torch.empty(()))
        parts = ("conv_res0", "conv_res1", "emb_linear")
        optional = ("conv_skip", "attn_qkv", "attn_proj")
        for part in parts + tuple(p for p in optional if f"{name}.{p}.weight" in shapes):
            self.add_module(part, Weight(shapes, f"{name}.{part}"))
        self.skips, self.attends = f"{name}.conv_skip.weight" in shapes, f"{name}.attn_qkv.weight" in shapes

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample:
            x = F.avg_pool2d(x, 2) if self.resample == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.encoder:
            x = _pixel_norm(self.conv_skip(x) if self.skips else x, 1)
        h = self.conv_res0(_silu(x))
        level = 1 + self.emb_gain * self.emb_linear(embedding)
        h = self.conv_res1(_silu(h * level[:, :, None, None]))
        if not self.encoder and self.skips:
            x = self.conv_skip(x)
        x = _mix(x, h, 0.3)
        if self.attends:
            batch, channels, height, width = x.shape
            parts = self.attn_qkv(x).view(batch, channels // 64, 64, 3, height * width)
            q, k, v = _pixel_norm(parts, 2).transpose(2, 4).unbind(3)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
            x = _mix(x, self.attn_proj(mixed), 0.3)
        return x.clamp(-256, 256)


class EDM2UNet(nn.Module):
    """F(x, c_noise, label) of EDM2.

    Shapes: x (B, C, H, W) with H and W multiples of `multiple`; c_noise (B,); label (B,) of integers for
    class-conditional networks → (B, C, H, W).
    Source: Karras et al. 2024 (arXiv:2312.02696), Figure 21, configuration G.
    Deviations: inference alone; weights are normalised once, when they are loaded.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.out_gain = nn.Parameter(torch.empty(()))
        self.emb_fourier = nn.Module()
        for part in ("freqs", "phases"):
            self.emb_fourier.register_buffer(part, torch.empty(shapes[f"emb_fourier.{part}"]))
        self.emb_noise = Weight(shapes, "emb_noise")
        self.labelled = "emb_label.weight" in shapes
        if self.labelled:
            self.emb_label = Weight(shapes, "emb_label")
        names = {".".join(name.split(".")[:2]) for name in shapes if name.startswith(("enc.", "dec."))}
        sides = sorted({int(name[4:].split("x")[0]) for name in names}, reverse=True)
        if not sides or any(a != 2 * b for a, b in pairwise(sides)):
            raise ValueError(f"levels of {sides} pixels")
        self.side, self.multiple = sides[0], 2 ** (len(sides) - 1)

        def half(half: str, sides: list[int], first: tuple[str, ...]) -> nn.ModuleDict:
            found = nn.ModuleDict()
            for side in sides:
                blocks = sum(name.startswith(f"{half}.{side}x{side}_block") for name in names)
                for kind in (*first, *(f"block{i}" for i in range(blocks))):
                    path = f"{half}.{side}x{side}_{kind}"
                    if path in names:
                        resample = kind if kind in ("up", "down") else ""
                        found[path[4:]] = Weight(shapes, path) if kind == "conv" else Block(shapes, path, resample)
            return found

        self.enc = half("enc", sides, ("conv", "down"))
        self.dec = half("dec", sides[::-1], ("in0", "in1", "up"))
        self.out_conv = Weight(shapes, "out_conv")

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        fourier = self.emb_fourier
        features = math.sqrt(2) * (c_noise[:, None] * fourier.freqs.to(x.dtype) + fourier.phases.to(x.dtype)).cos()
        e = self.emb_noise(features)
        if label is not None:
            classes = self.emb_label.weight.shape[1]
            e = _mix(e, self.emb_label(math.sqrt(classes) * F.one_hot(label, classes).to(e.dtype)), 0.5)
        e = _silu(e)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for layer in self.enc.values():
            x = layer(x, e) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                skip = skips.pop()
                a, b = x.shape[1], skip.shape[1]
                # Both halves weigh the same, whatever their numbers of channels (eq. 103).
                x = torch.cat([x * math.sqrt((a + b) / (2 * a)), skip * math.sqrt((a + b) / (2 * b))], dim=1)
            x = layer(x, e)
        return self.out_gain * self.out_conv(x)
