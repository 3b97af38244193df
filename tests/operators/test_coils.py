"""Coil maps: their scale, and estimates against the maps that made the data."""

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize
from torch import Tensor

from operators import DataRef
from operators.coils import (
    BirdcageCoils,
    CalibratedCoils,
    CoilFile,
    birdcage_maps,
    calibration_region,
    espirit_maps,
    root_sum_of_squares,
)
from operators.errors import ReadError, ShapeError
from operators.mri import centred_fft
from operators.sampling import EquispacedFraction, PoissonDisc


def phantom(height: int, width: int) -> Tensor:
    """A head with a smooth phase."""
    picture = torch.from_numpy(resize(shepp_logan_phantom(), (height, width), anti_aliasing=True))
    rows, columns = torch.linspace(-1, 1, height)[:, None].double(), torch.linspace(-1, 1, width).double()
    return torch.polar(picture, 0.8 * rows + 0.5 * columns**2)


@pytest.mark.parametrize(("coils", "height", "width"), [(1, 4, 4), (8, 31, 33), (15, 16, 24)])
def test_birdcage_is_normalised_smooth_and_seeded(coils: int, height: int, width: int) -> None:
    maps = birdcage_maps(coils, height, width, 0)
    assert maps.shape == (coils, height, width)
    assert torch.allclose(root_sum_of_squares(maps), torch.ones(height, width, dtype=torch.float64))
    assert torch.equal(maps, BirdcageCoils(coils=coils).build(height, width))
    assert not torch.allclose(maps, birdcage_maps(coils, height, width, 1))
    # away from the corners, which the ring passes closely
    middle = maps[:, height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    assert float((middle[:, 1:] - middle[:, :-1]).abs().amax()) < 4 / height


def test_calibration_region() -> None:
    mask = torch.zeros(20, 31, dtype=torch.bool)
    mask[:, 10:20] = True
    # from row 10, 9 rows each way; from column 15, four to the right and as many to the left
    assert calibration_region(mask) == (19, 9)
    mask[3] = False
    assert calibration_region(mask) == (13, 9)
    assert calibration_region(torch.ones(5, 4, dtype=torch.bool)) == (5, 3)
    mask[10, 15] = False
    with pytest.raises(ShapeError, match="hole there"):
        calibration_region(mask)


@pytest.mark.parametrize("coils", [4, 8])
def test_estimate_is_near_the_truth(coils: int) -> None:
    height, width = 96, 81
    image, truth = phantom(height, width), birdcage_maps(coils, height, width, 2)
    mask = PoissonDisc(acceleration=4, centre_fraction=0.28).build(height, width)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(2, coils, height, width)))
    kspace = centred_fft(truth * image) + 0.002 * torch.complex(noise[0], noise[1])
    maps = espirit_maps(kspace * mask, mask)
    power = root_sum_of_squares(maps)
    inside = image.abs() > 0.05
    assert bool(torch.isclose(power, torch.ones_like(power), atol=1e-6).logical_or(power == 0).all())
    assert float((power[inside] > 0).double().mean()) > 0.99
    # only the common phase of the coils is free
    error = 1 - (maps.conj() * truth).sum(0).abs()[inside & (power > 0)]
    assert float(error.mean()) < 2e-3
    assert float(error.quantile(0.99)) < 2e-2
    # and that is smooth
    turn = torch.sgn((truth.conj() * maps).sum(0)[20:-20, 20:-20])
    assert float((turn[1:] - turn[:-1]).abs().max()) < 0.3


def test_estimate_has_no_signal_outside() -> None:
    image = torch.zeros(64, 64, dtype=torch.complex128)
    image[16:48, 20:44] = 1
    maps = espirit_maps(centred_fft(birdcage_maps(6, 64, 64, 0) * image), torch.ones(64, 64, dtype=torch.bool))
    outside = root_sum_of_squares(maps)
    assert float(outside[:8].max()) == 0
    assert float(outside[20:44, 24:40].min()) == pytest.approx(1)


def test_estimate_uses_only_measured_samples() -> None:
    mask = EquispacedFraction(acceleration=2, centre_fraction=0.25).build(48, 64)
    kspace = centred_fft(birdcage_maps(4, 48, 64, 0) * phantom(48, 64))
    assert torch.equal(espirit_maps(kspace, mask), espirit_maps(kspace * mask, mask))


def test_too_small_a_centre_is_refused() -> None:
    mask = EquispacedFraction(acceleration=4, centre_fraction=0.08).build(64, 64)
    with pytest.raises(ShapeError, match="at least 11 calibration lines in each direction, got 24x5"):
        espirit_maps(torch.ones(4, 64, 64, dtype=torch.complex64), mask)
    with pytest.raises(ShapeError, match=r"\(coils, 64, 64\) like the mask"):
        espirit_maps(torch.ones(4, 64, 63, dtype=torch.complex64), mask)


def test_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    truth = birdcage_maps(4, 48, 64, 0)
    kspace = centred_fft(truth * phantom(48, 64)) * PoissonDisc(acceleration=3, centre_fraction=0.4).build(48, 64)
    np.save(tmp_path / "maps.npy", truth.numpy())
    np.savez(tmp_path / "kspace.npz", kspace.numpy())
    assert torch.equal(CoilFile(file=DataRef(path="maps.npy")).build(48, 64, tmp_path), truth)
    found = CalibratedCoils(file=DataRef(path="kspace.npz")).build(48, 64, tmp_path)
    assert torch.equal(found, espirit_maps(kspace, kspace.ne(0).any(0)))
    with pytest.raises(ShapeError, match=r"48x65 pixels like the image in maps\.npy, got 48x64"):
        CoilFile(file=DataRef(path="maps.npy")).build(48, 65, tmp_path)
    np.save(tmp_path / "plane.npy", truth[0].numpy())
    with pytest.raises(ReadError, match="reorder its axes"):
        CoilFile(file=DataRef(path="plane.npy")).build(48, 64, tmp_path)


@pytest.mark.slow
def test_estimate_agrees_with_sigpy() -> None:
    app = pytest.importorskip("sigpy.mri.app", exc_type=ImportError)
    mask = PoissonDisc(acceleration=3, centre_fraction=0.4).build(64, 64)
    kspace = centred_fft(birdcage_maps(5, 64, 64, 1) * phantom(64, 64)) * mask
    theirs = app.EspiritCalib(kspace.numpy(), calib_width=24, thresh=0.02, kernel_width=6, crop=0.95, show_pbar=False)
    other, maps = torch.from_numpy(theirs.run()).to(torch.complex128), espirit_maps(kspace, mask)
    both = (root_sum_of_squares(maps) > 0) & (root_sum_of_squares(other) > 0)
    assert float(both.double().sum()) > 0.97 * float((root_sum_of_squares(maps) > 0).double().sum())
    assert float((1 - (maps.conj() * other).sum(0).abs())[both].mean()) < 1e-3
