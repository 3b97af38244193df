"""Phase retrieval: the published layout, gradients, and what the classical solvers reach."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage import data, transform
from torch import Tensor

from operators import (
    CodedDiffraction,
    CodedDiffractionSpec,
    Gaussian,
    Hologram,
    HologramSpec,
    Likelihood,
    MagnitudeOperator,
    Need,
    OperatorSpec,
    PhaseRetrieval,
    PhaseRetrievalSpec,
    Poisson,
    Rng,
)
from operators.errors import NeedError, ShapeError
from operators.phase import angular_spectrum, coded_masks
from operators.phase_solvers import align, aligned_psnr, error_reduction, relative_residual, retrieve
from operators.testing import check_operator

SPECS: list[OperatorSpec] = [
    PhaseRetrievalSpec(oversample=0),
    PhaseRetrievalSpec(oversample=4, reading="intensity"),
    CodedDiffractionSpec(masks=1, modulation="uniform"),
    CodedDiffractionSpec(masks=3, reading="intensity", seed=5),
    HologramSpec(distances=(0.3,), reading="amplitude"),
    HologramSpec(distances=(-1.0, 2.0), wavelength=0.5, pixel=0.9),
]


def camera(size: int) -> Tensor:
    picture = transform.resize(data.camera() / 255.0, (size, size), anti_aliasing=True)
    return torch.from_numpy(picture).float()[None]


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 7, 10)], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_variants_pass_the_battery(spec: OperatorSpec, shape: tuple[int, ...]) -> None:
    operator = spec.build(shape)
    fourier = {Need.FOURIER} if spec.kind == "phase-retrieval" else set()
    assert operator.offers == spec.offers == {Need.GRADIENT} | fourier
    check_operator(operator)
    picture = operator.data_as_image(torch.zeros(1, *operator.out_shape))
    assert picture.ndim == 4
    assert spec.image_shape(tuple(picture.shape[1:])) == shape


def test_complex_objects() -> None:
    masks = coded_masks(2, 6, 7, "uniform", 0)
    operators: list[MagnitudeOperator] = [
        PhaseRetrieval((2, 6, 7), 4.0, in_complex=True),
        CodedDiffraction(masks, (2, 6, 7), in_complex=True),
        Hologram((2, 6, 7), [0.2, 0.4], 0.5, 2.0, in_complex=True),
    ]
    for operator in operators:
        check_operator(operator)
        x = Rng([0, 1], dtype=torch.float64).randn(operator.in_shape, complex=True)
        double = operator.to(torch.float64)
        assert torch.allclose(double.unfield(double.field(x)), x, atol=1e-6)
        # a phase common to all is never seen
        assert torch.allclose(double(x * np.exp(0.7j)), double(x), atol=1e-12)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    oversample=st.floats(0, 8),
    channels=st.integers(1, 3),
)
def test_any_size_and_frame(height: int, width: int, oversample: float, channels: int) -> None:
    spec = PhaseRetrievalSpec(oversample=oversample)
    operator = spec.build((channels, height, width))
    rows, columns = int(oversample / 8 * height), int(oversample / 8 * width)
    assert operator.out_shape == (channels, height + 2 * rows, width + 2 * columns)
    assert spec.image_shape(operator.out_shape) == (channels, height, width)
    x = Rng([3]).randn(operator.in_shape)
    assert torch.allclose(operator.unfield(operator.field(x)), x, atol=1e-5)
    # the transform keeps energy
    assert torch.allclose(operator(x).square().sum(), x.square().sum(), rtol=1e-4)


def test_the_published_layout() -> None:
    # 64 pixels of black on each side, centred orthonormal transform of each channel, magnitude
    operator = PhaseRetrievalSpec().build((3, 256, 256))
    assert operator.out_shape == (3, 384, 384)
    x = Rng([0], dtype=torch.float64).rand((3, 256, 256))
    framed = np.pad(x.numpy(), ((0, 0), (0, 0), (64, 64), (64, 64)))
    waves = np.fft.fft2(np.fft.ifftshift(framed, axes=(-2, -1)), norm="ortho")
    assert np.allclose(operator(x).numpy(), np.abs(np.fft.fftshift(waves, axes=(-2, -1))), atol=1e-12)


def test_what_the_data_cannot_tell() -> None:
    operator = PhaseRetrieval((1, 12, 10), 2.0)
    x = Rng([0], dtype=torch.float64).rand((1, 12, 10))
    x[..., :3], x[..., 8:, :] = 0, 0
    for same in (x.flip((-2, -1)), x.roll((2, -2), (-2, -1)), -x):
        assert torch.allclose(operator(same), operator(x), atol=1e-12)
    assert not torch.allclose(operator(x.flip(-1)), operator(x), atol=1e-3)
    # masks tell them apart
    coded = CodedDiffractionSpec(masks=2).build((1, 12, 10))
    assert not torch.allclose(coded(x.flip((-2, -1))), coded(x), atol=1e-2)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_the_gradient_at_zero_is_zero_and_always_the_same(spec: OperatorSpec) -> None:
    operator = spec.build((1, 8, 8))
    data, pullback = operator.vjp(torch.zeros(2, 1, 8, 8))
    for _ in range(2):
        slope = pullback(torch.ones_like(data))
        assert torch.equal(slope, torch.zeros_like(slope))
    # some magnitudes are zero and others not: a constant image has one frequency
    data, pullback = operator.vjp(torch.ones(1, 1, 8, 8))
    assert bool(pullback(torch.ones_like(data)).isfinite().all())


def test_octanary_and_uniform_masks() -> None:
    octanary = coded_masks(64, 32, 32, "octanary", 1)
    sizes = octanary.abs().square()
    assert torch.allclose(torch.unique(sizes.round(decimals=6)), torch.tensor([0.5, 3.0], dtype=torch.float64))
    assert float((sizes > 1).double().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(sizes.mean()) == pytest.approx(1, abs=0.02)
    turns = (octanary / octanary.abs()).flatten()
    for turn in (1, -1, 1j, -1j):
        assert float((turns - turn).abs().lt(1e-9).double().mean()) == pytest.approx(0.25, abs=0.01)
    uniform = coded_masks(16, 32, 32, "uniform", 0)
    assert torch.allclose(uniform.abs(), torch.ones(16, 32, 32, dtype=torch.float64))
    assert float(uniform.mean().abs()) < 0.03
    assert torch.equal(uniform, coded_masks(16, 32, 32, "uniform", 0))
    assert not torch.equal(uniform, coded_masks(16, 32, 32, "uniform", 1))


def test_coded_diffraction_by_hand() -> None:
    masks = coded_masks(3, 5, 6, "octanary", 2)
    operator = CodedDiffraction(masks, (2, 5, 6), "intensity").to(torch.float64)
    x = Rng([0], dtype=torch.float64).rand((2, 5, 6))
    for channel in range(2):
        for k in range(3):
            waves = np.fft.fftshift(np.fft.fft2(masks[k].numpy() * x[0, channel].numpy()))
            expected = np.abs(waves) ** 2 / 30
            assert np.allclose(operator(x)[0, channel, k].numpy(), expected, atol=1e-5)


def test_propagation_of_a_gaussian_beam() -> None:
    # the waist w0 spreads to w0 sqrt(1 + (z λ / (π w0²))²), textbook optics
    size, pixel, wavelength, waist, distance = 256, 2.0, 0.633, 20.0, 2.0
    place = (torch.arange(size, dtype=torch.float64) - size // 2) * pixel
    squared = place[:, None] ** 2 + place**2
    beam = torch.exp(-squared / waist**2)
    operator = Hologram((1, size, size), [0.0, distance], wavelength, pixel).to(torch.float64)
    held, spread = operator(beam[None, None])[0, 0]
    assert torch.allclose(held, beam.square(), atol=1e-6)
    wider = waist * (1 + (distance * 1000 * wavelength / (np.pi * waist**2)) ** 2) ** 0.5
    expected = (waist / wider) ** 2 * torch.exp(-2 * squared / wider**2)
    assert float((spread - expected).abs().max()) < 2e-3 * float(expected.max())


def test_propagating_on_is_propagating_the_sum() -> None:
    near, far, both = angular_spectrum(9, 12, [0.3, 0.5, 0.8], 0.6, 1.5)
    assert torch.allclose(near * far, both, atol=1e-9)
    assert torch.allclose(both.abs(), torch.ones_like(both.abs()))


def test_the_hologram_sent_back_is_a_start() -> None:
    truth = camera(32)[None]
    operator = Hologram((1, 32, 32), [0.2], 0.633, 2.0)
    guess = operator.guess(operator(truth))
    assert float((guess - truth).square().mean()) < 0.5 * float((truth.mean() - truth).square().mean())


def test_samplers_can_use_the_gradient() -> None:
    operator = PhaseRetrieval((1, 6, 6))
    x = Rng([0, 1]).rand((1, 6, 6))
    likelihood = Likelihood(operator, Gaussian(sigma=0.05), operator(x))
    assert torch.allclose(likelihood.misfit(x), torch.zeros(2), atol=1e-5)
    slope, _ = likelihood.grad(x + 0.1)
    assert bool(slope.any())
    with pytest.raises(NeedError, match="proximal step"):
        likelihood.prox(x, 1.0)
    # intensities are counts, and photon noise applies to them
    coded = CodedDiffractionSpec(reading="intensity").build((1, 6, 6))
    assert Poisson(peak=100).sample(coded(x), Rng([0, 1])).shape == (2, *coded.out_shape)


def test_hio_recovers_a_photograph_from_every_start() -> None:
    truth = camera(32)
    operator = PhaseRetrieval((1, 32, 32), 4.0)
    y = operator(truth[None])
    found = retrieve(operator, y, Rng(range(6)), iterations=300, polish=50)
    quality = aligned_psnr(found.restarts, truth)
    assert int((quality > 40).sum()) == 6
    # two orientations of one image: without alignment about half of the starts would count as failures
    plain = -10 * (found.restarts - truth).square().flatten(1).mean(1).log10()
    assert 0 < int((plain > 40).sum()) < 6
    assert found.x.shape == (1, 32, 32)
    assert float(relative_residual(operator, y, found.x[None])) == float(found.residuals.min())
    assert float(found.residuals.min()) < 1e-5


def test_hio_says_by_the_residual_that_the_published_frame_is_not_enough() -> None:
    truth = camera(32)
    operator = PhaseRetrieval((1, 32, 32), 2.0)
    found = retrieve(operator, operator(truth[None]), Rng(range(4)), iterations=300, polish=50)
    assert float(aligned_psnr(found.x[None], truth)) < 40
    assert float(found.residuals.min()) > 1e-4


def test_raar_recovers_it_too() -> None:
    truth = camera(32)
    operator = PhaseRetrieval((1, 32, 32), 4.0)
    found = retrieve(operator, operator(truth[None]), Rng(range(3)), rule="raar", beta=0.99, iterations=300, polish=50)
    assert int((aligned_psnr(found.restarts, truth) > 40).sum()) == 3


def test_channels_and_restarts_are_problems_of_their_own() -> None:
    truth = torch.cat([camera(16), camera(16).flip(-1), 0.5 * camera(16)])
    operator = PhaseRetrieval((3, 16, 16), 4.0)
    y = operator(truth[None])
    found = retrieve(operator, y, Rng([3, 4, 5, 6]), iterations=100, polish=20)
    assert found.residuals.shape == (4, 3)
    for channel, start in enumerate(found.residuals.argmin(0).tolist()):
        assert torch.equal(found.x[channel], found.restarts[start, channel])
    alone = retrieve(operator, y, Rng([5]), iterations=100, polish=20)
    assert torch.allclose(alone.restarts[0], found.restarts[2], atol=1e-4)


def test_error_reduction_never_gets_worse() -> None:
    truth = camera(16)
    for spec in (PhaseRetrievalSpec(oversample=4), CodedDiffractionSpec(masks=2), HologramSpec()):
        operator = spec.build((1, 16, 16))
        y = operator(truth[None])
        x = Rng([0, 1]).rand((1, 16, 16))
        before = torch.full((2, 1), torch.inf)
        for _ in range(8):
            x = error_reduction(operator, y, x, 5)
            after = relative_residual(operator, y, x)
            assert bool((after <= before * 1.0001).all())
            before = after
        # the truth is where it stands still
        assert torch.allclose(error_reduction(operator, y, truth[None], 3), truth[None], atol=1e-5)


def test_masks_and_several_distances_leave_nothing_open() -> None:
    truth = camera(16)
    coded = CodedDiffractionSpec(masks=4, reading="intensity").build((1, 16, 16))
    x = error_reduction(coded, coded(truth[None]), Rng(range(4)).rand((1, 16, 16)), 200)
    assert bool((-10 * (x - truth).square().flatten(1).mean(1).log10() > 60).all())
    stack = HologramSpec().build((1, 16, 16))
    y = stack(truth[None])
    x = error_reduction(stack, y, stack.guess(y), 200)
    assert float((x - truth).square().mean()) < 1e-6


@given(seed=st.integers(0, 99), rows=st.integers(-4, 4), columns=st.integers(-4, 4), turned=st.booleans())
def test_alignment_undoes_what_cannot_be_told(seed: int, rows: int, columns: int, turned: bool) -> None:
    truth = Rng([seed]).rand((2, 9, 12))[0]
    moved = truth.flip((-2, -1)) if turned else truth
    assert torch.equal(align(moved[None], truth)[0], truth)
    shifted = moved.roll((rows, columns), (-2, -1))
    assert torch.equal(align(shifted[None], truth, shifts=True)[0], truth)


def test_alignment_gives_nothing_away() -> None:
    # a mirror image has other magnitudes, and stays wrong
    truth = camera(16)
    assert float(aligned_psnr(truth.flip(-1)[None], truth)) < 20
    assert float(aligned_psnr(truth[None] + 0.1, truth)) == pytest.approx(20, abs=0.01)


def test_bad_parameters() -> None:
    with pytest.raises(ShapeError, match="oversample from 0 to 8"):
        PhaseRetrieval((1, 8, 8), 9.0)
    with pytest.raises(ValidationError, match="less than or equal to 8"):
        PhaseRetrievalSpec(oversample=9)
    with pytest.raises(ValidationError, match="larger pixels"):
        HologramSpec(pixel=0.4)
    with pytest.raises(ValidationError, match="at least 1"):
        HologramSpec(distances=())
    with pytest.raises(ShapeError, match="larger pixels"):
        Hologram((1, 8, 8), [1.0], 0.6, 0.4)
    with pytest.raises(ShapeError, match="at least one distance"):
        Hologram((1, 8, 8), [], 0.6, 2.0)
    with pytest.raises(ShapeError, match="complex masks"):
        CodedDiffraction(torch.ones(2, 8, 8), (1, 8, 8))
    with pytest.raises(ShapeError, match="dark one"):
        CodedDiffraction(torch.zeros(2, 8, 8, dtype=torch.complex64), (1, 8, 8))
    with pytest.raises(ShapeError, match="match the oversample"):
        PhaseRetrievalSpec(oversample=4).image_shape((1, 18, 16))
    with pytest.raises(ShapeError, match="side by side"):
        HologramSpec().image_shape((1, 16, 16))
    with pytest.raises(ShapeError, match="side by side"):
        HologramSpec().build((1, 8, 8)).data_from_image(torch.zeros(1, 1, 8, 8))
    operator = PhaseRetrieval((1, 8, 8), in_complex=True)
    with pytest.raises(ShapeError, match="real images"):
        retrieve(operator, operator.magnitude(torch.ones(1, *operator.out_shape)), Rng([0]))
    with pytest.raises(ShapeError, match="one set of data"):
        retrieve(PhaseRetrieval((1, 8, 8)), torch.ones(2, 1, 12, 12), Rng([0]))
    with pytest.raises(ShapeError, match="beta"):
        retrieve(PhaseRetrieval((1, 8, 8)), torch.ones(1, 1, 12, 12), Rng([0]), beta=1.5)
    with pytest.raises(ShapeError, match="crop"):
        align(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 9))
