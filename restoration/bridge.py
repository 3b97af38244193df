"""Direct bridges: one engine for every path from a degraded image to the clean one.

A network that was trained on pairs answers for the clean image at each time of a path (`restoration.bridge_paths`);
one step function walks any of the paths. States are on [-1, 1]; what enters and leaves a method is in unit range.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from operators import AnyNoise, AnyOperator
from operators.base import Operator, OperatorSpec
from operators.errors import NeedError, RecipeError
from operators.likelihood import Likelihood
from operators.noise import Gaussian, Noise
from operators.rng import Rng
from operators.spec import Need, Spec
from restoration.bridge_paths import AnyPath, Array, Path, Table
from restoration.prior import Cost, Prior
from restoration.steps import white

# The clock of one of several tasks runs from 2 k to 2 k + 1: the gap keeps them apart for a smooth embedding.
CLOCK_GAP = 2.0

Predicts = Literal["x0", "epsilon", "residual", "displacement", "resnoise", "residual-noise"]


def step(table: Table, t: int, to: int, x: Tensor, x0: Tensor, y: Tensor, eta: float, rng: Rng) -> Tensor:
    """The state at `to`, given that at t and estimates of the clean and the degraded image.

    x_to = a' x0 + b' y + r (x - a x0 - b y) + c n; see `Table.carry`. No random number is drawn where c is 0.

    Shapes: x, x0 and y (B, *shape) → the same.   Units: those of the path, [-1, 1].
    """
    kept, fresh = table.carry(t, to, eta)
    moved = float(table.a[to]) * x0 + float(table.b[to]) * y
    if kept:
        moved = moved + kept * (x - float(table.a[t]) * x0 - float(table.b[t]) * y)
    if fresh:
        moved = moved + fresh * _shaped(white(x, rng), x0, y, table)
    return moved


def start(table: Table, y: Tensor, rng: Rng) -> Tensor:
    """The state at T, with y in place of the clean image that has next to no weight there.   Shapes: (B, *shape)."""
    signal = float(table.a[-1] + table.b[-1]) * y
    spread = table.noise * float(table.s[-1])
    # noise in proportion to the residual is not known before the residual is; those paths end without any
    return signal + spread * white(y, rng) if spread and not table.modulated else signal


def _shaped(noise: Tensor, x0: Tensor, y: Tensor, table: Table) -> Tensor:
    return noise * (x0 - y) if table.modulated else noise


def pair(table: Table, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t of known images, as networks are trained on.   Shapes: x0, y and noise (B, *shape), t (B,) → (B, *shape)."""
    a, b, s = (_at(values, t, x0) for values in (table.a, table.b, table.noise * table.s))
    return a * x0 + b * y + s * _shaped(noise, x0, y, table)


def weights(table: Table, predicts: Predicts) -> tuple[Array, Array, Array]:
    """p, q and m of x0 = p x_t + q y + m F(x_t, t, y) for what a network predicts, (T + 1,) each; t = 0 is unused.

    x0: F is x0. residual: y - x0. epsilon: the n of the path. displacement: (x_t - x0) / sigma_t (I2SB). resnoise:
    n + w (y - x0) (Resfusion). "residual-noise" is two answers and has no such weights, see `Bridge`.

    Raises:
        RecipeError: the path has no such quantity, or it does not tell x0 everywhere on it.
    """
    a, b, s = table.a[1:], table.b[1:], table.s[1:]
    one, zero = np.ones_like(a), np.zeros_like(a)
    noisy = table.noise == 1 and not table.modulated and bool((s > 0).all())
    match predicts:
        case "x0":
            found = zero, zero, one
        case "residual":
            found = zero, one, -one
        case "displacement" if table.displacement is not None:
            found = one, zero, -table.displacement[1:]
        case "epsilon" if noisy and bool((np.abs(a) > 1e-3).all()):
            found = 1 / a, -b / a, -s / a
        case "resnoise" if table.resnoise is not None:
            known = s * table.resnoise[1:]
            found = 1 / (a + known), (known - b) / (a + known), -s / (a + known)
        case _:  # "residual-noise" too, which has no such weights
            raise RecipeError(
                f"Expected a path on which '{predicts}' tells the clean image at every time, got another; "
                "let the network predict x0 or the residual."
            )
    p, q, m = (np.concatenate([[0.0], values]) for values in found)
    return p, q, m


