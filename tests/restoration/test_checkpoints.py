"""Public checkpoints: each layout against an independent forward pass; what does not fit is refused before loading."""

import json
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from operators.errors import AssetCorrupt, AssetMissing, NeedError, PreimageError, ReadError, RecipeError
from operators.spec import pin
from restoration.assets import AssetStore
from restoration.checkpoints import Checkpoint
from restoration.convert import cosine_betas, scaled_linear_betas, vp_sigmas
from restoration.nets.adm import ADM
from restoration.nets.unet import ResidualUNet
from restoration.pipeline import Pipeline
from restoration.prior import Denoiser
from restoration.recipe import Recipe
from restoration.train.loop import save_weights
from tests.restoration import published_nets as nets
from tests.restoration.published_nets import Weights

SIDE = 8
FLAGS = {"head_channels": 16, "attention": "legacy", "betas": "linear", "image_size": SIDE}
Forward = Callable[[Tensor, Tensor], Tensor]


def states(channels: int = 3, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Unit-range states and their noise levels."""
    g = torch.Generator().manual_seed(3)
    sigma = torch.tensor([0.03, 2.0], dtype=torch.float64)
    return torch.rand(2, channels, side, side, generator=g).double() + sigma.view(-1, 1, 1, 1), sigma


def made(forward: Callable[..., Tensor], side: int = SIDE, **flags: Any) -> tuple[Weights, Forward]:
    """A tiny checkpoint in the original layout and its own forward pass."""
    w = Weights()
    forward(w, torch.zeros(1, 3, side, side).double(), torch.ones(1).double(), **flags)
    stored = Weights()
    stored.update({n: t.float().double() for n, t in w.items()})
    return stored, lambda x, t: forward(stored, x, t, **flags)


def loaded(**fields: Any) -> Denoiser:
    return Checkpoint(**fields).load(AssetStore(), torch.device("cpu"), "fp32").double()


def vp(net: Forward, x: Tensor, sigma: Tensor, index: Tensor, predicts: str = "epsilon") -> Tensor:
    """The posterior mean in unit range, by the definitions in terms of abar."""
    z, s = 2 * x - 1, (2 * sigma).view(-1, 1, 1, 1)
    abar = 1 / (1 + s**2)
    state = abar.sqrt() * z
    out = net(state, index)[:, : x.shape[1]]
    signal, noise = abar.sqrt(), (1 - abar).sqrt()
    x0 = {
        "epsilon": (state - noise * out) / signal,
        "v": signal * state - noise * out,
        "x0": out,
        "score": (state + noise**2 * out) / signal,
    }[predicts]
    return (x0 + 1) / 2


def index(table: np.ndarray, sigma: Tensor) -> Tensor:
    return torch.from_numpy(np.interp(np.log(2 * sigma.numpy()), np.log(table), np.arange(len(table))))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    worst = float((a - b).abs().max())
    assert worst < tolerance * max(1.0, float(b.abs().max()))
    assert float(b.std()) > 0.05


ADM_FLAGS: dict[str, dict[str, Any]] = {
    "ffhq-like": {},
    "new order": {"new_order": True},
    "convolutions that resample": {"updown": False, "scale_shift": False, "out": 3},
    "three levels, attention on two": {"mult": (1, 2, 2), "blocks": 2, "attention": (1, 2)},
    "class-conditional": {"classes": 5, "label": 3},
}


@pytest.mark.parametrize("name", ADM_FLAGS)
def test_adm_is_read_from_its_own_layout(name: str, tmp_path: Path) -> None:
    flags = ADM_FLAGS[name]
    w, net = made(nets.adm, **flags)
    torch.save(w.saved(), tmp_path / "adm.pt")
    fields = {**FLAGS, "attention": "new" if flags.get("new_order") else "legacy", "label": flags.get("label")}
    x, sigma = states()
    denoiser = loaded(path=str(tmp_path / "adm.pt"), **fields)
    same(denoiser(x, sigma), vp(net, x, sigma, index(vp_sigmas(), sigma)))
    assert denoiser.shape == (3, None, None)
    assert denoiser.sigma_range == pytest.approx((0.00500025, 78.7035), rel=1e-5)


def test_the_wrong_order_of_attention_is_another_network(tmp_path: Path) -> None:
    w, net = made(nets.adm)
    torch.save(w.saved(), tmp_path / "adm.pt")
    x, sigma = states()
    wrong = loaded(path=str(tmp_path / "adm.pt"), **{**FLAGS, "attention": "new"})(x, sigma)
    assert float((wrong - vp(net, x, sigma, index(vp_sigmas(), sigma))).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("predicts", "betas"), [("v", "linear"), ("x0", "linear"), ("score", "cosine"), ("epsilon", "scaled-linear")]
)
def test_every_prediction_and_schedule(predicts: str, betas: str, tmp_path: Path) -> None:
    w, net = made(nets.adm)
    torch.save(w.saved(), tmp_path / "adm.pt")
    tables = {
        "linear": vp_sigmas(),
        "cosine": vp_sigmas(cosine_betas()),
        "scaled-linear": vp_sigmas(scaled_linear_betas(0.00085, 0.012)),
    }
    x, sigma = states()
    denoiser = loaded(path=str(tmp_path / "adm.pt"), **{**FLAGS, "predicts": predicts, "betas": betas})
    same(denoiser(x, sigma), vp(net, x, sigma, index(tables[betas], sigma), predicts))


@pytest.mark.parametrize("noise_at", [0, 1])
def test_flows_of_both_directions(noise_at: int, tmp_path: Path) -> None:
    w, net = made(nets.adm)
    torch.save(w.saved(), tmp_path / "adm.pt")
    fields = {**FLAGS, "predicts": "flow", "noise_at": noise_at, "time_scale": 999.0}
    x, sigma = states()
    t = 2 * sigma / (1 + 2 * sigma)
    state = (1 - t).view(-1, 1, 1, 1) * (2 * x - 1)
    # Towards the noise the velocity is n - x0, so x0 = x_t - t v; towards the data it is its negative.
    if noise_at == 1:
        x0 = state - t.view(-1, 1, 1, 1) * net(state, 999 * t)[:, :3]
    else:
        x0 = state + t.view(-1, 1, 1, 1) * net(state, 999 * (1 - t))[:, :3]
    same(loaded(path=str(tmp_path / "adm.pt"), **fields)(x, sigma), (x0 + 1) / 2)


def test_ddpm_is_read_from_its_own_layout(tmp_path: Path) -> None:
    w, net = made(nets.ddpm)
    torch.save(w.saved(), tmp_path / "celeba_hq.ckpt")
    x, sigma = states()
    denoiser = loaded(path=str(tmp_path / "celeba_hq.ckpt"), image_size=SIDE)
    same(denoiser(x, sigma), vp(net, x, sigma, index(vp_sigmas(), sigma)))


SONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ncsn++ 256, ve": ({}, {}),
    "ncsn++ cifar, ve": ({"progressive": "none", "progressive_input": "residual", "blocks": 2}, {}),
    "ncsn++ cifar, vp": (
        {"progressive": "none", "progressive_input": "residual", "fourier": False},
        {"sde": "vp"},
    ),
    "ncsn++ cifar, ve-discrete": (
        {"progressive": "none", "progressive_input": "residual", "fourier": False},
        {"sde": "ve-discrete"},
    ),
    "ddpm++": ({"progressive": "none", "progressive_input": "none", "fourier": False, "fir": False}, {}),
    "ddpm++ discrete": (
        {"progressive": "none", "progressive_input": "none", "fourier": False, "fir": False},
        {"sde": "vp-discrete"},
    ),
}


@pytest.mark.parametrize("name", SONG)
def test_score_sde_is_read_from_its_own_layout(name: str, tmp_path: Path) -> None:
    flags, fields = SONG[name]
    w, net = made(nets.score_sde, **flags)
    ladder = torch.linspace(math.log(50), math.log(0.01), 1000).exp()
    # The averages have no names; the fixed frequencies and the table of levels are not among them.
    worse = {"module.sigmas": ladder, **{f"module.{n}": t + 1 for n, t in w.saved().items()}}
    if "all_modules.0.W" in w:
        worse["module.all_modules.0.W"] = w.saved()["all_modules.0.W"]
    shadow = [t for n, t in w.saved().items() if n != "all_modules.0.W"]
    file = {"optimizer": {"lr": 1e-4}, "model": worse, "step": 7, "ema": {"decay": 0.999, "shadow_params": shadow}}
    torch.save(file, tmp_path / "checkpoint_48.pth")
    x, sigma = states()
    denoiser = loaded(path=str(tmp_path / "checkpoint_48.pth"), image_size=SIDE, **fields)
    sde = fields.get("sde", "ve" if flags.get("fourier", True) else "vp")
    s = sigma.view(-1, 1, 1, 1)
    if sde == "vp":
        # abar(t) = exp(-0.1 t - 9.95 t²) solved for t by bisection.
        t = torch.zeros(2).double()
        for k in range(1, 60):
            t = torch.where(9.95 * (t + 0.5**k) ** 2 + 0.1 * (t + 0.5**k) < (1 + 4 * sigma**2).log(), t + 0.5**k, t)
        expected = vp(net, x, sigma, 999 * t)
        assert denoiser.sigma_range[1] == pytest.approx(math.sqrt(math.exp(10.05) - 1) / 2)
    elif sde == "vp-discrete":
        expected = vp(net, x, sigma, index(vp_sigmas(), sigma))
    else:
        # Images are in [0, 1] and doubled inside; the answer is sigma times the score.
        high, low = float(ladder[0]), float(ladder[-1])
        time = sigma if sde == "ve" else 999 * (high / sigma).log() / math.log(high / low)
        expected = x + s * net(2 * x - 1, time)
        assert denoiser.sigma_range == pytest.approx((0.01, 50))
    same(denoiser(x, sigma), expected)


EDM_FLAGS: dict[str, tuple[int, dict[str, Any]]] = {
    "ddpm++": (SIDE, {}),
    "ddpm++, class-conditional": (SIDE, {"classes": 4, "label": 2}),
    "adm, class-conditional": (SIDE, {"dhariwal": True, "width": 64, "classes": 4, "label": 2}),
}


@pytest.mark.parametrize("name", EDM_FLAGS)
def test_edm_is_read_from_converted_weights(name: str, tmp_path: Path) -> None:
    side, flags = EDM_FLAGS[name]
    w, net = made(nets.edm, side, **flags)
    state = {f"model.{n}": t for n, t in w.saved().items()}
    if name == "ddpm++":  # trained with augmentation, of which sampling has none
        state["model.map_augment.weight"] = torch.randn(32, 9)
    save_file(state, tmp_path / "edm.safetensors", {"precond": "EDMPrecond", "sigma_data": "0.5"})
    denoiser = loaded(path=str(tmp_path / "edm.safetensors"), label=flags.get("label"))
    check_edm(denoiser, net, side)


@pytest.mark.parametrize("classes", [0, 6])
def test_edm2_is_read_from_converted_weights(classes: int, tmp_path: Path) -> None:
    w, net = made(nets.edm2, classes=classes, label=5)
    state = {f"unet.{n}": t for n, t in w.saved().items()} | {"logvar_linear.weight": torch.zeros(1, 8)}
    state |= {f"logvar_fourier.{n}": torch.zeros(8) for n in ("freqs", "phases")}
    save_file(state, tmp_path / "edm2.safetensors", {"precond": "Precond", "sigma_data": "0.5"})
    denoiser = loaded(path=str(tmp_path / "edm2.safetensors"), label=5 if classes else None)
    check_edm(denoiser, net, SIDE, 1e-6)  # weights are normalised once, in float32


def check_edm(denoiser: Denoiser, net: Forward, side: int, tolerance: float = 1e-9) -> None:
    x, sigma = states(side=side)
    z, s = 2 * x - 1, (2 * sigma).view(-1, 1, 1, 1)
    total = s**2 + 0.25
    raw = net(z / total.sqrt(), (2 * sigma).log() / 4)
    same(denoiser(x, sigma), (0.25 / total * z + 0.5 * s / total.sqrt() * raw + 1) / 2, tolerance)
    assert denoiser.sigma_range == (0.001, 40)


def test_our_own_training_is_read(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        net = ResidualUNet((8, 12, 16), 1, 16)
    net.tail.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    facts = {"recipe": json.dumps({"sigma_uniform": [0.005, 20.0], "sigma_data": 0.5}), "steps": "1"}
    save_weights(net, tmp_path / "ema.safetensors", facts)
    denoiser = loaded(path=str(tmp_path / "ema.safetensors"))
    check = net.double()
    x, sigma = states()
    z, s = 2 * x - 1, (2 * sigma).view(-1, 1, 1, 1)
    total = s**2 + 0.25
    with torch.no_grad():
        raw = check(z / total.sqrt(), (2 * sigma).log() / 4)
    same(denoiser(x, sigma), (0.25 / total * z + 0.5 * s / total.sqrt() * raw + 1) / 2)
    assert denoiser.sigma_range == (0.0025, 10.0)


def diffusers_folder(where: Path, w: Weights, scheduler: dict[str, Any], **config: Any) -> Path:
    """A DDPM written the way diffusers writes it: renamed by a table of its own."""
    names = {
        r"^temb\.dense\.0": "time_embedding.linear_1", r"^temb\.dense\.1": "time_embedding.linear_2",
        r"^norm_out": "conv_norm_out", r"^mid\.block_1": "mid_block.resnets.0", r"^mid\.block_2": "mid_block.resnets.1",
        r"^mid\.attn_1": "mid_block.attentions.0", r"^down\.(\d)\.block\.": r"down_blocks.\1.resnets.",
        r"^down\.(\d)\.attn\.": r"down_blocks.\1.attentions.",
        r"^down\.(\d)\.downsample\.": r"down_blocks.\1.downsamplers.0.",
        r"^up\.1\.block\.": "up_blocks.0.resnets.", r"^up\.0\.block\.": "up_blocks.1.resnets.",
        r"^up\.1\.attn\.": "up_blocks.0.attentions.", r"^up\.1\.upsample\.": "up_blocks.0.upsamplers.0.",
        r"temb_proj": "time_emb_proj", r"nin_shortcut": "conv_shortcut",
        r"attentions\.(\d)\.norm": r"attentions.\1.group_norm",
        r"attentions\.(\d)\.q\.": r"attentions.\1.to_q.", r"attentions\.(\d)\.k\.": r"attentions.\1.to_k.",
        r"attentions\.(\d)\.v\.": r"attentions.\1.to_v.", r"attentions\.(\d)\.proj_out": r"attentions.\1.to_out.0",
    }  # fmt: skip
    state = {}
    for name, tensor in w.saved().items():
        for old, new in names.items():
            name = re.sub(old, new, name)
        attends = "attentions" in name and name.endswith("weight") and "norm" not in name
        state[name] = tensor[:, :, 0, 0].contiguous() if attends else tensor
    (where / "unet").mkdir(parents=True)
    (where / "scheduler").mkdir()
    save_file(state, where / "unet" / "diffusion_pytorch_model.safetensors")
    unet = {
        "_class_name": "UNet2DModel", "sample_size": SIDE, "attention_head_dim": None, "norm_eps": 1e-6,
        "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, **config,
    }  # fmt: skip
    (where / "unet" / "config.json").write_text(json.dumps(unet))
    (where / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return where


@pytest.mark.parametrize(
    ("scheduler", "table", "predicts"),
    [
        ({"beta_schedule": "linear"}, vp_sigmas(), "epsilon"),
        ({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}, vp_sigmas(cosine_betas()), "v"),
        (
            {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01, "prediction_type": "sample"},
            vp_sigmas(scaled_linear_betas(0.001, 0.01)),
            "x0",
        ),
    ],
)
def test_diffusers_folders(scheduler: dict[str, Any], table: np.ndarray, predicts: str, tmp_path: Path) -> None:
    w, net = made(nets.ddpm)
    folder = diffusers_folder(tmp_path / "pipeline", w, {"_class_name": "DDPMScheduler", **scheduler})
    x, sigma = states()
    expected = vp(net, x, sigma, index(table, sigma), predicts)
    same(loaded(path=str(folder))(x, sigma), expected)
    same(loaded(path=str(folder / "unet"))(x, sigma), expected)


DIFFUSERS: dict[str, dict[str, Any]] = {
    "plain": {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
    "adm": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32, "downsample_type": "resnet",
        "upsample_type": "resnet", "attention_head_dim": 16,
    },
    "of 2022": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None, "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False,
        "freq_shift": 1, "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 3,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFUSERS)
@pytest.mark.filterwarnings("default")
def test_diffusers_own_network_agrees(name: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    config = DIFFUSERS[name]
    net = diffusers.UNet2DModel(sample_size=SIDE, layers_per_block=2, block_out_channels=(32, 64), **config)
    g = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = p.data + 0.1 * torch.randn(p.shape, generator=g)
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(tmp_path / "pipeline")
    label = 1 if "num_class_embeds" in config else None
    denoiser = loaded(path=str(tmp_path / "pipeline"), label=label).double()
    net = net.double()
    g = torch.Generator().manual_seed(1)
    for k in (0, 10, 300, 998):
        state = torch.randn(2, 3, SIDE, SIDE, generator=g).double()
        abar = float(scheduler.alphas_cumprod[k].double())
        given = None if label is None else torch.tensor([label, label])
        with torch.no_grad():
            out = net(state, torch.tensor([k, k]).double(), class_labels=given).sample
        # diffusers' own prediction of the clean picture.
        x0 = scheduler.step(out, k, state, generator=g).pred_original_sample
        z = state / math.sqrt(abar)
        sigma = math.sqrt((1 - abar) / abar) / 2
        got = denoiser((z + 1) / 2, torch.full((2,), sigma).double())
        # Its table is in float32, and x0 is amplified noise at high levels.
        assert float((got - (x0 + 1) / 2).abs().max()) < 2e-4 * max(1.0, float(x0.abs().max()))


PUBLISHED = {
    "ffhq_10m": ({"width": 128, "attention": (4,)}, 93_563_910, 256, "linear", (0, 64, True)),
    "imagenet 256 and LSUN": ({"attention": (3, 4, 5), "blocks": 2}, 552_814_086, 256, "linear", (0, 64, True)),
    "imagenet 64": (
        {"width": 192, "mult": (1, 2, 3, 4), "attention": (1, 2, 3), "blocks": 3, "classes": 1000},
        295_904_454, 64, "cosine", (0, 64, False)),
    "imagenet 128": (
        {"mult": (1, 1, 2, 3, 4), "attention": (2, 3, 4), "blocks": 2, "classes": 1000},
        421_529_606, 128, "linear", (4, 0, True)),
    "imagenet 512": (
        {"mult": (0.5, 1, 1, 2, 2, 4, 4), "attention": (4, 5, 6), "blocks": 2, "classes": 1000},
        558_997_638, 512, "linear", (0, 64, True)),
}  # fmt: skip


def adm_shapes(
    width: int = 256, mult: tuple[float, ...] = (1, 1, 2, 2, 4, 4), blocks: int = 1, attention: tuple[int, ...] = (),
    out: int = 6, classes: int = 0,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Shapes of a guided-diffusion file by the flags of its training."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def res(name: str, a: int, b: int) -> None:
        add(f"{name}.in_layers.0", a)
        add(f"{name}.in_layers.2", b, a, 3, 3)
        add(f"{name}.emb_layers.1", 2 * b, 4 * width)
        add(f"{name}.out_layers.0", b)
        add(f"{name}.out_layers.3", b, b, 3, 3)
        if a != b:
            add(f"{name}.skip_connection", b, a, 1, 1)

    def att(name: str, c: int) -> None:
        add(f"{name}.norm", c)
        add(f"{name}.qkv", 3 * c, c, 1)
        add(f"{name}.proj_out", c, c, 1)

    add("time_embed.0", 4 * width, width)
    add("time_embed.2", 4 * width, 4 * width)
    if classes:
        shapes["label_emb.weight"] = (classes, 4 * width)
    c = int(mult[0] * width)
    add("input_blocks.0.0", c, 3, 3, 3)
    skips, n = [c], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            res(f"input_blocks.{n}.0", c, int(m * width))
            c = int(m * width)
            if level in attention:
                att(f"input_blocks.{n}.1", c)
            skips.append(c)
            n += 1
        if level < len(mult) - 1:
            res(f"input_blocks.{n}.0", c, c)
            skips.append(c)
            n += 1
    res("middle_block.0", c, c)
    att("middle_block.1", c)
    res("middle_block.2", c, c)
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for i in range(blocks + 1):
            res(f"output_blocks.{n}.0", c + skips.pop(), int(m * width))
            c = int(m * width)
            if level in attention:
                att(f"output_blocks.{n}.1", c)
            if level and i == blocks:
                res(f"output_blocks.{n}.{2 if level in attention else 1}", c, c)
            n += 1
    add("out.0", c)
    add("out.2", out, c, 3, 3)
    return shapes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_known_by_their_shapes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restoration import checkpoints
    from restoration.checkpoint_files import Contents

    flags, count, side, betas, order = PUBLISHED[name]
    shapes = adm_shapes(**flags)  # type: ignore[arg-type]
    assert sum(math.prod(s) for s in shapes.values()) == count
    tensors = {n: torch.empty(s, device="meta") for n, s in shapes.items()}
    monkeypatch.setattr(checkpoints, "open_checkpoint", lambda path, given: Contents(tensors, tensors.__getitem__, {}))
    plan = Checkpoint(path="x.pt", label=7 if "classes" in flags else None).plan()
    assert plan.parameters == count
    assert plan.side == side
    assert plan.trained[1] == pytest.approx(vp_sigmas(cosine_betas())[-1] if betas == "cosine" else 157.407, rel=1e-5)
    assert isinstance(plan.net, ADM)
    details = plan.net.details
    assert (details.heads, details.head_channels, details.legacy) == order


def test_a_checkpoint_runs_through_a_pipeline(tmp_path: Path) -> None:
    w, _ = made(nets.adm)
    torch.save(w.saved(), tmp_path / "tiny.pt")
    method = {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 2}}
    values = {
        "operator": {"kind": "identity"},
        "model": {"kind": "checkpoint", "path": "tiny.pt", **FLAGS},
        "method": method,
        "seeds": [0, 1],
    }
    recipe = Recipe.model_validate(values)
    pipeline = Pipeline.load(recipe, base=tmp_path, precision="fp32")
    # Larger than the network's pictures and no multiple of anything: padded and tiled.
    result = pipeline.run(pipeline.simulate(torch.rand(3, 11, 18, generator=torch.Generator().manual_seed(0))))
    assert result.samples.shape == (2, 3, 11, 18)
    assert result.report.nfe == 2
    assert list(result.report.asset_sha256) == ["tiny.pt"]
    model = pipeline.recipe.model
    assert isinstance(model, Checkpoint)
    assert model.sha256 is not None
    assert Path(model.path).is_absolute()
    # The pinned recipe notices another file, and levels beyond the training are refused before it is loaded.
    (tmp_path / "tiny.pt").write_bytes(b"other")
    with pytest.raises(PreimageError):
        Pipeline.load(pipeline.recipe)
    torch.save(w.saved(), tmp_path / "tiny.pt")
    low = {**method, "schedule": {"kind": "karras", "steps": 2, "sigma_min": 0.001}}
    with pytest.raises(NeedError, match="trained range"):
        Pipeline.load(Recipe.model_validate({**values, "method": low}), base=tmp_path)


def test_bf16_is_close_to_fp32(tmp_path: Path) -> None:
    w, _ = made(nets.adm)
    torch.save(w.saved(), tmp_path / "tiny.pt")
    spec = Checkpoint(path=str(tmp_path / "tiny.pt"), **FLAGS)
    x, sigma = (v.float() for v in states())
    a, b = (spec.load(AssetStore(), torch.device("cpu"), p)(x, sigma) for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert a.dtype == b.dtype == torch.float32
    assert 0 < float((a - b).abs().max()) < 0.05 * float(a.abs().max())


def refused(error: type[Exception], words: str, path: Path | str, **fields: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        Checkpoint(path=str(path), **fields).plan()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    w, _ = made(nets.adm)
    state, file = w.saved(), tmp_path / "tiny.pt"

    def saved(**changes: Tensor | None) -> Path:
        names = {n.replace("__", "."): t for n, t in changes.items()}
        torch.save({n: t for n, t in {**state, **names}.items() if t is not None}, file)
        return file

    first = "middle_block.0.in_layers"
    refused(ReadError, f"{first}.0.bias is missing", saved(middle_block__0__in_layers__0__bias=None), **FLAGS)
    refused(ReadError, f"no tensor '{first}.2", saved(middle_block__0__in_layers__2__weight=None), **FLAGS)
    refused(ReadError, "extra.weight is not known", saved(extra__weight=torch.zeros(2)), **FLAGS)
    refused(ReadError, r"is \(7,\) and not \(128,\)", saved(time_embed__2__bias=torch.zeros(7)), **FLAGS)
    refused(ReadError, "3 channels in and 4 out", saved(out__2__weight=torch.zeros(4, 32, 3, 3)), **FLAGS)
    gap = {n.replace("input_blocks.2", "input_blocks.9"): t for n, t in state.items()}
    torch.save(gap, file)
    refused(ReadError, "gap in input_blocks", file, **FLAGS)
    saved()
    refused(RecipeError, "heads or head_channels, attention and betas", file, image_size=SIDE)
    refused(RecipeError, "image_size", file, **{**FLAGS, "image_size": None})
    refused(RecipeError, "image_size", file, **{**FLAGS, "image_size": 9})
    refused(RecipeError, "that divide", file, **{**FLAGS, "head_channels": 24})
    refused(RecipeError, "no label", file, **FLAGS, label=1)
    refused(RecipeError, "no sde", file, **FLAGS, sde="vp")
    w, _ = made(nets.adm, classes=5)
    torch.save(w.saved(), file)
    refused(RecipeError, "from 0 to 4", file, **FLAGS)
    refused(RecipeError, "from 0 to 4", file, **FLAGS, label=5)


class Harmless:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this would have been executed",))


def test_files_that_are_no_checkpoints_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(AssetMissing, "check the path", tmp_path / "none.pt")
    refused(AssetMissing, "hf download google/ddpm-celebahq-256", "google/ddpm-celebahq-256")
    file = tmp_path / "a.pt"
    file.write_bytes(pickle.dumps(Harmless()))
    refused(ReadError, "run code of its own", file)
    torch.save({"weight": torch.zeros(2), "options": Harmless()}, file)
    refused(ReadError, "run code of its own", file)
    assert "executed" not in capsys.readouterr().out
    torch.save({"weight": torch.zeros(20_000)}, file)
    refused(ReadError, "of ADM, DDPM", file)
    file.write_bytes(file.read_bytes()[:-20_000])
    refused(ReadError, "damaged or cut short|run code", file)
    for content in (b"", b"<!DOCTYPE html><html>Sign in</html>"):
        file.write_bytes(content)
        refused(ReadError, "damaged or cut short", file)
    torch.save([torch.zeros(2)], file)
    refused(ReadError, "named tensors", file)
    cut = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(2000)}, cut)
    cut.write_bytes(cut.read_bytes()[:4000])
    refused(ReadError, "damaged or cut short", cut)
    w, _ = made(nets.edm)
    save_file({f"model.{n}": t for n, t in w.saved().items()}, cut, {"precond": "VPPrecond"})
    refused(ReadError, "got 'VPPrecond'", cut)
    (tmp_path / "folder").mkdir()
    refused(ReadError, "found neither", tmp_path / "folder")


@pytest.mark.parametrize(
    ("config", "scheduler", "words"),
    [
        ({"time_embedding_type": "fourier"}, {"beta_schedule": "linear"}, "time_embedding_type"),
        ({"_class_name": "UNet2DConditionModel"}, {"beta_schedule": "linear"}, "_class_name"),
        ({"attn_norm_num_groups": 16}, {"beta_schedule": "linear"}, "attn_norm_num_groups"),
        ({}, {"beta_schedule": "linear", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({}, {"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({}, {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 348}, "ScoreSdeVeScheduler"),
    ],
)
def test_diffusers_settings_that_are_not_read(config: Any, scheduler: Any, words: str, tmp_path: Path) -> None:
    w, _ = made(nets.ddpm)
    refused(ReadError, words, diffusers_folder(tmp_path / "pipeline", w, scheduler, **config))


def test_other_score_sde_networks_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    w, _ = made(nets.score_sde, progressive="none", progressive_input="residual", fourier=False)
    torch.save(w.saved(), file)
    refused(RecipeError, "vp, vp-discrete or ve-discrete", file, image_size=SIDE)
    refused(RecipeError, "image_size", file, sde="vp")
    refused(ReadError, "no tensor 'sigmas'", file, image_size=SIDE, sde="ve-discrete")
    renamed = {n.replace("all_modules.4.Conv_2", "all_modules.4.NIN_0"): t for n, t in w.saved().items()}
    del renamed["all_modules.2.weight"]
    torch.save(renamed, file)
    refused(ReadError, "where convolution should be", file, image_size=SIDE, sde="vp")
    w, _ = made(nets.score_sde, joined=True)
    torch.save({**w.saved(), "sigmas": torch.linspace(50, 0.01, 10)}, file)
    refused(ReadError, "follow on each other", file, image_size=SIDE)
    broken = {"model": {"a": torch.zeros(2)}, "ema": {"shadow_params": [torch.zeros(3)]}}
    torch.save(broken, file)
    refused(ReadError, "running averages", file)


def test_folders_are_pinned_by_all_their_files(tmp_path: Path) -> None:
    w, _ = made(nets.ddpm)
    diffusers_folder(tmp_path / "pipeline", w, {"beta_schedule": "linear"})
    pinned = pin(Checkpoint(path="pipeline"), tmp_path)
    assert pin(pinned, Path()) == pinned
    (tmp_path / "pipeline" / ".cache").write_text("of the download")
    assert pin(pinned, Path()) == pinned
    (tmp_path / "pipeline" / "scheduler" / "scheduler_config.json").write_text("{}")
    with pytest.raises(AssetCorrupt, match="SHA-256"):
        pin(pinned, Path())
