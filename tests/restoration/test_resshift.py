"""ResShift and its autoencoder: files in the original layout against forward passes by their formulas."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators import Downsample, Gaussian, Likelihood, Rng
from operators.errors import AssetMissing, NeedError, ReadError, RecipeError, ShapeError
from operators.spec import data_refs
from restoration.assets import AssetStore
from restoration.bridge import BilledBridge
from restoration.bridge_paths import ResShift
from restoration.codecs import VQCodec
from restoration.methods.cddb import CDDB
from restoration.methods.direct_bridge import DirectBridge
from restoration.nets.swin_unet import SwinUNet
from restoration.nets.vq import VQ
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe
from restoration.resshift_checkpoint import ResShiftBridge, ResShiftCheckpoint
from tests.restoration.published_nets import Weights, attend, double, sinusoids, swish

WINDOW, SIDE = 4, 8  # of the tiny network, and the latents it was trained on


def linear_map(w: Weights, name: str, x: Tensor, out: int) -> Tensor:
    """A linear layer or a convolution of one pixel on (B, C, ...), with the shapes of the first."""
    return w.linear(name, x.movedim(1, -1).reshape(-1, x.shape[1]), out).view(len(x), *x.shape[2:], out).movedim(-1, 1)


def swin(w: Weights, name: str, x: Tensor, trained: int, width: int, heads: int, norm: bool) -> Tensor:
    """A stage as one attention over all pixels: those of another window are out of sight."""
    out, (height, breadth) = x.shape[1], x.shape[2:]
    x = w.conv(f"{name}.patch_embed.proj", x, width, 1)
    x = w.norm(f"{name}.patch_embed.norm", x, 32, 1e-5) if norm else x
    n = min(WINDOW, trained)
    for i in range(2):
        block, shift = f"{name}.blocks.{i}", n // 2 if i % 2 and trained > WINDOW else 0
        table = w.get_or_make(f"{block}.attn.relative_position_bias_table", (2 * n - 1) ** 2, heads)
        # where each pixel comes to lie in the rolled picture, and which of the four parts it rolls in
        places = [((r - shift) % height, (c - shift) % breadth) for r in range(height) for c in range(breadth)]
        wraps = [(r < shift, c < shift) for r in range(height) for c in range(breadth)]
        bias = torch.full((heads, len(places), len(places)), -math.inf).double()
        for (p, (r, c)), (q, (s, d)) in itertools.product(enumerate(places), repeat=2):
            if r // n == s // n and c // n == d // n:
                bias[:, p, q] = table[(r - s + n - 1) * (2 * n - 1) + c - d + n - 1]
                # only in the last row and column of windows do parts meet
                if wraps[p] != wraps[q]:
                    bias[:, p, q] -= 100
        h = w.norm(f"{block}.norm1", x, 32, 1e-5)
        qkv = linear_map(w, f"{block}.attn.qkv", h, 3 * width).flatten(2)
        mixed = []
        for head, rows in enumerate(torch.arange(width).chunk(heads)):
            q, k, v = (qkv[:, j * width + rows] for j in range(3))
            share = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(len(rows)) + bias[head]).softmax(-1)
            mixed.append(torch.einsum("bts,bcs->bct", share, v))
        x = x + linear_map(w, f"{block}.attn.proj", torch.cat(mixed, 1).view_as(x), width)
        h = w.conv(f"{block}.mlp.fc1", w.norm(f"{block}.norm2", x, 32, 1e-5), 2 * width, 1)
        x = x + w.conv(f"{block}.mlp.fc2", h * (1 + torch.erf(h / math.sqrt(2))) / 2, width, 1)
    x = w.conv(f"{name}.patch_unembed.proj", x, out, 1)
    return w.norm(f"{name}.patch_unembed.norm", x, 32, 1e-5) if norm else x


def swin_unet(
    w: Weights, x: Tensor, t: Tensor, seen: Tensor, *, width: int = 32, mult: tuple[int, ...] = (1, 1), blocks: int = 2,
    embed: int = 32, heads: int = 2, out: int = 3, reductions: int = 0, norm: bool = False,
) -> Tensor:  # fmt: skip
    """UNetModelSwin of zsyOAOA/ResShift."""
    e = w.linear("time_embed.2", swish(w.linear("time_embed.0", sinusoids(t, width, 0, True), 4 * width)), 4 * width)

    def res(name: str, x: Tensor, out: int) -> Tensor:
        h = w.conv(f"{name}.in_layers.2", swish(w.norm(f"{name}.in_layers.0", x, 32, 1e-5)), out)
        scale, offset = w.linear(f"{name}.emb_layers.1", swish(e), 2 * out)[:, :, None, None].chunk(2, 1)
        h = w.norm(f"{name}.out_layers.0", h, 32, 1e-5) * (1 + scale) + offset
        h = w.conv(f"{name}.out_layers.3", swish(h), out)
        return h + (x if x.shape[1] == out else w.conv(f"{name}.skip_connection", x, out, 1))

    for i in range(reductions):
        seen = swish(w.conv(f"feature_extractor.{3 * i}", seen, 16 * 2**i))
        seen = w.conv(f"feature_extractor.{3 * i + 2}.op", seen, 32 * 2**i, stride=2)
    h = w.conv("input_blocks.0.0", torch.cat([x, seen], 1), width * mult[0])
    skips, n = [h], 1
    for level, m in enumerate(mult):
        for i in range(blocks):
            h = res(f"input_blocks.{n}.0", h, width * m)
            if i == 0:
                h = swin(w, f"input_blocks.{n}.1", h, SIDE >> level, embed, heads, norm)
            skips.append(h)
            n += 1
        if level < len(mult) - 1:
            h = w.conv(f"input_blocks.{n}.0.op", h, h.shape[1], stride=2)
            skips.append(h)
            n += 1
    h = res("middle_block.0", h, h.shape[1])
    h = swin(w, "middle_block.1", h, SIDE >> (len(mult) - 1), embed, heads, norm)
    h = res("middle_block.2", h, h.shape[1])
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for i in range(blocks + 1):
            h = res(f"output_blocks.{n}.0", torch.cat([h, skips.pop()], 1), width * m)
            if i == 0:
                h = swin(w, f"output_blocks.{n}.1", h, SIDE >> level, embed, heads, norm)
            if level and i == blocks:
                h = w.conv(f"output_blocks.{n}.{1 + (i == 0)}.conv", double(h), h.shape[1])
            n += 1
    return w.conv("out.2", swish(w.norm("out.0", h, 32, 1e-5)), out)


def with_constants(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the original keeps beside the weights: pairs of places, and the masks of the trained size."""
    whole, deep = dict(state), 1 + sum(name.endswith(".0.op.weight") and name[0] == "i" for name in state)
    for name, tensor in state.items():
        if name.endswith(".relative_position_bias_table"):
            n = (math.isqrt(len(tensor)) + 1) // 2
            places = list(itertools.product(range(n), repeat=2))
            rows = [[(r - s + n - 1) * (2 * n - 1) + c - d + n - 1 for s, d in places] for r, c in places]
            whole[name.removesuffix("bias_table") + "index"] = torch.tensor(rows)
            first = name.startswith(("input_blocks.1.", "output_blocks.3."))  # the level where windows are shifted
            if ".blocks.1." in name and (first or deep < 2):
                block = name.removesuffix(".attn.relative_position_bias_table")
                whole[f"{block}.attn_mask"] = torch.zeros((SIDE // n) ** 2, n * n, n * n)
    return whole


def coder(w: Weights, name: str, x: Tensor, *, widths: tuple[int, ...], blocks: int, attends: int, out: int) -> Tensor:
    """Encoder or decoder of CompVis' VQModel; `attends` is a level with attention, -1 for none."""

    def res(name: str, x: Tensor, out: int) -> Tensor:
        h = w.conv(f"{name}.conv1", swish(w.norm(f"{name}.norm1", x, 32, 1e-6)), out)
        h = w.conv(f"{name}.conv2", swish(w.norm(f"{name}.norm2", h, 32, 1e-6)), out)
        return h + (x if x.shape[1] == out else w.conv(f"{name}.nin_shortcut", x, out, 1))

    def att(name: str, x: Tensor) -> Tensor:
        h, c = w.norm(f"{name}.norm", x, 32, 1e-6), x.shape[1]
        mixed = attend(*(w.conv(f"{name}.{part}", h, c, 1).flatten(2) for part in "qkv"))
        return x + w.conv(f"{name}.proj_out", mixed.view_as(x), c, 1)

    def middle(h: Tensor) -> Tensor:
        c = h.shape[1]
        return res(f"{name}.mid.block_2", att(f"{name}.mid.attn_1", res(f"{name}.mid.block_1", h, c)), c)

    down = name == "encoder"
    h = w.conv(f"{name}.conv_in", x, widths[0] if down else widths[-1])
    h = h if down else middle(h)
    levels = list(enumerate(widths))
    for level, width in levels if down else levels[::-1]:
        part = f"{name}.{'down' if down else 'up'}.{level}"
        for i in range(blocks if down else blocks + 1):
            h = res(f"{part}.block.{i}", h, width)
            h = att(f"{part}.attn.{i}", h) if level == attends else h
        if down and level < len(widths) - 1:
            h = w.conv(f"{part}.downsample.conv", F.pad(h, (0, 1, 0, 1)), width, stride=2, padding=0)
        if not down and level:
            h = w.conv(f"{part}.upsample.conv", double(h), width)
    h = middle(h) if down else h
    return w.conv(f"{name}.conv_out", swish(w.norm(f"{name}.norm_out", h, 32, 1e-6)), out)


class Coder:
    """The autoencoder by its formulas."""

    def __init__(self, seed: int = 0, latents: int = 3, attends: int = -1) -> None:
        self.w, self.latents = Weights(seed), latents
        self.flags: dict[str, Any] = {"widths": (32, 32, 64), "blocks": 1, "attends": attends}
        self.decode(self.encode(torch.zeros(1, 3, 8, 8).double()))
        self.w.update({n: t.float().double() for n, t in self.w.items()})

    def encode(self, x: Tensor) -> Tensor:
        h = coder(self.w, "encoder", x, out=self.latents, **self.flags)
        return self.w.conv("quant_conv", h, self.latents, 1)

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        codes = self.w.get_or_make("quantize.embedding.weight", 16, self.latents)
        if quantise:
            nearest = (z.movedim(1, -1)[..., None, :] - codes).square().sum(-1).argmin(-1)
            z = codes[nearest].movedim(-1, 1)
        h = self.w.conv("post_quant_conv", z, self.latents, 1)
        return coder(self.w, "decoder", h, out=3, **self.flags)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def network(folder: Path, name: str = "net.pth", prefix: str = "", **flags: Any) -> Callable[..., Tensor]:
    """A tiny file of a network in the original layout, and the same by its formula."""
    w = Weights(4)
    reductions = flags.get("reductions", 0)
    side = SIDE << reductions
    mask = flags.pop("mask", 0)
    latents = flags.get("out", 3)
    x, seen = torch.zeros(1, latents, SIDE, SIDE), torch.zeros(1, 3 + mask, side, side)
    swin_unet(w, x.double(), torch.ones(1).double(), seen.double(), **flags)
    state = {prefix + n: t for n, t in with_constants(w.saved()).items()}
    torch.save({"state_dict": state} if prefix else state, folder / name)
    w.update({n: t.float().double() for n, t in w.items()})
    return lambda x, t, seen: swin_unet(w, x, t, seen, **flags)


def autoencoder(folder: Path, name: str = "vq.pth", **flags: Any) -> Coder:
    made = Coder(**flags)
    torch.save(made.w.saved() | {"loss.discriminator.weight": torch.zeros(2)}, folder / name)
    return made


Files = tuple[Path, Callable[..., Tensor], Coder]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("resshift")
    return folder, network(folder, prefix="_orig_mod.", mult=(1,), blocks=1), autoencoder(folder)


@pytest.fixture(scope="module")
def bridge(files: Files) -> ResShiftBridge:
    loaded = spec(files[0]).load(AssetStore(), torch.device("cpu"), "fp32").double()
    assert isinstance(loaded, ResShiftBridge)
    return loaded


MODEL = {"kind": "resshift-checkpoint", "path": "net.pth", "codec": {"path": "vq.pth"}, "steps": 4}
X4 = {"kind": "downsample", "factor": 4}


def recipe(model: dict[str, Any] | None = None, **values: Any) -> Recipe:
    wanted = {"operator": X4, "method": {"kind": "bridge"}, "model": MODEL | (model or {})}
    return Recipe.model_validate(wanted | values)


def spec(folder: Path, net: str = "net.pth", codec: str = "vq.pth", steps: Any = 4) -> ResShiftCheckpoint:
    return ResShiftCheckpoint(path=str(folder / net), codec=VQCodec(path=str(folder / codec)), steps=steps)


# The networks


@pytest.mark.parametrize(
    "flags", [{}, {"norm": True, "mult": (1, 2), "out": 4}, {"reductions": 1, "heads": 4}], ids=str
)
def test_the_swin_unet_is_that_of_its_formula(flags: dict[str, Any], tmp_path: Path) -> None:
    by_formula = network(tmp_path, **flags)
    state = torch.load(tmp_path / "net.pth", weights_only=True)  # noqa: TID251  (our own file)
    net = SwinUNet({name: tuple(t.shape) for name, t in state.items()})
    net.load_state_dict(state)
    net.double().requires_grad_(requires_grad=False)
    side, latents = 2 ** flags.get("reductions", 0), flags.get("out", 3)
    assert (net.multiple, net.reduction, net.seen) == (8, side, 3)
    for height, width in ((8, 8), (8, 16)):
        x, seen = drawn(2, latents, height, width), drawn(2, 3, side * height, side * width, seed=1)
        t = torch.tensor([0.0, 14.0]).double()
        assert torch.allclose(net(torch.cat([x, net.features(seen)], 1), t), by_formula(x, t, seen), atol=1e-9)


@pytest.mark.parametrize("flags", [{}, {"attends": 2, "latents": 4}], ids=str)
def test_the_autoencoder_is_that_of_its_formula(flags: dict[str, int], tmp_path: Path) -> None:
    by_formula = autoencoder(tmp_path, **flags)
    codec = VQCodec(path=str(tmp_path / "vq.pth")).load().double()
    assert (codec.factor, codec.channels, codec.image_channels) == (4, flags.get("latents", 3), 3)
    x = drawn(2, 3, 12, 20)
    z = codec.encode(x)
    assert z.shape == (2, codec.channels, 3, 5)
    assert torch.allclose(z, by_formula.encode(x), atol=1e-9)
    for quantise in (True, False):
        assert torch.allclose(codec.decode(z, quantise), by_formula.decode(z, quantise), atol=1e-9)
    # rounding is as if it were none for gradients, and what it gives is in the codebook
    z.requires_grad_()
    assert torch.autograd.grad(codec.decode(z).sum(), z)[0].abs().min() > 0
    rounded = codec.quantize(z.detach()).movedim(1, -1).reshape(-1, codec.channels)
    assert torch.cdist(rounded, codec.quantize.embedding.weight).min(1).values.max() == 0


# The walk


class Plain(nn.Module):
    """A codec of means of blocks in place of an autoencoder."""

    image_channels, channels, factor = 3, 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.quant_conv = nn.Conv2d(1, 1, 1).double()

    def encode(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 4)

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(z, scale_factor=4.0)


class Known(nn.Module):
    """A network that knows the latent."""

    multiple, reduction = 8, 1

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0

    def features(self, picture: Tensor) -> Tensor:
        return picture

    def forward(self, both: Tensor, clock: Tensor) -> Tensor:
        return self.x0.expand(len(both), -1, -1, -1)


def measured(height: int, width: int) -> Likelihood:
    """Data of a small picture of random numbers."""
    operator = Downsample((3, 4 * height, 4 * width), 4).double()
    return Likelihood(operator, Gaussian(sigma=0.1), torch.rand(1, 3, height, width, generator=_GENERATOR).double())


_GENERATOR = torch.Generator().manual_seed(3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("path", [ResShift(), ResShift(steps=15, first=0.04)], ids=["4", "15"])
def test_states_have_the_path_s_own_law(path: ResShift, eta: float) -> None:
    x0, data, table = drawn(1, 3, 8, 8), measured(7, 8), path.table
    model = BilledBridge(ResShiftBridge(Known(x0), Known(x0), path, Plain(), 4))  # type: ignore[arg-type]
    seeds = 64
    steps = list(DirectBridge(eta=eta).run(model, data, Rng(range(seeds), dtype=torch.float64)))
    _, y = model.begun(data, Rng([0]))
    assert [s.total for s in steps] == [path.steps] * path.steps
    # the variance that steps leave is that of the path, r² s² + c² = s'²
    for t, to in table.times(path.steps):
        kept, fresh = table.carry(t, to, eta)
        assert kept**2 * table.s[t] ** 2 + fresh**2 == pytest.approx(table.s[to] ** 2, abs=1e-12)
    for step in steps[:-1]:
        t = path.steps - step.index
        off = (step.x - table.a[t] * x0 - table.b[t] * y) / table.s[t]
        error = 5 / math.sqrt(off.numel())
        assert abs(float(off.mean())) < error
        assert abs(float(off.square().mean()) - 1) < math.sqrt(2) * error
    assert torch.allclose(steps[-1].x, x0.expand(seeds, -1, -1, -1), atol=1e-12)
    assert torch.allclose(steps[-1].x0, (model.bridge.codec.decode(steps[-1].x)[..., :28, :] + 1) / 2)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 5), (2, 4)], ids=str)
