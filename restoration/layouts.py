"""Names of public checkpoints, carried to those of the two networks that read them.

Every function is a map of tensors alone: it works on tensors without storage as on real ones. A tensor that it does
not know keeps its name, so that the strict comparison afterwards finds it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

State = dict[str, Tensor]

_RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "temb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    "nin_shortcut": "skip_connection",
}  # fmt: skip
_QKV = (("q", "to_q", "query"), ("k", "to_k", "key"), ("v", "to_v", "value"))
_ATTENTION = {"norm": "norm", "group_norm": "norm", "proj_out": "proj_out", "to_out.0": "proj_out",
              "proj_attn": "proj_out"}  # fmt: skip


def _moved(state: State, moves: Iterable[tuple[str, str]]) -> State:
    """Tensors under new prefixes; residual blocks and attention get ADM's names inside."""
    places = dict(moves)
    found: State = {}
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        prefix = next((p for p in places if name.startswith(p + ".")), None)
        if prefix is None:
            found[name] = tensor
        else:
            grouped.setdefault(prefix, {})[name.removeprefix(prefix + ".")] = tensor
    for prefix, parts in grouped.items():
        new = places[prefix]
        if any(f"{q}.weight" in parts for q in _QKV[0]):
            parts = _joined(parts)
        for name, tensor in parts.items():
            stem, _, kind = name.rpartition(".")
            table = _ATTENTION if "qkv.weight" in parts else _RESIDUAL
            inner = table.get(stem, stem)
            if table is _ATTENTION and kind == "weight" and inner != "norm" and tensor.ndim != 3:
                tensor = tensor.flatten(1)[:, :, None]
            found[".".join(p for p in (new, inner, kind) if p)] = tensor
    return found


def _joined(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v as one layer, in this order."""
    names = [next(n for n in choice if f"{n}.weight" in parts) for choice in _QKV]
    rest = {n: t for n, t in parts.items() if n.rpartition(".")[0] not in names}
    for kind in ("weight", "bias"):
        if all(f"{n}.{kind}" in parts for n in names):
            rest[f"qkv.{kind}"] = torch.cat([parts[f"{n}.{kind}"] for n in names])
    return rest


def _count(state: State, prefix: str) -> int:
    return len({n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)})


def from_diffusers(state: State) -> State:
    """UNet2DModel to ADM, the attention names of before diffusers 0.11 included."""
    moves = [
        ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
        ("class_embedding", "label_emb"), ("conv_in", "input_blocks.0.0"),
        ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ]  # fmt: skip
    at = 1
    for level in range(_count(state, "down_blocks.")):
        block = f"down_blocks.{level}"
        for i in range(_count(state, f"{block}.resnets.")):
            moves += [
                (f"{block}.resnets.{i}", f"input_blocks.{at}.0"),
                (f"{block}.attentions.{i}", f"input_blocks.{at}.1"),
            ]
            at += 1
        if _count(state, f"{block}.downsamplers."):
            convolves = f"{block}.downsamplers.0.conv.weight" in state
            new = f"input_blocks.{at}.0"
            moves.append(
                (f"{block}.downsamplers.0.conv", f"{new}.op") if convolves else (f"{block}.downsamplers.0", new)
            )
            at += 1
    attends = _count(state, "mid_block.attentions.")
    moves += [("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"),
              ("mid_block.resnets.1", f"middle_block.{1 + attends}")]  # fmt: skip
    at = 0
    for level in range(_count(state, "up_blocks.")):
        block = f"up_blocks.{level}"
        behind = 2 if _count(state, f"{block}.attentions.") else 1
        for i in range(_count(state, f"{block}.resnets.")):
            moves += [
                (f"{block}.resnets.{i}", f"output_blocks.{at}.0"),
                (f"{block}.attentions.{i}", f"output_blocks.{at}.1"),
            ]
            at += 1
        moves.append((f"{block}.upsamplers.0", f"output_blocks.{at - 1}.{behind}"))
    return _moved(state, moves)


def from_ddpm(state: State) -> State:
    """The PyTorch form of DDPM's own networks (`down.0.block.0`, `temb.dense.0`) to ADM."""
    moves = [
        ("temb.dense.0", "time_embed.0"), ("temb.dense.1", "time_embed.2"), ("conv_in", "input_blocks.0.0"),
        ("mid.block_1", "middle_block.0"), ("mid.attn_1", "middle_block.1"), ("mid.block_2", "middle_block.2"),
        ("norm_out", "out.0"), ("conv_out", "out.2"),
    ]  # fmt: skip
    levels, at = _count(state, "down."), 1
    for level in range(levels):
        block = f"down.{level}"
        for i in range(_count(state, f"{block}.block.")):
            moves += [(f"{block}.block.{i}", f"input_blocks.{at}.0"), (f"{block}.attn.{i}", f"input_blocks.{at}.1")]
            at += 1
        if level < levels - 1:
            moves.append((f"{block}.downsample.conv", f"input_blocks.{at}.0.op"))
            at += 1
    at = 0
    for level in reversed(range(levels)):
        block = f"up.{level}"
        for i in range(_count(state, f"{block}.block.")):
            moves += [(f"{block}.block.{i}", f"output_blocks.{at}.0"), (f"{block}.attn.{i}", f"output_blocks.{at}.1")]
            at += 1
        behind = 2 if _count(state, f"{block}.attn.") else 1
        moves.append((f"{block}.upsample", f"output_blocks.{at - 1}.{behind}"))
    return _moved(state, moves)


_BIGGAN = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1",
           "Conv_2": "skip"}  # fmt: skip


