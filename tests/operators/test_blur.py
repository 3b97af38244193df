"""Blurs against scipy, OpenCV, torch and kornia; kernels against published numbers."""

import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate, gaussian_filter

from operators import BlurSpec, Need, Rng, make_blur
from operators.base import LinearOperator
from operators.errors import ShapeError
from operators.kernels import (
    DiskKernel,
    GaussianKernel,
    MotionKernel,
    disk_kernel,
    gaussian_kernel,
    motion_kernel,
)
from operators.testing import check_operator

SCIPY_MODE = {"circular": "wrap", "reflect": "mirror", "replicate": "nearest", "zero": "constant"}


@given(
    height=st.integers(5, 20),
    width=st.integers(5, 20),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    boundary=st.sampled_from(sorted(SCIPY_MODE)),
    seed=st.integers(0, 99),
)
def test_blur_equals_scipy(height: int, width: int, rows: int, columns: int, boundary: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    kernel = draw.standard_normal((rows, columns))
    image = draw.standard_normal((2, 3, height, width))
    expected = np.stack([[correlate(c, kernel, mode=SCIPY_MODE[boundary]) for c in sample] for sample in image])
    blur = make_blur(torch.from_numpy(kernel), (3, height, width), boundary)  # type: ignore[arg-type]
    assert np.allclose(blur(torch.from_numpy(image)).numpy(), expected, atol=1e-5)


@given(
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_valid_blur_is_conv2d(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    rows, columns = min(rows, height), min(columns, width)
    draw = np.random.default_rng(seed)
    kernel = torch.from_numpy(draw.standard_normal((rows, columns)))
    x = torch.from_numpy(draw.standard_normal((2, 3, height, width)))
    expected = torch.nn.functional.conv2d(x, kernel[None, None].expand(3, 1, -1, -1), groups=3)
    blur = make_blur(kernel, (3, height, width), "valid")
    assert blur.out_shape == (3, height - rows + 1, width - columns + 1)
    assert torch.allclose(blur(x), expected, atol=1e-5)


@given(
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    size=st.integers(1, 7),
    boundary=st.sampled_from(["circular", "reflect", "replicate", "zero", "valid"]),
    seed=st.integers(0, 99),
)
def test_adjoint_is_exact_for_any_size(height: int, width: int, size: int, boundary: str, seed: int) -> None:
    size = min(size, height, width)
    kernel = torch.from_numpy(np.random.default_rng(seed).standard_normal((size, size)))
    blur = make_blur(kernel, (2, height, width), boundary).double()  # type: ignore[arg-type]
    rng = Rng([seed], dtype=torch.float64)
    x, y = rng.randn(blur.in_shape), rng.randn(blur.out_shape)
    data, back = blur(x), blur.adjoint(y)
    assert float(((data * y).sum() - (x * back).sum()).abs()) <= 1e-12 * float(data.norm() * y.norm() + 1)


@pytest.mark.parametrize("boundary", ["replicate", "valid"])
@pytest.mark.parametrize("kernel", [disk_kernel(5, 1.6), motion_kernel(4, 0.5, 1), gaussian_kernel(3, 0.6)])
def test_new_boundaries_pass_the_battery(boundary: str, kernel: torch.Tensor) -> None:
    check_operator(make_blur(kernel, (2, 9, 11), boundary))  # type: ignore[arg-type]
    check_operator(make_blur(kernel, (1, 2, 6, 7), boundary))  # type: ignore[arg-type]


def test_blur_equals_opencv() -> None:
    borders = {"reflect": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE, "zero": cv2.BORDER_CONSTANT}
    image = np.random.default_rng(5).random((19, 23))
    for kernel in (disk_kernel(7, 2.5), motion_kernel(9, 0.5, 3), gaussian_kernel(8, 1.5)):
        for boundary, border in borders.items():
            expected = cv2.filter2D(image, cv2.CV_64F, kernel.numpy(), borderType=border)
            y = make_blur(kernel, (1, 19, 23), boundary)(torch.from_numpy(image)[None, None])  # type: ignore[arg-type]
            assert np.allclose(y[0, 0].numpy(), expected, atol=1e-6), boundary


def test_blur_equals_kornia() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = pytest.importorskip("kornia.filters")
    borders = {"circular": "circular", "reflect": "reflect", "replicate": "replicate", "zero": "constant"}
    x = Rng([0, 1], dtype=torch.float64).rand((3, 17, 20))
    kernel = motion_kernel(9, 0.5, 3)
    for boundary, border in borders.items():
        expected = filters.filter2d(x, kernel[None], border_type=border)
        y = make_blur(kernel, (3, 17, 20), boundary)(x)  # type: ignore[arg-type]
        assert torch.allclose(y, expected, atol=1e-6), boundary
    expected = filters.filter2d(x, kernel[None], padding="valid")
    assert torch.allclose(make_blur(kernel, (3, 17, 20), "valid")(x), expected, atol=1e-6)


def test_picture_of_a_valid_blur_is_smaller_than_its_image() -> None:
    spec = BlurSpec(kernel=MotionKernel(size=8), boundary="valid")
    blur = spec.build((3, 30, 21))
    assert blur.out_shape == (3, 23, 14)
    assert spec.image_shape(blur.out_shape) == (3, 30, 21)
    assert BlurSpec(boundary="zero").image_shape((3, 23, 14)) == (3, 23, 14)
    x = Rng([0]).rand((3, 30, 21))
    guess = blur.guess(blur(x))
    assert guess.shape == x.shape
    # data sit where the kernel's centre was, their edge pixels going on to the image's border
    assert torch.equal(guess[..., 4:27, 4:18], blur(x))
    assert torch.equal(guess[..., 0, 4:18], blur(x)[..., 0, :])
    with pytest.raises(ShapeError, match="at least 8x8 pixels, got 7x30"):
        spec.build((3, 7, 30))


def test_zero_blur_is_conv2d() -> None:
    kernel = torch.from_numpy(np.random.default_rng(0).random((5, 7)))
    x = Rng([0], dtype=torch.float64).randn((1, 12, 13))
    expected = torch.nn.functional.conv2d(x, kernel[None, None], padding=(2, 3))
    assert torch.allclose(make_blur(kernel, (1, 12, 13), "zero")(x), expected, atol=1e-5)


@pytest.mark.parametrize("boundary", sorted(SCIPY_MODE))
def test_kernel_shifts_the_image_the_documented_way(boundary: str) -> None:
    kernel = torch.zeros(3, 3, dtype=torch.float64)
    kernel[1, 2] = 1  # one to the right of the centre: data show the pixel to the right
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    y = make_blur(kernel, (1, 5, 6), boundary)(x)  # type: ignore[arg-type]
    assert torch.allclose(y[..., :-1], x[..., 1:], atol=1e-5)


@pytest.mark.parametrize("boundary", ["circular", "replicate", "zero"])
def test_kernel_larger_than_the_image(boundary: str) -> None:
    draw = np.random.default_rng(1)
    kernel, image = draw.random((11, 9)), draw.random((5, 4))
    expected = correlate(image, kernel, mode=SCIPY_MODE[boundary])
    y = make_blur(torch.from_numpy(kernel), (1, 5, 4), boundary)(torch.from_numpy(image)[None, None])  # type: ignore[arg-type]
    assert np.allclose(y[0, 0].numpy(), expected, atol=1e-4)


def test_mirror_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(ShapeError, match="more than 12x12 pixels, got 10x40"):
        BlurSpec(boundary="reflect").build((3, 10, 40))
    with pytest.raises(ShapeError, match="mirrored"):
        BlurSpec(boundary="reflect").build((3, 1, 1))
    # zeros around the kernel do not count: 61 pixels, of which 25 are used
    assert BlurSpec(boundary="reflect").build((3, 13, 13)).in_shape == (3, 13, 13)


@pytest.mark.parametrize(("boundary", "name"), [("reflect", "mirrored"), ("zero", "black")])
def test_sides_too_long_for_dense_cosines_are_refused(boundary: str, name: str) -> None:
    spec = BlurSpec.model_validate({"kernel": {"kind": "disk", "radius": 1}, "boundary": boundary})
    # the matrix alone would take petabytes
    with pytest.raises(ShapeError, match=f"Blur with {name} borders expected sides of at most 16384 pixels, got 16x2"):
        spec.build((1, 16, 20_000_000))


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(ShapeError, match="kernel"):
        make_blur(torch.ones(3), (1, 8, 8))
    with pytest.raises(ShapeError, match="kernel"):
        make_blur(torch.ones(3, 3, dtype=torch.long), (1, 8, 8), "zero")


def test_only_the_circular_blur_offers_a_spectrum() -> None:
    assert Need.SPECTRUM in BlurSpec(boundary="circular").offers
    for boundary in ("reflect", "replicate", "zero", "valid"):
        assert Need.SPECTRUM not in BlurSpec(boundary=boundary).offers  # type: ignore[arg-type]


def test_blur_where_some_frequencies_do_not_pass() -> None:
    # the mean of two neighbours removes the highest frequency: pinv must not blow it up
    blur = make_blur(torch.full((1, 2), 0.5, dtype=torch.float64), (1, 1, 8), "circular")
    x = torch.tensor([1.0, -1.0] * 4).reshape(1, 1, 1, 8)
    assert float(blur(x).abs().max()) < 1e-6
    assert float(blur.pinv(blur(x)).abs().max()) < 1e-5
    kept = blur.prox(x, torch.zeros(1, 1, 1, 8), 0.1)
    assert torch.allclose(kept, x, atol=1e-5)


@pytest.mark.parametrize("kernel", [gaussian_kernel(61, 3.0), disk_kernel(11, 4.0)], ids=["gaussian", "disk"])
@pytest.mark.parametrize("rho", [1e-5, 1e-2, 1.0])
def test_mirrored_solve_needs_few_iterations(kernel: torch.Tensor, rho: float) -> None:
    blur = make_blur(kernel, (1, 48, 40), "reflect").double()
    assert isinstance(blur, LinearOperator)
    rng = Rng([0, 1], dtype=torch.float64)
    z, y = rng.randn((1, 48, 40)), rng.randn((1, 48, 40))
    few, many = blur.prox(z, y, rho, max_iter=12), blur.prox(z, y, rho, tol=1e-12, max_iter=2000)
    assert float((few - many).norm() / (many - z).norm()) < 1e-2 * min(1.0, rho * 1e3)


@pytest.mark.parametrize(("rho", "iterations"), [(1e-1, 12), (1e-3, 40)])
def test_solve_in_black_surroundings_needs_few_iterations(rho: float, iterations: int) -> None:
    blur = make_blur(gaussian_kernel(25, 3.0), (1, 48, 40), "zero").double()
    rng = Rng([0, 1], dtype=torch.float64)
    z, y = rng.randn((1, 48, 40)), rng.randn((1, 48, 40))
    few, many = blur.prox(z, y, rho, max_iter=iterations), blur.prox(z, y, rho, tol=1e-12, max_iter=3000)
    slope = blur.adjoint(blur(many) - y) + rho * (many - z)
    assert float(slope.norm()) < 1e-9 * float(blur.adjoint(y).norm())
    assert float((few - many).norm() / (many - z).norm()) < 1e-3


def test_gaussian_kernel_is_the_published_one() -> None:
    kernel = gaussian_kernel(61, 3.0)
    used = kernel.nonzero()
    assert used.min(0).values.tolist() == [18, 18]
    assert used.max(0).values.tolist() == [42, 42]
    assert len(used) == 25 * 25
    assert float(kernel.max()) == pytest.approx(0.017685, abs=5e-7)
    assert float(kernel.sum()) == pytest.approx(1)


def test_gaussian_blur_is_scipys_filter() -> None:
    image = np.random.default_rng(0).random((40, 33))
    blur = make_blur(gaussian_kernel(25, 2.0), (1, 40, 33), "reflect")
    expected = gaussian_filter(image, 2.0, mode="mirror", truncate=4.0)
    assert np.allclose(blur(torch.from_numpy(image)[None, None])[0, 0].numpy(), expected, atol=1e-6)


@given(size=st.integers(3, 63), intensity=st.floats(0, 1), seed=st.integers(0, 2**63 - 1))
def test_motion_kernels(size: int, intensity: float, seed: int) -> None:
    kernel = motion_kernel(size, intensity, seed)
    assert kernel.shape == (size, size)
    assert float(kernel.sum()) == pytest.approx(1)
    assert float(kernel.min()) >= 0
    assert torch.equal(kernel, motion_kernel(size, intensity, seed))


def test_motion_kernels_differ_by_seed() -> None:
    assert not torch.equal(motion_kernel(31, 0.5, 0), motion_kernel(31, 0.5, 1))
    assert not torch.equal(motion_kernel(31, 0.5, 0), motion_kernel(31, 0.5, 2**32))


def test_calm_motion_is_a_streak() -> None:
    places = torch.arange(61.0, dtype=torch.float64) - 30

    def roundness(intensity: float) -> float:
        ratios = []
        for seed in range(30):
            kernel = motion_kernel(61, intensity, seed)
            across, along, mixed = places[:, None] ** 2, places**2, places[:, None] * places
            moments = [float((kernel * part).sum()) for part in (across, mixed, mixed, along)]
            low, high = torch.linalg.eigvalsh(torch.tensor(moments).reshape(2, 2)).tolist()
            ratios.append(low / high)
        return float(np.median(ratios))

    assert roundness(0.0) < 0.02 < roundness(1.0)


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.3, 7.5])
def test_disk_kernel(radius: float) -> None:
    kernel = disk_kernel(17, radius)
    assert float(kernel.sum()) == pytest.approx(1)
    assert torch.allclose(kernel, kernel.T)
    assert torch.allclose(kernel, kernel.flip(0))
    if radius > 1:
        # a pixel well inside weighs one over the disk's area
        assert float(kernel[8, 8]) == pytest.approx(1 / (np.pi * radius**2), rel=0.02)


def test_disk_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="enlarge"):
        DiskKernel(size=9, radius=6).build()


def test_kernel_descriptions_build_their_functions() -> None:
    assert torch.equal(GaussianKernel(size=9, std=1).build(), gaussian_kernel(9, 1))
    assert torch.equal(MotionKernel(size=9, seed=4).build(), motion_kernel(9, 0.5, 4))
    assert torch.equal(DiskKernel(size=9, radius=2).build(), disk_kernel(9, 2))
