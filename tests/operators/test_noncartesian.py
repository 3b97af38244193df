"""MRI off the grid: the transform against its definition, both ways of computing it, and trajectories."""

import builtins
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import DataRef, NonCartesianMRI, NonCartesianMRISpec, Rng
from operators.coils import BirdcageCoils, SingleCoil, birdcage_maps
from operators.errors import NeedError, ReadError, ShapeError
from operators.mri import centred_fft
from operators.noncartesian import (
    RadialTrajectory,
    SpiralTrajectory,
    TrajectoryFile,
    radial_trajectory,
    spiral_trajectory,
)
from operators.testing import adjoint_error, check_operator


def transforms() -> list[str]:
    try:
        import finufft  # noqa: F401
    except ImportError:
        return ["direct"]
    return ["direct", "nufft"]


def random_points(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (count, 2)))


@pytest.mark.parametrize("transform", transforms())
@pytest.mark.parametrize("image", ["complex", "real"])
@pytest.mark.parametrize("coils", [SingleCoil(), BirdcageCoils(coils=2)], ids=lambda c: c.kind)
@pytest.mark.parametrize(
    ("trajectory", "shape"),
    [
        (RadialTrajectory(spokes=2), (2, 7, 10)),
        (SpiralTrajectory(interleaves=2, turns=1, samples=9), (1, 8, 5)),
        (RadialTrajectory(spokes=3, samples=5), (2, 2, 5, 4)),
    ],
    ids=["radial", "spiral", "dynamic"],
)
def test_variants_pass_the_battery(
    transform: str, image: str, coils: object, trajectory: object, shape: tuple[int, ...]
) -> None:
    spec = NonCartesianMRISpec.model_validate(
        {"trajectory": trajectory, "coils": coils, "image": image, "transform": transform}
    )
    operator = spec.build(shape)
    assert operator.offers == spec.offers
    assert NonCartesianMRISpec.model_validate_json(spec.model_dump_json()) == spec
    check_operator(operator)


@pytest.mark.parametrize("transform", transforms())
@pytest.mark.parametrize("size", [(31, 33), (16, 20)])
def test_transform_is_its_definition(transform: str, size: tuple[int, int]) -> None:
    points = random_points(40).float().double()
    x = Rng([0], dtype=torch.float64).randn((2, *size), complex=True)
    rows, columns = torch.arange(size[0]) - size[0] // 2, torch.arange(size[1]) - size[1] // 2
    turns = points[:, :1, None] * rows[:, None] + points[:, 1:, None] * columns
    expected = (x[:, :, None] * torch.exp(-2j * torch.pi * turns)).sum((-2, -1)) / (size[0] * size[1]) ** 0.5
    operator = NonCartesianMRI(points, (2, *size), transform=transform).double()  # type: ignore[arg-type]
    # the direct factors are stored in single precision
    assert torch.allclose(operator(x), expected, atol=1e-5 if transform == "direct" else 1e-10)
    single = operator(x.to(torch.complex64))
    assert torch.allclose(single.to(torch.complex128), expected, atol=1e-4)


