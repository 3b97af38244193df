"""The learned blur of Tran et al. 2021 ("kernel wizard"), the nonlinear blur of DPS and DAPS; weights are the user's.

Only the part that blurs is here; the part that estimates a code from a pair of pictures is in the published file as
well and is not read. Modules keep the names of the published weights.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn

from operators.base import Operator, OperatorSpec, Shape, check_image_shape
from operators.errors import ReadError, ShapeError
from operators.rng import generator
from operators.spec import DataRef, Need

PATCH = 128
"""Pixels along each side for which there is one code: two halvings of the features and five of the U-Net."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.conv1(x).relu())
        return out


class _Double(nn.Module):
    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(given, made, 5, padding=2), nn.ReLU(), nn.Conv2d(made, made, 5, padding=2), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.double_conv(x)
        return out


class _Level(nn.Module):
    """One level of the U-Net: halve, go on below (or join the code, at the bottom), double, and join what came in.

    In the published network the rectification before the halving works in place, so what is joined is rectified too.
    """

    def __init__(self, outer: int, inner: int, below: "_Level | None" = None, *, top: bool = False) -> None:
        super().__init__()
        halve = nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=False)
        self.down = nn.Sequential(halve) if top else nn.Sequential(nn.Identity(), halve)
        if below is not None:
            self.submodule = below
        self.up = nn.Sequential(
            nn.ReLU(),
            _Double(2 * inner, outer),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Tanh() if top else nn.Identity(),
        )
        self.bottom = below is None
        self.top = top

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = x if self.top else nn.functional.leaky_relu(x, 0.2)
        half = self.down(x)
        half = torch.cat([half, code], 1) if self.bottom else self.submodule(half, code)
        out: Tensor = self.up(half)
        return out if self.top else torch.cat([out, x], 1)


class _Adapter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        level = _Level(8 * width, 8 * width)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            level = _Level(outer * width, inner * width, level)
        self.model = _Level(width, width, level, top=True)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        out: Tensor = self.model(x, code)
        return out


class KernelWizard(nn.Module):
    """The network that blurs an image by a code.

    Shapes: x (B, 3, H, W) with H and W multiples of 128, code (1 or B, 8 · width, H / 128, W / 128) → (B, 3, H, W).
    Units: unit range.

    Args:
        width: channels of the features; 64 in the published weights.
        front: residual blocks before the U-Net; 10 in the published weights.
        back: residual blocks after it; 20 in the published weights.

    Source: Tran et al. 2021 (arXiv:2104.00317), F and G of section 3; official code
        VinAIResearch/blur-kernel-space-exploring models/kernel_encoding/kernel_wizard.py @30c3205, Apache-2.0.
    Deviations: none.
    """

    def __init__(self, width: int, front: int, back: int) -> None:
        super().__init__()
        self.width = width
        leaky = nn.LeakyReLU(0.1)
        self.feature_extractor = nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), leaky),
            *(nn.Conv2d(width, width, 3, stride=2, padding=1), leaky),
            *(nn.Conv2d(width, width, 3, stride=2, padding=1), leaky),
            *(_Residual(width) for _ in range(front)),
        )
        self.adapter = _Adapter(width)
        self.recon_trunk = nn.Sequential(
            *(_Residual(width) for _ in range(back)),
            *(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), leaky),
            *(nn.Conv2d(width, 4 * 64, 3, padding=1), nn.PixelShuffle(2), leaky),
            *(nn.Conv2d(64, 64, 3, padding=1), leaky),
            nn.Conv2d(64, 3, 3, padding=1),
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """The blurred image; see the class."""
        out: Tensor = x + self.recon_trunk(self.adapter(self.feature_extractor(x), code.expand(x.shape[0], -1, -1, -1)))
        return out