def from_score_sde(state: State, side: int) -> State:
    """DDPM++ and NCSN++ of score_sde, whose layers are numbered in the order of their use, to EDM's names.

    `side` is that of the pictures. What the shapes do not show is as in every published configuration: BigGAN blocks,
    skips rescaled, filters [1, 3, 3, 1] in NCSN++ and boxes in DDPM++.

    Raises:
        ValueError: another order of layers.
    """
    numbered: dict[int, dict[str, Tensor]] = {}
    found: State = {}
    for name, tensor in state.items():
        if name.startswith("all_modules."):
            _, index, part = name.split(".", 2)
            numbered.setdefault(int(index), {})[part] = tensor
        else:
            found[name] = tensor
    layers = [numbered[i] for i in sorted(numbered)]
    kinds = [_kind(parts) for parts in layers]
    smooth = not {"fourier", "combine", "fir"}.isdisjoint(kinds)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if smooth else [1.0, 1.0], device=next(iter(state.values())).device)
    box = (torch.outer(taps, taps) / taps.sum() ** 2)[None, None]
    at = 0

    def peek() -> str:
        return kinds[at] if at < len(kinds) else "nothing"

    def take(kind: str) -> dict[str, Tensor]:
        nonlocal at
        if peek() != kind:
            raise ValueError(
                f"{peek()} where {kind} should be, at all_modules.{sorted(numbered)[min(at, len(kinds) - 1)]}"
            )
        at += 1
        return layers[at - 1]

    def plain(kind: str, new: str) -> None:
        found.update({f"{new}.{part.rpartition('.')[2]}": t for part, t in take(kind).items()})

    def block(new: str, attends: str = "maybe", kind: str = "residual") -> None:
        for part, tensor in take(kind).items():
            stem, _, last = part.rpartition(".")
            found[f"{new}.{_BIGGAN[stem]}.{last}"] = tensor
        if kind == "resampling":
            found[f"{new}.conv0.resample_filter"] = found[f"{new}.skip.resample_filter"] = box
        if attends == "always" or (attends == "maybe" and peek() == "attention"):
            attention(new, take("attention"))

    def attention(new: str, parts: dict[str, Tensor]) -> None:
        for last in ("weight", "bias"):
            found[f"{new}.norm2.{last}"] = parts[f"GroupNorm_0.{last}"]
        # Their matrices multiply from the other side; rows of q, k and v alternate.
        matrices, biases = ([parts[f"NIN_{i}.{p}"] for i in range(4)] for p in ("W", "b"))
        found[f"{new}.qkv.weight"] = torch.stack([m.T for m in matrices[:3]], 1).flatten(0, 1)[:, :, None, None]
        found[f"{new}.qkv.bias"] = torch.stack(biases[:3], 1).flatten()
        found[f"{new}.proj.weight"], found[f"{new}.proj.bias"] = matrices[3].T[:, :, None, None], biases[3]

    if peek() == "fourier":
        found["map_noise.freqs"] = take("fourier")["W"]
    plain("dense", "map_layer0")
    plain("dense", "map_layer1")
    levels = 1 + kinds.count("resampling") // 2
    if levels == 1:
        raise ValueError("no BigGAN block that resamples")
    per = kinds[: kinds.index("resampling")].count("residual")
    names = [f"{side >> level}x{side >> level}" for level in range(levels)]
    plain("convolution", f"enc.{names[0]}_conv")
    for level in range(levels):
        if level:
            block(f"enc.{names[level]}_down", "never", "resampling")
            if peek() == "combine":
                found[f"enc.{names[level]}_aux_down.resample_filter"] = box
                plain("combine", f"enc.{names[level]}_aux_skip")
            elif peek() == "fir":
                plain("fir", f"enc.{names[level]}_aux_residual")
                found[f"enc.{names[level]}_aux_residual.resample_filter"] = box
        for i in range(per):
            block(f"enc.{names[level]}_block{i}")
    block(f"dec.{names[-1]}_in0", "always")
    block(f"dec.{names[-1]}_in1", "never")
    pyramid = False
    for level in reversed(range(levels)):
        if level < levels - 1:
            block(f"dec.{names[level]}_up", "never", "resampling")
        for i in range(per + 1):
            block(f"dec.{names[level]}_block{i}", "maybe" if i == per else "never")
        if level == 0 or peek() == "norm":
            if pyramid:
                found[f"dec.{names[level]}_aux_up.resample_filter"] = box
            plain("norm", f"dec.{names[level]}_aux_norm")
            plain("convolution", f"dec.{names[level]}_aux_conv")
            pyramid = True
    if at < len(layers):
        raise ValueError(f"{len(layers) - at} layers more than expected")
    return found


def _kind(parts: dict[str, Tensor]) -> str:
    if "GroupNorm_1.weight" in parts and "Conv_1.weight" in parts:
        changes = parts["Conv_0.weight"].shape[0] != parts["Conv_0.weight"].shape[1]
        return "resampling" if "Conv_2.weight" in parts and not changes else "residual"
    marks = {"W": "fourier", "NIN_3.W": "attention", "Conv.weight": "combine", "Conv2d_0.weight": "fir"}
    for mark, kind in marks.items():
        if mark in parts:
            return kind
    dimensions = parts["weight"].ndim if "weight" in parts else 0
    return {1: "norm", 2: "dense", 4: "convolution"}.get(dimensions, "an unknown layer")
