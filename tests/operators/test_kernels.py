"""Kernels against their formulas, their moments and independent code."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.ndimage import correlate, shift
from scipy.special import j1

from operators import BlurSpec, DataRef, kinds, make_blur
from operators.errors import ReadError, ShapeError
from operators.kernels import (
    AiryKernel,
    AnyKernel,
    GaussianKernel,
    KernelFile,
    LineKernel,
    OrientedGaussianKernel,
    ZernikeKernel,
    _field,
    airy_kernel,
    disk_kernel,
    gaussian_kernel,
    line_kernel,
    motion_kernel,
    oriented_gaussian_kernel,
    zernike,
    zernike_kernel,
)

DRAWN = [kind for tag, kind in kinds(AnyKernel).items() if tag != "file"]


def _moments(kernel: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass relative to the kernel's centre, and covariance, as (right, up)."""
    weights = kernel.numpy() / float(kernel.sum())
    up = -(np.arange(kernel.shape[0]) - kernel.shape[0] // 2)[:, None] * np.ones(kernel.shape[1])
    right = np.ones(kernel.shape[0])[:, None] * (np.arange(kernel.shape[1]) - kernel.shape[1] // 2)
    places = np.stack([right.ravel(), up.ravel()])
    mean = places @ weights.ravel()
    return mean, (places - mean[:, None]) * weights.ravel() @ (places - mean[:, None]).T


@pytest.mark.parametrize("kind", DRAWN)
def test_described_kernels(kind: type) -> None:
    spec = kind()
    kernel = spec.build()
    assert kernel.dtype == torch.float64
    assert kernel.shape == (spec.size, spec.size)
    assert float(kernel.min()) >= 0
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    assert TypeAdapter(AnyKernel).validate_json(spec.model_dump_json()) == spec
    assert torch.equal(kernel, spec.build())
    assert BlurSpec(kernel=spec, boundary="circular").build((1, 8, 9)).out_shape == (1, 8, 9)


def test_oriented_gaussian_is_opencvs_at_right_angles() -> None:
    kernel = oriented_gaussian_kernel(21, 3.0, 1.2, 0.0)
    expected = cv2.getGaussianKernel(21, 1.2) @ cv2.getGaussianKernel(21, 3.0).T  # rows (y) by columns (x)
    assert np.allclose(kernel.numpy(), expected, atol=1e-12)
    assert torch.allclose(oriented_gaussian_kernel(21, 3.0, 1.2, 90.0), kernel.T, atol=1e-12)
    assert torch.allclose(oriented_gaussian_kernel(21, 1.2, 3.0, 0.0), kernel.T, atol=1e-12)


@given(angle=st.floats(-180, 180), std_x=st.floats(1, 4), std_y=st.floats(1, 4))
def test_oriented_gaussian_has_its_covariance(angle: float, std_x: float, std_y: float) -> None:
    mean, covariance = _moments(oriented_gaussian_kernel(61, std_x, std_y, angle))
    axis = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    across = np.array([-axis[1], axis[0]])
    expected = std_x**2 * np.outer(axis, axis) + std_y**2 * np.outer(across, across)
    assert np.allclose(mean, 0, atol=1e-9)
    assert np.allclose(covariance, expected, atol=1e-3)


@given(length=st.floats(0, 20), angle=st.floats(-360, 360), size=st.integers(27, 30))
def test_streaks_have_their_moments(length: float, angle: float, size: int) -> None:
    kernel = line_kernel(size, length, angle)
    mean, _ = _moments(kernel)
    assert kernel.shape == (size, size)
    assert float(kernel.min()) >= 0
    assert np.allclose(mean, 0, atol=1e-9)
    # the mean of many bilinear impulses along the path
    steps = 4000
    places = ((np.arange(steps) + 0.5) / steps - 0.5) * length
    rows = size // 2 - places * np.sin(np.deg2rad(angle))
    columns = size // 2 + places * np.cos(np.deg2rad(angle))
    drawn = np.zeros((size + 1, size + 1))
    for i in (0, 1):
        for j in (0, 1):
            top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
            weight = np.abs(1 - i - (rows - top)) * np.abs(1 - j - (columns - left))
            np.add.at(drawn, (top + i, left + j), weight / steps)
    assert np.allclose(kernel.numpy(), drawn[:size, :size], atol=1e-4)


def test_streaks_of_simple_lengths() -> None:
    across = line_kernel(7, 4.0, 0.0)
    assert torch.allclose(across[3], torch.tensor([0, 1, 2, 2, 2, 1, 0], dtype=torch.float64) / 8)
    assert float(across.sum() - across[3].sum()) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(line_kernel(7, 4.0, 90.0), across.T, atol=1e-12)
    impulse = torch.zeros(5, 5, dtype=torch.float64)
    impulse[2, 2] = 1
    assert torch.equal(line_kernel(5, 0.0, 33.0), impulse)
    rising = line_kernel(9, 6.0, 45.0)  # counter-clockwise from right: up on the right
    assert float(rising[1:4, 5:8].sum()) > 0.3
    assert float(rising[5:8, 5:8].sum()) == pytest.approx(0, abs=1e-12)


def test_streak_is_the_mean_of_shifted_images() -> None:
    image = np.random.default_rng(0).random((15, 15))
    kernel = line_kernel(9, 5.0, 0.0).numpy()
    shifts = ((np.arange(1000) + 0.5) / 1000 - 0.5) * 5.0
    expected = np.mean([shift(image, (0, s), order=1, mode="grid-wrap") for s in shifts], axis=0)
    assert np.allclose(correlate(image, kernel, mode="wrap"), expected, atol=1e-4)


def test_airy_pattern() -> None:
    kernel = airy_kernel(41, 5.0)
    v = 3.8317059702075125 / 5.0 * np.arange(1, 21)
    ratio = kernel[20, 21:] / kernel[20, 20]
    assert np.allclose(ratio.numpy(), (2 * j1(v) / v) ** 2, atol=1e-14)
    assert float(kernel[20, 25]) < 1e-20  # the first dark ring, where it was asked for
    assert float(kernel[20, 26]) > 1e-4 * float(kernel[20, 20])


@pytest.mark.parametrize(("size", "radius"), [(31, 3.0), (16, 1.2), (21, 12.0), (61, 2.44)])
def test_without_aberration_a_lens_is_airys(size: int, radius: float) -> None:
    assert torch.allclose(zernike_kernel(size, radius, {}), airy_kernel(size, radius), atol=1e-14)
    assert torch.allclose(zernike_kernel(size, radius, {1: 0.3, 4: 0.0}), airy_kernel(size, radius), atol=1e-14)


def test_zernike_polynomials_are_nolls() -> None:
    rho, theta = np.linspace(0, 1, 50), 2.7 * np.linspace(0, 6.2, 50) % 6.28
    table = {
        1: 1 + 0 * rho,
        2: 2 * rho * np.cos(theta),
        3: 2 * rho * np.sin(theta),
        4: 3**0.5 * (2 * rho**2 - 1),
        5: 6**0.5 * rho**2 * np.sin(2 * theta),
        6: 6**0.5 * rho**2 * np.cos(2 * theta),
        7: 8**0.5 * (3 * rho**3 - 2 * rho) * np.sin(theta),
        8: 8**0.5 * (3 * rho**3 - 2 * rho) * np.cos(theta),
        9: 8**0.5 * rho**3 * np.sin(3 * theta),
        10: 8**0.5 * rho**3 * np.cos(3 * theta),
        11: 5**0.5 * (6 * rho**4 - 6 * rho**2 + 1),
        12: 10**0.5 * (4 * rho**4 - 3 * rho**2) * np.cos(2 * theta),
        13: 10**0.5 * (4 * rho**4 - 3 * rho**2) * np.sin(2 * theta),
        14: 10**0.5 * rho**4 * np.cos(4 * theta),
        15: 10**0.5 * rho**4 * np.sin(4 * theta),
    }
    for index, expected in table.items():
        assert np.allclose(zernike(index, rho, theta), expected, atol=1e-12), index


def test_zernike_polynomials_are_orthonormal() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(20)
    rho, theta = (nodes[:, None] + 1) / 2, np.arange(40) * 2 * np.pi / 40
    area = weights[:, None] * rho / 40
    basis = [zernike(j, rho, theta) for j in range(1, 37)]
    gram = np.array([[(area * a * b).sum() for a in basis] for b in basis])
    assert np.allclose(gram, np.eye(36), atol=1e-12)


@pytest.mark.parametrize("index", [4, 5, 8, 10, 11, 22])
def test_small_aberrations_obey_marechals_strehl_ratio(index: int) -> None:
    perfect = abs(_field(3, 4.0, {})[1, 1]) ** 2
    for rms in (0.01, 0.03, 0.05):
        strehl = abs(_field(3, 4.0, {index: rms})[1, 1]) ** 2 / perfect
        assert strehl == pytest.approx(np.exp(-((2 * np.pi * rms) ** 2)), abs=2e-3 * (rms / 0.03) ** 4)
    assert perfect == pytest.approx(1, abs=1e-12)


def test_pupils_are_sampled_finely_enough() -> None:
    waves = {4: 1.0, 8: -2.0, 11: 0.7}
    kernel = zernike_kernel(25, 2.5, waves)
    # the same integral as a sum over a fine square grid, whose ragged edge is the only difference
    fine = np.linspace(-1, 1, 801)
    x, y = fine, -fine[:, None]
    rho, theta = np.hypot(x, y), np.arctan2(y, x)
    phase = sum(c * zernike(j, rho, theta) for j, c in waves.items())
    pupil = np.where(rho <= 1, np.exp(2j * np.pi * phase), 0)
    basis = np.exp(1j * 3.8317059702075125 / 2.5 * np.outer(np.arange(25) - 12, fine))
    expected = np.abs(basis @ pupil @ basis.T) ** 2
    assert np.allclose(kernel.numpy(), expected / expected.sum(), atol=2e-2 * float(kernel.max()))


def test_tilt_moves_the_image() -> None:
    # W = 0.25 · 2 ρ cos θ, one wave from edge to edge: the peak moves by one wavelength over the aperture
    radius = 4 * 1.2196698912665045  # which is 4 pixels
    kernel = zernike_kernel(33, radius, {2: 0.25})
    row, column = divmod(int(kernel.argmax()), 33)
    assert row == 16
    assert abs(column - 16) == 4


def test_kernel_files(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([[0.0, 2.0], [1.0, 1.0], [0.0, 0.0]]))
    kernel = KernelFile(file=DataRef(path="k.npy")).build(tmp_path)
    # turned about the point at row 1, column 1
    assert torch.equal(kernel, torch.tensor([[0, 0, 0], [0, 0.25, 0.25], [0, 0.5, 0]], dtype=torch.float64))
    np.save(tmp_path / "dark.npy", np.zeros((3, 3)))
    with pytest.raises(ReadError, match="positive sum"):
        KernelFile(file=DataRef(path="dark.npy")).build(tmp_path)
    np.save(tmp_path / "cube.npy", np.ones((3, 3, 3)))
    with pytest.raises(ReadError, match="one plane"):
        KernelFile(file=DataRef(path="cube.npy")).build(tmp_path)


@given(height=st.integers(1, 6), width=st.integers(1, 6))
def test_a_point_looks_like_the_file(height: int, width: int) -> None:
    picture = np.random.default_rng(height * 10 + width).random((height, width))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "psf.npy", picture)
        kernel = KernelFile(file=DataRef(path="psf.npy")).build(Path(folder))
    point = torch.zeros(1, 1, 15, 17, dtype=torch.float64)
    point[..., 7, 8] = 1
    seen = make_blur(kernel, (1, 15, 17), "zero").double()(point)[0, 0]
    expected = np.zeros((15, 17))
    top, left = 7 - height // 2, 8 - width // 2
    expected[top : top + height, left : left + width] = picture / picture.sum()
    assert np.allclose(seen.numpy(), expected, atol=1e-7)


def test_a_cut_gaussian_is_cut_and_not_folded() -> None:
    kernel = gaussian_kernel(9, 10.0)
    assert float(kernel[0, 0] / kernel[4, 4]) == pytest.approx(np.exp(-32 / 200), rel=1e-6)


def test_functions_refuse_bad_parameters() -> None:
    for bad, sentence in [
        (lambda: gaussian_kernel(9, -1.0), "standard deviation > 0, got -1.0; give"),
        (lambda: gaussian_kernel(0, 1.0), "at least one pixel, got size 0"),
        (lambda: oriented_gaussian_kernel(9, 1.0, 0.0, 0.0), "standard deviation > 0, got 0.0"),
        (lambda: disk_kernel(9, -2.0), "radius > 0, got -2.0"),
        (lambda: disk_kernel(9, 5.0), "enlarge the kernel"),
        (lambda: motion_kernel(9, 1.5, 0), "from 0 to 1, got 1.5"),
        (lambda: line_kernel(9, -1.0, 0.0), "streak >= 0, got -1.0"),
        (lambda: line_kernel(9, 8.1, 0.0), "fit its kernel, got size 9; enlarge"),
        (lambda: line_kernel(8, 6.1, 90.0), "fit its kernel, got size 8; enlarge"),
        (lambda: airy_kernel(9, 0.0), "dark ring > 0, got 0.0"),
        (lambda: zernike_kernel(9, float("nan"), {}), "dark ring > 0, got nan"),
        (lambda: zernike_kernel(9, 3.0, {0: 1.0}), "Noll index >= 1, got 0"),
    ]:
        with pytest.raises(ShapeError, match=sentence):
            bad()
    assert float(line_kernel(9, 8.0, 0.0)[4].sum()) == pytest.approx(1)
    assert float(line_kernel(9, 8.0, 90.0)[:, 4].sum()) == pytest.approx(1)


def test_descriptions_refuse_bad_parameters() -> None:
    for kind, values in [
        (GaussianKernel, {"std": -1}),
        (GaussianKernel, {"size": 2}),
        (OrientedGaussianKernel, {"std_y": 0}),
        (LineKernel, {"length": -1}),
        (AiryKernel, {"radius": 0}),
        (ZernikeKernel, {"defocus": 4}),
        (ZernikeKernel, {"piston": 1}),
    ]:
        with pytest.raises(ValidationError, match=next(iter(values))):
            kind.model_validate(values)
    with pytest.raises(ShapeError, match="enlarge"):
        LineKernel(size=9, length=20).build()


@pytest.mark.parametrize("radius", [0.01, 0.3, 0.5])
def test_a_disk_within_one_pixel_is_that_pixel(radius: float) -> None:
    kernel = disk_kernel(5, radius)
    assert float(kernel[2, 2]) == 1
    assert float(kernel.sum()) == 1
