"""Bridges that users own: checkpoints of the released IR-SDE."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from restoration.bridge import Bridge
from restoration.bridge_checkpoint import BridgeCheckpoint, Shapes, seen_and_answered
from restoration.bridge_paths import IRSDE
from restoration.nets.conditional_unet import ConditionalUNet
from restoration.prior import Denoiser


class IRSDECheckpoint(BridgeCheckpoint):
    """A bridge from a checkpoint of IR-SDE (`.pth`): its ConditionalUNet, which predicts the noise.

    The file holds weights alone: `max_sigma` and `steps` are in the options it was trained with. What the network was
    trained to undo is not in the file and is not checked. Its NAFNet (Refusion) and the denoising networks, which see
    no degraded picture, are refused.

    Its released posterior sampler is `eta` 1 with all steps; unless told, MRS takes 10.
    """

    kind: Literal["ir-sde-checkpoint"] = "ir-sde-checkpoint"
    max_sigma: Annotated[
        float, Field(ge=1, le=255, description="Its sde.max_sigma, in levels of 255; released: 10, 30 (inpainting).")
    ] = 10.0
    steps: Annotated[int, Field(ge=2, le=10_000, description="Its sde.T.")] = 100
    family: ClassVar[str] = "IR-SDE"
    file: ClassVar[str] = "a .pth of its ConditionalUNet"
    mark: ClassVar[str] = "init_conv."

    def _net(self, shapes: Shapes, facts: Mapping[str, Any]) -> tuple[nn.Module, int, int]:
        taken, out = seen_and_answered(shapes)
        return ConditionalUNet(shapes), taken, out

    def _bridge(self, answer: Denoiser, sees_start: bool, facts: Mapping[str, Any]) -> Bridge:
        # Noise of a unit range picture is twice as large on [-1, 1].
        path = IRSDE(steps=self.steps, lam=2 * self.max_sigma / 255)
        clock = np.arange(self.steps + 1.0)
        return Bridge(answer, path, "epsilon", answer.shape, sees_start=sees_start, clock=clock)
