"""Public checkpoints of bridges: tiny files in their own layout answer and are walked as their authors' code does."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from operators import Rng
from operators.errors import ReadError, RecipeError
from restoration.assets import AssetStore
from restoration.bridge import Bridge, start, step
from restoration.ir_sde_checkpoint import IRSDECheckpoint
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe
from restoration.resfusion_checkpoint import ResfusionCheckpoint
from tests.restoration.published_nets import Weights, attend, double, sinusoids, swish

Net = Callable[[Tensor, Tensor, Tensor], Tensor]
CPU = torch.device("cpu")


def unet(
    w: Weights, x: Tensor, t: Tensor, *, out: int, mult: tuple[int, ...], normed: bool, linear: bool, width: int = 8
) -> Tensor:
    """The U-Net of RDDM and Resfusion (`normed`: standardised filters, group norms, biases) and that of IR-SDE."""

    def conv(name: str, x: Tensor, out: int, size: int = 3, stride: int = 1, bias: bool = normed) -> Tensor:
        weight = w.get_or_make(f"{name}.weight", out, x.shape[1], size, size, scale=(x.shape[1] * size**2) ** -0.5)
        if name.endswith(".proj") and normed:
            centred = weight - weight.mean((1, 2, 3), keepdim=True)
            weight = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        b = w.get_or_make(f"{name}.bias", out, scale=0.1) if bias else None
        return F.conv2d(x, weight, b, stride, 1 if size == 4 else size // 2)

    def level(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        flat = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return flat * w.get_or_make(f"{name}.g", 1, x.shape[1], 1, 1, scale=0.2, mean=1.0)

    e = w.linear("time_mlp.1", sinusoids(t, width, 1, False), 4 * width)
    e = w.linear("time_mlp.3", e * (1 + torch.erf(e / math.sqrt(2))) / 2, 4 * width)

    def res(name: str, x: Tensor, out: int) -> Tensor:
        told = w.linear(f"{name}.mlp.1", swish(e), 2 * out)[:, :, None, None]
        h = conv(f"{name}.block1.proj", x, out)
        h = w.norm(f"{name}.block1.norm", h, 8, 1e-5) if normed else h
        h = conv(f"{name}.block2.proj", swish(h * (told[:, :out] + 1) + told[:, out:]), out)
        h = swish(w.norm(f"{name}.block2.norm", h, 8, 1e-5) if normed else h)
        return h + (x if x.shape[1] == out else conv(f"{name}.res_conv", x, out, 1))

    def att(name: str, x: Tensor, linear: bool = True) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        qkv = conv(f"{name}.fn.fn.to_qkv", level(f"{name}.fn.norm", x), 3 * 128, 1, bias=False).flatten(2)
        heads = []
        for i in range(4):
            q, k, v = (qkv[:, 128 * j + 32 * i :][:, :32] for j in range(3))
            if linear:
                q, k = q.exp() / q.exp().sum(1, keepdim=True), k.exp() / k.exp().sum(2, keepdim=True)
                heads.append(torch.einsum("bdn,bdm,bem->ben", q, k, v) / math.sqrt(32) / pixels)
            else:
                heads.append(attend(q, k, v))
        mixed = torch.cat(heads, 1).reshape(len(x), 128, *x.shape[2:])
        if linear:
            return x + level(f"{name}.fn.fn.to_out.1", conv(f"{name}.fn.fn.to_out.0", mixed, x.shape[1], 1, bias=True))
        return x + conv(f"{name}.fn.fn.to_out", mixed, x.shape[1], 1, bias=True)

    ins, outs = [width, *(width * m for m in mult[:-1])], [width * m for m in mult]
    stem = h = conv("init_conv", x, width, 7)
    skips = []
    for i, (narrow, wide) in enumerate(zip(ins, outs, strict=True)):
        skips.append(h := res(f"downs.{i}.0", h, narrow))
        skips.append(h := att(f"downs.{i}.2", res(f"downs.{i}.1", h, narrow)))
        halves = i < len(mult) - 1
        h = conv(f"downs.{i}.3", h, wide, 4, 2, bias=True) if halves else conv(f"downs.{i}.3", h, wide)
    h = res("mid_block2", att("mid_attn", res("mid_block1", h, outs[-1]), linear), outs[-1])
    for i, (narrow, wide) in enumerate(reversed(list(zip(ins, outs, strict=True)))):
        h = res(f"ups.{i}.0", torch.cat([h, skips.pop()], 1), wide)
        h = att(f"ups.{i}.2", res(f"ups.{i}.1", torch.cat([h, skips.pop()], 1), wide))
        doubles = i < len(mult) - 1
        h = conv(f"ups.{i}.3.1", double(h), narrow, bias=True) if doubles else conv(f"ups.{i}.3", h, narrow)
    h = res("final_res_block", torch.cat([h, stem], 1), width)
    return conv("final_conv", h, out, 1 if normed else 3, bias=True)


def stored(w: Weights) -> Weights:
    """The numbers as a file has them."""
    kept = Weights()
    kept.update({n: t.float().double() for n, t in w.items()})
    return kept


def mirrored(x: Tensor, multiple: int) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple), mode="reflect")


def resfusion_file(folder: Path, seen: int = 6, **options: Any) -> tuple[Net, Path]:
    """What Lightning writes, and the network of (x_t, y, t) by its formula."""
    w = Weights(1)
    net = partial(unet, out=3, mult=(1, 2), normed=True, linear=False)
    net(w, torch.zeros(1, seen, 8, 8).double(), torch.ones(1).double())
    best = {"best_model_score": torch.tensor(24.6), "best_model_path": "best.ckpt", "best_k_models": {}}
    torch.save({
        "epoch": 3, "global_step": 40, "pytorch-lightning_version": "2.1.1", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": {f"denoising_module.{name}": tensor for name, tensor in w.saved().items()},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_PSNR'}": best}, "lr_schedulers": [{"last_epoch": 3}],
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}],
        "hparams_name": "kwargs", "hyper_parameters": {"T": 12, "mode": "epsilon", "resnet_block_groups": 8, **options},
    }, folder / "last.ckpt")  # fmt: skip
    kept = stored(w)

    def answer(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        found = net(kept, mirrored(torch.cat([x, y], 1), 2), t)
        return found[..., : x.shape[-2], : x.shape[-1]]

    return answer, folder / "last.ckpt"


def ir_sde_file(folder: Path, seen: int = 6, linear: bool = True, normed: bool = False) -> tuple[Net, Path]:
    """A flat file of weights, and the network of (x_t, mu, t), all in unit range, by its formula."""
    w = Weights(2)
    net = partial(unet, out=3, mult=(2, 4), normed=normed, linear=linear)
    net(w, torch.zeros(1, seen, 8, 8).double(), torch.ones(1).double())
    torch.save(w.saved(), folder / "ir-sde.pth")
    kept = stored(w)

    def answer(x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        found = net(kept, mirrored(torch.cat([x - mu, mu], 1), 4), t)
        return found[..., : x.shape[-2], : x.shape[-1]]

    return answer, folder / "ir-sde.pth"


def pictures(count: int) -> tuple[Tensor, ...]:
    return torch.rand(count, 2, 3, 13, 18, generator=torch.Generator().manual_seed(0)).double().mul(2).sub(1).unbind()


def walked(bridge: Bridge, y: Tensor, eta: float) -> Tensor:
    """The engine's own walk from y over all times, with random numbers of seeds 0 and 1."""
    rng = Rng([0, 1], dtype=torch.float64)
    x = start(bridge.table, y, rng)
    with torch.no_grad():
        for t in range(bridge.table.last, 0, -1):
            x0, ahead = bridge(x, torch.tensor([t, t]), y)
            x = step(bridge.table, t, t - 1, x, x0, ahead, eta, rng)
    return x


