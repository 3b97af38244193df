"""Blur and reduction at once, against filtering and slicing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate

from operators import BlurDownsample, BlurDownsampleSpec, Rng
from operators.errors import ShapeError
from operators.kernels import DiskKernel, MotionKernel
from operators.testing import check_operator


@given(
    factor=st.integers(2, 12),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    phase=st.sampled_from(["first", "centre"]),
)
def test_it_equals_filtering_and_slicing(
    factor: int, rows: int, columns: int, size: tuple[int, int], phase: str
) -> None:
    shape = (2, rows * factor, columns * factor)
    kernel = Rng([1], dtype=torch.float64).rand(size)[0]
    x = Rng([0], dtype=torch.float64).rand(shape)
    kept = 0 if phase == "first" else factor // 2
    operator = BlurDownsample(kernel, shape, factor, phase)  # type: ignore[arg-type]
    for channel in range(2):
        blurred = correlate(x[0, channel].numpy(), kernel.numpy(), mode="wrap")
        found = operator(x)[0, channel].numpy()
        assert np.allclose(found, blurred[kept::factor, kept::factor], atol=1e-5)


@settings(max_examples=8)
@given(factor=st.integers(2, 5), seed=st.integers(0, 9), phase=st.sampled_from(["first", "centre"]))
def test_any_kernel_passes_the_battery(factor: int, seed: int, phase: str) -> None:
    spec = BlurDownsampleSpec.model_validate(
        {"kernel": {"kind": "motion", "size": 15, "seed": seed}, "factor": factor, "phase": phase}
    )
    check_operator(spec.build((2, 2 * factor, 3 * factor)))


def test_frequencies_that_nothing_passes() -> None:
    # a difference over two rows passes neither flat nor alternating ones, which are each other's alias
    operator = BlurDownsample(torch.tensor([[1.0], [0.0], [-1.0]]), (1, 8, 8), 2)
    assert (operator.singular_values == 0).sum() == 4
    check_operator(operator)


def test_guess_lies_where_the_image_does() -> None:
    rows, columns = torch.meshgrid(torch.arange(36.0), torch.arange(48.0), indexing="ij")
    x = (0.5 + 0.2 * torch.sin(2 * torch.pi * rows / 36) + 0.2 * torch.cos(2 * torch.pi * columns / 48))[None, None]
    for phase in ("first", "centre"):
        spec = BlurDownsampleSpec.model_validate({"phase": phase, "kernel": {"kind": "disk", "size": 3, "radius": 1}})
        operator = spec.build((1, 36, 48))
        inner = (operator.guess(operator(x)) - x)[..., 6:-6, 6:-6]
        assert float(inner.abs().max()) < 0.02


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="crop the image to 15x18"):
        BlurDownsampleSpec().build((3, 16, 19))
    with pytest.raises(ShapeError, match="factor from 2 to 12"):
        BlurDownsample(torch.ones(3, 3), (1, 13, 13), 13)
    with pytest.raises(ShapeError, match="plane of numbers"):
        BlurDownsample(torch.ones(3), (1, 12, 12), 2)
    with pytest.raises(ShapeError, match="at least 3x3"):
        BlurDownsampleSpec().usable_shape((3, 2, 9))


@pytest.mark.parametrize(
    "spec",
    [
        BlurDownsampleSpec(kernel=DiskKernel(size=7, radius=3), phase="centre"),
        BlurDownsampleSpec(kernel=MotionKernel()),
    ],
    ids=repr,
)
def test_shapes_go_there_and_back(spec: BlurDownsampleSpec) -> None:
    operator = spec.build(spec.usable_shape((3, 20, 34)))
    assert spec.image_shape(operator.out_shape) == operator.in_shape == (3, 18, 33)
    assert BlurDownsampleSpec.model_validate_json(spec.model_dump_json()) == spec
