"""The U-Net of RDDM and Resfusion, built from the shapes of a checkpoint's tensors and under their names.

Widths, levels, biases, group norms and the kind of each attention follow from the shapes, so that relatives without
normalisation (`restoration.nets.conditional_unet`) are the same network.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = Mapping[str, tuple[int, ...]]

_HEAD = 32  # channels of an attention head


class Standardized(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (variance + 1e-5).rsqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def _conv(shapes: Shapes, name: str, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    out, channels, size, _ = shapes[f"{name}.weight"]
    # Sides of 4 halve the picture.
    return kind(channels, out, size, 2 if size == 4 else 1, (size - 1) // 2, bias=f"{name}.bias" in shapes)


class ChannelNorm(nn.Module):
    """Every pixel to mean 0 and variance 1 over the channels, times g."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], self.g.flatten(), None, 1e-5).movedim(-1, 1)


class Block(nn.Module):
    """conv, norm where there is one, scale and shift by the time where given, SiLU."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        normed = f"{name}.norm.weight" in shapes
        self.proj = _conv(shapes, f"{name}.proj", Standardized if normed else nn.Conv2d)
        self.norm = nn.GroupNorm(8, self.proj.out_channels) if normed else nn.Identity()

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        h = self.norm(self.proj(x))
        return F.silu(h if scale is None else h * (scale + 1) + shift)


class ResBlock(nn.Module):
    """Two blocks, the first of which hears the time, plus a skip."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        rows, width = shapes[f"{name}.mlp.1.weight"]
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, rows))
        self.block1, self.block2 = (Block(shapes, f"{name}.block{i}") for i in (1, 2))
        skip = f"{name}.res_conv"
        self.res_conv = _conv(shapes, skip) if f"{skip}.weight" in shapes else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, 1)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class Attention(nn.Module):
    """Self-attention over pixels, added to its input: softmax, or linear in the number of pixels."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        inside = f"{name}.fn.fn"
        rows, channels = shapes[f"{inside}.to_qkv.weight"][:2]
        if rows % (3 * _HEAD):
            raise ValueError(f"{rows} rows of queries, keys and values")
        self.heads, self.linear = rows // (3 * _HEAD), f"{inside}.to_out.1.g" in shapes
        if self.linear:
            out = nn.Sequential(_conv(shapes, f"{inside}.to_out.0"), ChannelNorm(channels))
        else:
            out = _conv(shapes, f"{inside}.to_out")
        attend = nn.ModuleDict({"to_qkv": _conv(shapes, f"{inside}.to_qkv"), "to_out": out})
        self.fn = nn.ModuleDict({"norm": ChannelNorm(channels), "fn": attend})

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.fn["fn"]["to_qkv"](self.fn["norm"](x))
        q, k, v = qkv.reshape(batch, 3, self.heads, _HEAD, height * width).unbind(1)
        if self.linear:
            context = k.softmax(-1) @ (v / (height * width)).mT
            mixed = context.mT @ (q.softmax(-2) * _HEAD**-0.5)
        else:
            mixed = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        return x + self.fn["fn"]["to_out"](mixed.reshape(batch, -1, height, width))


class RDDMUNet(nn.Module):
    """N(x, t) of RDDM and Resfusion: what else than x_t the network sees is further channels of x.

    Shapes: x (B, C, H, W) with H and W multiples of `multiple`; t (B,) → (B, out, H, W).
    Source: Liu et al. 2024 (arXiv:2308.13712), released code; Shi et al. 2024 (arXiv:2311.14900).
    Deviations: inference alone; the 1e-5 of its norms in every precision (released: 1e-3 in all but 32 bits).

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, self.sinusoids = shapes["time_mlp.1.weight"]
        # Index 0 is the sinusoids, which have no tensors.
        self.time_mlp = nn.Sequential(
            nn.Identity(), nn.Linear(self.sinusoids, width), nn.GELU(), nn.Linear(*shapes["time_mlp.3.weight"][::-1])
        )
        self.levels = sum(name.startswith("downs.") and name.endswith(".2.fn.norm.g") for name in shapes)
        self.multiple = 2 ** (self.levels - 1)
        self.init_conv = _conv(shapes, "init_conv")

        def level(name: str, last: nn.Module) -> nn.ModuleList:
            return nn.ModuleList(
                [*(ResBlock(shapes, f"{name}.{i}") for i in (0, 1)), Attention(shapes, f"{name}.2"), last]
            )

        self.downs = nn.ModuleList(level(f"downs.{i}", _conv(shapes, f"downs.{i}.3")) for i in range(self.levels))
        self.mid_block1, self.mid_block2 = (ResBlock(shapes, f"mid_block{i}") for i in (1, 2))
        self.mid_attn = Attention(shapes, "mid_attn")
        self.ups = nn.ModuleList()
        for i in range(self.levels):
            name = f"ups.{i}.3"
            if i < self.levels - 1:
                last = nn.Sequential(nn.Upsample(scale_factor=2), _conv(shapes, f"{name}.1"))
            else:
                last = _conv(shapes, name)
            self.ups.append(level(f"ups.{i}", last))
        self.final_res_block = ResBlock(shapes, "final_res_block")
        self.final_conv = _conv(shapes, "final_conv")

    def _time(self, t: Tensor) -> Tensor:
        half = self.sinusoids // 2
        power = torch.arange(half, dtype=t.dtype, device=t.device) / (half - 1)
        angles = t[:, None] * torch.exp(-math.log(10000) * power)
        return self.time_mlp(torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time, stem = self._time(t), self.init_conv(x)
        x, skips = stem, []
        for first, second, attention, down in self.downs:
            skips.append(x := first(x, time))
            skips.append(x := attention(second(x, time)))
            x = down(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for first, second, attention, up in self.ups:
            x = first(torch.cat([x, skips.pop()], 1), time)
            x = second(torch.cat([x, skips.pop()], 1), time)
            x = up(attention(x))
        return self.final_conv(self.final_res_block(torch.cat([x, stem], 1), time))
