"""CT against closed forms, ASTRA and scikit-image; filtered back-projection, low dose, preparation of real data."""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage.transform import iradon, radon
from torch import Tensor

from operators import CT, CTSpec, Gaussian, HounsfieldWindow, Likelihood, LowDose, Rng
from operators.attenuation import hu_from_mu, mu_from_hu
from operators.ct_cone import ConeCT, ConeScan
from operators.ct_geometry import (
    AnyBeam,
    FanBeam,
    ListedAngles,
    ParallelBeam,
    Scan,
    SubsetAngles,
    UniformAngles,
)
from operators.ct_matrix import _kept
from operators.ct_real import line_integrals, rotation_center
from operators.errors import NeedError, ShapeError
from operators.fbp import ray_weights, view_weights
from operators.testing import check_operator

SMALL_FAN = FanBeam(source_origin=60, origin_detector=30)
FLAT_FAN = FanBeam(source_origin=60, origin_detector=30, detector="flat")
BEAMS = [ParallelBeam(), SMALL_FAN, FLAT_FAN]
TOOTH = Path(os.environ.get("PREIMAGE_DATA", "")) / "sinogram/tomopy/source/tomopy/data/tooth.h5"


def spec(**fields: object) -> CTSpec:
    return CTSpec.model_validate({"window": None, **fields})


def uniform(count: int, arc: float | None = None) -> UniformAngles:
    return UniformAngles(count=count, arc=arc)


