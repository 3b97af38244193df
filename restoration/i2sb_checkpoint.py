"""Bridges that users own: checkpoints of the released I2SB."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from operators.errors import ReadError, RecipeError
from operators.spec import DataRef, Need
from restoration.architectures import Plan
from restoration.assets import AssetStore
from restoration.bridge import Bridge
from restoration.bridge_paths import I2SB
from restoration.checkpoint_files import Contents, open_checkpoint
from restoration.checkpoints import fill, same_tensors
from restoration.convert import Raw
from restoration.layouts import State
from restoration.nets.adm import ADM, Details
from restoration.precision import Precision, resolve_precision
from restoration.prior import Padded, Tiled

_INSIDE = "diffusion_model."


class I2SBCheckpoint(DataRef):
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
    offers: ClassVar[frozenset[Need]] = Bridge.offers

    def plan(self, base: Path = Path()) -> Plan:
        """What the file holds, from names and shapes alone.

        Raises:
            AssetMissing: there is nothing at the path.
            ReadError: the file cannot be read, or is none of I2SB.
            RecipeError: a field does not suit the file.
        """
        path = self.resolve(base)
        return self._fitted(open_checkpoint(path, self.path), path)

    def _fitted(self, contents: Contents, path: Path) -> Plan:
        if not any(name.startswith(_INSIDE) for name in contents.tensors):
            raise ReadError(
                f"Expected a checkpoint of I2SB at {path}, got tensors such as '{next(iter(contents.tensors))}'; "
                "use its latest.pt, or kind checkpoint for a prior."
            )
        try:
            shapes = {name: tuple(t.shape) for name, t in _named(contents.tensors).items()}
            taken, out = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
            if taken not in (out, 2 * out):
                raise ValueError(f"{taken} channels in and {out} out")
            with torch.device("meta"):
                net = ADM(shapes, Details(0, self.head_channels, legacy=True))
        except (KeyError, ValueError, IndexError) as error:
            raise ReadError(
                f"Expected all tensors of an I2SB network in {path}, got {error}; use an undamaged file."
            ) from error
        if any(s[1] % self.head_channels for n, s in shapes.items() if n.endswith(".qkv.weight")):
            raise RecipeError(f"Expected head_channels that divide the channels of attention in {path.name}; set them.")
        if self.image_size % net.multiple or self.image_size < 2 * net.multiple:
            raise RecipeError(
                f"Expected an image_size that is a multiple of {net.multiple} and at least {2 * net.multiple} for "
                f"{path.name}, got {self.image_size}; set the size it was trained at."
            )
        shape = (out, None, None)
        plan = Plan(net, _named, lambda n, p: Raw(n, shape, p), taken, net.multiple, (0.0, 0.0), self.image_size)
        same_tensors(plan, contents, path)
        return plan

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Bridge:
        """Read the weights; any image size."""
        path = self.resolve(Path())
        contents = open_checkpoint(path, self.path)
        plan = self._fitted(contents, path)
        fill(plan, contents, path)
        raw, side = plan.wrap(plan.net, resolve_precision(precision, device)), self.image_size
        tiled = Tiled(Padded(raw, plan.multiple), side, side // 8, max(1, side // 16), plan.multiple)
        path_of = I2SB(beta_max=self.beta_max, ode=self.ode)
        # its clock runs from 0.1 to 1000
        clock = np.concatenate([[0.0], np.linspace(1e-4, 1, path_of.steps) * path_of.steps])
        sees = plan.channels != raw.shape[0]
        return Bridge(tiled, path_of, "displacement", raw.shape, sees_start=sees, clock=clock).to(device)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """None: a bridge has times, not noise levels; the file's header is checked."""
        self.plan(base)
        return None

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Name and sha256 of what is loaded."""
        return {Path(self.path).name: self.sha256 or self.digest()}


def _named(state: State) -> State:
    return {name.removeprefix(_INSIDE): tensor for name, tensor in state.items()}
