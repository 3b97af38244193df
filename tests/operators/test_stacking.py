"""Operators after one another and side by side, in Python and in JSON."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from operators import (
    AnyOperator,
    BlurSpec,
    Chain,
    Composed,
    ComposedSpec,
    DownsampleSpec,
    Gaussian,
    HazeSpec,
    Identity,
    IdentitySpec,
    Inpainting,
    InpaintingSpec,
    Likelihood,
    LinearOperator,
    Need,
    Operator,
    OperatorSpec,
    PhaseRetrieval,
    PhaseRetrievalSpec,
    Rng,
    SinglePixelSpec,
    Stacked,
    StackedSpec,
    make_blur,
)
from operators.errors import ShapeError
from operators.kernels import GaussianKernel, KernelFile, gaussian_kernel
from operators.masks import MaskFile, RandomMask
from operators.spec import DataRef, pin
from operators.testing import check_operator

SMOOTH = BlurSpec(kernel=GaussianKernel(size=5, std=1.0), boundary="circular")

COMPOSED: list[ComposedSpec] = [
    ComposedSpec(steps=(DownsampleSpec(factor=2),)),
    ComposedSpec(steps=(SMOOTH, InpaintingSpec())),
    ComposedSpec(steps=(SMOOTH, DownsampleSpec(factor=2), DownsampleSpec(factor=3), InpaintingSpec())),
    ComposedSpec(steps=(ComposedSpec(), SMOOTH)),
    ComposedSpec(steps=(SMOOTH, PhaseRetrievalSpec())),
    ComposedSpec(steps=(PhaseRetrievalSpec(oversample=4),)),
]
STACKED: list[StackedSpec] = [
    StackedSpec(parts=(SMOOTH,)),
    StackedSpec(parts=(DownsampleSpec(factor=2), DownsampleSpec(factor=3)), weights=(2.0, 0.25)),
    StackedSpec(parts=(InpaintingSpec(), ComposedSpec(), StackedSpec(parts=(IdentitySpec(), SMOOTH)))),
]


class Square(Operator):
    """Brightness squared, without a gradient unless told otherwise."""

    def __init__(self, in_shape: tuple[int, ...]) -> None:
        super().__init__(in_shape, in_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return x.square()

    def _guess(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


class Blunt(Square):
    offers = frozenset()


class StandIn(Square):
    """Rounding, with the slope of its smooth stand-in."""

    exact_gradient = False

    def _forward(self, x: Tensor) -> Tensor:
        return x.round()

    def vjp(self, x: Tensor):  # type: ignore[no-untyped-def]
        return self(x), lambda v: 2 * v


@pytest.mark.parametrize("shape", [(1, 12, 18), (3, 13, 16)], ids=str)
@pytest.mark.parametrize("spec", [*COMPOSED, *STACKED], ids=lambda spec: spec.model_dump_json()[:80])
def test_variants_pass_the_battery(spec: OperatorSpec, shape: tuple[int, ...]) -> None:
    operator = spec.build(spec.usable_shape(shape))
    assert operator.offers == spec.offers
    check_operator(operator)
    assert TypeAdapter(AnyOperator).validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(type(spec).model_validate_json(spec.model_dump_json()))


def test_steps_go_first_to_last() -> None:
    spec = ComposedSpec(steps=(SMOOTH, DownsampleSpec(factor=2), InpaintingSpec(mask=RandomMask(seed=4))))
    operator = spec.build((2, 8, 12))
    x = Rng([0]).rand((2, 8, 12))
    small = DownsampleSpec(factor=2).build((2, 8, 12))(SMOOTH.build((2, 8, 12))(x))
    assert torch.allclose(operator(x), InpaintingSpec(mask=RandomMask(seed=4)).build((2, 4, 6))(small), atol=1e-6)
    assert isinstance(operator, Composed)
    # a picture of the data is one of the last step's, and leads back to the image's shape
    picture = operator.data_as_image(operator(x))
    assert picture.shape == (1, 2, 4, 6)
    assert spec.image_shape((2, 4, 6)) == (2, 8, 12)
    assert torch.equal(operator.data_from_image(picture), operator(x))


@given(height=st.integers(6, 60), width=st.integers(6, 60), first=st.integers(2, 3), second=st.integers(2, 3))
def test_usable_shapes_of_compositions(height: int, width: int, first: int, second: int) -> None:
    steps = (DownsampleSpec(factor=first), SMOOTH, DownsampleSpec(factor=second))
    whole = first * second
    spec = ComposedSpec(steps=steps)
    if min(height, width) < whole:
        with pytest.raises(ShapeError):
            spec.usable_shape((3, height, width))
        return
    shape = spec.usable_shape((3, height, width))
    assert shape == (3, height - height % whole, width - width % whole)
    assert spec.build(shape).out_shape == (3, shape[1] // whole, shape[2] // whole)


@given(height=st.integers(6, 60), width=st.integers(6, 60))
def test_usable_shapes_of_stacks(height: int, width: int) -> None:
    spec = StackedSpec(parts=(DownsampleSpec(factor=2), SMOOTH, DownsampleSpec(factor=3)))
    assert spec.usable_shape((3, height, width)) == (3, height - height % 6, width - width % 6)


def test_offers_are_those_of_the_parts() -> None:
    assert Need.SPECTRUM in ComposedSpec(steps=(SMOOTH,)).offers
    assert Need.SPECTRUM not in ComposedSpec(steps=(SMOOTH, SMOOTH)).offers
    assert Need.PROX in ComposedSpec(steps=(SMOOTH, SMOOTH)).offers
    assert ComposedSpec(steps=(SMOOTH, PhaseRetrievalSpec())).offers == frozenset({Need.GRADIENT})
    shape = (1, 5, 6)
    assert Chain(Identity(shape), Blunt(shape)).offers == frozenset()
    assert Need.PROX in StackedSpec().offers


def test_a_chain_of_steps_that_are_not_linear() -> None:
    shape = (2, 5, 6)
    blur = make_blur(gaussian_kernel(3, 1.0), shape)
    chain = Chain(blur, Square(shape), PhaseRetrieval(shape))
    check_operator(chain)
    check_operator(Chain(Square(shape), Blunt(shape)))
    x = Rng([0]).rand(shape)
    assert torch.allclose(chain(x), PhaseRetrieval(shape)(blur(x).square()))
    # a stand-in's slope is kept; differentiating through the chain would find zero
    stand_in = Chain(blur, StandIn(shape))
    assert not stand_in.exact_gradient
    data, pullback = stand_in.vjp(x)
    assert torch.equal(data, blur(x).round())
    assert torch.allclose(pullback(x), 2 * blur.adjoint(x))
    y = Square(shape)(x)
    assert torch.allclose(Chain(Identity(shape), Square(shape)).guess(y), x, atol=1e-6)


def test_stacked_data_and_weights() -> None:
    shape = (2, 6, 8)
    parts = [DownsampleSpec(factor=2).build(shape), make_blur(gaussian_kernel(3, 1.0), shape)]
    stack = Stacked(parts, [1.0, 0.5])
    check_operator(stack)
    x = Rng([0, 1], dtype=torch.float64).rand(shape)
    blocks = [part(x) for part in parts]
    assert torch.allclose(stack(x), stack.join(blocks))
    for found, block in zip(stack.split(stack.join(blocks)), blocks, strict=True):
        assert torch.allclose(found, block)
    y = [Rng([5, 6], dtype=torch.float64).child(str(k)).rand(p.out_shape) for k, p in enumerate(parts)]
    expected = parts[0].adjoint(y[0]) + 0.25 * parts[1].adjoint(y[1])
    assert torch.allclose(stack.adjoint(stack.join(y)), expected)


def test_weights_whiten() -> None:
    # two looks at one image with noise of 0.1 and 0.4: the best mean has weights 16 to 1
    shape, sigmas = (1, 40, 40), (0.1, 0.4)
    stack = Stacked([Identity(shape), Identity(shape)], [1.0, sigmas[0] / sigmas[1]])
    x = torch.full((1, *shape), 0.5)
    looks = [x + sigma * Rng([k]).randn(shape) for k, sigma in enumerate(sigmas)]
    y = stack.join(looks)
    likelihood = Likelihood(stack, Gaussian(sigma=sigmas[0]), y)
    assert float(likelihood.residual_sigma(x)) == pytest.approx(1, abs=0.05)
    assert torch.allclose(stack.pinv(y), (16 * looks[0] + looks[1]) / 17, atol=1e-5)


def test_pictures_of_a_stack() -> None:
    shape = (3, 8, 12)
    stack = StackedSpec(parts=(InpaintingSpec(), DownsampleSpec(factor=4))).build(shape)
    y = stack(Rng([0]).rand(shape))
    picture = stack.data_as_image(y)
    assert picture.shape == (1, 3, 8, 15)
    assert torch.equal(picture[..., :2, 12:], DownsampleSpec(factor=4).build(shape).data_as_image(stack.split(y)[1]))
    assert not bool(picture[..., 2:, 12:].any())
    assert torch.equal(stack.data_from_image(picture), y)
    with pytest.raises(ShapeError, match="Stacked picture"):
        stack.data_from_image(picture[..., 1:])
    # data that are no pictures stay as they are
    plain = Stacked([LastAxis((3, 8, 12))])
    y = plain(Rng([0]).rand(shape))
    assert torch.equal(plain.data_as_image(y), y)
    assert torch.equal(plain.data_from_image(y), y)


def test_pictures_of_a_weighted_stack_are_those_of_its_parts() -> None:
    shape = (3, 8, 12)
    spec = StackedSpec(parts=(InpaintingSpec(), DownsampleSpec(factor=4), HazeSpec()), weights=(3.0, 0.1, 7.0))
    stack = spec.build(shape)
    x = Rng([0], dtype=torch.float64).rand(shape)
    picture = stack.data_as_image(stack(x))
    for part, panel in zip(spec.parts, picture.split([12, 3, 12], -1), strict=True):
        own = part.build(shape)
        expected = own.data_as_image(own(x))
        assert torch.allclose(panel[..., : expected.shape[-2], :], expected, rtol=0, atol=1e-15)
    y = stack.join(
        [p.data_from_image(p.data_as_image(b)) for p, b in zip(stack._parts, stack.split(stack(x)), strict=True)]
    )
    assert torch.allclose(stack.data_from_image(picture), y, rtol=1e-15, atol=0)
    # without an offset to add and take away, the data themselves
    plain = Stacked(stack._parts[:2], [3.0, 0.1])
    y = plain(x)
    assert torch.allclose(plain.data_from_image(plain.data_as_image(y)), y, rtol=1e-15, atol=0)


def test_haze_comes_last() -> None:
    shape = (3, 8, 8)
    for early in (HazeSpec(), ComposedSpec(steps=(SMOOTH, HazeSpec()))):
        with pytest.raises(ValidationError, match="put the haze last"):
            ComposedSpec(steps=(early, DownsampleSpec(factor=2)))
    last = ComposedSpec(steps=(DownsampleSpec(factor=2), HazeSpec())).build(shape)
    x = Rng([0], dtype=torch.float64).rand(shape)
    small = DownsampleSpec(factor=2).build(shape)(x)
    haze = HazeSpec().build((3, 4, 4))
    assert torch.allclose(last.data_from_image(haze.data_as_image(haze(small))), last(x), atol=1e-12)
    check_operator(ComposedSpec(steps=(HazeSpec(airlight=0), DownsampleSpec(factor=2))).build(shape))


class LastAxis(LinearOperator):
    """Sums over rows and columns: a list of numbers."""

    def __init__(self, in_shape: tuple[int, ...]) -> None:
        super().__init__(in_shape, in_shape[:1])

    def _forward(self, x: Tensor) -> Tensor:
        return x.sum((-2, -1))


def test_complex_stacks() -> None:
    shape = (2, 4, 5)
    whole = Identity(shape, in_complex=True)
    holed = Inpainting(RandomMask(fraction=0.4).build(4, 5), shape, in_complex=True)
    check_operator(Stacked([whole, holed], [0.5, 2.0]))


def test_files_inside_are_pinned(tmp_path: Path) -> None:
    np.save(tmp_path / "kernel.npy", np.ones((3, 3)))
    np.save(tmp_path / "mask.npy", np.eye(8))
    kernel = BlurSpec(kernel=KernelFile(file=DataRef(path="kernel.npy")), boundary="circular")
    holes = InpaintingSpec(mask=MaskFile(file=DataRef(path="mask.npy")))
    spec = StackedSpec(parts=(ComposedSpec(steps=(kernel, holes)), holes, IdentitySpec()), weights=(1.0, 2.0, 3.0))
    pinned = pin(spec, tmp_path)
    assert pinned.model_dump_json().count(hashlib.sha256((tmp_path / "mask.npy").read_bytes()).hexdigest()) == 2
    assert pinned.model_dump_json().count(hashlib.sha256((tmp_path / "kernel.npy").read_bytes()).hexdigest()) == 1
    assert pinned.weights == spec.weights
    x = Rng([0]).rand((1, 8, 8))
    assert torch.equal(pinned.build((1, 8, 8))(x), spec.build((1, 8, 8), tmp_path)(x))


def test_bad_descriptions() -> None:
    adapter = TypeAdapter(AnyOperator)
    for values, words in [
        ({"kind": "stacked", "parts": [{"kind": "phase-retrieval"}]}, "linear measurements to stack"),
        ({"kind": "stacked", "parts": [{"kind": "identity"}], "weights": [1, 2]}, "one weight for each of 1 parts"),
        ({"kind": "stacked", "parts": [{"kind": "identity"}], "weights": [0]}, "greater than 0"),
        ({"kind": "stacked", "parts": []}, "at least 1"),
        ({"kind": "composed", "steps": []}, "at least 1"),
        ({"kind": "composed", "steps": [{"kind": "blurr"}]}, "'blur'"),
        ({"kind": "composed", "steps": [{"kind": "downsample", "factor": 1}]}, "greater than or equal to 2"),
    ]:
        with pytest.raises(ValidationError, match=words):
            adapter.validate_python(values)


def test_bad_parameters() -> None:
    with pytest.raises(ShapeError, match="put that step last"):
        ComposedSpec(steps=(SinglePixelSpec(), SMOOTH)).build((3, 8, 8))
    with pytest.raises(ShapeError, match="multiples of 2"):
        ComposedSpec().build((3, 9, 8))
    with pytest.raises(ShapeError, match=r"Stacked\.join"):
        StackedSpec().image_shape((3, 8, 8))
    one = Identity((1, 4, 4))
    with pytest.raises(ShapeError, match="at least one operator"):
        Stacked([])
    with pytest.raises(ShapeError, match="build all alike"):
        Stacked([one, Identity((1, 4, 5))])
    with pytest.raises(ShapeError, match="build all alike"):
        Stacked([one, Identity((1, 4, 4), in_complex=True)])
    for weights in ([1.0, 2.0], [0.0], [-1.0], [float("nan")]):
        with pytest.raises(ShapeError, match="finite weights > 0"):
            Stacked([one], weights)
    with pytest.raises(ShapeError, match="blocks of data"):
        Stacked([one]).join([])
    with pytest.raises(ShapeError, match="Identity data expected"):
        Stacked([one]).join([torch.zeros(1, 1, 4, 5)])
    with pytest.raises(ShapeError, match="follow on"):
        Chain(one, Square((1, 4, 5)))