@pytest.mark.parametrize("transform", transforms())
def test_on_the_grid_it_is_the_orthonormal_transform(transform: str) -> None:
    size = (9, 12)
    places = torch.cartesian_prod(*((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in size))
    operator = NonCartesianMRI(places, (1, *size), transform=transform).double()  # type: ignore[arg-type]
    x = Rng([0], dtype=torch.float64).randn((1, *size), complex=True)
    assert torch.allclose(operator(x), centred_fft(x).flatten(-2), atol=1e-5)
    assert torch.allclose(operator.normal(x), x, atol=1e-5)
    assert torch.allclose(operator.guess(operator(x)), x, atol=1e-2)


@pytest.mark.parametrize("transform", transforms())
def test_adjoint_and_normal_at_full_size(transform: str) -> None:
    operator = NonCartesianMRI(radial_trajectory(20, 128), (1, 128, 128), transform=transform)  # type: ignore[arg-type]
    assert adjoint_error(operator, dtype=torch.float32) < 2e-6
    x = Rng([0]).randn((1, 128, 128), complex=True)
    gap = operator.normal(x) - operator.adjoint(operator(x))
    assert float(gap.norm() / operator.normal(x).norm()) < 1e-5
    assert adjoint_error(operator.double()) < 1e-12


def test_coils_see_their_own_image() -> None:
    maps, points = birdcage_maps(3, 8, 9, 0), random_points(20)
    x = Rng([0], dtype=torch.float64).randn((1, 8, 9), complex=True)
    many = NonCartesianMRI(points, (1, 8, 9), maps).double()(x)
    alone = NonCartesianMRI(points, (1, 8, 9)).double()
    assert many.shape == (1, 1, 3, 20)
    for coil in range(3):
        assert torch.allclose(many[:, :, coil], alone(maps[coil] * x), atol=1e-5)


def test_radial_trajectory() -> None:
    points = radial_trajectory(5, 8).reshape(5, 8, 2)
    assert not points[:, 4].any()
    assert torch.allclose(points.norm(dim=-1)[:, 0], torch.tensor(0.5).double())
    angles = torch.atan2(points[:, 6, 0], points[:, 6, 1])
    steps = torch.rad2deg(angles.diff()) % 360
    assert steps.tolist() == pytest.approx([111.246] * 4, abs=1e-3)


def test_spiral_trajectory() -> None:
    points = spiral_trajectory(3, 400, 6).reshape(3, 400, 2)
    assert not points[:, 0].any()
    radius = points.norm(dim=-1)
    assert radius.max() == pytest.approx(0.5)
    # samples lie evenly along the curve, away from the centre
    gaps = (points[:, 1:] - points[:, :-1]).norm(dim=-1)[:, 50:]
    assert float(gaps.max() / gaps.min()) < 1.1
    # and successive turns of one spiral evenly apart
    angle = np.unwrap(torch.atan2(points[0, 1:, 0], points[0, 1:, 1]).numpy())
    assert (angle[-1] - angle[0]) / (2 * np.pi) == pytest.approx(6, abs=0.35)


def test_bad_trajectories_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for wrong in (torch.zeros(4, 3), torch.zeros(0, 2), torch.full((4, 2), 3.0), torch.zeros(4, 2).long()):
        with pytest.raises(ShapeError, match=r"from -0\.5 to 0\.5 cycles per pixel"):
            NonCartesianMRI(wrong, (1, 6, 6))
    with pytest.raises(ShapeError, match=r"-0\.5 to 0\.5"):
        NonCartesianMRI(torch.full((2, 2), torch.nan), (1, 6, 6))
    with pytest.raises(ShapeError, match="choose the transform 'nufft'"):
        NonCartesianMRI(torch.zeros(200_000, 2), (1, 256, 256))
    with pytest.raises(ShapeError, match="not all zero"):
        NonCartesianMRI(torch.zeros(4, 2), (1, 6, 6), torch.zeros(2, 6, 6))
    points = radial_trajectory(3, 8).reshape(3, 8, 2)
    np.save(tmp_path / "points.npy", points.numpy())
    spec = NonCartesianMRISpec(trajectory=TrajectoryFile(file=DataRef(path="points.npy")))
    assert torch.equal(spec.build((1, 6, 6), tmp_path).trajectory, points.reshape(-1, 2).float())
    np.save(tmp_path / "points.npy", np.zeros((4, 3)))
    with pytest.raises(ReadError, match=r"real frequencies \(..., 2\)"):
        spec.build((1, 6, 6), tmp_path)


def test_without_finufft_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "finufft":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "finufft", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NeedError, match=r"pip install preimage\[mri\]"):
        NonCartesianMRI(random_points(5), (1, 6, 6), transform="nufft")


@pytest.mark.slow
def test_agrees_with_mri_nufft() -> None:
    mrinufft = pytest.importorskip("mrinufft", exc_type=ImportError)
    points, maps = radial_trajectory(20, 64), birdcage_maps(3, 32, 30, 0)
    x = Rng([0], dtype=torch.float64).randn((1, 32, 30), complex=True)
    samples = 2 * torch.pi * points.numpy()
    other = mrinufft.get_operator("finufft")(
        samples, (32, 30), n_coils=3, smaps=maps.numpy(), density=False, squeeze_dims=True, eps=1e-12
    )
    ours = NonCartesianMRI(points, (1, 32, 30), maps).double()(x)[0, 0]
    # mri-nufft divides by the root of a grid twice as fine
    assert np.allclose(2 * np.asarray(other.op(x[0, 0].numpy())).squeeze(), ours.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "shape", "words"),
    [
        ({"trajectory": {"kind": "radial", "spokes": 16384, "samples": 65536}}, (1, 16, 16), "32 million samples"),
        ({"trajectory": {"kind": "radial"}}, (1, 10**6, 10**6), "32 million samples"),
        ({"trajectory": {"kind": "spiral", "interleaves": 1024, "samples": 65536}}, (1, 16, 16), "32 million samples"),
        ({"trajectory": {"kind": "spiral", "turns": 1024}}, (1, 10**6, 10**6), "32 million samples"),
        ({"trajectory": {"kind": "radial", "spokes": 1, "samples": 2}}, (1, 10**5, 10**5), "64 megapixels"),
    ],
)
def test_what_would_not_fit_into_memory_is_refused(
    fields: dict[str, object], shape: tuple[int, ...], words: str
) -> None:
    spec = NonCartesianMRISpec.model_validate({**fields, "transform": "nufft"})
    with pytest.raises(ShapeError, match=words):
        spec.build(shape)
