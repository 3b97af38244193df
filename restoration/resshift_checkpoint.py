"""Bridges that users own: checkpoints of the released ResShift, which walk in the latent of an autoencoder."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.base import OperatorSpec, Shape
from operators.errors import NeedError, PreimageError, ReadError, RecipeError, ShapeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Spec
from restoration.architectures import Plan
from restoration.assets import AssetStore
from restoration.bridge import Bridge, unit
from restoration.bridge_checkpoint import BridgeCheckpoint, Shapes
from restoration.bridge_paths import ResShift
from restoration.checkpoint_files import Contents
from restoration.codecs import VQCodec
from restoration.layouts import State
from restoration.methods.cddb import CDDB, LATENT
from restoration.nets.swin_unet import SwinUNet
from restoration.nets.vq import VQ
from restoration.prior import Denoiser

_MARK = "middle_block.1.patch_embed.proj.weight"


class ResShiftBridge(Bridge):
    """ResShift for super-resolution: y0 = E(the small picture, enlarged), and the small picture itself beside x_t.

    The small picture is mirrored at its end up to what the network's windows need, and the result is cropped. The
    enlargement is torch's bicubic one (a = -0.75), which training had, and not `Operator.guess`.

    Args:
        answer: the network, for x_t and the features of the small picture.
        net: the same, for these features.
        path: from degraded to clean.
        codec: of the latents.
        factor: how many times smaller the small picture is.
    """

    latent: ClassVar[bool] = True
    seen: Tensor
    size: tuple[int, int]

    def __init__(self, answer: Denoiser, net: SwinUNet, path: ResShift, codec: VQ, factor: int) -> None:
        clock = np.arange(path.steps + 1) - 1.0  # its clock counts the times from 0
        super().__init__(answer, path, "x0", (codec.image_channels, None, None), clock=clock)
        self.codec, self.features = codec, net.features
        self.factor, self.multiple = factor, net.multiple * net.reduction

    def begun(self, likelihood: Likelihood, rng: Rng) -> tuple[Bridge, Tensor]:
        small = 2 * likelihood.operator.data_as_image(likelihood.y) - 1
        channels, height, width = likelihood.operator.in_shape
        wanted = (self.codec.image_channels, height // self.factor, width // self.factor)
        if tuple(small.shape[1:]) != wanted or height % self.factor or width % self.factor:
            raise ShapeError(
                f"Expected data that are a picture {self.factor} times smaller than {channels}x{height}x{width} and of "
                f"{wanted[0]} channels for this bridge, got {'x'.join(map(str, small.shape[1:]))}; choose DiffPIR."
            )
        if likelihood.start is not None:
            raise NeedError("Expected no picture to start from for a bridge between latents, got one; leave it out.")
        padded = _mirrored(small, self.multiple).to(self.codec.quant_conv.weight.dtype)
        told = copy.copy(self)
        told.seen, told.size = self.features(padded).to(small.dtype), (height, width)
        enlarged = F.interpolate(padded, scale_factor=float(self.factor), mode="bicubic", align_corners=False)
        y = self.codec.encode(enlarged).to(small.dtype)
        return told, y.expand(rng.batch, *y.shape[1:])

    def answer(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The network's own answer, at the measurement of `begun`."""
        return super().answer(x, t, self.seen.expand(len(x), *self.seen.shape[1:]))

    def shown(self, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor | Callable[[], Tensor]]:
        return x, partial(self.decoded, x0)

    def decoded(self, z: Tensor) -> Tensor:
        """The picture of a latent, in unit range.   Shapes: (B, channels, h, w) → (B, image channels, H, W)."""
        picture = self.codec.decode(z.to(self.codec.quant_conv.weight.dtype)).to(z.dtype)
        return unit(picture[..., : self.size[0], : self.size[1]])


def _mirrored(x: Tensor, multiple: int) -> Tensor:
    """Height and width up to a multiple by mirroring, over and over where the picture is small."""
    for dim in (-2, -1):
        size = x.shape[dim]
        places = np.pad(np.arange(size), (0, -size % multiple), mode="reflect")
        x = x.index_select(dim, torch.from_numpy(places).to(x.device))
    return x


