"""The U-Net of DDPM and ADM, built from the shapes of a checkpoint's tensors and named as guided-diffusion names them.

Channels, levels, attention, scale-shift normalisation and learned resampling are read from the shapes. What shapes do
not show is in `Details`. DDPM's own files and diffusers' UNet2DModel are the same network under other names
(`restoration.checkpoints` renames them).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Details:
    """What the shapes of tensors do not show.

    Attributes:
        heads: attention heads of every layer; 0 where `head_channels` counts instead.
        head_channels: channels of a head.
        legacy: whether rows of `qkv` are grouped by head first (q, k, v of head 0, then of head 1) or by q, k, v first.
        eps, groups: of group normalisation.
        pad_after: whether strided convolutions pad below and to the right alone.
        cosine_first, shifted: order of the sinusoids, and whether their lowest frequency is exactly 1/10000.
    """

    heads: int = 0
    head_channels: int = 0
    legacy: bool = True
    eps: float = 1e-5
    groups: int = 32
    pad_after: bool = False
    cosine_first: bool = True
    shifted: bool = False


class ResBlock(nn.Module):
    """norm-SiLU-conv, noise level, norm-SiLU-conv, plus a skip; `resample` is 2 (enlarges), 0.5 (halves) or 1."""

    def __init__(self, shapes: Shapes, name: str, details: Details, resample: float = 1.0) -> None:
        super().__init__()
        out, channels = shapes[f"{name}.in_layers.2.weight"][:2]
        rows, embedding = shapes[f"{name}.emb_layers.1.weight"]
        self.scale_shift, self.resample = rows == 2 * out, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(details.groups, channels, details.eps), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, rows))
        # Index 2 is the dropout of training.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(details.groups, out, details.eps), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity()
        if f"{name}.skip_connection.weight" in shapes:
            size = shapes[f"{name}.skip_connection.weight"][-1]
            self.skip_connection = nn.Conv2d(channels, out, size, padding=size // 2)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample > 1:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample < 1 else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = conv(self._resampled(act(norm(x))))
        level = self.emb_layers(embedding)[:, :, None, None]
        norm, act, _, conv = self.out_layers
        if self.scale_shift:
            scale, shift = level.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + level)
        return self.skip_connection(self._resampled(x)) + conv(act(h))


class Attention(nn.Module):
    """Self-attention over pixels, added to its input."""

    def __init__(self, shapes: Shapes, name: str, details: Details) -> None:
        super().__init__()
        channels = shapes[f"{name}.qkv.weight"][1]
        self.heads, self.legacy = details.heads or channels // details.head_channels, details.legacy
        # diffusers leaves out this norm in the middle of some networks.
        normed = f"{name}.norm.weight" in shapes
        self.norm = nn.GroupNorm(details.groups, channels, details.eps) if normed else nn.Identity()
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        width = channels // self.heads
        qkv = self.qkv(self.norm(x).flatten(2))
        if self.legacy:
            q, k, v = qkv.view(batch, self.heads, 3, width, -1).transpose(-1, -2).unbind(2)
        else:
            q, k, v = qkv.view(batch, 3, self.heads, width, -1).transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(batch, channels, -1)
        return x + self.proj_out(mixed).view_as(x)


class Stem(nn.Conv2d):
    """The first convolution, which knows no noise level."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return super().forward(x)