def target(table: Table, predicts: Predicts, x: Tensor, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """What the network should answer at x = `pair(table, x0, y, t, noise)`.

    Shapes: (B, C, ...) and t (B,) → the same; twice as many channels for "residual-noise".
    """
    if predicts == "residual-noise":
        return torch.cat([y - x0, noise], 1)
    p, q, m = (_at(values, t, x0) for values in weights(table, predicts))
    return (x0 - p * x - q * y) / m


def _at(values: Array, t: Tensor, like: Tensor) -> Tensor:
    chosen = torch.as_tensor(values[t.cpu().numpy()], dtype=like.dtype, device=like.device)
    return chosen.view(-1, *[1] * (like.ndim - 1))


class Bridge(nn.Module):
    """A network that answers for the clean image along a path.

    Args:
        net: a map (input, clock) → answer, input (B, C, H, W) and what else it sees, clock (B,).
        path: from degraded to clean.
        predicts: what the answer is, see `weights`. With "residual-noise" it has 2 C channels, the residual R and the
            noise n; x0 is then (x_t - b R - s n)/(a + b), and the degraded image of the step x0 + R (RDDM).
        shape: of images without batch, None where any size will do.
        sees_start: whether y is in the input, as further channels behind x_t.
        sees_holes: whether the last channel of the input is `measured`, which only `begun` can know.
        clock: (T + 1,), what the network is told for each t; t / T unless given.
        tasks: what it was trained for. One of several is told by the clock: that of task k runs from 2 k to 2 k + 1.
    """

    offers: ClassVar[frozenset[Need]] = frozenset({Need.BRIDGE, Need.VJP})
    latent: ClassVar[bool] = False
    """Whether states are latents and not images; `begun` and `shown` go from the one to the other."""

    if TYPE_CHECKING:  # nn.Module types its call as Any

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...

    def __init__(
        self,
        net: Callable[[Tensor, Tensor], Tensor],
        path: Path,
        predicts: Predicts,
        shape: tuple[int | None, ...],
        *,
        sees_start: bool = True,
        sees_holes: bool = False,
        clock: Array | None = None,
        tasks: "tuple[Task, ...]" = (),
    ) -> None:
        super().__init__()
        self.tasks, self.sees_holes = tasks, sees_holes
        self.holes: Tensor | None = None
        self.net, self.path, self.predicts, self.shape, self.sees_start = net, path, predicts, shape, sees_start
        self.table = table = path.table
        self.clock = np.arange(table.last + 1) / table.last if clock is None else clock
        self._weights = None if predicts == "residual-noise" else weights(table, predicts)

    def told(self, operator: OperatorSpec, noise: Noise, *, held_to_data: bool) -> "Bridge":
        """This bridge with the clock of the one of its tasks that a measurement belongs to.

        Raises:
            NeedError: it was trained for several, and for none like this.
        """
        if len(self.tasks) < 2:
            return self
        place = suited(self.tasks, operator, noise, held_to_data=held_to_data)
        if isinstance(place, str):
            raise NeedError(f"The bridge expected {place}; choose the bridge of that measurement, or DiffPIR.")
        told = copy.copy(self)
        told.clock, told.tasks = self.clock + CLOCK_GAP * place, (self.tasks[place],)
        return told

    def begun(self, likelihood: Likelihood, rng: Rng) -> "tuple[Bridge, Tensor]":
        """This bridge, told all that it sees of a measurement, and the degraded image as a state, (B, *state)."""
        if len(self.tasks) > 1:
            raise NeedError("Expected a bridge that was told which of its tasks this is, got none; call `told` first.")
        told = self
        if self.sees_holes:
            told = copy.copy(self)
            told.holes = measured(likelihood.operator, likelihood.y)
        return told, begun(likelihood, rng)

    def shown(self, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor | Callable[[], Tensor]]:
        """A state and an estimate of the clean one as a `Step` has them."""
        return unit(x), unit(x0)

    def walk(self, steps: int | None, eta: float | None) -> tuple[Table, float, list[tuple[int, int]]]:
        """The table, the share of fresh noise and the pairs (t, next t); None is what the path's authors have."""
        times = self.table.times(self.path.calls if steps is None else steps)
        return self.table, self.path.eta if eta is None else eta, times

    def answer(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The network's own answer F(x_t, t, y)."""
        seen = x if self.table.scale is None else x * _at(self.table.scale, t, x)
        clock = torch.as_tensor(self.clock[t.cpu().numpy()], dtype=x.dtype, device=x.device)
        both = [seen, y] if self.sees_start else [seen]
        if self.holes is not None:
            both.append(self.holes.expand(len(x), -1, -1, -1).to(x))
        return self.net(torch.cat(both, 1), clock)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The clean image, and the degraded one to step with.

        Shapes: x and y (B, *shape), t (B,) whole numbers 1 ... T → (B, *shape) twice.   Units: [-1, 1].
        """
        raw = self.answer(x, t, y)
        if self._weights is None:
            residual, noise = raw.chunk(2, 1)
            rest = x - _at(self.table.b, t, x) * residual - _at(self.table.s, t, x) * noise
            x0 = rest / _at(self.table.a + self.table.b, t, x)
            return x0, x0 + residual
        p, q, m = (_at(values, t, x) for values in self._weights)
        return p * x + q * y + m * raw, y


@dataclass(frozen=True)
class BilledBridge:
    """What a bridge method is given: the network, and the bill of its calls, which no method reads."""

    bridge: Bridge
    cost: Cost = field(default_factory=Cost, compare=False)

    def begun(self, likelihood: Likelihood, rng: Rng) -> "tuple[BilledBridge, Tensor]":
        """`Bridge.begun`; no graph is kept."""
        with self.cost.timed(likelihood.y), torch.no_grad():
            bridge, y = self.bridge.begun(likelihood, rng)
        return BilledBridge(bridge, self.cost), y

    def shown(self, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor | Callable[[], Tensor]]:
        """`Bridge.shown`; what is made later is billed when it is made."""
        state, image = self.bridge.shown(x, x0)
        if isinstance(image, Tensor):
            return state, image

        def made() -> Tensor:
            with self.cost.timed(x0), torch.no_grad():
                return image()

        return state, made

    def estimate(self, x: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """`Bridge` at one time for all samples; no graph is kept."""
        with self.cost.timed(x), torch.no_grad():
            self.cost.denoised += len(x)
            return self.bridge(x, _times(t, x), y)

    def estimate_vjp(self, x: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """The same, and v ↦ Jᵀ v with J = dx0/dx, to be used once."""
        with self.cost.timed(x), torch.enable_grad():
            self.cost.denoised += len(x)
            leaf = x.detach().requires_grad_()
            x0, ahead = self.bridge(leaf, _times(t, x), y)

        def pullback(v: Tensor) -> Tensor:
            with self.cost.timed(x):
                self.cost.pulled_back += len(x)
                return torch.autograd.grad(x0, leaf, v)[0]

        return x0.detach(), ahead.detach(), pullback


def _times(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def begun(likelihood: Likelihood, rng: Rng) -> Tensor:
    """The degraded image that bridges start from and were trained with: the likelihood's guess, on [-1, 1].

    Shapes: → (B, *in_shape).
    """
    return (2 * likelihood.guess() - 1).expand(rng.batch, *likelihood.operator.in_shape)


def measured(operator: Operator, like: Tensor) -> Tensor:
    """1 where the data hold a number for a pixel, 0 in holes; 1 everywhere for data of another shape than the image.

    Shapes: → (1, 1, H, W), the share of the channels.
    """
    if operator.out_shape != operator.in_shape:
        return torch.ones(1, 1, *operator.in_shape[-2:], device=like.device)
    ones = torch.ones(1, *operator.out_shape, dtype=like.dtype, device=like.device)
    return operator.scatter(operator.gather(ones)).real.mean(1, keepdim=True)


def unit(x: Tensor) -> Tensor:
    """[-1, 1] to unit range."""
    return (x + 1) / 2


def required_bridge(prior: Prior | BilledBridge | None, method: Spec) -> BilledBridge:
    """The bridge, or one sentence on what is missing."""
    if not isinstance(prior, BilledBridge):
        raise NeedError(f"Expected a bridge model for {type(method).__name__}, got none; choose one, or DiffPIR.")
    return prior


class Task(Spec):
    """The measurement that a bridge was trained for, with the numbers in it that training varied.

    `ranges` names them by their place, such as "operator.kernel.std" or "noise.sigma", with the smallest and the
    largest; whole numbers stay whole. `anything` names parts that need not agree, because training drew many or because
    the network sees them, such as "operator.mask". A `blind` task is told its operator as it stands here.

    Raises:
        pydantic.ValidationError: a name that is no number of operator or noise, or an end that these refuse.
    """

    operator: Annotated[AnyOperator, Field(description="What is undone.")]
    noise: Annotated[AnyNoise, Field(description="Noise of the data.")] = Gaussian(sigma=0.01)
    ranges: Annotated[dict[str, tuple[float, float]], Field(description="Numbers that vary, smallest and largest.")] = (
        Field(default_factory=dict)
    )
    anything: Annotated[tuple[str, ...], Field(description="Parts that may be anything.")] = ()
    made_by: Annotated[
        Literal["operator", "real-world"],
        Field(description="What made the data of training: the operator and its noise, or damage that none describes."),
    ] = "operator"
    blind: Annotated[
        bool, Field(description="Start from the guess of the operator as it stands, whatever numbers were drawn.")
    ] = False

    @model_validator(mode="after")
    def _ends(self) -> "Task":
        numbers = _flat({"operator": self.operator.model_dump(), "noise": self.noise.model_dump()})
        for name, ends in self.ranges.items():
            if not _is_number(numbers.get(name)) or ends[0] > ends[1]:
                raise ValueError(f"Expected the name of a number and its range, lowest first, got '{name}' {ends}.")
            for end in ends:
                self._at({name: end})
        for part in self.anything:
            if f"{part}.kind" == "operator.kind" or part.endswith(".kind"):
                raise ValueError(f"Expected a part of the operator or the noise, got '{part}', which is what they are.")
            if not any(f"{name}.".startswith(f"{part}.") for name in numbers):
                raise ValueError(f"Expected the name of a part of operator or noise, got '{part}'.")
        return self

    def draw(self, rng: np.random.Generator) -> tuple[OperatorSpec, Noise]:
        """Operator and noise with each number of `ranges` drawn uniformly."""
        return self._at({name: float(rng.uniform(*ends)) for name, ends in self.ranges.items()})

    def _at(self, values: dict[str, float]) -> tuple[OperatorSpec, Noise]:
        dumped: dict[str, Any] = {"operator": self.operator.model_dump(), "noise": self.noise.model_dump()}
        for name, value in values.items():
            *path, last = name.split(".")
            place: Any = dumped
            for part in path:
                place = place[int(part)] if isinstance(place, (list, tuple)) else place[part]
            place[last] = round(value) if isinstance(place[last], int) else value
        return type(self.operator).model_validate(dumped["operator"]), type(self.noise).model_validate(dumped["noise"])

    def _hidden(self, name: str) -> bool:
        return self.blind and name.startswith("operator.")

    def misfit(self, operator: OperatorSpec, noise: Noise, *, held_to_data: bool) -> str | None:
        """What of a measurement the bridge was not trained for, in words; None where it was.

        A method that is held to the data by the operator may be given other noise, and another width or angle (any
        number that is not whole) in the same kind of operator.
        """
        wanted = _flat(
            {"operator": self.operator.model_dump()} | ({} if held_to_data else {"noise": self.noise.model_dump()})
        )
        got = _flat({"operator": operator.model_dump()} | ({} if held_to_data else {"noise": noise.model_dump()}))
        kinds = [name for name in wanted if name.rpartition(".")[2] == "kind"]  # these say most: they go first
        for name in [*kinds, *wanted, *got]:
            want, have = wanted.get(name), got.get(name)
            if want == have or any(f"{name}.".startswith(f"{part}.") for part in self.anything):
                continue
            # a blind bridge was told the operator as it stands here, whatever was drawn
            if name in self.ranges and isinstance(have, (int, float)) and not self._hidden(name):
                low, high = self.ranges[name]
                if low <= have <= high or (held_to_data and isinstance(have, float)):
                    continue
                return f"{name} from {low:g} to {high:g}, got {have:g}"
            if held_to_data and isinstance(want, float) and isinstance(have, float) and not self._hidden(name):
                continue
            return f"{name} {want!r}, got {have!r}"
        return None


def suited(tasks: "Sequence[Task]", operator: OperatorSpec, noise: Noise, *, held_to_data: bool) -> int | str:
    """The place of the task that a measurement belongs to, or what of it no task was trained for, in words.

    A task that the measurement fits as it is goes before one that only a method held to the data may be given.
    """
    for held in (False, True) if held_to_data else (False,):
        for place, task in enumerate(tasks):
            if task.misfit(operator, noise, held_to_data=held) is None:
                return place
    alike = [task for task in tasks if task.operator.kind == operator.kind]
    if not alike and len(tasks) > 1:
        known = ", ".join(repr(kind) for kind in dict.fromkeys(task.operator.kind for task in tasks))
        return f"operator.kind out of {known}, got {operator.kind!r}"
    wrong = (task.misfit(operator, noise, held_to_data=held_to_data) for task in alike or tasks)
    return next(words for words in wrong if words)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Scalars by their dotted places."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)  # type: ignore[assignment]
    else:
        return {place: value}
    found: dict[str, Any] = {}
    for name, part in parts:
        found |= _flat(part, f"{place}.{name}" if place else str(name))
    return found


class BridgeSpec(Spec):
    """What a bridge is beside its network: its path, what it predicts, and what it was trained for."""

    path: Annotated[AnyPath, Field(description="From degraded to clean.")]
    predicts: Annotated[Predicts, Field(description="What the network answers.")] = "x0"
    sees_start: Annotated[bool, Field(description="Whether the network also sees the degraded image.")] = True
    sees_holes: Annotated[bool, Field(description="Whether it also sees which pixels were measured.")] = False
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, description="What it was trained for, one or several.")]

    def seen_channels(self, image_channels: int) -> int:
        """How many channels the network's input has beside the state."""
        return image_channels * self.sees_start + self.sees_holes

    @model_validator(mode="after")
    def _told(self) -> "BridgeSpec":
        if self.predicts != "residual-noise":
            try:
                weights(self.path.table, self.predicts)
            except RecipeError as error:
                raise ValueError(str(error)) from error
        elif self.path.table.modulated or not self.path.table.noise:
            raise ValueError("Expected a path with plain noise for 'residual-noise', got another; predict x0.")
        return self