def test_a_file_walks_sinsr_s_deterministic_chain(
    height: int, width: int, files: Files, bridge: ResShiftBridge
) -> None:
    _, net, coder = files
    data, rng = measured(height, width), Rng([5, 6], dtype=torch.float64)
    got = [s.x0 for s in DirectBridge(eta=0.0).run(BilledBridge(bridge), data, rng)]
    # by hand: mirrored at the end, enlarged, encoded; then x' = k x0 + m x + j y
    rows, columns = ([*range(n), *range(n - 2, 0, -1)] * 2 for n in (height, width))
    tall, wide = (-(-n // WINDOW) * WINDOW for n in (height, width))
    seen = (2 * data.y - 1)[..., rows[:tall], :][..., columns[:wide]]
    y = coder.encode(F.interpolate(seen, scale_factor=4.0, mode="bicubic"))
    eta = ResShift().table.b
    x = y + 2 * 0.99 * Rng([5, 6], dtype=torch.float64).randn(tuple(y.shape[1:]))
    for i, t in enumerate((4, 3, 2, 1)):
        clock = torch.full((2,), t - 1.0).double()
        x0 = net(x / math.sqrt(4 * eta[t] + 1), clock, seen.expand(2, -1, -1, -1))
        m, j = math.sqrt(eta[t - 1] / eta[t]), eta[t - 1] - math.sqrt(eta[t - 1] * eta[t])
        k = 1 - eta[t - 1] + math.sqrt(eta[t - 1] * eta[t]) - m
        assert k + m + j == pytest.approx(1, abs=1e-12)
        x = k * x0 + m * x + j * y
        picture = coder.decode(x0)[..., : 4 * height, : 4 * width]
        assert torch.allclose(got[i], (picture + 1) / 2, atol=1e-9)


# Runs


@pytest.mark.parametrize("steps", [4, 15])
def test_a_file_restores(steps: int, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, net, coder = files
    pipeline = Pipeline.load(recipe({"steps": steps}, seeds=[1, 2]), base=folder, precision="fp32")
    decoded, plain = [], VQ.decode
    monkeypatch.setattr(VQ, "decode", lambda self, z: decoded.append(len(z)) or plain(self, z))
    truth = torch.rand(3, 25, 22, generator=torch.Generator().manual_seed(0))
    data = pipeline.simulate(truth)
    result = pipeline.run(data)
    assert (result.samples.shape, result.report.nfe) == ((2, 3, 24, 20), steps)
    assert result.report.network_seconds > 0
    assert decoded == [2]  # once, at the end, since nobody looked on the way
    assert list(result.report.asset_sha256) == ["net.pth", "codec/vq.pth"]
    # both files are named so that the recipe can travel
    assert all(Path(ref.path).is_absolute() and ref.sha256 for ref in data_refs(pipeline.recipe.model))
    if steps == 4:
        seen: list[Tensor] = []
        half = pipeline.run(data, lambda p: seen.append(p.step.x0), lambda: len(seen) == 2)
        assert not half.report.complete
        assert torch.equal(half.samples, seen[1])
        with pytest.raises(ShapeError, match="3 channels for this bridge, got 1"):
            pipeline.simulate(truth[:1])
        return
    # SinSR: one step of the fifteen is the network's answer
    student = pipeline.recipe.model_copy(update={"method": DirectBridge(steps=1)})
    one = Pipeline(student, pipeline.denoiser, pipeline.device, "fp32", folder, {}).run(data)
    small = (2 * data.likelihood.y - 1).double()
    small = F.pad(small, (0, -small.shape[-1] % WINDOW, 0, -small.shape[-2] % WINDOW), mode="reflect")
    y = coder.encode(F.interpolate(small, scale_factor=4.0, mode="bicubic"))
    x = y + 1.98 * Rng([1, 2]).randn(tuple(y.shape[1:]))
    x0 = net(x / math.sqrt(1.98**2 + 1), torch.full((2,), 14.0).double(), small.expand(2, -1, -1, -1))
    assert one.report.nfe == 1
    assert torch.allclose(one.samples.double(), (coder.decode(x0)[..., :24, :20] + 1) / 2, atol=1e-4)


def test_the_files_are_refused_where_they_do_not_fit(files: Files) -> None:
    folder, tiny = files[0], {"mult": (1,), "blocks": 1}
    autoencoder(folder, "wide.pth", latents=4)
    network(folder, "masked.pth", mask=1, **tiny)
    network(folder, "far.pth", reductions=2, **tiny)
    network(folder, "bare.pth", **tiny)
    state = torch.load(folder / "bare.pth", weights_only=True)  # noqa: TID251  (our own file)
    torch.save({n: t for n, t in state.items() if not n.endswith("_index")}, folder / "bare.pth")
    for net, codec, words in (
        ("none.pth", "vq.pth", "found nothing"),
        ("vq.pth", "vq.pth", "checkpoint of ResShift"),
        ("bare.pth", "vq.pth", "relative_position_index"),
        ("masked.pth", "vq.pth", "sees 4 channels"),
        ("far.pth", "vq.pth", "sees 3 channels at 4 times"),
        ("net.pth", "none.pth", "found nothing"),
        ("net.pth", "net.pth", "autoencoder with a codebook"),
        ("net.pth", "wide.pth", "autoencoder of 3 channels"),
    ):
        with pytest.raises((AssetMissing, ReadError, RecipeError), match=words):
            spec(folder, net, codec).plan()


def test_the_measurement_is_refused_where_it_does_not_fit(files: Files) -> None:
    for operator, method, words in (
        ({"kind": "downsample", "factor": 2}, "bridge", "'downsample' by 4, got 'downsample'"),
        ({"kind": "ct"}, "bridge", "4 times smaller"),
        (X4, "cddb", "between images"),
    ):
        (found,) = recipe(operator=operator, method={"kind": method}).problems(AssetStore(), files[0])
        assert words in found
    steps = [{"kind": "blur"}, X4, {"kind": "jpeg"}]
    assert recipe(operator={"kind": "composed", "steps": steps}).problems(AssetStore(), files[0]) == []


def test_a_bridge_between_latents_says_what_it_cannot_do(bridge: ResShiftBridge) -> None:
    model = BilledBridge(bridge)
    with pytest.raises(NeedError, match="between images"):
        next(iter(CDDB().run(model, measured(8, 8), Rng([0]))))
    half = Downsample((3, 32, 32), 2).double()
    with pytest.raises(ShapeError, match="4 times smaller"):
        model.begun(Likelihood(half, Gaussian(sigma=0.1), torch.zeros(1, 3, 16, 16).double()), Rng([0]))
    data = measured(8, 8)
    begun = Likelihood(data.operator, data.noise, data.y, torch.zeros(1, 3, 32, 32).double())
    with pytest.raises(NeedError, match="no picture to start from"):
        model.begun(begun, Rng([0]))
