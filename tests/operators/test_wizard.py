"""The learned blur against the published network written out tensor by tensor, on a tiny random checkpoint."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from operators import DataRef, Need, Rng
from operators.errors import ReadError, ShapeError
from operators.wizard import LearnedBlurSpec, read_wizard

WIDTH, FRONT, BACK = 2, 1, 2


def _published() -> dict[str, Tensor]:
    """A random checkpoint with the names and shapes of the published file, for width 2 and 1 + 2 residual blocks."""
    draw = np.random.default_rng(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, made: int, given: int, size: int, bias: bool = True) -> None:
        scale = 1.4 / (given * size * size) ** 0.5
        state[f"{name}.weight"] = torch.from_numpy(scale * draw.standard_normal((made, given, size, size))).float()
        if bias:
            state[f"{name}.bias"] = torch.from_numpy(0.1 * draw.standard_normal(made)).float()

    w = WIDTH
    conv("feature_extractor.0", w, 3, 3)
    conv("feature_extractor.2", w, w, 3)
    conv("feature_extractor.4", w, w, 3)
    for k in range(FRONT):
        conv(f"feature_extractor.{6 + k}.conv1", w, w, 3)
        conv(f"feature_extractor.{6 + k}.conv2", w, w, 3)
    conv("kernel_extractor.model.1", w, 2 * w, 7, bias=False)  # the part that is not read
    name = "adapter.model"
    for outer, inner, index in [(1, 1, 0), (1, 2, 1), (2, 4, 1), (4, 8, 1), (8, 8, 1)]:
        conv(f"{name}.down.{index}", inner * w, outer * w, 4, bias=False)
        conv(f"{name}.up.1.double_conv.0", outer * w, 2 * inner * w, 5)
        conv(f"{name}.up.1.double_conv.2", outer * w, outer * w, 5)
        name += ".submodule"
    for k in range(BACK):
        conv(f"recon_trunk.{k}.conv1", w, w, 3)
        conv(f"recon_trunk.{k}.conv2", w, w, 3)
    conv(f"recon_trunk.{BACK}", 4 * w, w, 3)
    conv(f"recon_trunk.{BACK + 3}", 4 * 64, w, 3)
    conv(f"recon_trunk.{BACK + 6}", 64, 64, 3)
    conv(f"recon_trunk.{BACK + 8}", 3, 64, 3)
    return state


def _blurred(state: dict[str, Tensor], image: Tensor, code: Tensor) -> Tensor:
    """The published forward pass, in place where that is."""

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        bias = state.get(f"{name}.bias")
        return F.conv2d(x, state[f"{name}.weight"].double(), None if bias is None else bias.double(), **how)

    def residual(x: Tensor, name: str) -> Tensor:
        return x + conv(F.relu(conv(x, f"{name}.conv1", padding=1)), f"{name}.conv2", padding=1)

    def up(x: Tensor, name: str) -> Tensor:
        x = F.relu_(x)
        x = F.relu_(conv(x, f"{name}.1.double_conv.0", padding=2))
        x = F.relu_(conv(x, f"{name}.1.double_conv.2", padding=2))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def level(x: Tensor, depth: int) -> Tensor:
        name = "adapter.model" + depth * ".submodule"
        if depth == 0:
            return up(level(conv(x, f"{name}.down.0", stride=2, padding=1), 1), f"{name}.up").tanh()
        half = conv(F.leaky_relu_(x, 0.2), f"{name}.down.1", stride=2, padding=1)  # changes x itself
        half = torch.cat([half, code], 1) if depth == 4 else level(half, depth + 1)
        return torch.cat([up(half, f"{name}.up"), x], 1)

    x = F.leaky_relu(conv(image, "feature_extractor.0", padding=1), 0.1)
    x = F.leaky_relu(conv(x, "feature_extractor.2", stride=2, padding=1), 0.1)
    x = F.leaky_relu(conv(x, "feature_extractor.4", stride=2, padding=1), 0.1)
    for k in range(FRONT):
        x = residual(x, f"feature_extractor.{6 + k}")
    x = level(x, 0)
    for k in range(BACK):
        x = residual(x, f"recon_trunk.{k}")
    x = F.leaky_relu(F.pixel_shuffle(conv(x, f"recon_trunk.{BACK}", padding=1), 2), 0.1)
    x = F.leaky_relu(F.pixel_shuffle(conv(x, f"recon_trunk.{BACK + 3}", padding=1), 2), 0.1)
    x = F.leaky_relu(conv(x, f"recon_trunk.{BACK + 6}", padding=1), 0.1)
    return image + conv(x, f"recon_trunk.{BACK + 8}", padding=1)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "old.pth"])
def test_learned_blur_is_the_published_network(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"wizard.{suffix}"
    if suffix.endswith("pth"):
        torch.save(_published(), path, _use_new_zipfile_serialization=suffix == "pth")
    else:
        save_file(_published(), path)
    shape = (3, 128, 256) if suffix == "pth" else (3, 128, 128)
    spec = LearnedBlurSpec(weights=DataRef(path=path.name), seed=3)
    operator = spec.build(shape, tmp_path).double()
    x = torch.from_numpy(np.random.default_rng(1).random((1, *shape)))
    assert operator.code.shape == (16, 1, shape[2] // 128)
    expected = _blurred(_published(), x, operator.code[None])
    assert float((expected - x).abs().mean()) > 1e-2
    assert torch.allclose(operator(x), expected, atol=1e-10)


def test_learned_blur_is_an_operator(tmp_path: Path) -> None:
    # the battery's finite differences step over the kinks of the rectifiers, so its checks are done here more gently
    save_file(_published(), tmp_path / "w.safetensors")
    spec = LearnedBlurSpec(weights=DataRef(path="w.safetensors"))
    assert LearnedBlurSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.usable_shape((3, 200, 300)) == (3, 128, 256)
    single = spec.build((3, 128, 128), tmp_path)
    assert single.offers == spec.offers == {Need.GRADIENT}
    assert not any(p.requires_grad for p in single.parameters())
    rng = Rng([0, 1], dtype=torch.float64)
    x, direction = rng.rand((3, 128, 128)), rng.randn((3, 128, 128))
    operator = copy.deepcopy(single).double()
    data = operator(x)
    assert torch.allclose(operator(x[1:]), data[1:], atol=1e-12)
    assert single(x[:1]).dtype == torch.float64
    assert torch.allclose(single(x[:1].float()).double(), data[:1], atol=1e-4)
    y = Rng([2], dtype=torch.float64).randn((3, 128, 128))
    slope = operator.vjp(x[:1])[1](y)
    small = 1e-8
    change = (operator(x[:1] + small * direction[:1]) - operator(x[:1] - small * direction[:1])) / (2 * small)
    assert float((slope * direction[:1]).sum()) == pytest.approx(float((y * change).sum()), rel=1e-4)


def test_codes_come_from_the_seed(tmp_path: Path) -> None:
    save_file(_published(), tmp_path / "w.safetensors")
    ref = DataRef(path=str(tmp_path / "w.safetensors"))
    first, again, other = (LearnedBlurSpec(weights=ref, seed=s).build((3, 128, 128)).code for s in (0, 0, 2**32))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    wide = LearnedBlurSpec(weights=ref, strength=4).build((3, 1024, 1024)).code
    assert float(wide.std()) == pytest.approx(4, rel=0.1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    state = _published()
    for change, sentence in [
        ({"extra.weight": torch.zeros(1)}, "'extra.weight' missing, unknown"),
        ({"recon_trunk.0.conv1.bias": torch.zeros(3)}, "'recon_trunk.0.conv1.bias' missing, unknown or of another"),
    ]:
        save_file({**state, **change}, tmp_path / "w.safetensors")
        with pytest.raises(ReadError, match=sentence):
            read_wizard(DataRef(path="w.safetensors"), tmp_path)
    del state["adapter.model.down.0.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ReadError, match=r"'adapter\.model\.down\.0\.weight' missing"):
        read_wizard(DataRef(path="w.safetensors"), tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ReadError, match="tensors of another network"):
        read_wizard(DataRef(path="w.safetensors"), tmp_path)
    for content in (b"", b"no weights", b"\x80\x02no weights", b"PKno weights", b"12345678{no weights"):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(ReadError, match="another kind; give GOPRO"):
            read_wizard(DataRef(path="w.safetensors"), tmp_path)
    torch.save({"a": Path("code")}, tmp_path / "w.pth")
    with pytest.raises(ReadError, match="another kind"):
        read_wizard(DataRef(path="w.pth"), tmp_path)


@pytest.mark.parametrize("shape", [(1, 128, 128), (3, 128, 100), (128, 128)])
def test_other_images_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file(_published(), tmp_path / "w.safetensors")
    spec = LearnedBlurSpec(weights=DataRef(path=str(tmp_path / "w.safetensors")))
    with pytest.raises(ShapeError, match=r"colour image \(3, H, W\)"):
        spec.build(shape)
    with pytest.raises(ShapeError, match="colour image"):
        spec.usable_shape(shape)
