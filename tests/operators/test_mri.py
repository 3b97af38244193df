"""MRI on the grid against direct sums, against other code, and on a real scan."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import shepp_logan_phantom
from skimage.transform import resize
from torch import Tensor

from operators import MRI, DataRef, Gaussian, Likelihood, MRISpec, MultiCoilMRI, Need, OperatorSpec, RealMRI, Rng
from operators.coils import (
    AnyCoils,
    BirdcageCoils,
    CalibratedCoils,
    CoilFile,
    SingleCoil,
    birdcage_maps,
    espirit_maps,
    root_sum_of_squares,
)
from operators.errors import NeedError, ShapeError
from operators.mri import centred_fft, centred_ifft
from operators.noise import Noise
from operators.noise_counts import Poisson
from operators.sampling import (
    AnySampling,
    EquispacedColumns,
    EquispacedFraction,
    GaussianPoints,
    MeasuredKspace,
    PoissonDisc,
    RadialLines,
    RandomColumns,
)
from operators.testing import check_operator

# a folder with real scans, such as the k-space of SigPy's tutorial
SCAN = Path(os.environ.get("PREIMAGE_DATA", "")) / "kspace/sigpy_tutorial/data/cartesian_ksp.npy"


def direct_fourier(x: Tensor) -> Tensor:
    """The centred orthonormal transform as the sum that defines it."""
    height, width = x.shape[-2:]
    waves = []
    for size in (height, width):
        place = torch.arange(size, dtype=torch.float64) - size // 2
        waves.append(torch.exp(-2j * torch.pi * torch.outer(place, place) / size) / size**0.5)
    return waves[0] @ x.to(torch.complex128) @ waves[1]


def phantom(height: int, width: int) -> Tensor:
    picture = torch.from_numpy(resize(shepp_logan_phantom(), (height, width), anti_aliasing=True))
    rows, columns = torch.linspace(-1, 1, height)[:, None].double(), torch.linspace(-1, 1, width).double()
    return torch.polar(picture, 0.8 * rows + 0.5 * columns**2)


@pytest.mark.parametrize("size", [(31, 33), (32, 33), (16, 16), (5, 1)])
def test_transform_is_centred_orthonormal_and_right_for_odd_sizes(size: tuple[int, int]) -> None:
    x = Rng([0], dtype=torch.float64).randn((2, *size), complex=True)
    k = direct_fourier(x)
    assert torch.allclose(centred_fft(x), k, atol=1e-12)
    assert torch.allclose(centred_ifft(k), x, atol=1e-12)
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.4
    mask[0, 0] = True
    operator = MRI(mask, (2, *size)).double()
    assert torch.allclose(operator(x), k[..., mask], atol=1e-6)  # factors are stored in single precision
    assert torch.allclose(operator.data_as_image(operator(x)), k * mask, atol=1e-6)
    real = RealMRI(mask, (2, *size)).double()
    assert torch.allclose(real(x.real), direct_fourier(x.real)[..., mask], atol=1e-6)
    maps = birdcage_maps(3, *size, 0)
    coils = MultiCoilMRI(mask, maps, (2, *size)).double()
    assert torch.allclose(coils(x), direct_fourier(maps * x[:, :, None])[..., mask], atol=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [EquispacedFraction(), EquispacedColumns(), GaussianPoints(acceleration=2), PoissonDisc(), RadialLines()],
    ids=lambda s: s.kind,
)
@pytest.mark.parametrize("image", ["complex", "real"])
@pytest.mark.parametrize("coils", [SingleCoil(), BirdcageCoils(coils=3)], ids=lambda c: c.kind)
@pytest.mark.parametrize("shape", [(1, 6, 9), (2, 2, 4, 5)], ids=str)
def test_variants_pass_the_battery(sampling: AnySampling, image: str, coils: AnyCoils, shape: tuple[int, ...]) -> None:
    spec = MRISpec.model_validate({"sampling": sampling, "coils": coils, "image": image})
    operator = spec.build(shape)
    assert operator.offers == spec.offers
    assert operator.in_complex == (image == "complex")
    check_operator(operator)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    density=st.floats(0.05, 1),
    seed=st.integers(0, 999),
    batch=st.integers(2, 3),
)
def test_any_mask_of_any_size(height: int, width: int, density: float, seed: int, batch: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).uniform(size=(height, width)) < density)
    mask[seed % height, seed % width] = True
    check_operator(MRI(mask, (2, height, width)), batch=batch, seed=seed)
    check_operator(RealMRI(mask, (2, height, width)), batch=batch, seed=seed)


def test_singular_values_of_real_images() -> None:
    # of six columns, −2 and 1 are measured without their opposites, −1 … with it, 0 and −3 are their own
    mask = torch.tensor([[True, True, False, True, False, False]])
    values = RealMRI(mask, (1, 1, 6)).singular_values
    assert sorted(values.tolist()) == pytest.approx([0.5**0.5, 1, 1])
    both = RealMRI(torch.tensor([[False, True, False, False, False, True]]), (1, 1, 6))
    assert both.singular_values.tolist() == [1]
    matrix = both.double()(torch.eye(6, dtype=torch.float64).reshape(6, 1, 1, 6)).reshape(6, 2)
    assert torch.linalg.svdvals(torch.view_as_real(matrix).reshape(6, 4))[:2].tolist() == pytest.approx([1, 1])


def test_noise_keeps_its_size() -> None:
    operator = MRISpec(sampling=RandomColumns()).build((1, 64, 64))
    clean = operator(torch.zeros(1, 1, 64, 64, dtype=torch.complex64))
    noisy = Gaussian(sigma=0.1).sample(clean, Rng([0]))
    spread = torch.view_as_real(noisy).std()
    assert float(spread) == pytest.approx(0.1, rel=0.05)
    held = Likelihood(operator, Gaussian(sigma=0.1), noisy)
    assert float(held.residual_sigma(torch.zeros(1, 1, 64, 64, dtype=torch.complex64))) == pytest.approx(1, rel=0.05)
    noise: Noise = Poisson(peak=10)
    with pytest.raises(NeedError, match="complex"):
        Likelihood(operator, noise, noisy)


def test_whole_kspace_goes_in_and_out() -> None:
    operator = MRISpec(sampling=PoissonDisc(acceleration=3), coils=BirdcageCoils(coils=2)).build((1, 12, 14))
    assert isinstance(operator, MultiCoilMRI)
    kspace = Rng([0, 1]).randn((1, 2, 12, 14), complex=True)
    y = operator.data_from_image(kspace)
    assert y.shape == (2, 1, 2, 56)
    assert torch.equal(operator.data_as_image(y), kspace * operator.mask)
    with pytest.raises(ShapeError, match=r"k-space \(B, 1, 2, 12, 14\) complex, got \(2, 1, 2, 12, 14\) torch.float32"):
        operator.data_from_image(kspace.real)
    assert operator.acceleration == 3
    assert "acceleration 3" in repr(operator)


@pytest.mark.parametrize("coils", [SingleCoil(), BirdcageCoils(coils=2)], ids=lambda c: c.kind)
def test_full_sampling_is_inverted(coils: AnyCoils) -> None:
    everything = EquispacedColumns(acceleration=1, centre_fraction=0)
    x = Rng([0]).randn((1, 9, 10), complex=True)
    for image, truth in (("complex", x), ("real", x.real)):
        operator = MRISpec.model_validate({"sampling": everything, "coils": coils, "image": image}).build((1, 9, 10))
        for found in (operator.guess(operator(truth)), operator.pinv(operator(truth)), operator.normal(truth)):
            assert torch.allclose(found, truth, atol=1e-5)


def test_guess_divides_by_the_sensitivity() -> None:
    maps = birdcage_maps(4, 10, 12, 0) * torch.linspace(0.5, 3, 12)
    maps[..., :3] = 0
    operator = MultiCoilMRI(torch.ones(10, 12, dtype=torch.bool), maps, (1, 10, 12))
    x = Rng([0]).randn((1, 10, 12), complex=True)
    guess = operator.guess(operator(x))
    assert torch.allclose(guess[..., 3:], x[..., 3:], atol=1e-5)
    assert not guess[..., :3].any()


def test_cg_sense_unfolds_what_zero_filling_folds() -> None:
    truth, maps = phantom(64, 60)[None, None], birdcage_maps(8, 64, 60, 0)
    operator = MultiCoilMRI(EquispacedColumns(acceleration=3).build(64, 60), maps, (1, 64, 60)).double()
    y = Gaussian(sigma=0.002).sample(operator(truth), Rng([0], dtype=torch.float64))

    def error(x: Tensor) -> float:
        return float(torch.linalg.vector_norm(x - truth) / torch.linalg.vector_norm(truth))

    sense = operator.prox(torch.zeros_like(truth), y, 1e-3)
    # the definition: (A*A + lam) x = A* y
    gap = operator.normal(sense) + 1e-3 * sense - operator.adjoint(y)
    assert float(gap.abs().max()) < 1e-5
    assert error(operator.guess(y)) > 0.3
    assert error(sense) < 0.08


def test_estimated_maps_are_good_enough_to_reconstruct(tmp_path: Path) -> None:
    truth, maps = phantom(96, 80), birdcage_maps(8, 96, 80, 3)
    mask = PoissonDisc(acceleration=4, centre_fraction=0.25).build(96, 80)
    kspace = centred_fft(maps * truth) * mask
    np.save(tmp_path / "kspace.npy", kspace.numpy())
    file = DataRef(path="kspace.npy")
    spec = MRISpec(sampling=MeasuredKspace(file=file), coils=CalibratedCoils(file=file))
    operator = spec.build((1, 96, 80), tmp_path).double()
    y = operator.data_from_image(kspace[None, None])
    sense = operator.prox(torch.zeros(1, 1, 96, 80, dtype=torch.complex128), y, 1e-3)[0, 0]
    # RSS of the truth is its magnitude, whatever the phase of the maps
    assert float((sense.abs() - truth.abs()).norm() / truth.norm()) < 0.08
    zero_filled = root_sum_of_squares(centred_ifft(kspace))
    assert float((zero_filled - truth.abs()).norm() / truth.norm()) > 0.2


def test_bad_maps_and_masks_are_refused(tmp_path: Path) -> None:
    mask, maps = torch.ones(6, 7, dtype=torch.bool), birdcage_maps(2, 6, 7, 0)
    with pytest.raises(ShapeError, match="not all zero"):
        MultiCoilMRI(mask, 0 * maps, (1, 6, 7))
    with pytest.raises(ShapeError, match="finite"):
        MultiCoilMRI(mask, maps * torch.nan, (1, 6, 7))
    for wrong in (maps[..., :6], maps[0], torch.ones(2, 6, 7, dtype=torch.int64)):
        with pytest.raises(ShapeError, match=r"coil maps \(coils, 6, 7\)"):
            MultiCoilMRI(mask, wrong, (1, 6, 7))
    for operator in (MRI, RealMRI):
        with pytest.raises(ShapeError, match=r"bool sampling mask of shape \(6, 7\), got \(7, 6\)"):
            operator(mask.T, (1, 6, 7))
        with pytest.raises(ShapeError, match="bool"):
            operator(mask.double(), (1, 6, 7))
        with pytest.raises(ShapeError, match="at least one measured frequency"):
            operator(~mask, (1, 6, 7))
    np.save(tmp_path / "maps.npy", np.zeros((2, 6, 7), np.complex64))
    with pytest.raises(ShapeError, match="not all zero"):
        MRISpec(coils=CoilFile(file=DataRef(path="maps.npy"))).build((1, 6, 7), tmp_path)
    with pytest.raises(ShapeError, match=r"expected \(B, 1, 6, 7\) real, got \(1, 1, 6, 7\) complex64"):
        RealMRI(mask, (1, 6, 7))(torch.zeros(1, 1, 6, 7, dtype=torch.complex64))


def test_needs() -> None:
    specs: list[OperatorSpec] = [MRISpec(), MRISpec(image="real"), MRISpec(coils=BirdcageCoils())]
    assert [Need.SPECTRUM in spec.offers for spec in specs] == [True, True, False]
    for spec in specs:
        assert MRISpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.slow
def test_several_coils_agree_with_sigpy() -> None:
    linop = pytest.importorskip("sigpy.mri.linop", exc_type=ImportError)
    app = pytest.importorskip("sigpy.mri.app", exc_type=ImportError)
    truth, maps = phantom(64, 48)[None, None], birdcage_maps(4, 64, 48, 0)
    operator = MultiCoilMRI(PoissonDisc(acceleration=3).build(64, 48), maps, (1, 64, 48)).double()
    y = operator(truth)
    theirs = linop.Sense(operator.maps.numpy(), weights=operator.mask.double().numpy())
    assert np.allclose(theirs(truth[0, 0].numpy()), operator.data_as_image(y)[0, 0].numpy(), atol=1e-9)
    kspace = operator.data_as_image(y)[0, 0].numpy()
    assert np.allclose(theirs.H(kspace), operator.adjoint(y)[0, 0].numpy(), atol=1e-9)
    recon = app.SenseRecon(
        kspace, operator.maps.numpy(), lamda=1e-2, weights=operator.mask.double().numpy(), max_iter=200, show_pbar=False
    ).run()
    ours = operator.prox(torch.zeros_like(truth), y, 1e-2, tol=1e-9)[0, 0].numpy()
    assert np.linalg.norm(recon - ours) < 1e-4 * np.linalg.norm(ours)


@pytest.mark.skipif(not SCAN.is_file(), reason="no real k-space; set PREIMAGE_DATA")
def test_real_scan() -> None:
    file = DataRef(path=str(SCAN))
    spec = MRISpec(sampling=MeasuredKspace(file=file), coils=CalibratedCoils(file=file))
    operator = spec.build((1, 230, 180))
    assert isinstance(operator, MultiCoilMRI)
    assert operator.acceleration == pytest.approx(8.05, abs=0.1)
    kspace = torch.from_numpy(np.load(SCAN))
    maps = espirit_maps(kspace, kspace.ne(0).any(0))
    assert torch.allclose(operator.maps, maps.to(torch.complex64))
    y = operator.data_from_image(kspace[None, None])
    sense = operator.prox(torch.zeros(1, 1, 230, 180, dtype=torch.complex64), y, 0.01, max_iter=100)
    misfit = torch.linalg.vector_norm(operator(sense) - y) / torch.linalg.vector_norm(y)
    assert float(misfit) < 0.1