class Downsample(nn.Module):
    """A strided convolution."""

    def __init__(self, shapes: Shapes, name: str, details: Details) -> None:
        super().__init__()
        out, channels = shapes[f"{name}.op.weight"][:2]
        self.pad_after = details.pad_after
        self.op = nn.Conv2d(channels, out, 3, stride=2, padding=0 if details.pad_after else 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.op(F.pad(x, (0, 1, 0, 1)) if self.pad_after else x)


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        out, channels = shapes[f"{name}.conv.weight"][:2]
        self.conv = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ADM(nn.Module):
    """N(x, t, label) of guided-diffusion, DDPM and diffusers' UNet2DModel.

    Shapes: x (B, C, H, W) with H and W multiples of `multiple`; t (B,), fractional indices too; label (B,) of integers
    for class-conditional networks → (B, C or 2C, H, W), the second half being the learned variance.
    Source: Ho et al. 2020; Dhariwal and Nichol 2021 (arXiv:2105.05233).
    Deviations: inference alone; no gradient checkpointing, so that weights may be frozen.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes, details: Details) -> None:
        super().__init__()
        self.details = details
        width, self.model_channels = shapes["time_embed.0.weight"]
        self.time_embed = nn.Sequential(
            nn.Linear(self.model_channels, width), nn.SiLU(), nn.Linear(*shapes["time_embed.2.weight"][::-1])
        )
        if "label_emb.weight" in shapes:
            # Drawing numbers without storage would import a compiler first: seconds.
            self.label_emb = nn.Embedding.from_pretrained(torch.empty(shapes["label_emb.weight"]))

        encoder, decoder = (_blocks(shapes, side) for side in ("input_blocks", "output_blocks"))
        grows = [any(_kind(shapes, name) in ("res", "up") for name in block[1:]) for block in decoder]
        self.levels = 1 + sum(grows)
        self.multiple = 2 ** (self.levels - 1)
        per = len(decoder) // self.levels
        if (
            len(encoder) != len(decoder)
            or [i % per == per - 1 and i < len(decoder) - 1 for i in range(len(decoder))] != grows
        ):
            raise ValueError(f"{len(encoder)} input and {len(decoder)} output blocks on {self.levels} levels")

        def layer(name: str, resample: float) -> nn.Module:
            kind = _kind(shapes, name)
            if kind == "res":
                return ResBlock(shapes, name, details, resample)
            if kind == "attention":
                return Attention(shapes, name, details)
            if kind == "down":
                return Downsample(shapes, name, details)
            if kind == "up":
                return Upsample(shapes, name)
            if kind == "windows":
                return self.windows(shapes, name)
            out, channels, size, _ = shapes[f"{name}.weight"]
            return Stem(channels, out, size, padding=size // 2)

        # The first block of a level halves, and a residual block behind another enlarges: names do not tell them apart.
        self.input_blocks = nn.ModuleList(
            nn.ModuleList(layer(name, 0.5 if i and i % per == 0 else 1.0) for name in block)
            for i, block in enumerate(encoder)
        )
        self.middle_block = nn.ModuleList(layer(name, 1.0) for name in _blocks(shapes, "middle_block", depth=1)[0])
        self.output_blocks = nn.ModuleList(
            nn.ModuleList(layer(name, 2.0 if j else 1.0) for j, name in enumerate(block)) for block in decoder
        )
        out, channels = shapes["out.2.weight"][:2]
        self.out = nn.Sequential(
            nn.GroupNorm(details.groups, channels, details.eps), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )

    def windows(self, shapes: Shapes, name: str) -> nn.Module:
        """Attention in windows, for `restoration.nets.swin_unet`."""
        raise ValueError(f"attention in windows at {name}")

    def _sinusoids(self, t: Tensor) -> Tensor:
        half = self.model_channels // 2
        power = torch.arange(half, dtype=t.dtype, device=t.device) / (half - self.details.shifted)
        angles = t[:, None] * torch.exp(-math.log(10000) * power)
        parts = (angles.cos(), angles.sin()) if self.details.cosine_first else (angles.sin(), angles.cos())
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(self._sinusoids(t))
        if label is not None:
            embedding = embedding + self.label_emb(label)
        skips = []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, embedding)
            skips.append(x)
        for layer in self.middle_block:
            x = layer(x, embedding)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            for layer in block:
                x = layer(x, embedding)
        return self.out(x)


_MARKS = {"in_layers": "res", "qkv": "attention", "op": "down", "conv": "up", "patch_embed": "windows"}


def _kind(shapes: Shapes, name: str) -> str:
    for mark, kind in _MARKS.items():
        if any(known.startswith(f"{name}.{mark}.") for known in shapes):
            return kind
    return "stem"


def _blocks(shapes: Shapes, side: str, depth: int = 2) -> list[list[str]]:
    """Names of the layers of each block of a side, in order."""
    found: dict[int, set[int]] = {}
    for name in shapes:
        if name.startswith(f"{side}."):
            parts = name.split(".")
            block = int(parts[1]) if depth == 2 else 0
            found.setdefault(block, set()).add(int(parts[depth]))
    for i in range(len(found)):
        if sorted(found.get(i, ())) != list(range(len(found.get(i, ())))) or i not in found:
            raise ValueError(f"a gap in {side} at {i}")
    prefix = (lambda i: f"{side}.{i}") if depth == 2 else (lambda i: side)
    return [[f"{prefix(i)}.{j}" for j in sorted(found[i])] for i in range(len(found))]
