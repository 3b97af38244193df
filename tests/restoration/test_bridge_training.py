"""Bridges are trained on pairs of our own operators, are refused where they do not belong, and run from their cards."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from operators import Gaussian
from operators.errors import AssetMissing, NeedError, RecipeError, ShapeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from restoration.assets import AssetStore, load_bridge
from restoration.bridge import Bridge, BridgeSpec, Task, pair
from restoration.bridge_paths import I2SB
from restoration.i2sb_checkpoint import I2SBCheckpoint
from restoration.nets.unet import ResidualUNet
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe
from restoration.train.__main__ import main
from restoration.train.bridges import Bridging
from restoration.train.loop import TrainRecipe, load_weights, save_weights, train
from tests.restoration.published_nets import Weights, adm

DEBLUR: dict[str, Any] = {
    "path": {"kind": "i2sb", "steps": 50},
    "predicts": "displacement",
    "tasks": [{
        "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "size": 9, "std": 1.5}},
        "noise": {"kind": "gaussian", "sigma": 0.02},
        "ranges": {"operator.kernel.std": [1.0, 2.0], "noise.sigma": [0.01, 0.03]},
    }],
}  # fmt: skip
TINY = TrainRecipe(
    name="tiny", channels=(8, 12), blocks=1, embedding=16, crop=32, validation_crop=64, batch=4, scales=(1.0,),
    held_out=("b.png",), warmup_steps=5, learning_rate=2e-3, planned_minutes=100.0, ema=0.9, bridge=DEBLUR,
)  # fmt: skip


class Affine(nn.Module):
    """p_t x + q_t y + c_t: the smallest network that can be a Gaussian's conditional mean."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.table, self.times = nn.Parameter(torch.zeros(3, times + 1)), times

    def forward(self, both: Tensor, clock: Tensor) -> Tensor:
        p, q, c = (v[(clock * self.times).round().long()].view(-1, 1, 1, 1) for v in self.table)
        x, y = both.chunk(2, 1)
        return p * x + q * y + c


@pytest.mark.parametrize(
    ("path", "predicts"),
    [
        ({"kind": "resshift"}, "x0"),
        ({"kind": "resfusion"}, "resnoise"),
        ({"kind": "i2sb", "steps": 5, "beta_max": 2.0}, "displacement"),
        ({"kind": "ir-sde", "steps": 5, "lam": 0.5}, "residual"),
    ],
)
def test_the_loss_leads_to_the_conditional_mean(path: dict[str, Any], predicts: str) -> None:
    """Independent Gaussian pixels, data with noise: E[x0 | x_t, y] is known and the trained network comes near it."""
    task = {"operator": {"kind": "identity"}, "noise": {"kind": "gaussian", "sigma": 0.2}}
    objective = Bridging({"path": path, "predicts": predicts, "tasks": [task]}, 1, 8)
    table, rng, generator = objective.spec.path.table, np.random.default_rng(0), torch.Generator().manual_seed(0)
    mean, variance, noise = 0.2, 0.25, 0.4**2  # of x0, and of the data, on [-1, 1]
    net = Affine(table.last)
    optimiser = torch.optim.Adam(net.parameters(), 0.1)

    def pixels(count: int) -> Tensor:
        return mean + variance**0.5 * torch.randn(count, 1, 8, 8, generator=generator)

    for k in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - k / 200)
        optimiser.zero_grad()
        none = contextlib.nullcontext()
        objective.loss(net, pixels(32), rng, generator, none, torch.contiguous_format).backward()
        optimiser.step()

    x0 = pixels(40 * table.last)
    y, _ = objective.degraded(x0, rng)
    t = torch.arange(1, table.last + 1).repeat(40)
    x = pair(table, x0, y, t, torch.randn(x0.shape, generator=generator))
    with torch.no_grad():
        got, _ = objective.bridge(net)(x, t, y)
    a, b, s = (torch.from_numpy(v)[t].float().view(-1, 1, 1, 1) for v in (table.a, table.b, table.s))
    after = 1 / (1 / variance + 1 / noise)  # of x0 given y
    given = after * (mean / variance + y / noise)
    exact = given + a * after / (a**2 * after + s**2).clamp(min=1e-12) * (x - b * y - a * given)
    error, plain = (got - exact).square().mean().sqrt(), (y - exact).square().mean().sqrt()
    assert plain > 0.15
    assert error < 0.02


