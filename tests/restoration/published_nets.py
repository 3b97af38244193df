"""Published architectures as plain functions of named tensors, written from their formulas: what loaders are held to.

Each function asks for tensors by the names that the original files use and makes random ones on the first call, so the
first call defines a tiny checkpoint in the original layout and later ones are the independent forward pass.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class Weights(dict[str, Tensor]):
    """Named tensors, random on first use; float32 numbers held in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def get_or_make(self, name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        if name not in self:
            self[name] = (mean + scale * torch.randn(shape, generator=self.generator)).double()
        assert tuple(self[name].shape) == shape, name
        return self[name]

    def conv(
        self, name: str, x: Tensor, out: int, size: int = 3, stride: int = 1, padding: int | None = None
    ) -> Tensor:
        fan = x.shape[1] * size * size
        weight = self.get_or_make(f"{name}.weight", out, x.shape[1], size, size, scale=fan**-0.5)
        bias = self.get_or_make(f"{name}.bias", out, scale=0.1)
        return F.conv2d(x, weight, bias, stride, size // 2 if padding is None else padding)

    def linear(self, name: str, x: Tensor, out: int, bias: bool = True) -> Tensor:
        y = x @ self.get_or_make(f"{name}.weight", out, x.shape[1], scale=x.shape[1] ** -0.5).T
        return y + self.get_or_make(f"{name}.bias", out, scale=0.1) if bias else y

    def norm(self, name: str, x: Tensor, groups: int, eps: float) -> Tensor:
        parts = x.reshape(len(x), groups, -1)
        centred = parts - parts.mean(-1, keepdim=True)
        flat = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        weight = self.get_or_make(f"{name}.weight", x.shape[1], scale=0.2, mean=1.0)
        bias = self.get_or_make(f"{name}.bias", x.shape[1], scale=0.1)
        return flat.reshape(x.shape) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    def saved(self) -> dict[str, Tensor]:
        return {name: tensor.float().contiguous() for name, tensor in self.items()}


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, channels, pixels) each."""
    share = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1])).softmax(-1)
    return torch.einsum("bts,bcs->bct", share, v)


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def halve(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def sinusoids(t: Tensor, size: int, last: int, cosine_first: bool) -> Tensor:
    """`last` 0: frequencies 10000^(-i/half); 1: down to 1/10000 exactly."""
    half = size // 2
    angles = t[:, None] * torch.tensor([10000 ** (-i / (half - last)) for i in range(half)], dtype=t.dtype)
    pair = (angles.cos(), angles.sin())
    return torch.cat(pair if cosine_first else pair[::-1], 1)


def adm(
    w: Weights,
    x: Tensor,
    t: Tensor,
    *,
    width: int = 32,
    mult: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention: tuple[int, ...] = (1,),
    head_channels: int = 16,
    new_order: bool = False,
    updown: bool = True,
    scale_shift: bool = True,
    out: int = 6,
    classes: int = 0,
    label: int = 0,
) -> Tensor:
    """guided-diffusion's UNetModel."""
    e = w.linear("time_embed.2", swish(w.linear("time_embed.0", sinusoids(t, width, 0, True), 4 * width)), 4 * width)
    if classes:
        e = e + w.get_or_make("label_emb.weight", classes, 4 * width)[label]

    def res(name: str, x: Tensor, out: int, resample: str = "") -> Tensor:
        change = {"": lambda a: a, "up": double, "down": halve}[resample]
        h = swish(w.norm(f"{name}.in_layers.0", x, 32, 1e-5))
        h = w.conv(f"{name}.in_layers.2", change(h), out)
        level = w.linear(f"{name}.emb_layers.1", swish(e), out * (2 if scale_shift else 1))[:, :, None, None]
        if scale_shift:
            h = w.norm(f"{name}.out_layers.0", h, 32, 1e-5) * (1 + level[:, :out]) + level[:, out:]
        else:
            h = w.norm(f"{name}.out_layers.0", h + level, 32, 1e-5)
        h = w.conv(f"{name}.out_layers.3", swish(h), out)
        x = change(x)
        return h + (x if x.shape[1] == out else w.conv(f"{name}.skip_connection", x, out, 1))

    def att(name: str, x: Tensor) -> Tensor:
        channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
        h = w.norm(f"{name}.norm", x, 32, 1e-5).reshape(len(x), channels, pixels)
        weight = w.get_or_make(f"{name}.qkv.weight", 3 * channels, channels, 1, scale=channels**-0.5)[..., 0]
        qkv = weight @ h + w.get_or_make(f"{name}.qkv.bias", 3 * channels, scale=0.1)[:, None]
        heads = []
        for i in range(channels // head_channels):
            if new_order:  # rows: all q, all k, all v
                rows = [qkv[:, j * channels + i * head_channels :][:, :head_channels] for j in range(3)]
            else:  # rows: q, k, v of the first head, then of the second
                rows = [qkv[:, (3 * i + j) * head_channels :][:, :head_channels] for j in range(3)]
            heads.append(attend(*rows))
        weight = w.get_or_make(f"{name}.proj_out.weight", channels, channels, 1, scale=channels**-0.5)[..., 0]
        h = weight @ torch.cat(heads, 1) + w.get_or_make(f"{name}.proj_out.bias", channels, scale=0.1)[:, None]
        return x + h.reshape(x.shape)

    h = w.conv("input_blocks.0.0", x, width * mult[0])
    skips, n = [h], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            h = res(f"input_blocks.{n}.0", h, width * m)
            if level in attention:
                h = att(f"input_blocks.{n}.1", h)
            skips.append(h)
            n += 1
        if level < len(mult) - 1:
            name = f"input_blocks.{n}.0"
            h = res(name, h, h.shape[1], "down") if updown else w.conv(f"{name}.op", h, h.shape[1], stride=2)
            skips.append(h)
            n += 1
    h = res("middle_block.2", att("middle_block.1", res("middle_block.0", h, h.shape[1])), h.shape[1])
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for i in range(blocks + 1):
            h, j = res(f"output_blocks.{n}.0", torch.cat([h, skips.pop()], 1), width * m), 1
            if level in attention:
                h, j = att(f"output_blocks.{n}.1", h), 2
            if level and i == blocks:
                name = f"output_blocks.{n}.{j}"
                h = res(name, h, h.shape[1], "up") if updown else w.conv(f"{name}.conv", double(h), h.shape[1])
            n += 1
    return w.conv("out.2", swish(w.norm("out.0", h, 32, 1e-5)), out)


def ddpm(
    w: Weights,
    x: Tensor,
    t: Tensor,
    *,
    width: int = 32,
    mult: tuple[int, ...] = (1, 2),
    attention: tuple[int, ...] = (1,),
) -> Tensor:
    """The PyTorch form of Ho et al.'s network (two blocks a level in the papers; one here)."""
    e = w.linear("temb.dense.1", swish(w.linear("temb.dense.0", sinusoids(t, width, 1, False), 4 * width)), 4 * width)

    def res(name: str, x: Tensor, out: int) -> Tensor:
        h = w.conv(f"{name}.conv1", swish(w.norm(f"{name}.norm1", x, 32, 1e-6)), out)
        h = h + w.linear(f"{name}.temb_proj", swish(e), out)[:, :, None, None]
        h = w.conv(f"{name}.conv2", swish(w.norm(f"{name}.norm2", h, 32, 1e-6)), out)
        return h + (x if x.shape[1] == out else w.conv(f"{name}.nin_shortcut", x, out, 1))

    def att(name: str, x: Tensor) -> Tensor:
        h = w.norm(f"{name}.norm", x, 32, 1e-6)
        q, k, v = (w.conv(f"{name}.{p}", h, x.shape[1], 1).flatten(2) for p in "qkv")
        return x + w.conv(f"{name}.proj_out", attend(q, k, v).reshape(x.shape), x.shape[1], 1)

    h = w.conv("conv_in", x, width)
    skips = [h]
    for level, m in enumerate(mult):
        h = res(f"down.{level}.block.0", h, width * m)
        if level in attention:
            h = att(f"down.{level}.attn.0", h)
        skips.append(h)
        if level < len(mult) - 1:
            h = w.conv(f"down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], stride=2, padding=0)
            skips.append(h)
    h = res("mid.block_2", att("mid.attn_1", res("mid.block_1", h, h.shape[1])), h.shape[1])
    for level, m in reversed(list(enumerate(mult))):
        for i in range(2):
            h = res(f"up.{level}.block.{i}", torch.cat([h, skips.pop()], 1), width * m)
            if level in attention:
                h = att(f"up.{level}.attn.{i}", h)
        if level:
            h = w.conv(f"up.{level}.upsample.conv", double(h), h.shape[1])
    return w.conv("conv_out", swish(w.norm("norm_out", h, 32, 1e-6)), x.shape[1])


def filtered(x: Tensor, taps: list[float], gain: float = 1.0) -> Tensor:
    """Full convolution of every channel with taps x taps, of sum `gain`."""
    k = torch.tensor(taps, dtype=x.dtype)
    k = gain * torch.outer(k, k) / k.sum() ** 2
    flat = F.conv2d(x.reshape(-1, 1, *x.shape[-2:]), k[None, None], padding=len(taps) - 1)
    return flat.reshape(*x.shape[:2], *flat.shape[-2:])


def fir_down(x: Tensor) -> Tensor:
    return filtered(x, [1, 3, 3, 1])[..., 2:-2:2, 2:-2:2]


def fir_up(x: Tensor) -> Tensor:
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spread[..., ::2, ::2] = x
    return filtered(spread, [1, 3, 3, 1], 4.0)[..., 1:-2, 1:-2]


def score_sde(
    w: Weights,
    x: Tensor,
    time: Tensor,
    *,
    width: int = 16,
    mult: tuple[int, ...] = (1, 2, 2),
    blocks: int = 1,
    attention: tuple[int, ...] = (1,),
    fourier: bool = True,
    fir: bool = True,
    progressive: str = "output_skip",
    progressive_input: str = "input_skip",
    joined: bool = False,
) -> Tensor:
    """NCSN++ and DDPM++ with BigGAN blocks and rescaled skips, x on [-1, 1]; layers are numbered as they come."""
    at = -1
    up, down = (fir_up, fir_down) if fir else (double, halve)

    def layer() -> str:
        nonlocal at
        at += 1
        return f"all_modules.{at}"

    def norm(name: str, x: Tensor) -> Tensor:
        return w.norm(name, x, min(x.shape[1] // 4, 32), 1e-6)

    if fourier:
        angles = time.log()[:, None] * w.get_or_make(f"{layer()}.W", width, scale=16.0) * 2 * math.pi
        e = torch.cat([angles.sin(), angles.cos()], 1)
    else:
        e = sinusoids(time, width, 1, False)
    e = w.linear(layer(), e, 4 * width)
    e = w.linear(layer(), swish(e), 4 * width)

    def res(x: Tensor, out: int, change: str = "") -> Tensor:
        name = layer()
        resample = {"": lambda a: a, "up": up, "down": down}[change]
        h = w.conv(f"{name}.Conv_0", resample(swish(norm(f"{name}.GroupNorm_0", x))), out)
        h = h + w.linear(f"{name}.Dense_0", swish(e), out)[:, :, None, None]
        h = w.conv(f"{name}.Conv_1", swish(norm(f"{name}.GroupNorm_1", h)), out)
        x = resample(x)
        if x.shape[1] != out or change:
            x = w.conv(f"{name}.Conv_2", x, out, 1)
        return (x + h) / math.sqrt(2)

    def nin(name: str, x: Tensor) -> Tensor:
        c = x.shape[1]
        y = torch.einsum("bchw,cd->bdhw", x, w.get_or_make(f"{name}.W", c, c, scale=c**-0.5))
        return y + w.get_or_make(f"{name}.b", c, scale=0.1)[:, None, None]

    def att(x: Tensor) -> Tensor:
        name = layer()
        h = norm(f"{name}.GroupNorm_0", x)
        q, k, v = (nin(f"{name}.NIN_{i}", h).flatten(2) for i in range(3))
        return (x + nin(f"{name}.NIN_3", attend(q, k, v).reshape(x.shape))) / math.sqrt(2)

    def shown(h: Tensor) -> Tensor:
        h = swish(norm(layer(), h))
        return w.conv(layer(), h, x.shape[1])

    small = x
    hs = [w.conv(layer(), x, width)]
    for level, m in enumerate(mult):
        for _ in range(blocks):
            h = res(hs[-1], width * m)
            if level in attention:
                h = att(h)
            hs.append(h)
        if level < len(mult) - 1:
            h = res(hs[-1], h.shape[1], "down")
            if progressive_input == "input_skip":
                layer()  # the resampling, which has no tensors
                small = down(small)
                shown_small = w.conv(f"{layer()}.Conv", small, h.shape[1], 1)
                h = torch.cat([shown_small, h], 1) if joined else shown_small + h
            elif progressive_input == "residual":
                # Filter at full size, then a convolution of every second pixel.
                smooth = filtered(small, [1, 3, 3, 1])[..., 1:-1, 1:-1]
                h = small = (w.conv(f"{layer()}.Conv2d_0", smooth, h.shape[1], stride=2, padding=0) + h) / math.sqrt(2)
            hs.append(h)
    h = res(hs[-1], hs[-1].shape[1])
    h = att(h)
    h = res(h, h.shape[1])
    picture: Tensor | None = None
    for level, m in reversed(list(enumerate(mult))):
        for _ in range(blocks + 1):
            h = res(torch.cat([h, hs.pop()], 1), width * m)
        if level in attention:
            h = att(h)
        if progressive == "output_skip":
            if picture is None:
                picture = shown(h)
            else:
                layer()
                picture = up(picture) + shown(h)
        if level:
            h = res(h, h.shape[1], "up")
    return shown(h) if picture is None else picture


def edm(
    w: Weights,
    x: Tensor,
    clock: Tensor,
    *,
    width: int = 32,
    mult: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention: tuple[int, ...] = (1,),
    dhariwal: bool = False,
    classes: int = 0,
    label: int = 0,
) -> Tensor:
    """EDM's DDPM++ (SongUNet) and ADM (DhariwalUNet) with box filters."""
    eps, rescale = (1e-5, 1.0) if dhariwal else (1e-6, math.sqrt(0.5))
    chosen = F.one_hot(torch.tensor([label]), max(classes, 1)).double()
    e = sinusoids(clock, width, 0 if dhariwal else 1, dhariwal)
    if classes and not dhariwal:
        e = e + w.linear("map_label", chosen * math.sqrt(classes), width)
    e = w.linear("map_layer0", e, 4 * width)
    e = w.linear("map_layer1", swish(e), 4 * width)
    if classes and dhariwal:
        e = e + w.linear("map_label", chosen, 4 * width, bias=False)
    e = swish(e)

    def norm(name: str, x: Tensor) -> Tensor:
        return w.norm(name, x, min(32, x.shape[1] // 4), eps)

    def box(name: str) -> None:
        w.setdefault(f"{name}.resample_filter", torch.full((1, 1, 2, 2), 0.25).double())

    def block(name: str, x: Tensor, out: int, change: str = "", attends: bool = False) -> Tensor:
        resample = {"": lambda a: a, "up": double, "down": halve}[change]
        h = w.conv(f"{name}.conv0", resample(swish(norm(f"{name}.norm0", x))), out)
        level = w.linear(f"{name}.affine", e, out * (2 if dhariwal else 1))[:, :, None, None]
        if dhariwal:
            h = norm(f"{name}.norm1", h) * (1 + level[:, :out]) + level[:, out:]
        else:
            h = norm(f"{name}.norm1", h + level)
        h = w.conv(f"{name}.conv1", swish(h), out)
        skip = resample(x)
        if x.shape[1] != out or (change and not dhariwal):
            skip = w.conv(f"{name}.skip", skip, out, 1)
        if change:
            box(f"{name}.conv0")
            box(f"{name}.skip")
        x = (skip + h) * rescale
        if attends:
            heads = out // 64 if dhariwal else 1
            qkv = w.conv(f"{name}.qkv", norm(f"{name}.norm2", x), 3 * out, 1).flatten(2)
            each = [qkv[:, i * 3 * out // heads :][:, : 3 * out // heads] for i in range(heads)]
            mixed = torch.cat([attend(part[:, 0::3], part[:, 1::3], part[:, 2::3]) for part in each], 1)
            x = (x + w.conv(f"{name}.proj", mixed.reshape(x.shape), out, 1)) * rescale
        return x

    sides = [x.shape[-1] >> level for level in range(len(mult))]
    names = [f"{side}x{side}" for side in sides]
    h = w.conv(f"enc.{names[0]}_conv", x, width * mult[0] if dhariwal else width)
    skips = [h]
    for level, m in enumerate(mult):
        if level:
            h = block(f"enc.{names[level]}_down", h, h.shape[1], "down")
            skips.append(h)
        for i in range(blocks):
            h = block(f"enc.{names[level]}_block{i}", h, width * m, attends=level in attention)
            skips.append(h)
    h = block(f"dec.{names[-1]}_in0", h, h.shape[1], attends=True)
    h = block(f"dec.{names[-1]}_in1", h, h.shape[1])
    for level, m in reversed(list(enumerate(mult))):
        if level < len(mult) - 1:
            h = block(f"dec.{names[level]}_up", h, h.shape[1], "up")
        for i in range(blocks + 1):
            attends = level in attention and (dhariwal or i == blocks)
            h = block(f"dec.{names[level]}_block{i}", torch.cat([h, skips.pop()], 1), width * m, attends=attends)
    if dhariwal:
        return w.conv("out_conv", swish(norm("out_norm", h)), x.shape[1])
    return w.conv(f"dec.{names[0]}_aux_conv", swish(norm(f"dec.{names[0]}_aux_norm", h)), x.shape[1])


def edm2(
    w: Weights,
    x: Tensor,
    clock: Tensor,
    *,
    width: int = 64,
    mult: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention: tuple[int, ...] = (1,),
    classes: int = 0,
    label: int = 0,
) -> Tensor:
    """EDM2's UNet; weights are normalised on every call, as when it was trained."""

    def mp(name: str, x: Tensor, out: int, size: int = 0, gain: Tensor | float = 1.0) -> Tensor:
        shape = (out, x.shape[1], size, size) if size else (out, x.shape[1])
        stored = w.get_or_make(f"{name}.weight", *shape, scale=0.7)
        fan = stored[0].numel()
        length = stored.square().flatten(1).sum(1).sqrt().view(-1, *[1] * (len(shape) - 1))
        weight = stored / (1e-4 + length / math.sqrt(fan)) * (gain / math.sqrt(fan))
        return F.conv2d(x, weight, padding=size // 2) if size else x @ weight.T

    def unit(x: Tensor, dim: int) -> Tensor:
        return x / (1e-4 + x.square().sum(dim, keepdim=True).sqrt() / math.sqrt(x.shape[dim]))

    def mix(a: Tensor, b: Tensor, t: float) -> Tensor:
        return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)

    def act(x: Tensor) -> Tensor:
        return swish(x) / 0.596

    freqs = w.get_or_make("emb_fourier.freqs", width, scale=2 * math.pi)
    phases = w.get_or_make("emb_fourier.phases", width, scale=2.0)
    e = mp("emb_noise", (clock[:, None] * freqs + phases).cos() * math.sqrt(2), width * max(mult))
    if classes:
        chosen = F.one_hot(torch.tensor([label]), classes).double() * math.sqrt(classes)
        e = mix(e, mp("emb_label", chosen, width * max(mult)).expand(len(e), -1), 0.5)
    e = act(e)

    def block(name: str, x: Tensor, out: int, change: str = "", attends: bool = False) -> Tensor:
        encoder = name.startswith("enc")
        x = {"": lambda a: a, "up": double, "down": halve}[change](x)
        if encoder:
            x = unit(x if x.shape[1] == out else mp(f"{name}.conv_skip", x, out, 1), 1)
        y = mp(f"{name}.conv_res0", act(x), out, 3)
        level = mp(f"{name}.emb_linear", e, out, gain=w.get_or_make(f"{name}.emb_gain", scale=0.5)) + 1
        y = mp(f"{name}.conv_res1", act(y * level[:, :, None, None]), out, 3)
        if not encoder and x.shape[1] != out:
            x = mp(f"{name}.conv_skip", x, out, 1)
        x = mix(x, y, 0.3)
        if attends:
            qkv = mp(f"{name}.attn_qkv", x, 3 * out, 1).flatten(2)
            heads = []
            for i in range(out // 64):
                part = qkv[:, i * 192 : (i + 1) * 192]
                heads.append(attend(*(unit(part[:, j::3], 1) for j in range(3))))
            x = mix(x, mp(f"{name}.attn_proj", torch.cat(heads, 1).reshape(x.shape), out, 1), 0.3)
        return x.clamp(-256, 256)

    names = [f"{x.shape[-1] >> level}x{x.shape[-1] >> level}" for level in range(len(mult))]
    h = mp(f"enc.{names[0]}_conv", torch.cat([x, torch.ones_like(x[:, :1])], 1), width * mult[0], 3)
    skips = [h]
    for level, m in enumerate(mult):
        if level:
            h = block(f"enc.{names[level]}_down", h, h.shape[1], "down")
            skips.append(h)
        for i in range(blocks):
            h = block(f"enc.{names[level]}_block{i}", h, width * m, attends=level in attention)
            skips.append(h)
    h = block(f"dec.{names[-1]}_in0", h, h.shape[1], attends=True)
    h = block(f"dec.{names[-1]}_in1", h, h.shape[1])
    for level, m in reversed(list(enumerate(mult))):
        if level < len(mult) - 1:
            h = block(f"dec.{names[level]}_up", h, h.shape[1], "up")
        for i in range(blocks + 1):
            skip = skips.pop()
            a, b = h.shape[1], skip.shape[1]
            c = math.sqrt((a + b) / 0.5)
            h = torch.cat([c / math.sqrt(a) * 0.5 * h, c / math.sqrt(b) * 0.5 * skip], 1)
            h = block(f"dec.{names[level]}_block{i}", h, width * m, attends=level in attention)
    return mp("out_conv", h, x.shape[1], 3, gain=w.get_or_make("out_gain", scale=0.5))
