"""Stripes and haze."""

from pathlib import Path

import numpy as np
import pytest
import torch

from operators import DataRef, Gain, HazeSpec, Rng, StripesSpec
from operators.errors import ShapeError
from operators.testing import check_operator

SHAPE = (3, 6, 5)


def test_stripes_run_as_said_and_belong_to_their_seed() -> None:
    ones = torch.ones(1, 3, 400, 300)
    columns = StripesSpec(strength=0.3).build((3, 400, 300))(ones)
    rows = StripesSpec(strength=0.3, axis="rows").build((3, 400, 300))(ones)
    assert torch.equal(columns, columns[:, :1, :1].expand_as(ones))
    assert torch.equal(rows, rows[:, :1, :, :1].expand_as(ones))
    for stripes in (columns[0, 0, 0], rows[0, 0, :, 0]):
        assert float(stripes.log().std()) == pytest.approx(0.3, rel=0.2)
    assert torch.equal(columns, StripesSpec(strength=0.3).build((3, 400, 300))(ones))
    assert not torch.equal(columns, StripesSpec(strength=0.3, seed=1).build((3, 400, 300))(ones))


def test_haze_is_what_the_scattering_model_says() -> None:
    x = Rng([0], dtype=torch.float64).rand(SHAPE)
    operator = HazeSpec(density=2.0, airlight=0.8).build(SHAPE)
    t = torch.exp(-2.0 * torch.linspace(1, 0, 6, dtype=torch.float64))[:, None]
    hazy = x * t + 0.8 * (1 - t)
    assert torch.allclose(operator.data_as_image(operator(x)), hazy, atol=1e-6)
    assert torch.allclose(operator.data_from_image(hazy), x * t, atol=1e-6)
    # the nearest row is clear, and what is not lost entirely is found again
    assert torch.allclose(hazy[..., -1, :], x[..., -1, :])
    assert torch.allclose(operator.pinv(operator.data_from_image(hazy)), x, atol=1e-5)


def test_guess_does_not_blow_up_what_is_all_but_lost() -> None:
    operator = HazeSpec(density=10).build(SHAPE)
    y = torch.full((1, *SHAPE), 0.01)
    assert float(operator.guess(y).max()) == pytest.approx(0.1, rel=1e-3)


def test_maps_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.linspace(0, 1, 30).reshape(6, 5))
    spec = HazeSpec(density=1.0, depth=DataRef(path="depth.npy"))
    operator = spec.build(SHAPE, tmp_path)
    assert torch.allclose(operator.gain, torch.exp(-torch.linspace(0, 1, 30)).reshape(6, 5))
    check_operator(operator)
    assert HazeSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ShapeError, match="resize or clean the map"):
        spec.build((3, 5, 6), tmp_path)
    np.save(tmp_path / "depth.npy", -np.ones((6, 5)))
    with pytest.raises(ShapeError, match="depths >= 0"):
        spec.build(SHAPE, tmp_path)


@pytest.mark.parametrize(
    "gain", [torch.tensor(0.3), torch.rand(6, 5).double(), torch.zeros(6, 5).index_fill(0, torch.tensor(2), 1.0)]
)
def test_any_gain_passes_the_battery(gain: torch.Tensor) -> None:
    check_operator(Gain(gain, SHAPE, 0.3 * gain))


def test_bad_gains_are_refused() -> None:
    with pytest.raises(ShapeError, match=">= 0"):
        Gain(torch.tensor([-1.0]), SHAPE)
    with pytest.raises(ShapeError, match="not all 0"):
        Gain(torch.zeros(5), SHAPE)
    with pytest.raises(ShapeError, match="finite map"):
        Gain(torch.ones(4), SHAPE)
    with pytest.raises(ShapeError, match="finite map"):
        Gain(torch.full((5,), float("nan")), SHAPE)
