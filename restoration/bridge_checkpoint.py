"""What published checkpoints of bridges have in common: read whole or refused, padded, tiled, and asked for x0."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from operators.errors import ReadError
from operators.spec import DataRef, Need
from restoration.architectures import Plan
from restoration.assets import AssetStore
from restoration.bridge import Bridge
from restoration.checkpoint_files import Contents, open_checkpoint
from restoration.checkpoints import fill, same_tensors
from restoration.convert import Raw
from restoration.layouts import State
from restoration.precision import Precision, resolve_precision
from restoration.prior import Denoiser

Shapes = Mapping[str, tuple[int, ...]]


class BridgeCheckpoint(DataRef):
    """A file of a published bridge.

    Attributes:
        family: whose it is, in words.
        file: which of their files it is, in words.
        inside: prefix of the network's names.
        mark: how a name begins that only such files have.
        side: of the pictures beyond which it is tiled; None for this package's own tiles.
    """

    family: ClassVar[str]
    file: ClassVar[str]
    inside: ClassVar[str] = ""
    mark: ClassVar[str]
    offers: ClassVar[frozenset[Need]] = Bridge.offers

    @property
    def side(self) -> int | None:
        return None

    @abstractmethod
    def _net(self, shapes: Shapes, facts: Mapping[str, Any]) -> tuple[nn.Module, int, int]:
        """The network without storage, and its channels in and out; KeyError or ValueError where there is none."""

    @abstractmethod
    def _bridge(self, answer: Denoiser, sees_start: bool, facts: Mapping[str, Any]) -> Bridge:
        """The bridge whose network answers at a clock."""

    def plan(self, base: Path = Path()) -> Plan:
        """What the file holds, from names and shapes alone.

        Raises:
            AssetMissing: there is nothing at the path.
            ReadError: the file cannot be read, or is none of these.
            RecipeError: a field does not suit the file.
        """
        path = self.resolve(base)
        return self._fitted(open_checkpoint(path, self.path), path)

    def _fitted(self, contents: Contents, path: Path) -> Plan:
        if not any(name.startswith(self.mark) for name in contents.tensors):
            first = next(iter(contents.tensors), "none at all")
            raise ReadError(
                f"Expected a checkpoint of {self.family} at {path}, got tensors such as "
                f"'{first}'; use {self.file}, or kind checkpoint for a prior."
            )
        shapes = {name: tuple(t.shape) for name, t in self._named(contents.tensors).items()}
        try:
            with torch.device("meta"):
                net, taken, out = self._net(shapes, contents.facts)
        except (KeyError, ValueError, IndexError) as error:
            raise ReadError(
                f"Expected all tensors of a network of {self.family} in {path}, got {error}; use an undamaged file."
            ) from error
        shape, multiple = (out, None, None), int(net.multiple)  # type: ignore[arg-type]  # all networks here have it
        plan = Plan(net, self._named, lambda n, p: Raw(n, shape, p), taken, multiple, (0.0, 0.0), self.side)
        same_tensors(plan, contents, path)
        return plan

    def _named(self, state: State) -> State:
        return {name.removeprefix(self.inside): tensor for name, tensor in state.items()}

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Bridge:
        """Read the weights; any image size."""
        path = self.resolve(Path())
        contents = open_checkpoint(path, self.path)
        plan = self._fitted(contents, path)
        fill(plan, contents, path)
        raw = plan.wrap(plan.net, resolve_precision(precision, device))
        return self._bridge(plan.any_size(raw), plan.channels != raw.shape[0], contents.facts).to(device)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """None: a bridge has times, not noise levels; the file's header is checked."""
        self.plan(base)
        return None

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Name and sha256 of what is loaded."""
        return {Path(self.path).name: self.sha256 or self.digest()}


def seen_and_answered(shapes: Shapes) -> tuple[int, int]:
    """Channels in and out of a network of RDDM's kind; ValueError unless it sees the degraded picture too."""
    taken, out = shapes["init_conv.weight"][1], shapes["final_conv.weight"][0]
    if taken != 2 * out:
        raise ValueError(f"{taken} channels in and {out} out, where state and degraded picture have twice as many")
    return taken, out
