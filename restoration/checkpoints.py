"""Priors that users own: public checkpoints as denoisers, recognised by the names and shapes of their tensors.

Everything is settled before a weight is read: the file's tensors are first renamed and fitted to the network without
storage (torch's "meta" device), and only a file that fits exactly is loaded. Nothing in a file is ever executed.
"""

import pickle
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor, nn

from operators.errors import ReadError, RecipeError
from operators.spec import DataRef, Need, Ui
from restoration.architectures import LAYOUTS, Fit, Plan
from restoration.assets import AssetStore
from restoration.checkpoint_files import Contents, damaged, open_checkpoint
from restoration.precision import Precision, resolve_precision
from restoration.prior import Denoiser, UnitRange


class Checkpoint(DataRef):
    """A prior from a checkpoint of yours: a file, or a folder that diffusers wrote.

    ADM (guided-diffusion), DDPM, UNet2DModel (diffusers), DDPM++ and NCSN++ (score_sde), EDM and EDM2 (converted, see
    docs/priors.md) and this package's own. Images on [-1, 1] are assumed inside, as all of these have them. The
    learned variance of ADM is left out: a denoiser is a posterior mean and nothing else.

    Fields that are None are read from the file; where a file does not say, one sentence asks for the field.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    image_size: Annotated[
        int | None, Field(ge=8, le=4096, description="Side of the pictures it was trained on; larger ones are tiled.")
    ] = None
    label: Annotated[int | None, Field(ge=0, description="Class to restore, for class-conditional checkpoints.")] = None
    predicts: Annotated[
        Literal["epsilon", "v", "x0", "score", "flow"] | None, Field(description="What the network answers.")
    ] = None
    betas: Annotated[
        Literal["linear", "scaled-linear", "cosine"] | None, Field(description="Noise schedule of a DDPM.")
    ] = None
    sde: Annotated[
        Literal["vp", "vp-discrete", "ve", "ve-discrete"] | None, Field(description="Process of a score_sde file.")
    ] = None
    heads: Annotated[int | None, Field(ge=1, description="Attention heads of each layer (ADM)."), Ui(advanced=True)] = (
        None
    )
    head_channels: Annotated[
        int | None, Field(ge=1, description="Channels of an attention head (ADM)."), Ui(advanced=True)
    ] = None
    attention: Annotated[
        Literal["legacy", "new"] | None,
        Field(description="Order of q, k, v in ADM: 'new' with use_new_attention_order."),
        Ui(advanced=True),
    ] = None
    noise_at: Annotated[Literal[0, 1], Field(description="Time of a flow at which there is noise alone.")] = 1
    time_scale: Annotated[float, Field(gt=0, le=1e4, description="What a flow's time of 1 is to its network.")] = 1000.0
    offers: ClassVar[frozenset[Need]] = Denoiser.offers

    def plan(self, base: Path = Path()) -> Plan:
        """What the file holds, from names and shapes alone.

        Raises:
            AssetMissing: there is nothing at the path.
            ReadError: the file cannot be read, is not a checkpoint known here, or has other tensors than its network.
            RecipeError: a field is missing, or does not suit the file.
        """
        return self._fitted(open_checkpoint(self.resolve(base), self.path), self.resolve(base))

    def _fitted(self, contents: Contents, path: Path) -> Plan:
        layout = next((layout for mark, layout in LAYOUTS.items() if mark in contents.tensors), None)
        if layout is None:
            some = ", ".join(f"'{name}'" for name in list(contents.tensors)[:3])
            raise ReadError(
                f"Expected a checkpoint of ADM, DDPM, diffusers' UNet2DModel, score_sde, EDM, EDM2 or this package at "
                f"{path}, got tensors such as {some}; see docs/priors.md for what loads."
            )
        build, fields = layout
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in ("kind", "path", "sha256", *fields) and value != info.default:
                raise RecipeError(
                    f"Expected no {name} for {path.name}, where it means nothing, got {value}; leave it out."
                )
        try:
            plan = build(self, contents)
        except (KeyError, ValueError, IndexError) as error:
            missing = isinstance(error, KeyError)
            reason = f"no tensor {error}" if missing else str(error)
            raise ReadError(
                f"Expected all tensors of a known architecture in {path}, got {reason}; use an undamaged file of an "
                "architecture that docs/priors.md lists."
            ) from error
        same_tensors(plan, contents, path)
        if plan.conditional and (self.label is None or self.label >= plan.conditional):
            raise RecipeError(
                f"Expected a label from 0 to {plan.conditional - 1} for the class-conditional checkpoint {path.name}, "
                f"got {self.label}; set label."
            )
        if not plan.conditional and self.label is not None:
            raise RecipeError(
                f"Expected no label for {path.name}, which knows no classes, got {self.label}; leave it out."
            )
        multiple = plan.multiple
        if plan.side is not None and (plan.side % multiple or plan.side < 2 * multiple):
            raise RecipeError(
                f"Expected an image_size that is a multiple of {multiple} and at least {2 * multiple} for {path.name}, "
                f"got {plan.side}; set the size it was trained at."
            )
        return plan

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Denoiser:
        """Read the weights; unit range, any image size (tiled beyond the size of the training)."""
        path = self.resolve(Path())
        contents = open_checkpoint(path, self.path)
        plan = self._fitted(contents, path)
        fill(plan, contents, path)
        inner = plan.wrap(_Bound(plan.net, plan.channels, self.label), resolve_precision(precision, device))
        return UnitRange(plan.any_size(inner)).to(device)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """Noise levels it was trained for, in unit range, from the file's header."""
        low, high = self.plan(base).trained
        return low / 2, high / 2

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Name and sha256 of what is loaded."""
        return {Path(self.path).name: self.sha256 or self.digest()}


class _Bound(nn.Module):
    """A network of (x, clock) whose class is fixed and whose learned variance is left out."""

    def __init__(self, net: nn.Module, channels: int, label: int | None) -> None:
        super().__init__()
        self.net, self.channels, self.label = net, channels, label

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        if self.label is None:
            out: Tensor = self.net(x, clock)
        else:
            out = self.net(x, clock, torch.full((len(x),), self.label, device=x.device))
        return out[:, : self.channels]


def fill(plan: Fit, contents: Contents, path: Path) -> None:
    """Read the weights into the plan's network, frozen and in single precision.

    Raises:
        ReadError: the file is damaged.
    """
    try:
        state = plan.rename({name: contents.read(name).to(torch.float32, copy=True) for name in contents.tensors})
        plan.net.load_state_dict(state, strict=True, assign=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise damaged(path, error) from error
    plan.net.requires_grad_(requires_grad=False).eval()


def same_tensors(plan: Plan, contents: Contents, path: Path) -> None:
    """Every name and shape and a pass without numbers, or one sentence on what differs first."""
    x = torch.empty(1, plan.channels, 2 * plan.multiple, 2 * plan.multiple, device="meta")
    fits(plan, contents, path, x, torch.empty(1, device="meta"))


def fits(plan: Fit, contents: Contents, path: Path, *inputs: Tensor) -> None:
    """`same_tensors` for networks that are no denoisers; `inputs` are for the pass."""
    wanted = {n: tuple(t.shape) for n, t in plan.net.state_dict().items()}
    got = {n: tuple(t.shape) for n, t in plan.rename(contents.tensors).items()}
    faults = [f"{n} is missing" for n in wanted if n not in got] + [f"{n} is not known" for n in got if n not in wanted]
    faults += [f"{n} is {got[n]} and not {s}" for n, s in wanted.items() if n in got and got[n] != s]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ReadError(
            f"Expected exactly the tensors of {type(plan.net).__name__} in {path}, got: {'; '.join(faults[:3])}{more}; "
            "use an undamaged file of this architecture."
        )
    # Layers may still not follow on each other, as in relatives of these architectures.
    try:
        with torch.no_grad():
            plan.net(*inputs)
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ReadError(
            f"Expected the layers of {type(plan.net).__name__} in {path} to follow on each other, got: {reason}; "
            "docs/priors.md lists the variants that load."
        ) from error