def read_wizard(ref: DataRef, base: Path = Path()) -> KernelWizard:
    """The network in a file with the published names: safetensors, or a PyTorch file of tensors alone.

    Raises:
        ReadError: the file cannot be read, or does not hold exactly this network.
        AssetCorrupt: the file does not have the recorded checksum.
    """
    content = ref.read_bytes(base)
    try:
        # a safetensors file is the length of its header, then the header, which is JSON
        state: Any = (
            safetensors.torch.load(content)
            if content[8:9] == b"{"
            else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251  (restricted)
        )
    except Exception as error:  # what decoders raise on a stranger's bytes is no contract
        raise _no_wizard(ref, "a file of another kind") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _no_wizard(ref, "something other than named tensors")
    state = {name: value for name, value in state.items() if not name.startswith("kernel_extractor.")}
    first = state.get("feature_extractor.0.weight")
    if first is None or first.ndim != 4:
        raise _no_wizard(ref, "tensors of another network")
    front, back = (
        sum(re.fullmatch(rf"{part}\.\d+\.conv1\.weight", name) is not None for name in state)
        for part in ("feature_extractor", "recon_trunk")
    )
    with torch.device("meta"):
        network = KernelWizard(first.shape[0], front, back)
    expected = {name: value.shape for name, value in network.state_dict().items()}
    wrong = sorted(expected.keys() ^ state.keys()) or [n for n, size in expected.items() if state[n].shape != size]
    if wrong:
        raise _no_wizard(ref, f"'{wrong[0]}' missing, unknown or of another shape")
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def _no_wizard(ref: DataRef, found: str) -> ReadError:
    return ReadError(
        f"Expected the weights of a kernel wizard in {ref.path}, got {found}; "
        "give GOPRO_wVAE.pth of its authors or a copy as safetensors."
    )


class LearnedBlur(Operator):
    """Blur by a trained network and a code, the same for every image.

    Shapes: x (B, 3, H, W) → the same.

    Args:
        network: in evaluation, without gradients of its own; see `read_wizard`.
        code: (8 · width, H / 128, W / 128) real.
        in_shape: (3, H, W), H and W multiples of 128.

    Raises:
        ShapeError: another shape of image or code.

    Source: Tran et al. 2021 (arXiv:2104.00317); as a measurement, Chung et al. 2023 (arXiv:2209.14687).
    Deviations: data are not clipped, so that no slope is lost; the code is fixed, where DPS draws one at every call.
    """

    code: Tensor

    def __init__(self, network: KernelWizard, code: Tensor, in_shape: Shape) -> None:
        in_shape = check_image_shape(in_shape)
        if len(in_shape) != 3 or in_shape[0] != 3 or in_shape[1] % PATCH or in_shape[2] % PATCH:
            raise ShapeError(
                f"LearnedBlur expected a colour image (3, H, W) with H and W multiples of {PATCH}, got {in_shape}; "
                "crop it."
            )
        expected = (8 * network.width, in_shape[1] // PATCH, in_shape[2] // PATCH)
        if code.shape != expected:
            raise ShapeError(
                f"LearnedBlur expected a code {expected}, got {tuple(code.shape)}; draw one for this image and network."
            )
        super().__init__(in_shape, in_shape)
        self.network = network
        self.register_buffer("code", code.to(torch.get_default_dtype(), copy=True))

    def _forward(self, x: Tensor) -> Tensor:
        # the network computes in the precision of its weights, the answer has that of the image
        blurred: Tensor = self.network(x.to(self.code.dtype), self.code[None])
        return blurred.to(x.dtype)

    def _guess(self, y: Tensor) -> Tensor:
        return y


class LearnedBlurSpec(OperatorSpec):
    """The nonlinear blur of DPS and DAPS, by a trained network; needs its weights."""

    title: ClassVar[str] = "Learned blur"
    kind: Literal["learned-blur"] = "learned-blur"
    weights: Annotated[DataRef, Field(description="The published GOPRO_wVAE.pth, or a copy as safetensors.")]
    strength: Annotated[float, Field(gt=0, le=4, description="Standard deviation of the code.")] = 1.2
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which code; the same seed gives the same blur.")] = 0

    @property
    def offers(self) -> frozenset[Need]:
        """What `LearnedBlur` offers."""
        return LearnedBlur.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> LearnedBlur:
        """The operator on real images (3, H, W); see `OperatorSpec.build`.

        Raises:
            ReadError: the file does not hold this network.
        """
        shape = check_image_shape(in_shape)
        network = read_wizard(self.weights, base)
        draw = generator(self.seed)
        code = self.strength * draw.standard_normal((8 * network.width, shape[-2] // PATCH, shape[-1] // PATCH))
        return LearnedBlur(network, torch.from_numpy(code), shape)

    def usable_shape(self, image_shape: Shape) -> Shape:
        """`image_shape` with height and width rounded down to multiples of 128.

        Raises:
            ShapeError: nothing would be left, or the image is not in colour.
        """
        *rest, height, width = check_image_shape(image_shape)
        if rest != [3] or min(height, width) < PATCH:
            raise ShapeError(
                f"Expected a colour image (3, H, W) of at least {PATCH}x{PATCH} pixels for the learned blur, "
                f"got {tuple(image_shape)}; choose a larger one."
            )
        return (3, height - height % PATCH, width - width % PATCH)
