"""The VQ autoencoder of latent diffusion (VQ-GAN), built from a file's shapes and named as CompVis names it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.nets.adm import Shapes

# Latents that look for their code at a time: more gains nothing and costs memory.
LATENTS_AT_ONCE = 2048


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """norm-SiLU-conv twice, plus a skip."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        out, channels = shapes[f"{name}.conv1.weight"][:2]
        self.norm1, self.conv1 = _norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = _norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out, 1) if out != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Self-attention over all pixels with one head, added to its input."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        channels = shapes[f"{name}.q.weight"][1]
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # Laid out by pixels, or torch would hold all pairs of them.
        q, k, v = (part(h).flatten(2).mT[:, None].contiguous() for part in (self.q, self.k, self.v))
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape))


class Level(nn.Module):
    """Blocks at one size, attention behind each where the file has it, then the way to the next size."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(shapes, f"{name}.block.{i}") for i in _indices(shapes, f"{name}.block"))
        self.attn = nn.ModuleList(Attention(shapes, f"{name}.attn.{i}") for i in _indices(shapes, f"{name}.attn"))
        for resample in ("downsample", "upsample"):
            if f"{name}.{resample}.conv.weight" in shapes:
                setattr(self, resample, nn.Module())
                out, channels = shapes[f"{name}.{resample}.conv.weight"][:2]
                stride = {"stride": 2} if resample == "downsample" else {"padding": 1}
                getattr(self, resample).conv = nn.Conv2d(channels, out, 3, **stride)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):  # one for each block
                x = self.attn[i](x)
        if hasattr(self, "downsample"):
            return self.downsample.conv(F.pad(x, (0, 1, 0, 1)))
        if hasattr(self, "upsample"):
            return self.upsample.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.block_1, self.block_2 = ResBlock(shapes, f"{name}.block_1"), ResBlock(shapes, f"{name}.block_2")
        self.attn_1 = Attention(shapes, f"{name}.attn_1")

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Half(nn.Module):
    """Encoder or decoder; levels are counted from the largest picture in both."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.conv_in, self.conv_out = _conv(shapes, f"{name}.conv_in"), _conv(shapes, f"{name}.conv_out")
        self.side = "down" if name == "encoder" else "up"
        names = [f"{name}.{self.side}.{i}" for i in _indices(shapes, f"{name}.{self.side}")]
        setattr(self, self.side, nn.ModuleList(Level(shapes, level) for level in names))
        self.mid = Middle(shapes, f"{name}.mid")
        self.norm_out = _norm(self.conv_out.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        levels = list(getattr(self, self.side))
        for part in (self.conv_in, *([*levels, self.mid] if self.side == "down" else [self.mid, *levels[::-1]])):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    """The vectors that latents are rounded to."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        # Drawing numbers without storage would import a compiler first: seconds.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(shapes[f"{name}.embedding.weight"]))

    def forward(self, z: Tensor) -> Tensor:
        codes = self.embedding.weight
        half = codes.square().sum(1) / 2  # |z - c|² / 2 less what is the same for all codes
        flat = z.detach().movedim(1, -1).reshape(-1, z.shape[1])
        nearest = torch.cat([(half - part @ codes.T).argmin(1) for part in flat.split(LATENTS_AT_ONCE)])
        return codes[nearest].view(len(z), *z.shape[2:], -1).movedim(-1, 1)


class VQ(nn.Module):
    """Pictures as latents and back: CompVis' VQModel.

    Attributes:
        factor: how many times smaller latents are than pictures, each way (vq-f4: 4).
        channels: of latents (vq-f4: 3).
        image_channels: of pictures.

    Source: Esser et al. 2021 (arXiv:2012.09841); Rombach et al. 2022 (arXiv:2112.10752).
    Deviations: inference alone.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are not those of this architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.encoder, self.decoder = Half(shapes, "encoder"), Half(shapes, "decoder")
        self.quantize = Codebook(shapes, "quantize")
        self.quant_conv, self.post_quant_conv = _conv(shapes, "quant_conv"), _conv(shapes, "post_quant_conv")
        self.channels = self.quant_conv.out_channels
        self.image_channels = self.encoder.conv_in.in_channels
        self.factor = 2 ** sum(hasattr(level, "downsample") for level in self.encoder.down)
        enlarged = 2 ** sum(hasattr(level, "upsample") for level in self.decoder.up)
        if enlarged != self.factor or self.quantize.embedding.embedding_dim != self.channels:
            raise ValueError(
                f"reduced by {self.factor} and enlarged by {enlarged}, {self.channels} channels and codes of "
                f"{self.quantize.embedding.embedding_dim}"
            )

    def encode(self, x: Tensor) -> Tensor:
        """The latent before it is rounded to codes, which is what diffusion works on.

        Shapes: (B, image_channels, H, W), H and W multiples of `factor` → (B, channels, H/factor, W/factor).
        Units: pictures on [-1, 1]; latents about 1 in size.
        """
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        """The picture of a latent, rounded to codes first or not; gradients pass the rounding as if it were none.

        Shapes: (B, channels, h, w) → (B, image_channels, h factor, w factor).   Units: as `encode`.
        """
        if quantise:
            z = z + (self.quantize(z) - z).detach()
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x: Tensor) -> Tensor:
        """There and back."""
        return self.decode(self.encode(x))


def _conv(shapes: Shapes, name: str) -> nn.Conv2d:
    out, channels, size, _ = shapes[f"{name}.weight"]
    return nn.Conv2d(channels, out, size, padding=size // 2)


def _indices(shapes: Shapes, prefix: str) -> list[int]:
    return sorted({int(n.removeprefix(f"{prefix}.").split(".")[0]) for n in shapes if n.startswith(f"{prefix}.")})
