"""Varying blur against direct sums, and warps against grid_sample and scipy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate

from operators.blur import make_blur
from operators.errors import ShapeError
from operators.kernels import DiskKernel, MotionKernel, disk_kernel, gaussian_kernel, motion_kernel
from operators.rng import Rng
from operators.testing import check_operator
from operators.varying import (
    TurbulenceSpec,
    VaryingBlur,
    VaryingBlurSpec,
    Warp,
    field_kernels,
    tilt_field,
)

BOUNDARIES = ["circular", "reflect", "replicate", "zero"]


def _hat(place: int, size: int, node: int, nodes: int) -> float:
    return 1.0 if nodes == 1 else max(0.0, 1 - abs(place * (nodes - 1) / (size - 1) - node))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 2)])
def test_varying_blur_is_the_sum_of_windowed_blurs(boundary: str, grid: tuple[int, int]) -> None:
    mode = {"circular": "wrap", "reflect": "mirror", "replicate": "nearest", "zero": "constant"}[boundary]
    draw = np.random.default_rng(3)
    height, width = 9, 11
    sizes = itertools.cycle([(3, 5), (4, 3), (5, 5), (1, 2)])
    kernels = [draw.standard_normal(next(sizes)) for _ in range(grid[0] * grid[1])]
    image = draw.standard_normal((height, width))
    expected = np.zeros((height, width))
    for (i, j), kernel in zip(itertools.product(range(grid[0]), range(grid[1])), kernels, strict=True):
        window = np.array(
            [[_hat(r, height, i, grid[0]) * _hat(c, width, j, grid[1]) for c in range(width)] for r in range(height)]
        )
        expected += correlate(window * image, kernel, mode=mode)
    blur = VaryingBlur([torch.from_numpy(k) for k in kernels], grid, (1, height, width), boundary)  # type: ignore[arg-type]
    assert np.allclose(blur(torch.from_numpy(image)[None, None])[0, 0].numpy(), expected, atol=1e-5)


@given(
    height=st.integers(6, 20),
    width=st.integers(6, 20),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    size=st.integers(3, 7),
    boundary=st.sampled_from(BOUNDARIES),
    seed=st.integers(0, 99),
)
def test_equal_kernels_make_the_ordinary_blur(
    height: int, width: int, rows: int, columns: int, size: int, boundary: str, seed: int
) -> None:
    kernel = motion_kernel(size, 0.7, seed)
    shape = (2, height, width)
    plain = make_blur(kernel, shape, boundary)  # type: ignore[arg-type]
    varying = VaryingBlur([kernel] * (rows * columns), (rows, columns), shape, boundary)  # type: ignore[arg-type]
    rng = Rng([seed, seed + 1], dtype=torch.float64)
    x, y = rng.randn(shape), rng.randn(shape)
    assert torch.allclose(varying(x), plain(x), atol=3e-6)
    assert torch.allclose(varying.adjoint(y), plain.adjoint(y), atol=3e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_varying_blur_passes_the_battery(boundary: str) -> None:
    kernels = field_kernels("spin", (3, 2), 8, 7, 0.0, 4.0)
    check_operator(VaryingBlur(kernels, (3, 2), (2, 8, 7), boundary))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gaussian", "defocus", "spin"])
def test_described_varying_blur(family: str) -> None:
    spec = VaryingBlurSpec.model_validate({"family": family, "centre": 0.3, "corner": 0.8, "nodes": 3})
    assert VaryingBlurSpec.model_validate_json(spec.model_dump_json()) == spec
    operator = spec.build((1, 9, 8))
    assert operator.offers == spec.offers
    check_operator(operator)


def test_points_are_spread_by_the_kernel_of_their_place() -> None:
    spec = VaryingBlurSpec(family="defocus", centre=0, corner=4, nodes=5, boundary="zero")
    blur = spec.build((1, 65, 65))
    x = torch.zeros(1, 1, 65, 65, dtype=torch.float64)
    x[..., 32, 32] = 1
    assert torch.allclose(blur(x), x, atol=1e-6)
    node = torch.zeros_like(x)
    node[..., 16, 16] = 1  # half-way to the corner, exactly on a node
    expected = disk_kernel(7, 2.0)
    assert torch.allclose(blur(node)[0, 0, 13:20, 13:20], expected, atol=1e-6)
    between = torch.zeros_like(x)
    between[..., 32, 24] = 1  # midway between two nodes: the mean of both kernels, all light kept
    assert float(blur(between).sum()) == pytest.approx(1, abs=1e-5)
    radius = 4 * 16 / (32 * 2**0.5)
    mixed = 0.5 * disk_kernel(9, radius)
    mixed[4, 4] += 0.5
    assert torch.allclose(blur(between)[0, 0, 28:37, 20:29], mixed, atol=1e-6)


def test_spin_streaks_run_across_the_radius() -> None:
    right, top = field_kernels("spin", (3, 3), 33, 33, 0.0, 2 * 2**0.5 * 3.0)[5], None
    top = field_kernels("spin", (3, 3), 33, 33, 0.0, 2 * 2**0.5 * 3.0)[1]
    assert right.sum(1).count_nonzero() > right.sum(0).gt(1e-9).count_nonzero()  # right of the middle: vertical
    assert torch.allclose(right, top.T, atol=1e-9)


def test_bad_varying_blurs_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"2x2 grid, got 3; count"):
        VaryingBlur([torch.ones(1, 1)] * 3, (2, 2), (1, 8, 8))
    with pytest.raises(ShapeError, match="one plane for each node"):
        VaryingBlur([torch.ones(3)], (1, 1), (1, 8, 8))
    with pytest.raises(ShapeError, match="mirrored borders expected an image of more than 4"):
        VaryingBlur([torch.ones(9, 9)], (1, 1), (1, 4, 8))
    with pytest.raises(ShapeError, match=r"strengths >= 0, got 1\.0 and -1\.0"):
        field_kernels("gaussian", (2, 2), 8, 8, 1.0, -1.0)
    with pytest.raises(ValueError, match="less than or equal to 30"):
        VaryingBlurSpec(corner=31)


def test_warp_is_torchs_grid_sample() -> None:
    height, width = 12, 15
    d = tilt_field(height, width, 3.0, 2.0, 5)
    x = Rng([0, 1], dtype=torch.float64).randn((2, height, width))
    rows = d[0] + torch.arange(height)[:, None]
    columns = d[1] + torch.arange(width)
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], -1)
    expected = torch.nn.functional.grid_sample(
        x, grid.expand(2, -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )
    assert torch.allclose(Warp(d, (2, height, width))(x), expected, atol=1e-5)


def test_warp_by_whole_pixels_is_a_shift() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    d = torch.zeros(2, 5, 6)
    d[0] = 2
    d[1] = -1
    y = Warp(d, (1, 5, 6))(x)
    assert torch.equal(y[..., :3, 1:], x[..., 2:, :-1])
    assert torch.equal(y[..., 3:, :], y[..., 2:3, :].expand(1, 1, 2, 6))
    assert torch.equal(Warp(torch.zeros(2, 5, 6), (1, 5, 6))(x), x)


@given(height=st.integers(1, 12), width=st.integers(2, 12), strength=st.floats(0, 4), seed=st.integers(0, 2**63 - 1))
def test_warp_passes_the_battery(height: int, width: int, strength: float, seed: int) -> None:
    warp = Warp(tilt_field(height, width, strength, 1.5, seed), (2, height, width)).double()
    rng = Rng([seed], dtype=torch.float64)
    x, y = rng.randn((2, height, width)), rng.randn((2, height, width))
    left, right = (warp(x) * y).sum(), (x * warp.adjoint(y)).sum()
    assert float((left - right).abs()) <= 1e-12 * float(x.norm() * y.norm()) * 4
    assert torch.allclose(warp(torch.ones_like(x)), torch.ones_like(x), atol=1e-6)


def test_a_folding_warp_passes_the_battery() -> None:
    check_operator(Warp(tilt_field(11, 14, 1.5, 3.0, 0), (1, 11, 14)))


def test_bad_warps_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"displacement \(2, 5, 6\)"):
        Warp(torch.zeros(2, 6, 5), (1, 5, 6))
    with pytest.raises(ShapeError, match="finite"):
        Warp(torch.full((2, 5, 6), torch.nan), (1, 5, 6))
    with pytest.raises(ShapeError, match="strength >= 0"):
        tilt_field(4, 4, -1.0, 1.0, 0)
    with pytest.raises(ShapeError, match="correlation > 0"):
        tilt_field(4, 4, 1.0, 0.0, 0)


def test_tilts_have_the_stated_law() -> None:
    d = tilt_field(400, 400, 2.0, 5.0, 7).numpy()
    assert d.std() == pytest.approx(2.0, rel=0.05)
    for component in d:
        lag = (component[:, :-5] * component[:, 5:]).mean() / (component**2).mean()
        assert lag == pytest.approx(np.exp(-0.5), abs=0.05)
    assert abs((d[0] * d[1]).mean()) < 0.3
    assert not np.array_equal(d, tilt_field(400, 400, 2.0, 5.0, 2**32 + 7).numpy())
    assert np.array_equal(d, tilt_field(400, 400, 2.0, 5.0, 7).numpy())


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_turbulence(boundary: str) -> None:
    spec = TurbulenceSpec.model_validate(
        {"strength": 0.7, "correlation": 4, "kernel": DiskKernel(size=3, radius=1), "boundary": boundary}
    )
    assert TurbulenceSpec.model_validate_json(spec.model_dump_json()) == spec
    shape = (2, 9, 10)
    operator = spec.build(shape)
    assert operator.offers == spec.offers
    x = Rng([0], dtype=torch.float64).randn(shape)
    tilted = Warp(tilt_field(9, 10, 0.7, 4.0, 0), shape)(x)
    assert torch.allclose(operator(x), make_blur(disk_kernel(3, 1.0), shape, boundary)(tilted), atol=1e-6)  # type: ignore[arg-type]
    check_operator(operator)


def test_still_air_is_a_plain_blur() -> None:
    spec = TurbulenceSpec(strength=0, kernel=MotionKernel(size=7))
    x = Rng([3], dtype=torch.float64).randn((1, 12, 12))
    assert torch.allclose(spec.build((1, 12, 12))(x), make_blur(motion_kernel(7, 0.5, 0), (1, 12, 12), "reflect")(x))


def test_gaussian_field_is_as_wide_as_asked() -> None:
    kernels = field_kernels("gaussian", (3, 3), 21, 21, 1.0, 2.0)
    assert torch.equal(kernels[4], gaussian_kernel(9, 1.0))
    assert torch.equal(kernels[0], gaussian_kernel(17, 2.0))