def test_degradations_are_drawn_anew_and_repeat_with_their_seed() -> None:
    objective = Bridging(DEBLUR, 3, 16)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1) * 2 - 1
    first, again, other = (objective.drawn(x, np.random.default_rng(s))[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    drawn = [Task.model_validate(DEBLUR["tasks"][0]).draw(np.random.default_rng(s)) for s in range(20)]
    stds = [spec.kernel.std for spec, _ in drawn]  # type: ignore[attr-defined]
    assert 1.0 <= min(stds) < 1.2
    assert 1.8 < max(stds) <= 2.0
    assert all(isinstance(noise, Gaussian) and 0.01 <= noise.sigma <= 0.03 for _, noise in drawn)


SEVERAL: dict[str, Any] = {
    **DEBLUR,
    "tasks": [
        *DEBLUR["tasks"],
        {"operator": {"kind": "downsample", "factor": 2}, "noise": {"kind": "gaussian", "sigma": 0.02}},
        {"operator": {"kind": "blur", "kernel": {"kind": "disk", "radius": 2.0}}},
    ],
}


def test_each_task_has_a_clock_of_its_own(tmp_path: Path) -> None:
    """Which task a picture belongs to is what the network is told, in training as in use."""
    objective = Bridging(SEVERAL, 3, 16)
    x = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    _, _, tasks = objective.drawn(x, np.random.default_rng(0))
    assert sorted(set(tasks.tolist())) == [0, 1, 2]
    heard: list[Tensor] = []

    class Ear(nn.Module):
        def forward(self, both: Tensor, clock: Tensor) -> Tensor:
            heard.append(clock)
            return both[:, :3]

    x, t = x[:3], torch.tensor([50, 25, 50])
    objective.bridge(Ear(), torch.tensor([0, 1, 2])).answer(x, t, x)
    assert torch.equal(heard[-1], torch.tensor([1.0, 2.5, 5.0]))

    spec = BridgeSpec.model_validate(SEVERAL)
    bridge = Bridge(Ear(), spec.path, spec.predicts, (3, None, None), tasks=spec.tasks)
    noise = spec.tasks[0].noise
    for place, task in enumerate(spec.tasks):
        bridge.told(task.operator, noise, held_to_data=True).answer(x, t, x)
        assert torch.equal(heard[-1], 2.0 * place + torch.tensor([1.0, 0.5, 1.0]))
    wide = spec.tasks[0].operator.model_validate({"kernel": {"kind": "gaussian", "size": 9, "std": 2.5}})
    with pytest.raises(NeedError, match=r"std from 1 to 2, got 2\.5"):
        bridge.told(wide, noise, held_to_data=False)
    bridge.told(wide, noise, held_to_data=True).answer(x, t, x)
    assert torch.equal(heard[-1], torch.tensor([1.0, 0.5, 1.0]))
    likelihood = Likelihood.simulate(spec.tasks[0].operator.build((3, 16, 16)), noise, x[:1], Rng([0]))
    with pytest.raises(NeedError, match="told which of its tasks"):
        bridge.begun(likelihood, Rng([0]))
    assert bridge.told(wide, noise, held_to_data=True).begun(likelihood, Rng([0]))[1].shape == (1, 3, 16, 16)

    (tmp_path / "none").write_bytes(b"no weights")
    assets = store(tmp_path / "a", tmp_path / "none", SEVERAL)
    values = {"operator": {"kind": "identity"}, "model": {"kind": "bridge", "name": "deblur"}}
    said = " ".join(Recipe.model_validate({**values, "method": {"kind": "cddb"}}).problems(assets))
    assert "operator.kind out of 'blur', 'downsample', got 'identity'" in said


def test_a_bridge_may_see_which_pixels_were_measured(tmp_path: Path) -> None:
    """The same map in training and in use, whichever method runs; ones where the data are not pixel by pixel."""
    mask = {"kind": "random", "fraction": 0.3, "seed": 1}
    holes = {"operator": {"kind": "inpainting", "mask": mask}, "anything": ["noise"]}
    small = {"operator": {"kind": "downsample", "factor": 2}}
    bridge = {"path": {"kind": "i2sb", "steps": 5}, "predicts": "x0", "sees_holes": True, "tasks": [holes, small]}
    objective = Bridging(bridge, 3, 16)
    assert objective.net((4, 6), 1, 8).head.weight.shape[1] == 3 + 3 + 1
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operator = objective.spec.tasks[0].operator.build((3, 16, 16))
    known = (operator(torch.ones(1, 3, 16, 16)) > 0)[:, :1].float()
    assert 0.5 < known.mean() < 0.9
    assert torch.equal(objective.degraded(x, np.random.default_rng(0), 0)[1], known.expand(2, -1, -1, -1))
    assert torch.equal(objective.degraded(x, np.random.default_rng(0), 1)[1], torch.ones(2, 1, 16, 16))
    heard: list[Tensor] = []

    class Ear(nn.Module):
        def forward(self, both: Tensor, clock: Tensor) -> Tensor:
            heard.append(both)
            return both[:, :3]

    y, seen, tasks = objective.drawn(x, np.random.default_rng(0))
    objective.bridge(Ear(), tasks, holes=seen).answer(x, torch.tensor([1, 2]), y)
    assert torch.equal(heard[-1], torch.cat([x, y, seen], 1))

    weights = tmp_path / "w.safetensors"
    save_weights(objective.net((4, 6), 1, 8), weights, {})
    net = {"channels": [4, 6], "embedding": 8}
    assets = store(tmp_path / "a", weights, bridge, seen_channels=4, **net)
    values = {"operator": holes["operator"], "model": {"kind": "bridge", "name": "deblur"}, "seeds": [0, 1]}
    for method in ("bridge", "cddb"):
        recipe = Recipe.model_validate({**values, "method": {"kind": method, "steps": 2}})
        pipeline = Pipeline.load(recipe, assets)
        assert isinstance(pipeline.denoiser, Bridge)
        pipeline.denoiser.net = Ear()
        pipeline.run(pipeline.simulate((x[0] + 1) / 2))
        assert heard[-1].shape == (2, 7, 16, 16)
        assert torch.equal(heard[-1][:, 6:], known.expand(2, -1, -1, -1))
    wrong = store(tmp_path / "b", weights, bridge, seen_channels=3, **net)
    with pytest.raises(RecipeError, match="4 seen channels"):
        Pipeline.load(Recipe.model_validate({**values, "method": {"kind": "bridge"}}), wrong)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, asset in (("a.png", "astronaut"), ("b.png", "coffee")):
        (folder / name).write_bytes(AssetStore().picture(asset).read_bytes())
    return folder


def store(folder: Path, weights: Path, bridge: dict[str, Any], **net: Any) -> AssetStore:
    """A store with one bridge, "deblur", of these weights."""
    folder.mkdir(exist_ok=True)
    content = weights.read_bytes()
    (folder / "deblur.safetensors").write_bytes(content)
    card = {
        "name": "deblur", "role": "bridge", "title": "Blur", "file": "deblur.safetensors", "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(), "licence": "Apache-2.0", "source": "a test",
        "net": {"kind": "residual-unet", "channels": [8, 12], "blocks": 1, "embedding": 16, "seen_channels": 3, **net},
        "bridge": bridge,
    }  # fmt: skip

    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return json.dumps(value)

    lines = "\n".join(f"{name} = {toml(value)}" for name, value in card.items())
    (folder / "manifest.toml").write_text(f"[[asset]]\n{lines}\n")
    return AssetStore(folder)


def test_a_bridge_trains_resumes_and_runs_from_its_card(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(TINY, photos, out, minutes=0.005, threads=1)
    second = train(TINY, photos, out, minutes=0.03, resume=True, threads=1)
    assert second["step"] > first["step"] >= 1
    assert second["psnr_start"] == first["psnr_start"]
    assert all(np.isfinite(second[name]) for name in ("loss", "psnr_1", "psnr_sample"))
    other = TrainRecipe(**{**TINY.__dict__, "bridge": {**DEBLUR, "path": {"kind": "indi"}, "predicts": "x0"}})
    with pytest.raises(ValueError, match="got others"):
        train(other, photos, out, minutes=0.01, resume=True)
    assert load_weights(out / "ema.safetensors")["head.weight"].shape == (8, 6, 3, 3)

    assets = store(tmp_path / "assets", out / "ema.safetensors", DEBLUR)
    operator = DEBLUR["tasks"][0]["operator"]
    values = {"operator": operator, "model": {"kind": "bridge", "name": "deblur"}, "seeds": [0, 1]}
    truth = torch.rand(3, 21, 26, generator=torch.Generator().manual_seed(0))
    for method, calls, pulled in (({"kind": "bridge", "steps": 3}, 3, 0), ({"kind": "cddb", "form": "deep"}, 10, 10)):
        pipeline = Pipeline.load(Recipe.model_validate({**values, "method": method}), assets)
        result = pipeline.run(pipeline.simulate(truth))
        assert result.samples.shape == (2, 3, 21, 26)
        assert not torch.equal(result.samples[0], result.samples[1])
        assert (result.report.nfe, result.report.vjps) == (calls, pulled)
        assert list(result.report.asset_sha256) == ["deblur"]
    with pytest.raises(ShapeError, match="3 channels for this bridge, got 1"):
        pipeline.simulate(truth[:1])


def test_a_prior_begins_a_bridge_that_answers_nothing_at_first(photos: Path, tmp_path: Path) -> None:
    """Its features stay, its answer goes; a bridge that begins a bridge keeps both, and begins no grey one."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        prior, other = ResidualUNet((8, 12), 1, 16), ResidualUNet((8, 12), 1, 16, seen_channels=3)
    found = {}
    for name, net in (("prior", prior), ("bridge", other)):
        for p in net.parameters():
            p.data = 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        save_weights(net, tmp_path / f"{name}.safetensors", {})
        recipe = TrainRecipe(**{**TINY.__dict__, "bridge": {**DEBLUR, "predicts": "residual"}, "learning_rate": 1e-9})
        init = tmp_path / f"{name}.safetensors"
        found[name] = train(recipe, photos, tmp_path / name, minutes=1e-6, init=init, threads=1)
        assert found[name]["step"] == 1
    assert found["prior"]["psnr_1"] == pytest.approx(found["prior"]["psnr_start"], abs=1e-3)
    assert abs(found["bridge"]["psnr_1"] - found["bridge"]["psnr_start"]) > 1
    grey = TrainRecipe(**{**TINY.__dict__, "image_channels": 1, "bridge": {}})
    with pytest.raises(ValueError, match="no larger"):
        train(grey, photos, tmp_path / "grey", minutes=1e-6, init=tmp_path / "bridge.safetensors", threads=1)
    save_weights(torch.nn.Linear(2, 2), tmp_path / "none.safetensors", {})
    with pytest.raises(ValueError, match="same layout"):
        train(grey, photos, tmp_path / "grey", minutes=1e-6, init=tmp_path / "none.safetensors", threads=1)


def test_large_pictures_are_tiled_without_seams(tmp_path: Path) -> None:
    objective = Bridging(DEBLUR, 3, 32)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        net = objective.net((8, 12), 1, 16)
        for p in net.parameters():
            p.data = 0.1 * torch.randn(p.shape)
    save_weights(net, tmp_path / "w.safetensors", {})
    assets = store(tmp_path / "assets", tmp_path / "w.safetensors", DEBLUR)
    bridge = load_bridge(assets.card("deblur", "bridge"), tmp_path / "w.safetensors", torch.device("cpu"), "fp32")
    x, y = torch.rand(2, 1, 3, 20, 784, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tiled, _ = bridge(x, torch.tensor([20]), y)
        whole, _ = objective.bridge(net)(x, torch.tensor([20]), y)
    assert torch.allclose(tiled, whole, atol=1e-5)


def test_wrong_pairs_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no weights")
    task = {"operator": {"kind": "downsample", "factor": 4}, "noise": {"kind": "gaussian", "sigma": 0.02}}
    small = store(tmp_path / "sr", tmp_path / "none", {"path": {"kind": "resshift"}, "tasks": [task]})
    blur = store(tmp_path / "blur", tmp_path / "none", DEBLUR)

    def said(assets: AssetStore, operator: dict[str, Any], method: str = "bridge", sigma: float = 0.02) -> str:
        values = {"operator": operator, "noise": {"kind": "gaussian", "sigma": sigma}, "method": {"kind": method}}
        recipe = Recipe.model_validate({**values, "model": {"kind": "bridge", "name": "deblur"}})
        problems = recipe.problems(assets)
        if problems:
            with pytest.raises(NeedError):
                Pipeline.load(recipe, assets)
        return " ".join(problems)

    four, two = ({"kind": "downsample", "factor": n} for n in (4, 2))
    assert said(small, four) == said(small, four, "cddb", sigma=0.1) == ""
    assert "operator.factor 4, got 2" in said(small, two)
    assert "operator.factor 4, got 2" in said(small, two, "cddb")
    assert "operator.kind 'downsample', got 'identity'" in said(small, {"kind": "identity"}, "cddb")
    assert "noise.sigma 0.02, got 0.1" in said(small, four, sigma=0.1)

    def width(std: float) -> dict[str, Any]:
        return {"kind": "blur", "kernel": {"kind": "gaussian", "size": 9, "std": std}}

    assert said(blur, width(1.1)) == ""
    assert "operator.kernel.std from 1 to 2, got 2.5" in said(blur, width(2.5))
    assert said(blur, width(2.5), "cddb") == ""
    assert "noise.sigma from 0.01 to 0.03, got 0.1" in said(blur, width(1.5), sigma=0.1)
    assert "prior that denoises" in said(blur, width(1.5), "diffpir")
    assert "'cddb'" in said(blur, width(1.5), "diffpir")
    mask = {"kind": "scratch", "count": 3, "width": 2}
    paint = {"operator": {"kind": "inpainting", "mask": mask}, "anything": ["operator.mask"]}
    holes = store(tmp_path / "holes", tmp_path / "none", {"path": {"kind": "resshift"}, "tasks": [paint]})
    other = {"kind": "inpainting", "mask": {"kind": "random", "fraction": 0.2}}
    assert said(holes, other, sigma=0.01) == said(holes, other, "cddb") == ""
    assert "noise.sigma 0.01, got 0.02" in said(holes, other)
    assert "bridge model" in " ".join(
        Recipe.model_validate({"operator": four, "method": {"kind": "bridge"}}).problems(AssetStore())
    )
    with pytest.raises(AssetMissing, match="bridge asset"):
        AssetStore().card("photo", "bridge")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": {"kind": "none"}}, "path"),
        ({"predicts": "epsilon"}, "let the network predict x0"),
        ({"path": {"kind": "indi"}, "predicts": "residual-noise"}, "plain noise"),
        ({"tasks": [{"operator": {"kind": "identity"}, "ranges": {"operator.std": [0, 1]}}]}, "operator.std"),
        ({"tasks": [{"operator": {"kind": "identity"}, "ranges": {"noise.sigma": [-1, 1]}}]}, "greater than"),
        ({"tasks": [{"operator": {"kind": "identity"}, "anything": ["operator.mask"]}]}, "operator.mask"),
        ({"tasks": [{"operator": {"kind": "downsample", "factor": 3}}]}, "multiple"),
        ({"tasks": [{"operator": {"kind": "identity"}, "anything": ["operator"]}]}, "what they are"),
        ({"tasks": []}, "at least 1"),
        ({"steps": 3}, "steps"),
    ],
)
def test_wrong_bridges_are_refused_before_training(
    change: dict[str, Any], sentence: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    recipe = {"name": "r", "channels": [4, 6], "crop": 32, "bridge": {**DEBLUR, **change}}
    path.write_text(json.dumps(recipe))
    assert main([str(path), "--data", str(photos), "--minutes", "0.01", "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert not (tmp_path / "run").exists()


def test_a_card_without_its_bridge_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no weights")
    card = store(tmp_path / "a", tmp_path / "none", DEBLUR).card("deblur", "bridge")
    with pytest.raises(RecipeError, match="its bridge"):
        load_bridge(card.model_copy(update={"bridge": None}), tmp_path / "none", torch.device("cpu"), "fp32")
    assert BridgeSpec.model_validate_json(card.bridge.model_dump_json()) == card.bridge  # type: ignore[union-attr]


def i2sb_file(folder: Path, seen: int) -> tuple[Any, Path]:
    """A tiny file in the released layout, and its network by its formula: the averages differ from the weights."""
    w = Weights(4)
    flags = {"width": 32, "mult": (1, 2), "blocks": 1, "attention": (1,), "head_channels": 16, "out": 3}
    adm(w, torch.zeros(1, seen, 16, 16).double(), torch.ones(1).double(), **flags)  # type: ignore[arg-type]
    saved = w.saved()
    net = {f"module.diffusion_model.{name}": tensor + 1 for name, tensor in saved.items()}
    ema = {"decay": 0.99, "num_updates": 3, "shadow_params": list(saved.values()), "collected_params": None}
    torch.save({"net": net, "ema": ema, "optimizer": {"lr": 5e-5}, "sched": {"last_epoch": 3}}, folder / "latest.pt")
    stored = Weights()
    stored.update({n: t.float().double() for n, t in w.items()})
    return lambda x, t: adm(stored, x, t, **flags), folder / "latest.pt"  # type: ignore[arg-type]


@pytest.mark.parametrize("seen", [3, 6])
def test_i2sb_is_read_from_its_own_layout(seen: int, tmp_path: Path) -> None:
    net, path = i2sb_file(tmp_path, seen)
    (tmp_path / "options.pkl").write_bytes(b"never opened")
    spec = I2SBCheckpoint(path=str(path), image_size=16, head_channels=16, beta_max=1.0)
    bridge = spec.load(AssetStore(), torch.device("cpu"), "fp32").double()
    x, y = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([1, 700])
    got, ahead = bridge(x, t, y)
    clock = torch.tensor([0.1, np.linspace(1e-4, 1, 1000)[699] * 1000]).double()
    sigma = torch.from_numpy(np.asarray(I2SB(beta_max=1.0).table.displacement))[t].view(-1, 1, 1, 1)
    assert torch.allclose(got, x - sigma * net(x if seen == 3 else torch.cat([x, y], 1), clock), atol=1e-9)
    assert ahead is y


def test_an_i2sb_file_runs_and_others_are_refused(tmp_path: Path) -> None:
    _, path = i2sb_file(tmp_path, 3)
    model = {"kind": "i2sb-checkpoint", "path": "latest.pt", "image_size": 16, "head_channels": 16}
    values = {"operator": {"kind": "blur"}, "method": {"kind": "cddb", "steps": 2}}
    recipe = Recipe.model_validate({**values, "model": model})
    pipeline = Pipeline.load(recipe, base=tmp_path, precision="fp32")
    result = pipeline.run(pipeline.simulate(torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))))
    assert (result.samples.shape, result.report.nfe) == ((1, 3, 20, 24), 2)
    for change, words in (
        ({"image_size": 15}, "multiple of 2"),
        ({"head_channels": 48}, "divide the channels"),
        ({"path": "other.pt"}, "checkpoint of I2SB"),
        ({"path": "none.pt"}, "found nothing"),
    ):
        torch.save({"input_blocks.0.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
        wrong = Recipe.model_validate({**values, "model": {**model, **change}})
        assert words in " ".join(wrong.problems(AssetStore(), tmp_path))
    state = torch.load(path, weights_only=True)  # noqa: TID251  (our own file)
    state["net"].popitem()
    torch.save(state, path)
    assert "running averages" in " ".join(recipe.problems(AssetStore(), tmp_path))