def test_resfusion_is_read_from_its_own_layout(tmp_path: Path) -> None:
    net, path = resfusion_file(tmp_path)
    bridge = ResfusionCheckpoint(path=str(path)).load(AssetStore(), CPU, "fp32").double()
    x, y = pictures(2)
    betas = torch.linspace(1e-4, 0.02, 12, dtype=torch.float64) * 1000 / 12
    abar = (1 - betas).cumprod(0)
    abar[4], betas[4] = 0.25, 1 - 0.25 / abar[3]  # the truncated schedule ends on sqrt(abar) = 1/2
    for i in range(5):
        resnoise, clock = net(x, y, torch.tensor([i, i]).double()), torch.tensor([i + 1, i + 1])
        root, spread = abar[i].sqrt(), (1 - abar[i]).sqrt()
        weight = (1 - (1 - betas[i]).sqrt()) * spread / betas[i]
        clean, ahead = bridge(x, clock, y)
        assert ahead is y
        # x_t of this clean picture, with the noise that its residual leaves of the resnoise, is x_t
        noise = resnoise - weight * (y - clean)
        assert torch.allclose((2 * root - 1) * clean + (1 - root) * y + spread * noise, x, atol=1e-9)
    rng = Rng([0, 1], dtype=torch.float64)
    x = y / 2 + math.sqrt(0.75) * rng.randn((3, 13, 18))
    for i in range(4, -1, -1):
        resnoise = net(x, y, torch.tensor([i, i]).double())
        x = (x - betas[i] / (1 - abar[i]).sqrt() * resnoise) / (1 - betas[i]).sqrt()
        if i:
            x = x + ((1 - abar[i - 1]) / (1 - abar[i]) * betas[i]).sqrt() * rng.randn((3, 13, 18))
    assert torch.allclose(walked(bridge, y, 1.0), x, atol=1e-9)


