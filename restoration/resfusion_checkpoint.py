"""Bridges that users own: checkpoints of the released Resfusion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from operators.errors import ReadError, RecipeError
from restoration.bridge import Bridge
from restoration.bridge_checkpoint import BridgeCheckpoint, Shapes, seen_and_answered
from restoration.bridge_paths import Resfusion
from restoration.nets.rddm import RDDMUNet
from restoration.prior import Denoiser

# The options of training that the path and the network here stand for.
_FIXED = {"noise_schedule": "LinearPro", "mode": "epsilon", "resnet_block_groups": 8}


class ResfusionCheckpoint(BridgeCheckpoint):
    """A bridge from a checkpoint of Resfusion (a Lightning `.ckpt`): RDDM's U-Net that predicts resnoise on [-1, 1].

    It sees x_t and the degraded picture. The weights are those of the file: where training kept a running average,
    that is a file of its own (`...-EMA.ckpt`). The options of training are read from it where they are plain numbers
    and words, as Lightning writes them; nothing in it is executed. What the network was trained to undo is not in the
    file and is not checked. Networks that see a mask as well (ISTD) are refused.
    """

    kind: Literal["resfusion-checkpoint"] = "resfusion-checkpoint"
    steps: Annotated[
        int | None, Field(ge=6, le=1000, description="T of its training (published: 12), if the file does not say.")
    ] = None
    family: ClassVar[str] = "Resfusion"
    file: ClassVar[str] = "a .ckpt of its RDDM_Unet"
    inside: ClassVar[str] = "denoising_module."
    mark: ClassVar[str] = "denoising_module.init_conv."

    def _net(self, shapes: Shapes, facts: Mapping[str, Any]) -> tuple[nn.Module, int, int]:
        taken, out = seen_and_answered(shapes)
        options = facts.get("hyper_parameters", {})
        for name, value in _FIXED.items():
            if options.get(name, value) != value:
                raise ReadError(
                    f"Expected {name} {value!r} in the options of {Path(self.path).name}, got {options[name]!r}; "
                    "only such networks are read here."
                )
        self._path(facts)
        return RDDMUNet(shapes), taken, out

    def _path(self, facts: Mapping[str, Any]) -> Resfusion:
        told = facts.get("hyper_parameters", {}).get("T")
        steps, name = told if self.steps is None else self.steps, Path(self.path).name
        if not isinstance(steps, int) or not 6 <= steps <= 1000:
            raise RecipeError(
                f"Expected steps for {name}, which does not say its T, got none; set them (published: 12)."
            )
        if told not in (None, steps):
            raise RecipeError(f"Expected steps {told} for {name}, as it says itself, got {steps}; leave them out.")
        return Resfusion(steps=steps)

    def _bridge(self, answer: Denoiser, sees_start: bool, facts: Mapping[str, Any]) -> Bridge:
        path = self._path(facts)
        # its clock counts the times from 0
        clock = np.arange(-1.0, path.table.last)
        return Bridge(answer, path, "resnoise", answer.shape, sees_start=sees_start, clock=clock)
