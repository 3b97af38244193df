"""Sampling masks measure what they promise, the same for the same seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from operators import DataRef, kinds
from operators.errors import ReadError, ShapeError
from operators.sampling import (
    AnySampling,
    EquispacedColumns,
    EquispacedFraction,
    GaussianColumns,
    GaussianPoints,
    MeasuredKspace,
    PoissonDisc,
    RadialLines,
    RandomColumns,
    Sampling,
    SamplingFile,
    equispaced_columns,
    equispaced_fraction_columns,
    measured_acceleration,
    poisson_disc,
    radial_lines,
    random_columns,
)

DRAWN: list[type[Sampling]] = [
    EquispacedFraction,
    EquispacedColumns,
    RandomColumns,
    GaussianColumns,
    GaussianPoints,
    PoissonDisc,
    RadialLines,
]
COLUMNS = DRAWN[:4]


def test_all_kinds_are_known() -> None:
    assert set(kinds(AnySampling).values()) == {*DRAWN, SamplingFile, MeasuredKspace}


@pytest.mark.parametrize("kind", DRAWN)
def test_seed_decides(kind: type[Sampling]) -> None:
    first, again = (kind.model_validate({"seed": 3}).build(48, 40) for _ in range(2))
    others = [kind.model_validate({"seed": seed}).build(48, 40) for seed in range(5)]
    assert torch.equal(first, again)
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("kind", DRAWN)
def test_description_survives_json(kind: type[Sampling]) -> None:
    spec = kind.model_validate({"acceleration": 3.5, "seed": 2**62})
    adapter: TypeAdapter[Sampling] = TypeAdapter(AnySampling)
    assert adapter.validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("kind", COLUMNS)
@given(height=st.integers(2, 9), width=st.integers(24, 90), seed=st.integers(0, 2**63 - 1))
def test_columns_are_whole_and_have_their_centre(kind: type[Sampling], height: int, width: int, seed: int) -> None:
    spec = kind.model_validate({"acceleration": 4, "centre_fraction": 0.1, "seed": seed})
    mask = spec.build(height, width)
    assert mask.shape == (height, width)
    assert bool((mask == mask[:1]).all())
    count = round(0.1 * width)
    first = (width - count + 1) // 2
    assert bool(mask[0, first : first + count].all())
    assert bool(mask[0, width // 2])


@given(width=st.integers(40, 400), acceleration=st.sampled_from([2, 3.3, 4, 6, 8]), seed=st.integers(0, 99))
def test_equispaced_fraction_hits_the_acceleration(width: int, acceleration: float, seed: int) -> None:
    columns = equispaced_fraction_columns(width, acceleration, round(0.04 * width), seed)
    assert abs(columns.sum() - width / acceleration) <= 2.5


def test_equispaced_is_a_comb() -> None:
    columns = equispaced_columns(320, 4, 26, 1)
    outside = np.flatnonzero(columns)[:20]
    assert set(np.diff(outside)) == {4}
    # the centre comes on top, so that less is spared than asked
    assert measured_acceleration(torch.from_numpy(columns)) == pytest.approx(320 / (80 + 26 - 6), abs=0.1)


def test_random_columns_hit_the_acceleration_on_average() -> None:
    counts = [random_columns(320, 4, 26, seed).sum() for seed in range(400)]
    # binomial: 294 columns with probability 54/294, so a standard deviation of 6.6
    assert np.mean(counts) == pytest.approx(80, abs=4 * 6.6 / 20)
    assert np.std(counts) == pytest.approx(6.6, rel=0.2)


def test_gaussian_points_have_the_published_spread() -> None:
    mask = GaussianPoints(acceleration=64).build(512, 256)
    rows, columns = mask.nonzero(as_tuple=True)
    assert float(rows.double().std()) / 512 == pytest.approx((1.5 / 128) ** 0.5, rel=0.06)
    assert float(columns.double().std()) / 256 == pytest.approx((1.5 / 128) ** 0.5, rel=0.06)
    assert 64 < measured_acceleration(mask) < 70


def test_gaussian_columns_have_the_published_spread() -> None:
    found = torch.cat([GaussianColumns(acceleration=32, centre_fraction=0, seed=s).build(1, 512)[0] for s in range(40)])
    place = found.nonzero().squeeze(1) % 512
    assert float(place.double().std()) / 512 == pytest.approx(15 / 128, rel=0.08)


@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    acceleration=st.sampled_from([2.0, 4.0, 8.0, 13.0]),
    seed=st.integers(0, 99),
)
def test_poisson_disc_counts_exactly(height: int, width: int, acceleration: float, seed: int) -> None:
    mask = poisson_disc(height, width, acceleration, 0.08, seed)
    box = round(0.08 * height) * round(0.08 * width)
    assert mask.sum() == max(round(height * width / acceleration), box)
    assert mask[height // 2, width // 2]


def test_poisson_disc_keeps_its_distance() -> None:
    mask = poisson_disc(96, 96, 10, 0, 0)
    rows, columns = np.nonzero(mask)
    gaps = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    np.fill_diagonal(gaps, np.inf)
    radius = np.hypot(rows - 48, columns - 48) / 48
    inner, outer = gaps.min(1)[radius < 0.25], gaps.min(1)[(radius > 0.9) & (radius < 1.1)]
    assert inner.max() < outer.min()
    # no pair is nearer than 1 + slope · r with one slope, and nearly all are not much further
    slopes = ((gaps.min(1) - 1) / radius.clip(0.3))[radius > 0.5]
    assert slopes.min() > 0.6 * np.median(slopes)


def test_poisson_disc_of_everything() -> None:
    assert poisson_disc(9, 8, 1, 0, 0).all()
    assert poisson_disc(30, 30, 64, 0.5, 0).sum() == 15 * 15


def test_radial_lines_go_through_the_centre() -> None:
    mask = radial_lines(64, 64, 8, 0)
    rows, columns = np.nonzero(mask)
    assert mask[32, 32]
    assert np.hypot(rows - 32, columns - 32).max() < 33
    near = np.hypot(*(np.mgrid[:64, :64] - 32)) < 2
    assert mask[near].all()
    assert 7 < 64 * 64 / mask.sum() <= 8


def test_the_impossible_is_refused() -> None:
    with pytest.raises(ShapeError, match="radial lines"):
        RadialLines(acceleration=1).build(32, 32)
    for kind in (RandomColumns, EquispacedFraction):
        with pytest.raises(ShapeError, match="lower the acceleration or the centre fraction"):
            kind(acceleration=8, centre_fraction=0.3).build(32, 64)
    with pytest.raises(ShapeError, match="at least one measured"):
        RandomColumns(acceleration=64, centre_fraction=0, seed=1).build(2, 4)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        PoissonDisc(acceleration=0.5)
    with pytest.raises(ValueError, match="less than 1"):
        PoissonDisc(centre_fraction=1)


def test_masks_from_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mask = RandomColumns().build(6, 30)
    np.save(tmp_path / "mask.npy", mask.numpy())
    spec = SamplingFile(file=DataRef(path="mask.npy"))
    assert torch.equal(spec.build(6, 30, tmp_path), mask)
    with pytest.raises(ShapeError, match="of 6x31 like the image, got 6x30"):
        spec.build(6, 31, tmp_path)
    kspace = np.random.default_rng(0).normal(size=(3, 6, 30)) * mask.numpy() * (1 + 1j)
    np.save(tmp_path / "kspace.npy", kspace)
    measured = MeasuredKspace(file=DataRef(path="kspace.npy"))
    assert torch.equal(measured.build(6, 30, tmp_path), mask)
    np.save(tmp_path / "row.npy", kspace[0, 0])
    with pytest.raises(ShapeError, match="reshape it"):
        MeasuredKspace(file=DataRef(path="row.npy")).build(6, 30, tmp_path)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ReadError, match="unreadable array"):
        MeasuredKspace(file=DataRef(path="text.npy")).build(6, 30, tmp_path)
    np.save(tmp_path / "nan.npy", kspace * np.nan)
    with pytest.raises(ReadError, match="finite numbers"):
        MeasuredKspace(file=DataRef(path="nan.npy")).build(6, 30, tmp_path)