def disc(size: int, radius: float, x: float = 0, y: float = 0) -> Tensor:
    """A disc of value 1 with smooth edges, centred at x to the right and y upwards of the middle: (size, size)."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    distance = torch.hypot(place - x, -place[:, None] - y)
    return (radius + 0.5 - distance).clamp(0, 1)


@pytest.mark.parametrize("beam", BEAMS, ids=lambda b: f"{b.kind}-{getattr(b, 'detector', '')}")
def test_battery(beam: AnyBeam) -> None:
    angles = SubsetAngles(pattern="limited", count=5, total=9)
    check_operator(spec(beam=beam, angles=angles, window=HounsfieldWindow(), pixel_size=8).build((2, 8, 9)))


@pytest.mark.parametrize("beam", BEAMS, ids=lambda b: f"{b.kind}-{getattr(b, 'detector', '')}")
def test_computed_rays_are_the_stored_matrix(beam: AnyBeam) -> None:
    scan = spec(beam=beam, angles=uniform(13), pixel_size=0.7).scan((2, 17, 20))
    stored, computed = (CT(scan, (2, 17, 20), 0.7, stored_bytes=n) for n in (1 << 30, 0))
    assert stored.projector.stored
    assert not computed.projector.stored
    assert computed.projector.bytes == 0
    x = Rng([0, 1, 2]).randn(stored.in_shape)
    y = stored(x)
    assert torch.allclose(computed(x), y, atol=1e-5)
    assert torch.allclose(computed.adjoint(y), stored.adjoint(y), atol=1e-4)


def test_computed_rays_pass_the_battery() -> None:
    scan = spec(beam=FLAT_FAN, angles=uniform(3)).scan((4, 5))
    check_operator(CT(scan, (1, 4, 5), stored_bytes=0))


@settings(max_examples=12)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    count=st.integers(1, 6),
    detectors=st.integers(1, 12),
    center=st.floats(-3, 15),
    pixel=st.floats(0.1, 3),
    spacing=st.floats(0.1, 3),
    beam=st.sampled_from(BEAMS),
    seed=st.integers(0, 9),
)
def test_adjoint_of_any_scan(
    height: int,
    width: int,
    count: int,
    detectors: int,
    center: float,
    pixel: float,
    spacing: float,
    beam: AnyBeam,
    seed: int,
) -> None:
    angles = tuple((np.arange(count) * 0.9 + seed).tolist())
    op = CT(Scan(angles, beam, detectors, spacing, center), (2, height, width), pixel).double()
    rng = Rng([seed, seed + 1], dtype=torch.float64)
    x, y = rng.randn(op.in_shape), rng.randn(op.out_shape)
    left, right = (op(x) * y).sum(), (x * op.adjoint(y)).sum()
    assert abs(float(left - right)) <= 1e-12 * float(op(x).norm() * y.norm() + 1e-12)
    leaf = x.requires_grad_()
    (slope,) = torch.autograd.grad((op(leaf) * y).sum(), leaf, create_graph=True)
    assert torch.allclose(slope, op.adjoint(y))


@pytest.mark.parametrize("beam", BEAMS, ids=lambda b: f"{b.kind}-{getattr(b, 'detector', '')}")
def test_line_integrals_of_a_bell(beam: AnyBeam) -> None:
    # 20.3 pixels right and 9.6 down of the middle, 7 wide; a pixel is 0.5
    op = spec(beam=beam, angles=uniform(24), pixel_size=0.5).build((100, 100))
    place = torch.arange(100, dtype=torch.float64) - 49.5
    bell = torch.exp(-((place - 20.3).square() + (-place[:, None] + 9.6).square()) / (2 * 7**2))
    phi, s = op.scan.lines()
    distance = s - 0.5 * (20.3 * np.cos(phi) - 9.6 * np.sin(phi))
    expected = 3.5 * math.sqrt(2 * math.pi) * np.exp(-((distance / 3.5) ** 2) / 2)
    assert np.abs(op.double()(bell[None])[0].numpy() - expected).max() < 0.01 * expected.max()
    if beam.kind == "fan":
        # all rays of a view pass through its source
        source = 60 * np.array([np.sin(op.scan.angles), -np.cos(op.scan.angles)])
        assert np.allclose(source[0][:, None] * np.cos(phi) + source[1][:, None] * np.sin(phi), s)


def test_what_a_view_at_zero_and_at_ninety_degrees_sees() -> None:
    x = Rng([0]).rand((5, 7))
    y = spec(angles=ListedAngles(degrees=(0, 90)), detectors=7, pixel_size=2).build((5, 7))(x)
    assert torch.allclose(y[0, 0], 2 * x[0].sum(0), atol=1e-5)
    # at 90° columns are counted upwards
    assert torch.allclose(y[0, 1, 1:6], 2 * x[0].sum(1).flip(0), atol=1e-5)


def test_scikit_image_measures_the_same() -> None:
    size = 65
    blob = torch.exp(-((torch.arange(size) - 40.0).square() + (torch.arange(size)[:, None] - 25.0).square()) / 50)
    blob = blob * (disc(size, 31) == 1)
    op = spec(angles=uniform(20), detectors=size).build((size, size)).double()
    theirs = radon(blob.double().numpy(), theta=np.degrees(op.scan.angles), circle=True).T
    ours = op(blob.double()[None])[0].numpy()
    assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(theirs)


def test_astra_measures_the_same() -> None:
    astra = pytest.importorskip("astra")
    image, angles = Rng([3]).rand((30, 42)), np.radians(np.arange(0, 180, 11.3))
    grid = astra.create_vol_geom(30, 42, -0.65 * 42, 0.65 * 42, -0.65 * 30, 0.65 * 30)

    def theirs(kind: str, geometry: dict[str, object], x: Tensor) -> np.ndarray:
        projector = astra.create_projector(kind, geometry, grid)
        matrix = astra.matrix.get(astra.projector.matrix(projector))
        return (matrix @ x.flatten().numpy()).reshape(len(angles), -1)

    op = CT(Scan(tuple(angles), ParallelBeam(), 60, 0.8, 29.5), (30, 42), 1.3)
    linear = theirs("linear", astra.create_proj_geom("parallel", 0.8, 60, angles), image)
    assert np.abs(op(image)[0].numpy() - linear).max() < 5e-5 * linear.max()
    # ASTRA has no interpolating fan beam on the CPU; in a smooth image strips are all but lines
    smooth = torch.exp(-(torch.linspace(-2, 2, 42).square() + torch.linspace(-2, 3, 30).square()[:, None]))[None]
    beam = FanBeam(source_origin=80, origin_detector=50, detector="flat")
    op = CT(Scan(tuple(angles), beam, 60, 1.5, 29.5), (30, 42), 1.3)
    strips = theirs("strip_fanflat", astra.create_proj_geom("fanflat", 1.5, 60, angles, 80.0, 50.0), smooth)
    assert np.abs(op(smooth)[0].numpy() - strips).max() < 0.02 * strips.max()


@pytest.mark.parametrize("beam", [ParallelBeam(), FLAT_FAN], ids=lambda b: b.kind)
def test_strips(beam: AnyBeam) -> None:
    pytest.importorskip("astra")
    check_operator(spec(beam=beam, model="strip", angles=uniform(4), spacing=3).build((1, 6, 7)))
    # a wide column is the mean of the narrow ones in it, here with the axis off the middle where that is offered
    place = torch.arange(20) - 9.5
    x = torch.exp(-((place - 1).square() + (place[:, None] - 2).square()) / 18)[None]
    axis, narrow_axis = (6.0, 25.5) if beam.kind == "parallel" else (None, None)
    angles = uniform(5)
    wide = spec(beam=beam, model="strip", angles=angles, spacing=2, detectors=22, center=axis).build((20, 20))
    narrow = spec(beam=beam, angles=angles, spacing=0.5, detectors=88, center=narrow_axis).build((20, 20))
    assert torch.allclose(wide(x), narrow(x).reshape(1, 5, 22, 4).mean(-1), atol=0.1)
    assert float(wide(x).max()) > 6
    if beam.kind == "fan":
        with pytest.raises(ShapeError, match="axis at column 3 of 22"):
            spec(beam=beam, model="strip", detectors=22, center=3).build((20, 20))
        with pytest.raises(ShapeError, match="got a curved one"):
            spec(beam=SMALL_FAN, model="strip").build((20, 20))


def test_strips_without_astra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astra", None)
    with pytest.raises(NeedError, match="pip install astra-toolbox"):
        spec(model="strip").build((8, 8))


def test_the_same_scan_is_built_once() -> None:
    build = spec(angles=uniform(5), pixel_size=0.123).build
    first, second = build((3, 8, 8)), build((1, 8, 8))
    other = spec(angles=uniform(5), pixel_size=0.124).build((1, 8, 8))
    assert first.projector._values.data_ptr() == second.projector._values.data_ptr()
    assert other.projector._values.data_ptr() != first.projector._values.data_ptr()
    assert len(_kept) >= 2
    assert not first.state_dict()


def test_sparse_views_are_rows_of_the_complete_scan() -> None:
    x = Rng([0]).rand((1, 16, 16))
    whole = spec(angles=SubsetAngles(count=180)).build((1, 16, 16))(x)
    for angles in (SubsetAngles(count=18), SubsetAngles(count=23), SubsetAngles(pattern="limited", count=120)):
        assert torch.allclose(spec(angles=angles).build((1, 16, 16))(x), whole[:, :, angles.indices], atol=1e-5)
    assert SubsetAngles(count=30).indices == list(range(0, 180, 6))
    assert SubsetAngles(pattern="limited", count=90).indices == list(range(90))
    turn = SubsetAngles(count=4, total=8).radians(360)
    assert np.allclose(turn, np.radians([0, 90, 180, 270]))


def test_the_default_detector_sees_the_whole_image() -> None:
    assert spec().scan((1, 256, 256)).detectors == 363
    for beam in BEAMS:
        op = spec(beam=beam, angles=uniform(8)).build((20, 30))
        seen = op.adjoint(torch.ones(1, *op.out_shape))[0]
        wider = replace(op.scan, detectors=op.scan.detectors + 10, center=op.scan.center + 5)
        assert torch.allclose(CT(wider, (20, 30)).adjoint(torch.ones(1, 8, wider.detectors))[0], seen, atol=1.01)
        assert float(seen.min()) > 0


@pytest.mark.parametrize(
    ("beam", "angles", "tolerance"),
    [
        (ParallelBeam(), uniform(90), 0.01),
        (ParallelBeam(), uniform(90, 360), 0.01),
        (ParallelBeam(), ListedAngles(degrees=tuple(np.linspace(0, 180, 91).tolist())), 0.01),
        (SMALL_FAN, uniform(120), 0.01),
        (FLAT_FAN, uniform(120), 0.01),
        (SMALL_FAN, uniform(120, 300), 0.01),
        (FLAT_FAN, uniform(120, 300), 0.01),
        (FLAT_FAN, uniform(120, 200), 0.05),
    ],
    ids=str,
)
@pytest.mark.parametrize("pixel", [1.0, 0.4])
def test_fbp_of_a_disc(beam: AnyBeam, angles: UniformAngles, tolerance: float, pixel: float) -> None:
    op = spec(beam=beam, angles=angles, pixel_size=pixel).build((1, 64, 64))
    truth = disc(64, 20, 6, -3).float()
    found = op.guess(op(truth[None, None]))[0, 0]
    assert float(found[disc(64, 17, 6, -3) == 1].mean()) == pytest.approx(1, abs=tolerance)
    assert float(found[(disc(64, 24, 6, -3) == 0) & (disc(64, 30) == 1)].mean()) == pytest.approx(0, abs=2 * tolerance)


def test_fbp_with_an_axis_off_the_middle_and_a_window() -> None:
    op = spec(angles=uniform(90), detectors=96, center=51.3, window=HounsfieldWindow()).build((1, 64, 64))
    truth = disc(64, 20, 6, -3).float()[None, None]
    found = op.guess(op(truth))
    assert float(found[0, 0][disc(64, 17, 6, -3) == 1].mean()) == pytest.approx(1, abs=0.01)
    # an axis that is wrong by two columns is no small thing
    wrong = CT(replace(op.scan, center=49.3), op.in_shape, window=op.window).guess(op(truth))
    assert float((wrong - truth).norm()) > 1.5 * float((found - truth).norm())


@pytest.mark.parametrize("ramp", ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"])
def test_scikit_image_filters_the_same(ramp: str) -> None:
    op = spec(angles=uniform(40), detectors=49, ramp=ramp).build((1, 49, 49))
    y = Rng([0], dtype=torch.float64).randn(op.out_shape)
    ours = op.guess(y)[0, 0].numpy()
    theta = np.degrees(op.scan.angles)
    name = "ramp" if ramp == "ram-lak" else ramp
    theirs = iradon(y[0, 0].numpy().T, theta=theta, circle=True, filter_name=name)
    inside = disc(49, 22).numpy() == 1
    assert np.linalg.norm((ours - theirs)[inside]) < 0.02 * np.linalg.norm(theirs[inside])


def test_weights_of_views() -> None:
    even = view_weights(np.radians(np.arange(0, 180, 3)), math.pi)
    assert np.allclose(even, np.pi / 60)
    # the same directions from both sides share the weight, in any order
    assert np.allclose(view_weights(np.radians(np.arange(0, 360, 3))[::-1], math.pi), np.pi / 120)
    # a wedge not measured is not filled by its neighbours
    assert np.allclose(view_weights(np.radians(np.arange(0, 120, 2)), math.pi), np.pi / 90)
    uneven = view_weights(np.radians([0, 10, 30, 100]), math.pi)
    assert uneven[1] == pytest.approx(np.radians(15))
    assert view_weights(np.array([0.3]), math.pi) == pytest.approx(math.pi)


@pytest.mark.parametrize("arc", [215.0, 250.0, 359.0])
def test_parker_weights_count_every_line_once(arc: float) -> None:
    beam = FanBeam(source_origin=100, origin_detector=0)
    scan = Scan(tuple(np.radians(np.arange(0, arc, 0.25)).tolist()), beam, 41, 1.0, 20.0)
    weights, gamma = ray_weights(scan), scan.fan_angles
    assert ((weights >= 0) & (weights <= 1)).all()
    for column in (0, 7, 20, 33):
        for view in range(0, len(scan.angles), 37):
            # the same line from the other side: beta − 2 gamma + 180°, −gamma
            opposite = np.degrees(scan.angles[view] - 2 * gamma[column]) + 180
            total = weights[view, column]
            other = np.interp(opposite % 360, np.degrees(scan.angles), weights[:, 40 - column], left=0, right=0)
            assert total + other == pytest.approx(1, abs=0.02)


def test_pinv_finds_the_image_where_fbp_does_not() -> None:
    op = spec(angles=uniform(40)).build((1, 20, 20)).double()
    x = Rng([0], dtype=torch.float64).rand(op.in_shape)
    assert float((op.pinv(op(x), tol=1e-10, max_iter=2000) - x).norm()) < 1e-3 * float(x.norm())
    assert float((op.guess(op(x)) - x).norm()) > 0.1 * float(x.norm())


@pytest.mark.parametrize("window", [None, HounsfieldWindow()])
def test_the_pseudo_inverse_does_not_mind_tiny_pixels(window: HounsfieldWindow | None) -> None:
    usual, tiny = (spec(pixel_size=p, window=window).build((1, 1, 16)) for p in (1.0, 1e-6))
    x = Rng([0]).rand((1, 1, 16))
    assert torch.allclose(tiny.pinv(tiny(x)), usual.pinv(usual(x)), atol=1e-3)
    assert torch.allclose(tiny(tiny.pinv(tiny(x))), tiny(x), rtol=1e-3, atol=1e-10)
    check_operator(tiny)


def test_hounsfield_units() -> None:
    hu = torch.linspace(-1024, 3071, 50, dtype=torch.float64)
    assert torch.allclose(hu_from_mu(mu_from_hu(hu)), hu)
    assert float(mu_from_hu(torch.tensor(0.0))) == pytest.approx(0.02)
    assert float(mu_from_hu(torch.tensor(-1000.0, dtype=torch.float64))) == pytest.approx(2e-5)
    assert float(mu_from_hu(torch.tensor(3071.0))) == pytest.approx(0.08136, rel=1e-3)  # LoDoPaB's largest
    window = HounsfieldWindow(low=-160, high=240, mu_water=0.0195)
    assert torch.allclose(window.to_hu(window.to_unit(hu)), hu)
    above_air = mu_from_hu(hu, 0.0195) - mu_from_hu(torch.tensor(-1000.0), 0.0195)
    assert torch.allclose(window.slope * window.to_unit(hu) + window.intercept, above_air, atol=1e-8)
    assert HounsfieldWindow().intercept == 0


@pytest.mark.parametrize("low", [-1000.0, -1024.0, -160.0])
@pytest.mark.parametrize("stored", [1 << 30, 0])
def test_a_window_makes_an_affine_measurement_linear(low: float, stored: int) -> None:
    window = HounsfieldWindow(low=low, high=800)
    plain = spec(angles=uniform(7), pixel_size=1.5).build((1, 12, 12)).double()
    op = CT(plain.scan, plain.in_shape, 1.5, window=window, stored_bytes=stored).double()
    hu = 600 * Rng([0], dtype=torch.float64).rand(op.in_shape) - 900
    measured = plain(mu_from_hu(hu) - mu_from_hu(torch.tensor(-1000.0, dtype=torch.float64)))
    y = op.data_from_image(measured)
    assert torch.allclose(y, op(window.to_unit(hu)), atol=1e-6)
    assert torch.allclose(op.data_as_image(y), measured, atol=1e-12)
    assert bool(op.background(y).any()) == (low != -1000)


@pytest.mark.parametrize("stored", [1 << 30, 0])
def test_the_background_is_as_precise_as_the_data(stored: int) -> None:
    window = HounsfieldWindow(low=-160, high=240)
    plain = spec(angles=uniform(7)).build((1, 12, 12))
    # never moved to float64 itself: the data alone ask for it
    op = CT(plain.scan, plain.in_shape, window=window, stored_bytes=stored)
    y = torch.zeros(1, *op.out_shape, dtype=torch.float64)
    zero_hu = torch.full((1, *op.in_shape), window.intercept / window.slope, dtype=torch.float64)
    assert op.background(y).dtype == torch.float64
    assert torch.equal(op.data_as_image(y), op(zero_hu))
    assert op.background(y.float()).dtype == torch.float32
    check_operator(op)


# Cone beam


def cone(views: int, rows: int, columns: int, spacing: float, *, axis: float = 0.0) -> ConeScan:
    beam = FanBeam(source_origin=90, origin_detector=45, detector="flat")
    angles = tuple((np.arange(views) * (2 * np.pi / views)).tolist())
    middle = Scan(angles, beam, columns, spacing, (columns - 1) / 2 + axis)
    return ConeScan(middle, rows, (rows - 1) / 2 - axis)


def ball(size: int, radius: float, x: float, y: float, z: float) -> Tensor:
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    distance = ((place[:, None, None] - z).square() + (-place[:, None] - y).square() + (place - x).square()).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)


def test_cone_beam_battery() -> None:
    check_operator(ConeCT(cone(3, 4, 7, 1.7, axis=0.3), (2, 3, 4, 5), 1.2))
    stored, computed = (ConeCT(cone(4, 6, 9, 1.5), (5, 6, 7), stored_bytes=n) for n in (1 << 30, 0))
    x = Rng([0, 1]).rand((5, 6, 7))
    assert torch.allclose(computed(x), stored(x), atol=1e-5)
    assert torch.allclose(computed.adjoint(stored(x)), stored.adjoint(stored(x)), atol=1e-4)


def test_cone_beam_integrals_of_a_bell() -> None:
    scan = cone(6, 20, 24, 1.5, axis=0.4)
    place = torch.arange(32, dtype=torch.float64) - 15.5
    center = np.array([3.0, -2.0, 4.0])
    bell = torch.exp(
        -((place[:, None, None] - 4).square() + (-place[:, None] + 2).square() + (place - 3).square()) / (2 * 4**2)
    )
    y = ConeCT(scan, (32, 32, 32)).double()(bell[None])[0].numpy()
    for view, row, column in [(0, 3, 5), (1, 10, 12), (2, 19, 20), (4, 12, 14), (5, 14, 9)]:
        angle = scan.middle.angles[view]
        source = 90 * np.array([np.sin(angle), -np.cos(angle), 0])
        u, v = (column - scan.middle.center) * 1.5, (row - scan.center_row) * 1.5
        pixel = 45 * np.array([-np.sin(angle), np.cos(angle), 0])
        ray = pixel + u * np.array([np.cos(angle), np.sin(angle), 0]) + np.array([0, 0, v]) - source
        ray /= np.linalg.norm(ray)
        away = center - source
        distance = np.linalg.norm(away - (away @ ray) * ray)
        expected = 4 * math.sqrt(2 * math.pi) * math.exp(-(distance**2) / (2 * 4**2))
        assert y[view, row, column] == pytest.approx(expected, abs=0.1)  # one hundredth of the largest


def test_fdk_of_a_ball() -> None:
    op = ConeCT(cone(40, 40, 44, 1.0), (1, 24, 24, 24), ramp="ram-lak")
    found = op.guess(op(ball(24, 7, 2, -1, 1.5)[None, None].float()))[0, 0]
    assert float(found[ball(24, 5, 2, -1, 1.5) == 1].mean()) == pytest.approx(1, abs=0.02)
    assert float(found[(ball(24, 9, 2, -1, 1.5) == 0) & (ball(24, 11, 0, 0, 0) == 1)].mean()) == pytest.approx(
        0, abs=0.02
    )


def test_impossible_cones_are_refused() -> None:
    flat = cone(3, 4, 5, 1.0)
    with pytest.raises(ShapeError, match="flat detector"):
        ConeScan(replace(flat.middle, beam=ParallelBeam()), 4, 1.5)
    with pytest.raises(ShapeError, match="at least one detector row"):
        ConeScan(flat.middle, 0, 0.0)
    with pytest.raises(ShapeError, match="within 35°"):
        ConeScan(flat.middle, 300, 149.5)
    with pytest.raises(ShapeError, match="stack its slices"):
        ConeCT(flat, (16, 16))
    with pytest.raises(ShapeError, match="voxel size > 0"):
        ConeCT(flat, (4, 4, 4), -1.0)
    with pytest.raises(ShapeError, match="source farther"):
        ConeCT(flat, (4, 4, 4), 40.0)


# Low dose


def test_a_floor_above_all_counts_is_refused() -> None:
    with pytest.raises(ValidationError, match="floor below the photons, 10, got 50"):
        LowDose(photons=10, floor=50)
    with pytest.raises(ValidationError, match="floor below"):
        LowDose(photons=10, floor=10)
    assert LowDose(photons=10, floor=9.9).floor == 9.9


def test_low_dose_moments() -> None:
    noise = LowDose(photons=1e4, electronic=8)
    clean = torch.tensor([0.0, 1.0, 3.0, 5.0], dtype=torch.float64).repeat_interleave(40000)[None]
    y = noise.sample(clean, Rng([0]))
    rows, level = y.reshape(4, -1), clean.reshape(4, -1)[:, 0]
    variance = (level.exp() + 64 * (2 * level).exp() / 1e4) / 1e4
    assert torch.allclose(rows[:3].var(1), variance[:3], rtol=0.05)
    assert torch.allclose(noise.data_variance(level), variance)
    white = noise.whiten(y, clean).reshape(4, -1)
    assert torch.allclose(white.square().mean(1), torch.ones(4).double(), rtol=0.05)
    assert (white.mean(1).abs() < 5 / 200).all()
    # a residual of the sign of y − clean, and of its size where counts are many
    assert torch.allclose(white[0], (rows[0] - 0) / variance[0].sqrt(), atol=0.15)


def test_low_dose_is_the_law_of_poisson_counts() -> None:
    noise = LowDose(photons=50, electronic=0)
    counts = torch.tensor([[1.0, 4.0, 30.0]], dtype=torch.float64)
    y = -(counts / 50).log()
    a, b = torch.tensor([[0.1, 2.0, 0.5]]).double(), torch.tensor([[3.0, 0.7, 0.6]]).double()
    law = [torch.distributions.Poisson(50 * (-c).exp()).log_prob(counts).sum() for c in (a, b)]
    assert float(noise.log_prob(y, a) - noise.log_prob(y, b)) == pytest.approx(float(law[0] - law[1]))
    assert torch.allclose(noise.score(y, a), 50 * (-a).exp() - counts)
    assert float(noise.log_prob(y, y)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("electronic", [0.0, 6.0])
def test_low_dose_score_is_the_slope_and_stays_finite(electronic: float) -> None:
    noise = LowDose(photons=300, electronic=electronic)
    clean = torch.linspace(-30, 200, 400, dtype=torch.float64)[:, None].requires_grad_()
    for level in (-0.1, 1.0, 8.1, 50.0):
        y = torch.full((1, 1), level, dtype=torch.float64)
        value = noise.log_prob(y, clean)
        (slope,) = torch.autograd.grad(value.sum(), clean)
        assert torch.isfinite(value).all()
        assert torch.allclose(noise.score(y, clean), slope, atol=1e-9)
        single = noise.score(y.float(), clean.detach().float())
        assert torch.isfinite(single).all()
        # more than was sent is pushed back
        assert (slope[clean < -0.2] > 0).all()


def test_starved_rays_are_reported_and_weigh_nothing() -> None:
    noise = LowDose(photons=100, electronic=3)
    y = noise.sample(torch.cat([torch.zeros(1, 500), torch.full((1, 500), 12.0)], 1), Rng([0, 1]))
    assert torch.isfinite(y).all()
    share = noise.starved(y)
    assert share.shape == (2,)
    assert (share > 0.2).all()
    assert (share < 0.3).all()
    weights = 1 / noise.data_variance(y)
    assert float(weights[:, 500:].max()) < 0.1 * float(weights[:, :500].mean())
    with pytest.raises(ShapeError, match="clean data >= 0"):
        noise.sample(torch.full((1, 3), -1.0), Rng([0]))


def test_low_dose_likelihood_of_a_scan() -> None:
    op = spec(window=HounsfieldWindow(), pixel_size=8, angles=uniform(30)).build((1, 32, 32))
    truth = 0.5 * disc(32, 13).float()[None, None]
    clean = op(truth)
    assert 3.5 < float(clean.max()) < 5
    noise = LowDose()
    likelihood = Likelihood(op, noise, noise.sample(clean, Rng([0])))
    assert float(likelihood.residual_sigma(truth)) == pytest.approx(1, abs=0.1)
    slope, value = likelihood.grad(truth + 0.05)
    assert float(likelihood.log_prob(truth)) > float(value)
    assert float(slope.sum()) < 0
    assert Likelihood(op, Gaussian(), clean).prox(truth, 0.1).shape == truth.shape


# Real data


def test_line_integrals_of_readings() -> None:
    truth = Rng([0], dtype=torch.float64).rand((5, 9)).squeeze(0) * 3
    dark, beam = torch.full((2, 9), 100.0).double(), torch.linspace(900, 1100, 9).double()
    readings = 100 + beam * (-truth).exp()
    assert torch.allclose(line_integrals(readings, (100 + beam).expand(3, 9), dark), truth)
    assert float(line_integrals(torch.zeros(1, 9).double(), (100 + beam)[None], dark).max()) == pytest.approx(
        -math.log(1e-4)
    )
    with pytest.raises(ShapeError, match="9 columns that are not"):
        line_integrals(readings, dark, dark)
    with pytest.raises(ShapeError, match="same columns"):
        line_integrals(readings[:, 1:], dark, dark)


@pytest.mark.parametrize(("center", "background"), [(44.3, 0.5), (57.0, 0.0)])
def test_the_rotation_axis_is_found(center: float, background: float) -> None:
    truth = disc(64, 22, 4, 3) + disc(64, 5, -8, 2) - 0.8 * disc(64, 4, 9, -7)
    scan = spec(angles=uniform(40), detectors=96, center=center).scan((64, 64))
    y = CT(scan, (64, 64))(truth[None].float())[0] + background
    y = y + 0.2 * Rng([0]).randn(y.shape)[0]
    assert rotation_center(y, replace(scan, center=47.5), reach=0.15) == pytest.approx(center, abs=0.3)


def test_the_rotation_axis_needs_its_sinogram() -> None:
    scan = spec(angles=uniform(9), detectors=20).scan((16, 16))
    with pytest.raises(ShapeError, match="9 views and 20 columns"):
        rotation_center(torch.zeros(9, 21), scan)


@pytest.mark.skipif(not TOOTH.is_file(), reason="no real projections; set PREIMAGE_DATA")
def test_the_rotation_axis_of_a_real_tooth() -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(TOOTH) as file:
        data, white, dark = (
            torch.from_numpy(file[f"exchange/{name}"][:, 0].astype("float32"))
            for name in ("data", "data_white", "data_dark")
        )
        theta = np.radians(file["exchange/theta"][:])
    y = line_integrals(data, white, dark)
    # the first and the last view are opposite to each other: mirrored at 295.6 they agree
    every = slice(None, None, 2)
    scan = Scan(tuple(theta[every].tolist()), ParallelBeam(), y.shape[1], 1.0, 290.0)
    assert rotation_center(y[every], scan, reach=0.03) == pytest.approx(295.9, abs=0.6)


# Refusals


@pytest.mark.parametrize(
    "bad",
    [
        {"angles": {"kind": "list", "degrees": []}},
        {"angles": {"kind": "uniform", "count": 0}},
        {"angles": {"kind": "uniform", "arc": -90}},
        {"angles": {"kind": "subset", "count": 200, "total": 180}},
        {"angles": {"kind": "list", "degrees": [float("nan")]}},
        {"detectors": 0},
        {"pixel_size": 0},
        {"spacing": -1},
        {"center": float("inf")},
        {"beam": {"kind": "fan", "source_origin": -541}},
        {"beam": {"kind": "fan", "origin_detector": -1}},
        {"beam": {"kind": "cone"}},
        {"window": {"low": 100, "high": 100}},
        {"ramp": "none"},
    ],
    ids=str,
)
def test_bad_descriptions_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CTSpec.model_validate(bad)


@pytest.mark.parametrize(
    "fields",
    [
        {"angles": uniform(20_000), "detectors": 100_000},
        {"spacing": 1e-12},
        {"spacing": 1e-320},
        {"spacing": 1e-320, "beam": SMALL_FAN},
        {"spacing": 1e-320, "beam": FLAT_FAN},
    ],
)
def test_more_rays_than_fit_into_memory_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ShapeError, match=r"at most 64 million rays, got \d+ views of"):
        spec(**fields).build((1, 16, 16))


def test_impossible_scans_are_refused() -> None:
    inside = FanBeam(source_origin=10)
    with pytest.raises(ShapeError, match="source farther from the axis"):
        spec(beam=inside).build((1, 16, 16))
    with pytest.raises(ShapeError, match="source farther from the axis"):
        CT(Scan((0.0,), inside, 4, 1.0, 1.5), (16, 16))
    with pytest.raises(ShapeError, match="at least one view"):
        Scan((), ParallelBeam(), 4, 1.0, 1.5)
    with pytest.raises(ShapeError, match="at least one detector column"):
        Scan((0.0,), ParallelBeam(), 0, 1.0, 1.5)
    with pytest.raises(ShapeError, match="column spacing > 0"):
        Scan((0.0,), ParallelBeam(), 4, math.nan, 1.5)
    with pytest.raises(ShapeError, match="finite rotation centre"):
        Scan((0.0,), ParallelBeam(), 4, 1.0, math.nan)
    with pytest.raises(ShapeError, match="fan angles below 90°"):
        Scan((0.0,), SMALL_FAN, 400, 1.0, 199.5)
    with pytest.raises(ShapeError, match="pixel size > 0"):
        CT(Scan((0.0,), ParallelBeam(), 4, 1.0, 1.5), (16, 16), 0.0)


def test_the_image_behind_a_sinogram() -> None:
    for size in (17, 64, 100):
        for beam in (ParallelBeam(), FanBeam(), FanBeam(detector="flat")):
            described = spec(beam=beam, angles=uniform(8))
            sinogram = described.build((1, size, size)).out_shape
            shape = described.image_shape(sinogram)
            assert abs(shape[-1] - size) <= 1
            assert described.build(shape).out_shape == sinogram
    assert spec(angles=uniform(8), detectors=31).image_shape((3, 8, 31)) == (3, 31, 31)
    with pytest.raises(ShapeError, match="8 views and 31 columns, got 9 and 31"):
        spec(angles=uniform(8), detectors=31).image_shape((3, 9, 31))