@pytest.mark.parametrize("linear", [True, False])
def test_ir_sde_is_read_from_its_own_layout(linear: bool, tmp_path: Path) -> None:
    net, path = ir_sde_file(tmp_path, linear=linear)
    bridge = IRSDECheckpoint(path=str(path), steps=4, max_sigma=30).load(AssetStore(), CPU, "fp32").double()
    x, y = pictures(2)
    ramp = torch.cos((torch.arange(7).double() / 6 + 0.008) / 1.008 * math.pi / 2) ** 2
    theta = 1 - ramp[1:-1] / ramp[0]
    passed = theta.cumsum(0) - theta[0]
    dt, sigma, mu = -math.log(0.005) / passed[-1], 30 / 255, (y + 1) / 2
    left = (-passed * dt).exp()

    def clean(x: Tensor, t: int) -> Tensor:
        noise = net(x, mu, torch.tensor([t, t]).double())
        return (x - mu - sigma * (1 - left[t] ** 2).sqrt() * noise) / left[t] + mu

    for t in range(1, 5):
        got, ahead = bridge(x, torch.tensor([t, t]), y)
        assert ahead is y
        assert torch.allclose((got + 1) / 2, clean((x + 1) / 2, t), atol=1e-9)
    rng = Rng([0, 1], dtype=torch.float64)
    x = mu + sigma * (1 - left[4] ** 2).sqrt() * rng.randn((3, 13, 18))
    for t in range(4, 0, -1):
        a, b, c = (-theta[t] * dt).exp(), left[t], left[t - 1]
        mean = (a * (1 - c**2) * (x - mu) + c * (1 - a**2) * (clean(x, t) - mu)) / (1 - b**2) + mu
        x = mean
        if t > 1:
            x = x + sigma * ((1 - a**2) * (1 - c**2) / (1 - b**2)).sqrt() * rng.randn((3, 13, 18))
    assert torch.allclose((walked(bridge, y, 1.0) + 1) / 2, x, atol=1e-9)


RESFUSION = {"kind": "resfusion-checkpoint", "path": "last.ckpt"}
IR_SDE = {"kind": "ir-sde-checkpoint", "path": "ir-sde.pth"}


