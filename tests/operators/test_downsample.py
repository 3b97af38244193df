"""Reduction against direct sums, torch and opencv."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch.nn.functional import avg_pool2d, interpolate

from operators import Downsample, DownsampleSpec, Rng
from operators.downsample import reduction_matrix, reduction_svd
from operators.errors import ShapeError
from operators.testing import check_operator


def direct(samples: np.ndarray, factor: int) -> np.ndarray:
    """Anti-aliased bicubic reduction of a line, written as slowly and plainly as possible."""

    def cubic(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def mirrored(j: int) -> int:
        while not 0 <= j < len(samples):
            j = -1 - j if j < 0 else 2 * len(samples) - 1 - j
        return j

    out = []
    for i in range(len(samples) // factor):
        centre = factor * i + (factor - 1) / 2
        total = weight = 0.0
        for j in range(int(centre) - 3 * factor, int(centre) + 3 * factor + 1):
            w = cubic((centre - j) / factor)
            weight += w
            total += w * samples[mirrored(j)]
        out.append(total / weight)
    return np.array(out)


@given(factor=st.integers(2, 12), count=st.integers(1, 6), seed=st.integers(0, 99))
def test_bicubic_equals_the_direct_sum(factor: int, count: int, seed: int) -> None:
    samples = np.random.default_rng(seed).random(factor * count)
    reduced = reduction_matrix(factor * count, factor, "bicubic").numpy() @ samples
    assert np.allclose(reduced, direct(samples, factor), atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 12])
def test_bicubic_equals_torch_away_from_the_border(factor: int) -> None:
    shape = (3, 12 * factor, 10 * factor)
    x = Rng([0, 1], dtype=torch.float64).rand(shape)
    expected = interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False)
    y = Downsample(shape, factor)(x)
    assert torch.allclose(y[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-6)


@given(factor=st.integers(2, 12), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_area_equals_the_block_mean(factor: int, rows: int, columns: int) -> None:
    shape = (2, rows * factor, columns * factor)
    x = Rng([3]).rand(shape)
    y = Downsample(shape, factor, "area")(x)
    assert torch.allclose(y, avg_pool2d(x, factor), atol=1e-6)
    picture = x[0].permute(1, 2, 0).numpy()
    area = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, 2)
    assert np.allclose(y[0].permute(1, 2, 0).numpy(), area, atol=1e-5)


@given(
    factor=st.sampled_from([3, 5, 7, 9, 11]),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    std=st.none() | st.floats(0.1, 3),
)
def test_gaussian_equals_scipy_and_keeping_the_middle(factor: int, rows: int, columns: int, std: float | None) -> None:
    shape = (1, rows * factor, columns * factor)
    x = Rng([4], dtype=torch.float64).rand(shape)
    width = (factor - 1) / 2 if std is None else std
    middle = factor // 2
    filtered = gaussian_filter(x[0, 0].numpy(), width, mode="reflect", truncate=4.0)[middle::factor, middle::factor]
    operator = Downsample(shape, factor, "gaussian", std)
    assert np.allclose(operator(x)[0, 0].numpy(), filtered, atol=1e-6)


@pytest.mark.parametrize(("factor", "std"), [(2, 0.1), (3, None), (4, 4.0), (12, None)])
def test_gaussian_passes_the_battery(factor: int, std: float | None) -> None:
    check_operator(Downsample((2, 2 * factor, factor), factor, "gaussian", std))


@pytest.mark.parametrize("factor", [2, 4, 12])
def test_gaussian_of_an_even_factor_is_centred_between_pixels(factor: int) -> None:
    row = reduction_matrix(9 * factor, factor, "gaussian", 0.7 * factor)[4]
    places = torch.arange(9 * factor, dtype=torch.float64) - (4.5 * factor - 0.5)
    assert torch.equal(row, row.flip(0))
    assert torch.allclose(row[row > 0], torch.softmax(-0.5 * (places / (0.7 * factor)) ** 2, 0)[row > 0], rtol=1e-3)


@pytest.mark.parametrize("method", ["bicubic", "area", "gaussian"])
@pytest.mark.parametrize("factor", range(2, 13))
def test_grey_stays_grey_and_nothing_is_lost(method: str, factor: int) -> None:
    operator = DownsampleSpec.model_validate({"factor": factor, "method": method}).build((1, 6 * factor, 5 * factor))
    assert torch.allclose(operator(torch.full((1, 1, 6 * factor, 5 * factor), 0.3)), torch.tensor(0.3), atol=1e-6)
    assert float(operator.singular_values.min()) > 0.05 * float(operator.singular_values.max())


@pytest.mark.parametrize("method", ["bicubic", "area", "gaussian"])
@given(factor=st.integers(2, 12), count=st.integers(1, 40), wide=st.booleans())
def test_the_decomposition_is_that_of_the_matrix(method: str, factor: int, count: int, wide: bool) -> None:
    wide = wide and method == "gaussian"
    matrix = reduction_matrix(factor * count, factor, method, float(factor) if wide else None)
    u, s, v = reduction_svd(matrix)
    one = torch.eye(count, dtype=torch.float64)
    assert torch.allclose(u @ torch.diag(s) @ v.T, matrix, rtol=0, atol=1e-12)
    assert torch.allclose(u.T @ u, one, rtol=0, atol=1e-12)
    assert torch.allclose(v.T @ v, one, rtol=0, atol=1e-12)
    assert torch.allclose(s.sort(descending=True)[0], torch.linalg.svdvals(matrix), rtol=0, atol=1e-12)
    assert float(s.min()) > (0.01 if wide else 0.3 if method == "gaussian" else 0.5) * float(s.max())


def test_a_large_picture_needs_no_dense_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.linalg.svd", lambda *_, **__: pytest.fail("grows with the cube of the side"))
    monkeypatch.setattr("torch.linalg.eigh", lambda *_, **__: pytest.fail("grows with the cube of the side"))
    operator = Downsample((1, 2048, 64), 4)
    c = Rng([0]).rand((1, 512, 16))
    assert torch.allclose(operator.to_spectrum(operator.from_spectrum(c)), c, atol=1e-5)


def test_an_image_too_large_to_hold_is_refused() -> None:
    spec = DownsampleSpec(factor=4)
    with pytest.raises(ShapeError, match=r"5000x5000 data of 20000x20000 = 400; crop"):
        spec.build(spec.image_shape((3, 5000, 5000)))


def test_guess_is_a_plausible_enlargement() -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 24), indexing="ij")
    x = (rows + columns**2)[None, None]
    operator = Downsample((1, 32, 24), 4)
    inner = (operator.guess(operator(x)) - x)[..., 6:-6, 6:-6]
    assert float(inner.abs().max()) < 0.01


def test_shapes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match="crop the image to 256x252"):
        DownsampleSpec(factor=4).build((3, 257, 255))
    with pytest.raises(ShapeError, match="factor from 2 to 12"):
        Downsample((3, 91, 91), 13)
    with pytest.raises(ShapeError, match=r"from 0\.1 to the factor 4"):
        Downsample((3, 16, 16), 4, "gaussian", 4.5)
    with pytest.raises(ValidationError, match="for 'gaussian' alone"):
        DownsampleSpec(std=1.0)
    with pytest.raises(ValidationError, match=r"from 0\.1 to the factor 2"):
        DownsampleSpec(method="gaussian", factor=2, std=3.0)
    with pytest.raises(ShapeError, match="at least 4x4"):
        DownsampleSpec(factor=4).usable_shape((3, 3, 9))
    with pytest.raises(ShapeError, match="such as"):
        DownsampleSpec().build((8,))


@given(factor=st.integers(2, 12), height=st.integers(12, 40), width=st.integers(12, 40))
def test_usable_and_image_shapes(factor: int, height: int, width: int) -> None:
    spec = DownsampleSpec(factor=factor)
    shape = spec.usable_shape((3, height, width))
    operator = spec.build(shape)
    assert height - factor < shape[1] <= height
    assert width - factor < shape[2] <= width
    assert spec.image_shape(operator.out_shape) == shape
