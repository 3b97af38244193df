"""Which network a checkpoint is of, told by the names and shapes of its tensors."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from operators.errors import ReadError, RecipeError
from restoration.assets import ResidualUNetSpec
from restoration.checkpoint_files import Contents
from restoration.convert import (
    EDM,
    VE,
    VP,
    Arithmetic,
    Flow,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    vp_sigmas,
)
from restoration.layouts import State, from_ddpm, from_diffusers, from_score_sde
from restoration.nets.adm import ADM, Details
from restoration.nets.edm2 import EDM2UNet, normalized
from restoration.nets.song import SongUNet
from restoration.prior import Denoiser, Padded, Tiled

if TYPE_CHECKING:
    from restoration.checkpoints import Checkpoint

Wrap = Callable[[nn.Module, Arithmetic], Denoiser]


@dataclass(frozen=True)
class Fit:
    """A network without storage that fits a file, and how the file's tensors are renamed."""

    net: nn.Module
    rename: Callable[[State], State]


@dataclass(frozen=True)
class Plan(Fit):
    """What fits a file, and how it becomes a denoiser.

    `trained` is the range of noise levels on [-1, 1]; `side` the pictures it was trained on, None for any size.
    """

    wrap: Wrap
    channels: int
    multiple: int
    trained: tuple[float, float]
    side: int | None
    conditional: int = 0

    @property
    def parameters(self) -> int:
        """How many; four times as many bytes are held."""
        return sum(p.numel() for p in self.net.parameters())

    def any_size(self, inner: Denoiser) -> Denoiser:
        """Padded to what the network halves, and tiled beyond the size that it was trained on."""
        padded, side = Padded(inner, self.multiple), self.side
        if side is None:
            return Tiled(padded, step_of=self.multiple)
        return Tiled(padded, side, side // 8, max(1, side // 16), self.multiple)


@dataclass(frozen=True)
class _Published:
    """What the shapes of a published ADM do not show."""

    side: int
    heads: int = 0
    head_channels: int = 64
    legacy: bool = True
    betas: Literal["linear", "cosine"] = "linear"


# By number of parameters without classes and without the last convolution, which varies with what is learned.
_PUBLISHED = {
    93_556_992: _Published(256),  # FFHQ of DPS and P2, AFHQ and others of ILVR
    552_800_256: _Published(256),  # ImageNet with and without classes, LSUN, I2SB
    295_126_080: _Published(64, legacy=False, betas="cosine"),  # ImageNet
    420_491_776: _Published(128, heads=4, head_channels=0),  # ImageNet
    557_966_720: _Published(512),  # ImageNet
}


def _adm(spec: "Checkpoint", contents: Contents) -> Plan:
    shapes = {n: tuple(t.shape) for n, t in contents.tensors.items()}
    torso = sum(math.prod(s) for n, s in shapes.items() if not n.startswith(("label_emb.", "out.2.")))
    known = _PUBLISHED.get(torso)
    heads, head_channels = spec.heads or 0, spec.head_channels or 0
    legacy = None if spec.attention is None else spec.attention == "legacy"
    side, betas = spec.image_size, spec.betas
    if known is not None:
        if not heads and not head_channels:
            heads, head_channels = known.heads, known.head_channels
        legacy = known.legacy if legacy is None else legacy
        side, betas = side or known.side, betas or known.betas
    if (not heads and not head_channels) or legacy is None or betas is None:
        raise RecipeError(
            f"Expected heads or head_channels, attention and betas for an ADM of {torso:,} parameters, which is none "
            "of the published ones, got not all of them; take them from the flags of its training (num_heads, "
            "num_head_channels, use_new_attention_order, noise_schedule)."
        )
    return _adm_plan(
        spec,
        contents,
        lambda s: s,
        Details(heads, head_channels, legacy),
        side,
        _table(betas),
        spec.predicts or "epsilon",
    )


def _ddpm(spec: "Checkpoint", contents: Contents) -> Plan:
    details = Details(heads=1, legacy=False, eps=1e-6, pad_after=True, cosine_first=False, shifted=True)
    table = _table(spec.betas or "linear")
    return _adm_plan(spec, contents, from_ddpm, details, spec.image_size, table, spec.predicts or "epsilon")


def _diffusers(spec: "Checkpoint", contents: Contents) -> Plan:
    config, scheduler = contents.facts.get("config"), contents.facts.get("scheduler", {})
    if config is None:
        raise RecipeError("Expected the folder of a diffusers checkpoint, got its file alone; give the folder as path.")
    fixed = {
        "_class_name": "UNet2DModel", "act_fn": "silu", "time_embedding_type": "positional",
        "center_input_sample": False, "mid_block_scale_factor": 1, "class_embed_type": None,
    }  # fmt: skip
    groups = config.get("norm_num_groups", 32)
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise ReadError(
                f"Expected {key} {value!r} in config.json, got {config[key]!r}; only such networks are read here."
            )
    if config.get("attn_norm_num_groups") not in (None, groups):
        raise ReadError(f"Expected attn_norm_num_groups {groups} in config.json; only such networks are read here.")
    width = config.get("attention_head_dim", 8)
    details = Details(
        heads=0 if width else 1,
        head_channels=width or 0,
        legacy=False,
        eps=config.get("norm_eps", 1e-5),
        groups=groups,
        pad_after=config.get("downsample_padding", 1) == 0,
        cosine_first=config.get("flip_sin_to_cos", True),
        shifted=bool(config.get("freq_shift", 0)),
    )
    size = config.get("sample_size")
    side = spec.image_size or (size if isinstance(size, int) else None)
    predicts, table = _scheduled(spec, scheduler)
    return _adm_plan(spec, contents, from_diffusers, details, side, table, predicts)


_PREDICTS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


def _scheduled(spec: "Checkpoint", scheduler: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """What a network predicts and its noise levels, from the configuration of diffusers' scheduler."""
    if scheduler.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        return spec.predicts or "flow", vp_sigmas()
    if not scheduler:
        if spec.predicts is None or spec.betas is None:
            raise RecipeError(
                "Expected scheduler_config.json in or beside the folder, got none; add it, or set predicts and betas."
            )
        return spec.predicts, _table(spec.betas)
    if scheduler.get("rescale_betas_zero_snr"):
        raise ReadError("Expected plain betas, got rescale_betas_zero_snr in scheduler_config.json; unknown here.")
    name = scheduler.get("prediction_type", "epsilon")
    if name not in _PREDICTS or "beta_schedule" not in scheduler:
        raise ReadError(
            f"Expected a DDPM or flow scheduler in scheduler_config.json, got {scheduler.get('_class_name')} that "
            f"predicts {name!r}; set predicts and betas if it is one of them."
        )
    steps, trained = scheduler.get("num_train_timesteps", 1000), scheduler.get("trained_betas")
    ends = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    schedules: dict[str, Callable[[], np.ndarray]] = {
        "linear": lambda: linear_betas(*ends, steps),
        "scaled_linear": lambda: scaled_linear_betas(*ends, steps),
        "squaredcos_cap_v2": lambda: cosine_betas(steps),
    }
    schedule = scheduler["beta_schedule"]
    if trained is not None:
        table = vp_sigmas(np.asarray(trained, dtype=np.float64))
    elif schedule in schedules:
        table = vp_sigmas(schedules[schedule]())
    else:
        raise ReadError(f"Expected one of {sorted(schedules)} as beta_schedule, got {schedule!r}; unknown here.")
    return spec.predicts or _PREDICTS[name], table if spec.betas is None else _table(spec.betas)


def _table(betas: Literal["linear", "scaled-linear", "cosine"]) -> np.ndarray:
    if betas == "cosine":
        return vp_sigmas(cosine_betas())
    # Latent diffusion's ends, the only ones in use with this spacing.
    return vp_sigmas(linear_betas() if betas == "linear" else scaled_linear_betas(0.00085, 0.012))


def _adm_plan(
    spec: "Checkpoint",
    contents: Contents,
    rename: Callable[[State], State],
    details: Details,
    side: int | None,
    table: np.ndarray,
    predicts: Literal["epsilon", "v", "x0", "score", "flow"],
) -> Plan:
    shapes = {n: tuple(t.shape) for n, t in rename(contents.tensors).items()}
    channels, out = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
    if out not in (channels, 2 * channels):
        raise ValueError(f"{channels} channels in and {out} out (an upsampler, a bridge or a classifier?)")
    widths = [s[1] for n, s in shapes.items() if n.endswith(".qkv.weight")]
    if any(w % (details.heads or details.head_channels) for w in widths):
        raise RecipeError(
            f"Expected heads or head_channels that divide {sorted(set(widths))}, the channels of attention, "
            f"got {details.heads or details.head_channels}; take them from the flags of its training."
        )
    with torch.device("meta"):
        net = ADM(shapes, details)
    wrap, trained = _vp(spec, channels, predicts, table)
    return Plan(
        net, rename, wrap, channels, net.multiple, trained, _side(side), shapes.get("label_emb.weight", (0,))[0]
    )


def _side(side: int | None) -> int:
    if side is None:
        raise RecipeError(
            "Expected image_size, the side of the pictures the network was trained on, which this file does not tell; "
            "set it."
        )
    return side


FLOW_TIMES = (0.002, 0.998)


def _vp(
    spec: "Checkpoint",
    channels: int,
    predicts: Literal["epsilon", "v", "x0", "score", "flow"],
    table: np.ndarray,
    clock: Literal["exact", "edm-vp"] = "exact",
) -> tuple[Wrap, tuple[float, float]]:
    shape = (channels, None, None)
    if predicts == "flow":
        ends = tuple(t / (1 - t) for t in FLOW_TIMES)
        return lambda net, p: Flow(net, shape, FLOW_TIMES, spec.noise_at, spec.time_scale, p), (ends[0], ends[1])
    return lambda net, p: VP(net, shape, predicts, clock, table, p), (float(table[0]), float(table[-1]))


def _score_sde(spec: "Checkpoint", contents: Contents) -> Plan:
    side = _side(spec.image_size)
    pyramid = any(".Conv.weight" in n or ".Conv2d_0.weight" in n for n in contents.tensors)
    fourier = "all_modules.0.W" in contents.tensors
    sde = spec.sde or ("ve" if fourier else None if pyramid else "vp")
    if sde is None or fourier != (sde == "ve"):
        raise RecipeError(
            f"Expected sde {'ve' if fourier else 'vp, vp-discrete or ve-discrete'} for this score_sde file, "
            f"got {sde}; set sde as its configuration has it."
        )

    def rename(state: State) -> State:
        return from_score_sde({n: t for n, t in state.items() if n != "sigmas"}, side)

    shapes = {n: tuple(t.shape) for n, t in rename(contents.tensors).items()}
    channels = shapes[f"enc.{side}x{side}_conv.weight"][1]
    with torch.device("meta"):
        net = SongUNet(shapes)
    predicts = spec.predicts or "epsilon"
    if sde.startswith("vp"):
        if sde == "vp":  # continuous: sampled from t = 1 to 0.001 (Song et al. 2021, appendix C)
            t = np.linspace(0.001, 1, 1000)
            wrap, trained = _vp(spec, channels, predicts, np.sqrt(np.expm1(9.95 * t**2 + 0.1 * t)), "edm-vp")
        else:
            wrap, trained = _vp(spec, channels, predicts, vp_sigmas())
        return Plan(net, rename, wrap, channels, net.multiple, trained, side)
    sigmas = contents.read("sigmas").double()
    low, high, count = float(sigmas.min()), float(sigmas.max()), len(sigmas)

    def clock(sigma: Tensor) -> Tensor:
        level = (sigma / 2).log()  # their images are in [0, 1]
        return level if sde == "ve" else (count - 1) * (math.log(high) - level) / math.log(high / low)

    trained = (2 * low, 2 * high)
    shape = (channels, None, None)
    return Plan(
        net,
        rename,
        lambda net, p: VE(net, shape, trained, clock, "scaled-score", p),
        channels,
        net.multiple,
        trained,
        side,
    )


def _edm(spec: "Checkpoint", contents: Contents) -> Plan:
    _preconditioned(contents, "EDMPrecond")

    def rename(state: State) -> State:
        return {n.removeprefix("model."): t for n, t in state.items()}

    shapes = {n: tuple(t.shape) for n, t in rename(contents.tensors).items()}
    with torch.device("meta"):
        net = SongUNet(shapes)
    return _edm_plan(contents, net, rename, shapes, shapes.get("map_label.weight", (0, 0))[1], 0)


def _edm2(spec: "Checkpoint", contents: Contents) -> Plan:
    _preconditioned(contents, "Precond")

    def rename(state: State) -> State:
        # The head that estimates the loss while training has no part in sampling.
        kept = {n.removeprefix("unet."): t for n, t in state.items() if not n.startswith("logvar_")}
        return {n: normalized(t) if n.endswith(".weight") else t for n, t in kept.items()}

    shapes = {n: tuple(t.shape) for n, t in rename(contents.tensors).items()}
    with torch.device("meta"):
        net = EDM2UNet(shapes)
    return _edm_plan(contents, net, rename, shapes, shapes.get("emb_label.weight", (0, 0))[1], 1)


def _preconditioned(contents: Contents, wanted: str) -> None:
    found = contents.facts.get("precond")
    if found != wanted:
        raise ReadError(
            f"Expected 'precond': '{wanted}' in the metadata of a converted EDM checkpoint, got {found!r}; "
            "convert it as docs/priors.md shows."
        )


def _edm_plan(
    contents: Contents, net: SongUNet | EDM2UNet, rename: Callable[[State], State], shapes: dict[str, tuple[int, ...]],
    classes: int, extra: int,
) -> Plan:  # fmt: skip
    channels = shapes[f"enc.{net.side}x{net.side}_conv.weight"][1] - extra
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels (a latent network?)")
    sigma_data = float(contents.facts.get("sigma_data", 0.5))
    trained = (0.002, 80.0)

    def wrap(net: nn.Module, precision: Arithmetic) -> Denoiser:
        return EDM(net, (channels, None, None), trained, sigma_data, precision)

    return Plan(net, rename, wrap, channels, net.multiple, trained, net.side, classes)


def _own(spec: "Checkpoint", contents: Contents) -> Plan:
    shapes = {n: tuple(t.shape) for n, t in contents.tensors.items()}
    levels = 1 + sum(n.startswith("down.") and n.endswith(".weight") for n in shapes)
    recipe = json.loads(contents.facts.get("recipe", "{}"))
    if "sigma_uniform" not in recipe:
        raise ReadError("Expected the training's recipe in the metadata of the file, got none; use ema.safetensors.")
    card = ResidualUNetSpec(
        channels=(shapes["head.weight"][0], *(shapes[f"down.{i}.weight"][0] for i in range(levels - 1))),
        blocks=sum(n.startswith("encoder.0.") and n.endswith(".conv1.weight") for n in shapes),
        embedding=shapes["embed1.weight"][0],
        image_channels=shapes["head.weight"][1],
        sigma_data=recipe.get("sigma_data", 0.5),
    )
    trained = (recipe["sigma_uniform"][0], recipe["sigma_uniform"][1])
    with torch.device("meta"):
        net = card.build()

    def wrap(net: nn.Module, precision: Arithmetic) -> Denoiser:
        return EDM(net, (card.image_channels, None, None), trained, card.sigma_data, precision)

    return Plan(net, lambda s: s, wrap, card.image_channels, net.multiple, trained, None)


_FLOW = ("noise_at", "time_scale")
_COMMON = ("image_size", "predicts", "betas", *_FLOW)

# A tensor that only this layout has, how it is read, and the fields that mean something for it.
LAYOUTS: dict[str, tuple[Callable[["Checkpoint", Contents], Plan], tuple[str, ...]]] = {
    "input_blocks.0.0.weight": (_adm, (*_COMMON, "label", "heads", "head_channels", "attention")),
    "temb.dense.0.weight": (_ddpm, _COMMON),
    "time_embedding.linear_1.weight": (_diffusers, (*_COMMON, "label")),
    "all_modules.0.weight": (_score_sde, ("image_size", "predicts", "sde", *_FLOW)),
    "all_modules.0.W": (_score_sde, ("image_size", "sde")),
    "model.map_layer0.weight": (_edm, ("label",)),
    "unet.emb_fourier.freqs": (_edm2, ("label",)),
    "embed1.weight": (_own, ()),
}