@pytest.mark.parametrize(("model", "calls"), [(RESFUSION, 5), (IR_SDE, 10)])
@pytest.mark.parametrize("method", [{"kind": "bridge"}, {"kind": "cddb", "form": "deep"}])
def test_a_file_runs_from_a_recipe(model: dict[str, Any], calls: int, method: dict[str, Any], tmp_path: Path) -> None:
    resfusion_file(tmp_path)
    ir_sde_file(tmp_path)
    recipe = Recipe.model_validate({"operator": {"kind": "blur"}, "model": model, "method": method, "seeds": [0, 1]})
    pipeline = Pipeline.load(recipe, base=tmp_path, precision="fp32")
    result = pipeline.run(pipeline.simulate(torch.rand(3, 19, 22, generator=torch.Generator().manual_seed(0))))
    assert (result.samples.shape, result.report.nfe) == ((2, 3, 19, 22), calls)
    assert not torch.equal(result.samples[0], result.samples[1])
    assert list(result.report.asset_sha256) == [model["path"]]


def test_reduced_precision_stays_near(tmp_path: Path) -> None:
    _, path = resfusion_file(tmp_path)
    x, y = (p.float() for p in pictures(2))
    spec, t = ResfusionCheckpoint(path=str(path)), torch.tensor([3, 3])
    with torch.no_grad():
        full, reduced = (spec.load(AssetStore(), CPU, precision)(x, t, y)[0] for precision in ("fp32", "bf16"))
    assert 0 < (full - reduced).abs().mean() < 0.05 * full.abs().mean()


def test_other_files_are_refused(tmp_path: Path) -> None:
    def said(model: dict[str, Any], **change: Any) -> str:
        values = {"operator": {"kind": "blur"}, "method": {"kind": "bridge"}, "model": {**model, **change}}
        (sentence,) = Recipe.model_validate(values).problems(AssetStore(), tmp_path)
        assert sentence.count(". ") == 0
        return sentence

    resfusion_file(tmp_path)
    ir_sde_file(tmp_path)
    assert "found nothing" in said(RESFUSION, path="none.ckpt")
    assert "checkpoint of Resfusion" in said(RESFUSION, path="ir-sde.pth")
    assert "checkpoint of IR-SDE" in said(IR_SDE, path="last.ckpt")
    assert "steps 12 for last.ckpt" in said(RESFUSION, steps=25)
    for place, model in (("last.ckpt", RESFUSION), ("ir-sde.pth", IR_SDE)):
        state = torch.load(tmp_path / place, weights_only=True)  # noqa: TID251  (our own file)
        tensors = state.get("state_dict", state)
        name = next(n for n in tensors if n.endswith("mid_block1.block1.proj.weight"))
        kept = tensors.pop(name)
        torch.save(state, tmp_path / place)
        assert "mid_block1.block1.proj.weight" in said(model)
        tensors[name] = kept[:, :1]
        torch.save(state, tmp_path / place)
        assert "follow on each other" in said(model)
    ir_sde_file(tmp_path, seen=3)
    assert "3 channels in and 3 out" in said(IR_SDE)
    ir_sde_file(tmp_path, normed=True)
    assert "group norms" in said(IR_SDE)
    resfusion_file(tmp_path, seen=7)  # a mask too, as for shadows
    assert "7 channels in and 3 out" in said(RESFUSION)
    resfusion_file(tmp_path, mode="sample")
    assert "mode 'epsilon'" in said(RESFUSION)
    resfusion_file(tmp_path, T=[12])
    assert "set them (published: 12)" in said(RESFUSION)
    told = ResfusionCheckpoint(path=str(tmp_path / "last.ckpt"), steps=25)
    assert told.load(AssetStore(), CPU, "fp32").table.last == 10


def test_errors_are_of_their_kind(tmp_path: Path) -> None:
    _, path = resfusion_file(tmp_path)
    with pytest.raises(RecipeError, match="leave them out"):
        ResfusionCheckpoint(path=str(path), steps=25).plan()
    with pytest.raises(ReadError, match="checkpoint of IR-SDE"):
        IRSDECheckpoint(path=str(path)).plan()
