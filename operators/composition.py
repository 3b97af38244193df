"""Measurements made of others: one operator after the other, or several of the same image."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from operators.base import LinearOperator, Operator, OperatorSpec, Pullback, Shape, Stacked, check_image_shape
from operators.blur import BlurSpec
from operators.downsample import DownsampleSpec
from operators.errors import ShapeError
from operators.gain import HazeSpec
from operators.inpainting import InpaintingSpec
from operators.spec import Need, Ui

if TYPE_CHECKING:
    from operators import AnyOperator


class Chain(Operator):
    """Operators one after the other, not all of them linear; for linear ones see `Composed`.

    Offers gradients if every step does.

    Args:
        steps: operators, applied first to last.

    Raises:
        ShapeError: what one step gives is not what the next one takes.
    """

    def __init__(self, *steps: Operator) -> None:
        for before, after in pairwise(steps):
            if (before.out_shape, before.out_complex) != (after.in_shape, after.in_complex):
                raise ShapeError(
                    f"{type(after).__name__} expected {after.in_shape} {_sort(after.in_complex)} to follow on, got "
                    f"{before.out_shape} {_sort(before.out_complex)} from {type(before).__name__}; build both alike."
                )
        first, last = steps[0], steps[-1]
        super().__init__(first.in_shape, last.out_shape, in_complex=first.in_complex, out_complex=last.out_complex)
        self.steps = nn.ModuleList(steps)
        # known only here, unlike those of other operators
        self.offers = _chain_offers([step.offers for step in steps])  # type: ignore[misc]
        self.exact_gradient = all(step.exact_gradient for step in steps)  # type: ignore[misc]

    def data_from_image(self, picture: Tensor) -> Tensor:
        """Data from a picture of them, as the last operator reads it."""
        return self._steps[-1].data_from_image(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """A picture of the data, as the last operator shows it."""
        return self._steps[-1].data_as_image(y)

    def gather(self, y: Tensor) -> Tensor:
        """What the last operator measured; see `Operator.gather`."""
        return self._steps[-1].gather(y)

    def scatter(self, values: Tensor) -> Tensor:
        """The last operator's data; see `Operator.scatter`."""
        return self._steps[-1].scatter(values)

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """A x and the steps' own pullbacks, last to first; see `Operator.vjp`."""
        pullbacks: list[Pullback] = []
        for step in self._steps:
            x, pullback = step.vjp(x)
            pullbacks.append(pullback)

        def back(v: Tensor) -> Tensor:
            for pullback in reversed(pullbacks):
                v = pullback(v)
            return v

        return x, back

    @property
    def _steps(self) -> list[Operator]:
        return [step for step in self.steps if isinstance(step, Operator)]

    def _forward(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = step._forward(x)
        return x

    def _guess(self, y: Tensor) -> Tensor:
        for step in reversed(self._steps):
            y = step._guess(y)
        return y


def _chain_offers(offers: list[frozenset[Need]]) -> frozenset[Need]:
    return Operator.offers if all(Need.GRADIENT in offer for offer in offers) else frozenset()


def _sort(is_complex: bool) -> str:
    return "complex" if is_complex else "real"


class ComposedSpec(OperatorSpec):
    """One measurement after another, as light meets them: blurred first, then reduced, then with pixels missing."""

    title: ClassVar[str] = "One after another"
    kind: Literal["composed"] = "composed"
    steps: Annotated[
        "tuple[AnyOperator, ...]",
        Field(min_length=1, max_length=8, description="Measurements, applied first to last."),
    ] = (BlurSpec(boundary="circular"), DownsampleSpec(factor=2))

    @model_validator(mode="after")
    def _check_haze(self) -> "ComposedSpec":
        # what shines is no part of the data, and only the last step knows how to take it from a picture of them
        if any(_shines(step) for step in self.steps[:-1]):
            raise ValueError(
                "Expected haze as the last step, got a step after it, which would take its airlight for data; "
                "put the haze last or set its airlight to 0."
            )
        return self

    @property
    def offers(self) -> frozenset[Need]:
        """What a single step offers; else what every linear operator does, or gradients if each step has them."""
        offers = [step.offers for step in self.steps]
        if len(offers) == 1:
            return offers[0]
        return LinearOperator.offers if all(Need.LINEAR in offer for offer in offers) else _chain_offers(offers)

    @property
    def in_complex(self) -> bool:
        """Whether the first step takes complex images."""
        return self.steps[0].in_complex

    def build(self, in_shape: Shape, base: Path = Path()) -> Operator:
        """The operator, each step built for the data of the one before it; see `OperatorSpec.build`."""
        operators: list[Operator] = []
        shape = check_image_shape(in_shape)
        for number, step in enumerate(self.steps):
            if len(shape) != len(in_shape):
                raise ShapeError(
                    f"Expected every step but the last to give an image, got data {shape} from "
                    f"'{self.steps[number - 1].kind}' in step {number}; put that step last."
                )
            operators.append(step.build(shape, base))
            shape = operators[-1].out_shape
        linear = [operator for operator in operators if isinstance(operator, LinearOperator)]
        if len(linear) < len(operators):
            return operators[0] if len(operators) == 1 else Chain(*operators)
        whole = linear[0]
        for operator in linear[1:]:
            whole = operator @ whole
        return whole

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Shape of the image behind a picture of the last step's data."""
        for step in reversed(self.steps):
            picture_shape = step.image_shape(picture_shape)
        return picture_shape

    def usable_shape(self, image_shape: Shape) -> Shape:
        """The largest crop of `image_shape` that every step takes, as far as a step's data are pictures.

        Raises:
            ShapeError: nothing would be left, or a step takes only part of the data of the one before.
        """
        return _usable(self.steps, image_shape)


def _shines(spec: OperatorSpec) -> bool:
    """Whether pictures of the data have haze's own light in them."""
    if isinstance(spec, ComposedSpec):
        return _shines(spec.steps[-1])
    return isinstance(spec, HazeSpec) and spec.airlight > 0


def _usable(steps: tuple[OperatorSpec, ...], image_shape: Shape) -> Shape:
    first, *rest = steps
    shape = first.usable_shape(image_shape)
    if not rest:
        return shape
    data = first.build(shape).out_shape
    wanted = _usable(tuple(rest), data)
    if wanted == data:
        return shape
    shape = first.image_shape(wanted)
    if first.usable_shape(shape) != shape or first.build(shape).out_shape != wanted:
        raise ShapeError(
            f"Expected '{first.kind}' to give data of shape {wanted} for the next step, got {data}; crop the image."
        )
    return shape


class StackedSpec(OperatorSpec):
    """Several measurements of the same image, taken together; see `Stacked`."""

    title: ClassVar[str] = "Several at once"
    kind: Literal["stacked"] = "stacked"
    parts: Annotated[
        "tuple[AnyOperator, ...]",
        Field(min_length=1, max_length=8, description="Linear measurements of the same image."),
    ] = (DownsampleSpec(factor=2), InpaintingSpec())
    weights: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1e6)], ...] | None,
        Field(
            description="One number per part, by which its data are multiplied: 1 over the size of its noise, relative "
            "to that of the recipe. Empty if all have the same noise."
        ),
        Ui(advanced=True),
    ] = None

    @model_validator(mode="after")
    def _check_parts(self) -> "StackedSpec":
        for part in self.parts:
            if Need.LINEAR not in part.offers:
                raise ValueError(f"Expected linear measurements to stack, got '{part.kind}'; leave it out.")
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(
                f"Expected one weight for each of {len(self.parts)} parts, got {len(self.weights)}; match them."
            )
        return self

    @property
    def offers(self) -> frozenset[Need]:
        """What every linear operator offers."""
        return Stacked.offers

    @property
    def in_complex(self) -> bool:
        """Whether a part takes complex images; if one does, all must."""
        return any(part.in_complex for part in self.parts)

    def build(self, in_shape: Shape, base: Path = Path()) -> Stacked:
        """The operator; see `OperatorSpec.build`."""
        parts = [part.build(in_shape, base) for part in self.parts]
        return Stacked([part for part in parts if isinstance(part, LinearOperator)], self.weights)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """Refused: the parts' pictures side by side do not tell the image's shape.

        Raises:
            ShapeError: always.
        """
        raise ShapeError(
            "Expected data simulated from an image, got a picture of stacked data, which does not tell the image's "
            "shape; build the operator in Python and use Stacked.join."
        )

    def usable_shape(self, image_shape: Shape) -> Shape:
        """The largest crop of `image_shape` that every part takes.

        Raises:
            ShapeError: nothing would be left.
        """
        shape, before = check_image_shape(image_shape), None
        while shape != before:
            before = shape
            for part in self.parts:
                shape = part.usable_shape(shape)
        return shape
