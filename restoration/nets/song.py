"""DDPM++, NCSN++ and ADM as EDM defines them, built from the shapes of a checkpoint's tensors, under EDM's names.

Layers are called by the side of the picture they were trained at (`enc.32x32_block0`), which orders them. A network
with `out_norm` is EDM's ADM; the others are DDPM++ and NCSN++, to which score_sde's files are renamed
(`restoration.checkpoints`).
"""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = Mapping[str, tuple[int, ...]]


class Conv(nn.Module):
    """A convolution after ("up", "down") or before ("fused-down") resampling by a fixed filter, or the latter alone."""

    def __init__(self, shapes: Shapes, name: str, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        for part in ("weight", "bias"):
            shape = shapes.get(f"{name}.{part}")
            self.register_parameter(part, None if shape is None else nn.Parameter(torch.empty(shape)))
        if resample:
            self.register_buffer("resample_filter", torch.empty(shapes[f"{name}.resample_filter"]))

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        kernel = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        padding = (self.resample_filter.shape[-1] - 1) // 2 if self.resample else 0
        if self.resample == "fused-down":
            x = self._resampled(F.conv2d(x, self.weight, padding=1 + padding), 0)
            return x + self.bias[:, None, None].to(x.dtype)
        if self.resample:
            x = self._resampled(x, padding)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


def _norm(shapes: Shapes, name: str, eps: float) -> nn.GroupNorm:
    channels = shapes[f"{name}.weight"][0]
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


def _linear(shapes: Shapes, name: str) -> nn.Linear:
    rows, columns = shapes[f"{name}.weight"]
    return nn.Linear(columns, rows, bias=f"{name}.bias" in shapes)


class Block(nn.Module):
    """A residual block with the noise level, optional resampling and optional attention."""

    def __init__(self, shapes: Shapes, name: str, resample: str, adm: bool) -> None:
        super().__init__()
        eps = 1e-5 if adm else 1e-6
        self.scale = 1.0 if adm else math.sqrt(0.5)
        out, self.channels = shapes[f"{name}.conv0.weight"][:2]
        self.norm0, self.norm1 = (_norm(shapes, f"{name}.norm{i}", eps) for i in (0, 1))
        self.conv0, self.conv1 = Conv(shapes, f"{name}.conv0", resample), Conv(shapes, f"{name}.conv1")
        self.affine = _linear(shapes, f"{name}.affine")
        self.adaptive = self.affine.out_features == 2 * out
        changes = resample or out != self.channels
        self.skip = Conv(shapes, f"{name}.skip", resample) if changes else nn.Identity()
        self.heads = 0
        if f"{name}.qkv.weight" in shapes:
            self.heads = out // 64 if adm else 1
            self.norm2 = _norm(shapes, f"{name}.norm2", eps)
            self.qkv, self.proj = Conv(shapes, f"{name}.qkv"), Conv(shapes, f"{name}.proj")

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        level = self.affine(embedding)[:, :, None, None]
        if self.adaptive:
            scale, shift = level.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + level)
        x = self.scale * (self.skip(x) + self.conv1(F.silu(h)))
        if not self.heads:
            return x
        batch, channels, height, width = x.shape
        # Rows of qkv: head, channel of the head, then q, k, v.
        parts = self.qkv(self.norm2(x)).view(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = parts.transpose(2, 4).unbind(3)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
        return self.scale * (x + self.proj(mixed))


class SongUNet(nn.Module):
    """N(x, clock, label) of DDPM++, NCSN++ and EDM's ADM.

    Shapes: x (B, C, H, W) with H and W multiples of `multiple`; clock (B,); label (B,) of integers for
    class-conditional networks → (B, C, H, W).
    Source: Song et al. 2021 (arXiv:2011.13456), appendix H; Karras et al. 2022 (arXiv:2206.00364), appendix F.
    Deviations: inference alone; augmentation labels are zero, as they are when sampling.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.adm = "out_norm.weight" in shapes
        self.map_layer0, self.map_layer1 = _linear(shapes, "map_layer0"), _linear(shapes, "map_layer1")
        for name in ("map_label", "map_augment"):
            if f"{name}.weight" in shapes:
                self.add_module(name, _linear(shapes, name))
        self.fourier = "map_noise.freqs" in shapes
        self.map_noise = nn.Module()
        if self.fourier:
            self.map_noise.register_buffer("freqs", torch.empty(shapes["map_noise.freqs"]))

        layers = {name.split(".")[1] for name in shapes if name.startswith("enc.")}
        sides = sorted({int(name.split("x")[0]) for name in layers}, reverse=True)
        if not sides or any(a != 2 * b for a, b in pairwise(sides)):
            raise ValueError(f"levels of {sides} pixels")
        self.side, self.multiple = sides[0], 2 ** (len(sides) - 1)

        def layer(half: str, name: str) -> nn.Module | None:
            path = f"{half}.{name}"
            kind = name.split("_", 1)[1]
            if not any(known.startswith(f"{path}.") for known in shapes):
                return None
            if kind == "aux_norm":
                return _norm(shapes, path, 1e-6)
            if kind in ("conv", "aux_skip", "aux_conv"):
                return Conv(shapes, path)
            resample = {"aux_down": "down", "aux_up": "up", "aux_residual": "fused-down"}.get(kind)
            if resample is not None:
                return Conv(shapes, path, resample)
            return Block(shapes, path, kind if kind in ("up", "down") else "", self.adm)

        def half(name: str, sides: list[int], kinds: tuple[str, ...], last: tuple[str, ...] = ()) -> nn.ModuleDict:
            found = nn.ModuleDict()
            for side in sides:
                count = len(
                    {n for n in shapes if n.startswith(f"{name}.{side}x{side}_block") and n.endswith("norm0.weight")}
                )
                for kind in (*kinds, *(f"block{i}" for i in range(count)), *last):
                    if (made := layer(name, f"{side}x{side}_{kind}")) is not None:
                        found[f"{side}x{side}_{kind}"] = made
            return found

        self.enc = half("enc", sides, ("conv", "down", "aux_down", "aux_skip", "aux_residual"))
        self.dec = half("dec", sides[::-1], ("in0", "in1", "up"), ("aux_up", "aux_norm", "aux_conv"))
        if self.adm:
            self.out_norm, self.out_conv = _norm(shapes, "out_norm", 1e-5), Conv(shapes, "out_conv")

    def _embedding(self, clock: Tensor, label: Tensor | None) -> Tensor:
        if self.fourier:
            angles = clock[:, None] * (2 * math.pi * self.map_noise.freqs.to(clock.dtype))
        else:
            half = self.map_layer0.in_features // 2
            power = torch.arange(half, dtype=clock.dtype, device=clock.device) / (half - (not self.adm))
            angles = clock[:, None] * 10000.0**-power
        if self.adm:
            e = self.map_layer1(F.silu(self.map_layer0(torch.cat([angles.cos(), angles.sin()], dim=1))))
            if label is not None:
                e = e + self.map_label(F.one_hot(label, self.map_label.in_features).to(e.dtype))
            return F.silu(e)
        e = torch.cat([angles.sin(), angles.cos()], dim=1)
        if label is not None:
            classes = self.map_label.in_features
            e = e + self.map_label(math.sqrt(classes) * F.one_hot(label, classes).to(e.dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(e))))

    def forward(self, x: Tensor, clock: Tensor, label: Tensor | None = None) -> Tensor:
        e = self._embedding(clock, label)
        small, skips = x, []
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                small = layer(small)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + layer(small)
            elif name.endswith("aux_residual"):
                x = small = skips[-1] = math.sqrt(0.5) * (x + layer(small))
            else:
                x = layer(x, e) if isinstance(layer, Block) else layer(x)
                skips.append(x)
        picture = None
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                picture = layer(picture)
            elif name.endswith("aux_norm"):
                shown = F.silu(layer(x))
            elif name.endswith("aux_conv"):
                picture = layer(shown) if picture is None else picture + layer(shown)
            else:
                if "_block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = layer(x, e)
        return self.out_conv(F.silu(self.out_norm(x))) if self.adm else picture