class ResShiftCheckpoint(BridgeCheckpoint):
    """A bridge from a checkpoint of ResShift for super-resolution, with the autoencoder whose latents it walks in.

    Factor, windows and widths are read from the two files (released: x4, `resshift_realsrx4_s15_v1.pth`, `_s15_v2`,
    `_s4_v3`, `resshift_bicsrx4_s4.pth` with `autoencoder_vq_f4.pth`); how many steps it was trained for is not in them.
    SinSR's file is one of 15 steps, for the direct bridge with 1. Any operator and noise whose data are a picture that
    many times smaller: what the network was trained to undo is not in the file and not checked.

    The autoencoder runs in single precision and takes whole pictures: some 5 GB for each megapixel of the result.
    """

    kind: Literal["resshift-checkpoint"] = "resshift-checkpoint"
    codec: Annotated[VQCodec, Field(description="The autoencoder; released: autoencoder_vq_f4.pth.")]
    steps: Annotated[Literal[4, 15], Field(description="Steps that it was trained for, s4 or s15 in its name.")] = 15
    family: ClassVar[str] = "ResShift"
    file: ClassVar[str] = "one of its resshift_*.pth"
    mark: ClassVar[str] = ""

    def plan(self, base: Path = Path()) -> Plan:
        return self._both(base)[0]

    def _both(self, base: Path) -> tuple[Plan, int]:
        """The plan, and how many times smaller the small picture is."""
        plan, codec = super().plan(base), self.codec.plan(base)
        assert isinstance(plan.net, SwinUNet)
        return plan, _factor(plan.net, codec, Path(self.path).name)

    def _fitted(self, contents: Contents, path: Path) -> Plan:
        plan = super()._fitted(contents, path)
        return replace(plan, side=8 * plan.multiple)  # released: 512 latents, where the authors cut too

    def _net(self, shapes: Shapes, facts: Mapping[str, Any]) -> tuple[nn.Module, int, int]:
        if _MARK not in shapes:
            raise ReadError(
                f"Expected a checkpoint of ResShift's Swin network at {self.path}, got tensors such as "
                f"'{next(iter(shapes))}'; use {self.file}, or kind checkpoint for a prior."
            )
        return SwinUNet(shapes), shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]

    def _named(self, state: State) -> State:
        return {name.removeprefix("_orig_mod."): tensor for name, tensor in state.items()}

    def _bridge(self, answer: Denoiser, sees_start: bool, facts: Mapping[str, Any]) -> Bridge:
        net = next(module for module in answer.modules() if isinstance(module, SwinUNet))
        path = ResShift(steps=self.steps, first={4: 0.2, 15: 0.04}[self.steps])
        codec = self.codec.load()
        return ResShiftBridge(answer, net, path, codec, _factor(net, codec, Path(self.path).name))

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """None: a bridge has times, not noise levels; `problems` checks the files."""
        return None

    def problems(self, operator: OperatorSpec, method: Spec, base: Path) -> list[str]:
        """Whether the files fit each other, the data are a picture they take, and the method is one for latents."""
        found = [LATENT] if isinstance(method, CDDB) else []
        try:
            _, factor = self._both(base)
        except PreimageError as error:
            return [*found, str(error)]
        try:
            image: Shape = operator.image_shape((3, 16, 16))
        except ShapeError:  # data that are no picture
            image = ()
        except PreimageError as error:
            return [*found, str(error)]
        if image != (3, 16 * factor, 16 * factor):
            found.append(
                f"Expected an operator whose data are a picture {factor} times smaller for the bridge "
                f"{Path(self.path).name}, such as 'downsample' by {factor}, got '{operator.kind}' with other data; "
                "choose that operator, or DiffPIR."
            )
        return found

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        codec = {f"codec/{Path(self.codec.path).name}": self.codec.sha256 or self.codec.digest()}
        return super().asset_hashes(store) | codec


def _factor(net: SwinUNet, codec: VQ, name: str) -> int:
    """How many times smaller the small picture is than the result."""
    latents = net.out[2].out_channels
    if latents != codec.channels:
        raise RecipeError(
            f"Expected an autoencoder of {latents} channels for {name}, got one of {codec.channels}; give the one that "
            "it was trained with."
        )
    factor = int(codec.factor // net.reduction)
    if factor < 2 or net.seen != 3 or codec.image_channels != 3:
        raise RecipeError(
            f"Expected a network for super-resolution that sees a small picture of 3 channels in {name}, got one that "
            f"sees {net.seen} channels at {net.reduction} times the size of its latents; only the former is read here."
        )
    return factor
