"""Bridges that users own: checkpoints of the released I2SB."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from operators.errors import RecipeError
from restoration.bridge import Bridge
from restoration.bridge_checkpoint import BridgeCheckpoint, Shapes
from restoration.bridge_paths import I2SB
from restoration.nets.adm import ADM, Details
from restoration.prior import Denoiser


class I2SBCheckpoint(BridgeCheckpoint):
    """A bridge from a checkpoint of I2SB (`latest.pt`): an ADM that predicts (x_t - x0)/sigma_t on [-1, 1].

    The running averages are used, which the file holds without names in the order of the parameters. Its options are a
    pickle beside it, which is never opened: give them here. What the network was trained to undo is not in the file
    either, and is not checked; its own degradations start from enlargements and pseudo-inverses of their own, which
    `Operator.guess` resembles and does not repeat.
    """

    kind: Literal["i2sb-checkpoint"] = "i2sb-checkpoint"
    beta_max: Annotated[float, Field(gt=0, le=10, description="Released: 0.3 (JPEG, x4), 1 (blur, inpainting).")] = 0.3
    ode: Annotated[bool, Field(description="Trained with --ot-ode (released: blur, inpainting).")] = False
    image_size: Annotated[int, Field(ge=8, le=4096, description="Side it was trained on; larger ones are tiled.")] = 256
    head_channels: Annotated[int, Field(ge=1, description="Channels of an attention head.")] = 64
    family: ClassVar[str] = "I2SB"
    file: ClassVar[str] = "its latest.pt"
    inside: ClassVar[str] = "diffusion_model."
    mark: ClassVar[str] = inside

    @property
    def side(self) -> int | None:
        return self.image_size

    def _net(self, shapes: Shapes, facts: Mapping[str, Any]) -> tuple[nn.Module, int, int]:
        taken, out = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
        if taken not in (out, 2 * out):
            raise ValueError(f"{taken} channels in and {out} out")
        net, file = ADM(shapes, Details(0, self.head_channels, legacy=True)), Path(self.path).name
        if any(s[1] % self.head_channels for n, s in shapes.items() if n.endswith(".qkv.weight")):
            raise RecipeError(f"Expected head_channels that divide the channels of attention in {file}; set them.")
        if self.image_size % net.multiple or self.image_size < 2 * net.multiple:
            raise RecipeError(
                f"Expected an image_size that is a multiple of {net.multiple} and at least {2 * net.multiple} for "
                f"{file}, got {self.image_size}; set the size it was trained at."
            )
        return net, taken, out

    def _bridge(self, answer: Denoiser, sees_start: bool, facts: Mapping[str, Any]) -> Bridge:
        path = I2SB(beta_max=self.beta_max, ode=self.ode)
        # its clock runs from 0.1 to 1000
        clock = np.concatenate([[0.0], np.linspace(1e-4, 1, path.steps) * path.steps])
        return Bridge(answer, path, "displacement", answer.shape, sees_start=sees_start, clock=clock)
