"""Images of many bands: blur, response, lost bands, and fusion."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from operators import (
    AnyOperator,
    BandBlur,
    BandBlurSpec,
    CircularBlur,
    InpaintingSpec,
    Need,
    Rng,
    SpectralResponse,
    SpectralResponseSpec,
    Stacked,
)
from operators.errors import ReadError, ShapeError
from operators.hyperspectral import GaussianResponses, ResponseFile, gaussian_responses
from operators.kernels import gaussian_kernel, motion_kernel
from operators.masks import BandMask, band_mask
from operators.spec import DataRef, pin
from operators.testing import check_operator


def scene(bands: int, size: int) -> Tensor:
    """Three materials with smooth spectra, in smooth abundances with edges: (bands, size, size)."""
    wavelength = torch.linspace(0, 1, bands)
    spectra = torch.stack([0.2 + 0.6 * wavelength, (-((wavelength - 0.4) ** 2) / 0.05).exp(), 0.9 - 0.7 * wavelength])
    along = torch.linspace(0, 6.28, size)
    abundance = torch.stack([(along.sin()[:, None] * along.cos() > 0.1).float(), along.cos()[:, None] ** 2 + 0 * along])
    abundance = torch.cat([abundance / 2, 1 - abundance.mean(0, keepdim=True)])
    return torch.einsum("mb,mhw->bhw", spectra, abundance)


@given(bands=st.integers(1, 6), height=st.integers(2, 14), width=st.integers(2, 14), seed=st.integers(0, 99))
def test_any_kernels(bands: int, height: int, width: int, seed: int) -> None:
    kernels = [motion_kernel(3 + 2 * k, 0.5, seed + k).double() for k in range(bands)]
    operator = BandBlur(kernels, (bands, height, width))
    check_operator(operator, seed=seed)
    x = Rng([seed], dtype=torch.float64).randn((bands, height, width))
    for k, kernel in enumerate(kernels):
        one = CircularBlur(kernel, (1, height, width))
        assert torch.allclose(operator(x)[:, k : k + 1], one(x[:, k : k + 1]), atol=1e-5)


def test_widths_grow_evenly() -> None:
    operator = BandBlurSpec(first=1, last=3).build((5, 64, 64))
    spread = []
    point = torch.zeros(1, 5, 64, 64)
    point[..., 32, 32] = 1
    place = torch.arange(64) - 32
    for image in operator(point)[0]:
        spread.append(float((image.sum(0) * place**2).sum()) ** 0.5)
    assert spread == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0], rel=0.01)
    assert torch.allclose(
        BandBlurSpec(first=1, last=1).build((2, 32, 32))(point[:, :2, 16:48, 16:48]),
        CircularBlur(gaussian_kernel(9, 1.0), (2, 32, 32))(point[:, :2, 16:48, 16:48]),
        atol=1e-6,
    )


@given(bands=st.integers(1, 9), out_bands=st.integers(1, 9), overlap=st.floats(0.3, 3), seed=st.integers(0, 99))
def test_any_bell_shaped_response(bands: int, out_bands: int, overlap: float, seed: int) -> None:
    response = gaussian_responses(out_bands, bands, overlap)
    assert bool((response >= 0).all())
    assert torch.allclose(response.sum(1), torch.ones(out_bands, dtype=torch.float64))
    spec = SpectralResponseSpec(response=GaussianResponses(out_bands=out_bands, overlap=overlap))
    operator = spec.build((bands, 4, 5))
    assert operator.out_shape == (out_bands, 4, 5)
    x = Rng([seed], dtype=torch.float64).randn((bands, 4, 5))
    expected = np.tensordot(response.numpy(), x[0].numpy(), 1)
    assert np.allclose(operator(x)[0].numpy(), expected, atol=1e-6)
    # a grey image stays as it is
    assert torch.allclose(operator(torch.ones(1, bands, 4, 5)), torch.ones(1, out_bands, 4, 5), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 2), (3, 3), (2, 7)], ids=str)
def test_any_response_matrix_passes_the_battery(size: tuple[int, int]) -> None:
    matrix = Rng([0], dtype=torch.float64).randn(size)[0]
    operator = SpectralResponse(matrix, (size[1], 4, 5))
    check_operator(operator)
    ones = torch.ones(size[1], dtype=torch.float64)
    found = operator.pinv(operator(ones[None, :, None, None].expand(1, -1, 4, 5)))[0, :, 0, 0]
    assert torch.allclose(found, torch.linalg.pinv(matrix) @ matrix @ ones, atol=1e-5)


def test_a_response_of_lower_rank() -> None:
    matrix = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    operator = SpectralResponse(matrix, (3, 4, 4))
    check_operator(operator)
    assert operator.singular_values.numel() == 2
    # the half of two bands that look the same is the nearest guess
    x = Rng([0]).rand((3, 4, 4))
    assert torch.allclose(operator.pinv(operator(x))[:, 0], x[:, :2].mean(1), atol=1e-5)


def test_the_guess_is_in_range() -> None:
    operator = SpectralResponseSpec().build((12, 8, 8))
    guess = operator.guess(operator(torch.full((1, 12, 8, 8), 0.7)))
    assert torch.allclose(guess, torch.full((1, 12, 8, 8), 0.7), atol=1e-5)


def test_a_measured_response(tmp_path: Path) -> None:
    matrix = np.abs(np.random.Generator(np.random.PCG64DXSM(0)).normal(size=(3, 7)))
    np.save(tmp_path / "sensor.npy", matrix)
    spec = SpectralResponseSpec(response=ResponseFile(file=DataRef(path="sensor.npy")))
    operator = spec.build((7, 4, 4), tmp_path)
    x = Rng([0]).rand((7, 4, 4))
    assert np.allclose(operator(x)[0].numpy(), np.tensordot(matrix, x[0].numpy(), 1), atol=1e-5)
    pinned = pin(spec, tmp_path)
    assert torch.equal(pinned.build((7, 4, 4))(x), operator(x))
    with pytest.raises(ShapeError, match="one column for each band"):
        spec.build((6, 4, 4), tmp_path)
    with pytest.raises(ReadError, match="check the path"):
        spec.build((7, 4, 4))


@given(bands=st.integers(1, 12), width=st.integers(1, 20), dead=st.floats(0, 0.99), stripes=st.floats(0, 0.99))
def test_dead_bands_and_stripes(bands: int, width: int, dead: float, stripes: float) -> None:
    mask = band_mask(bands, 5, width, dead, stripes, 3)
    assert mask.shape == (bands, 5, width)
    lost = ~mask.any(2).any(1)
    assert int(lost.sum()) == int(dead * bands)
    # whole columns, and equally many of them in every band that lives
    assert bool((mask.all(1) == mask.any(1)).all())
    assert bool(((~mask[~lost]).any(1).sum(1) == int(stripes * width)).all())


def test_stripes_as_an_operator() -> None:
    spec = InpaintingSpec(mask=BandMask(dead=0.3, stripes=0.3, seed=1))
    operator = spec.build((5, 8, 10))
    check_operator(operator)
    assert Need.MASK in operator.offers
    x = scene(5, 10)[None, :, :8]
    mask = band_mask(5, 8, 10, 0.3, 0.3, 1)
    assert torch.equal(operator(x), x * mask)
    assert torch.equal(operator.gather(operator(x)), x[:, mask])
    columns = band_mask(4, 6, 30, 0, 0.3, 0).all(1)
    assert not torch.equal(columns[0], columns[1])


def test_fusion_is_better_than_either() -> None:
    spec = TypeAdapter(AnyOperator).validate_python(
        {
            "kind": "stacked",
            "parts": [
                {"kind": "composed", "steps": [{"kind": "band-blur"}, {"kind": "downsample", "factor": 4}]},
                {"kind": "spectral-response", "response": {"kind": "gaussian", "out_bands": 4}},
            ],
        }
    )
    truth = scene(16, 32)[None]
    operator = spec.build((16, 32, 32))
    assert isinstance(operator, Stacked)
    assert operator.out_shape == (16 * 8 * 8 + 4 * 32 * 32,)
    y = operator(truth)
    y = y + 0.01 * Rng([0]).randn(operator.out_shape)
    coarse, broad = operator.split(y)
    assert coarse.shape == (1, 16, 8, 8)
    assert broad.shape == (1, 4, 32, 32)
    grey = torch.full_like(truth, float(y.mean()))

    def error(image: Tensor) -> float:
        return float((image - truth).square().mean().sqrt())

    alone = [error(p.prox(grey, b, 0.01)) for p, b in zip(operator.parts, (coarse, broad), strict=True)]  # type: ignore[operator]
    assert error(operator.prox(grey, y, 0.01)) < 0.7 * min(alone)


def test_bad_parameters() -> None:
    with pytest.raises(ShapeError, match="bands, H, W"):
        BandBlurSpec().build((8, 8))
    with pytest.raises(ShapeError, match="for each of 3 bands"):
        BandBlur([gaussian_kernel(3, 1.0)], (3, 8, 8))
    with pytest.raises(ShapeError, match="one plane per band"):
        BandBlur([torch.ones(3)], (1, 8, 8))
    with pytest.raises(ShapeError, match="one column for each band"):
        SpectralResponse(torch.ones(2, 4), (3, 8, 8))
    with pytest.raises(ShapeError, match="finite weights"):
        SpectralResponse(torch.zeros(2, 3), (3, 8, 8))
    with pytest.raises(ShapeError, match="finite weights"):
        SpectralResponse(torch.full((2, 3), torch.inf), (3, 8, 8))
    with pytest.raises(ShapeError, match="how many bands"):
        SpectralResponseSpec().image_shape((4, 8, 8))
