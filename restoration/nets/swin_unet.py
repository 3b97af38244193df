"""ResShift's U-Net: that of ADM, with stages of attention in shifted windows (Swin), built from a file's shapes.

Windows, heads, widths, the blocks that shift and the layers that reduce the picture that is seen are read from the
shapes; everything is named as zsyOAOA/ResShift names it.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.nets.adm import ADM, Details, Downsample, Shapes


class WindowAttention(nn.Module):
    """Self-attention within windows, with a bias for each difference of places in a window."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        differences, self.heads = shapes[f"{name}.relative_position_bias_table"]
        width = shapes[f"{name}.qkv.weight"][1]
        pixels = shapes[f"{name}.relative_position_index"][0]
        self.window = math.isqrt(pixels)
        if self.window**2 != pixels or (2 * self.window - 1) ** 2 != differences or width % self.heads:
            raise ValueError(f"{differences} differences in windows of {pixels} pixels, {self.heads} heads of {width}")
        self.relative_position_bias_table = nn.Parameter(torch.empty(differences, self.heads))
        # The row of the table for each pair of pixels: in every file, and read from it.
        self.register_buffer("relative_position_index", torch.empty(pixels, pixels))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, shift: int) -> Tensor:
        batch, channels, height, width = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        x = self._cut(x.roll((-shift, -shift), (2, 3)))
        qkv = self.qkv(x).view(batch, rows * columns, side**2, 3, self.heads, -1)
        # (batch, windows times heads, pixels, channels)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).reshape(3, batch, -1, side**2, channels // self.heads)
        bias = self._bias().expand(rows * columns, -1, -1, -1)
        if shift:
            bias = bias + self._apart(height, width, shift, x.device)
        mixed = F.scaled_dot_product_attention(q, k, v, bias.reshape(1, -1, side**2, side**2).to(q.dtype))
        mixed = mixed.view(batch, -1, self.heads, *mixed.shape[-2:]).transpose(2, 3)
        mixed = self.proj(mixed.reshape(batch, rows, columns, side, side, channels))
        return mixed.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width).roll((shift, shift), (2, 3))

    def _cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, windows, pixels, C)."""
        batch, channels, height, width = x.shape
        side = self.window
        parts = x.reshape(batch, channels, height // side, side, width // side, side)
        return parts.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side**2, channels)

    def _bias(self) -> Tensor:
        """(heads, pixels, pixels)."""
        return self.relative_position_bias_table[self.relative_position_index.long()].permute(2, 0, 1)

    def _apart(self, height: int, width: int, shift: int, device: torch.device) -> Tensor:
        """-100 for pixels that only the roll has brought into one window: (windows, 1, pixels, pixels)."""

        def part(size: int) -> Tensor:
            place = torch.arange(size, device=device)
            return (place >= size - self.window).int() + (place >= size - shift).int()

        part_of = self._cut((3 * part(height)[:, None] + part(width))[None, None])[0, ..., 0]
        return -100.0 * (part_of[:, None, :, None] != part_of[:, None, None, :])


class SwinBlock(nn.Module):
    """Attention in windows, then a perceptron for each pixel, both added to their input."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        hidden, width = shapes[f"{name}.mlp.fc1.weight"][:2]
        self.norm1, self.norm2 = nn.GroupNorm(32, width), nn.GroupNorm(32, width)
        self.attn = WindowAttention(shapes, f"{name}.attn")
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Conv2d(width, hidden, 1), act=nn.GELU(), fc2=nn.Conv2d(hidden, width, 1))
        )
        # Where the picture of the training was one window, nothing is shifted and files have no mask. Theirs is that of
        # the size of the training; it tells the shift and is not used, for it follows from the size.
        self.shift = 0
        if (mask := shapes.get(f"{name}.attn_mask")) is not None:
            self.shift = self.attn.window // 2
            self.register_buffer("attn_mask", torch.empty(mask))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), self.shift)
        return x + self.mlp(self.norm2(x))


class SwinStage(nn.Module):
    """Some blocks in a width of their own; unlike those, it does not add its input."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.patch_embed = _patches(shapes, f"{name}.patch_embed")
        self.patch_unembed = _patches(shapes, f"{name}.patch_unembed")
        depth = sum(n.startswith(f"{name}.blocks.") and n.endswith(".norm1.weight") for n in shapes)
        self.blocks = nn.Sequential(*(SwinBlock(shapes, f"{name}.blocks.{i}") for i in range(depth)))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.patch_unembed(self.blocks(self.patch_embed(x)))


def _patches(shapes: Shapes, name: str) -> nn.Sequential:
    out, channels, *size = shapes[f"{name}.proj.weight"]
    if size != [1, 1]:
        raise ValueError(f"patches of {size[0]} pixels at {name}")
    layers = OrderedDict(proj=nn.Conv2d(channels, out, 1))
    if f"{name}.norm.weight" in shapes:
        layers["norm"] = nn.GroupNorm(32, out)
    return nn.Sequential(layers)


class SwinUNet(ADM):
    """N(x, t) of ResShift's UNetModelSwin; x holds the state and, as further channels, `features` of what is seen.

    Attributes:
        multiple: of height and width of x (released: 64, windows of 8 at an eighth of the size).
        reduction: how many times larger than x the seen picture is.
        seen: channels of the seen picture.

    Shapes: x (B, C + features, H, W), t (B,), from 0 → (B, C, H, W).
    Source: Yue et al. 2023 (arXiv:2307.12348); Liu et al. 2021, Swin Transformer (arXiv:2103.14030).
    Deviations: inference alone. Sizes are not padded here.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes, Details())
        layers: list[nn.Module] = []
        while (name := f"feature_extractor.{len(layers)}.weight") in shapes:
            out, channels = shapes[name][:2]
            strided = Downsample(shapes, f"feature_extractor.{len(layers) + 2}", self.details)
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.SiLU(), strided]
        self.feature_extractor = nn.ModuleList(layers)
        self.reduction = 2 ** (len(layers) // 3)
        width = shapes["input_blocks.0.0.weight"][1] - shapes["out.2.weight"][0]
        self.seen = layers[0].in_channels if layers else width
        if layers and layers[-1].op.out_channels != width:
            raise ValueError(f"{width} channels of features in and {layers[-1].op.out_channels} made")
        per = len(self.input_blocks) // self.levels
        for level, part in [
            *((i // per, b) for i, b in enumerate(self.input_blocks)),
            (self.levels - 1, self.middle_block),
        ]:
            for module in part.modules():
                if isinstance(module, WindowAttention):
                    self.multiple = math.lcm(self.multiple, module.window << level)

    def windows(self, shapes: Shapes, name: str) -> nn.Module:
        return SwinStage(shapes, name)

    def features(self, picture: Tensor) -> Tensor:
        """What x is to hold of the picture that is seen.

        Shapes: (B, seen, H reduction, W reduction) → (B, features, H, W).   Units: [-1, 1].
        """
        for layer in self.feature_extractor:
            picture = layer(picture, picture) if isinstance(layer, Downsample) else layer(picture)
        return picture
