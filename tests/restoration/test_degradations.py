"""Photographs of unknown history, for training."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from app.pictures import read_picture
from operators import ExposureSpec
from restoration.assets import AssetStore
from restoration.bridge import Task
from restoration.train.bridges import Bridging
from restoration.train.degradations import real_world


def photograph() -> torch.Tensor:
    return read_picture(AssetStore().picture("astronaut")).pixels[None, :, 64:128, 64:144]


def test_pictures_become_small_and_each_has_its_own_history() -> None:
    x = photograph().expand(6, -1, -1, -1)
    y = real_world(x, 4, np.random.default_rng(0))
    assert y.shape == (6, 3, 16, 20)
    assert y.dtype == x.dtype
    assert 0 <= y.min() <= y.max() <= 1
    assert torch.equal(y, real_world(x, 4, np.random.default_rng(0)))
    assert all(not torch.equal(a, b) for a, b in pairwise(y))
    plain = torch.nn.functional.avg_pool2d(x, 4)
    errors = (y - plain).square().mean((1, 2, 3)).sqrt()
    assert errors.min() > 0.01  # damaged
    assert errors.max() < 0.2  # and still that picture
    with pytest.raises(ValueError, match="multiples of 4"):
        real_world(x[..., :-1], 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="colour pictures"):
        real_world(x[:, :1], 4, np.random.default_rng(0))


def test_a_bridge_may_be_trained_on_them() -> None:
    """The guess is that of the operator that the recipe will name, whatever made the data."""
    task = {"operator": {"kind": "downsample", "factor": 4}, "made_by": "real-world", "anything": ["noise"]}
    objective = Bridging({"path": {"kind": "resshift"}, "tasks": [task]}, 3, 64)
    x = 2 * photograph()[..., :64] - 1
    got, _ = objective.degraded(x, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    operator = objective.spec.tasks[0].operator.build((3, 64, 64))
    assert torch.equal(got, 2 * operator.guess(real_world((x + 1) / 2, 4, rng)) - 1)


def test_a_blind_bridge_starts_from_the_operator_as_it_stands() -> None:
    """Low light of unknown strength: pictures are lightened by the same number, whatever made them dark."""
    dark = {"operator": {"kind": "exposure", "gain": 0.25}, "ranges": {"operator.gain": [0.05, 0.1]}}
    x = 2 * photograph()[..., :64] - 1
    starts = []
    for blind in (True, False):
        objective = Bridging({"path": {"kind": "resfusion"}, "tasks": [{**dark, "blind": blind}]}, 3, 64)
        starts.append((objective.degraded(x, np.random.default_rng(0))[0] + 1) / 2)
    truth = photograph()[..., :64].mean()
    assert 0.2 * truth < starts[0].mean() < 0.4 * truth
    assert abs(starts[1].mean() - truth) < 0.05

    task = Task.model_validate({**dark, "blind": True})
    weak = ExposureSpec(gain=0.07)
    assert task.misfit(task.operator, task.noise, held_to_data=False) is None
    assert "operator.gain 0.25, got 0.07" in str(task.misfit(weak, task.noise, held_to_data=False))
    assert "operator.gain 0.25, got 0.07" in str(task.misfit(weak, task.noise, held_to_data=True))
    assert Task.model_validate(dark).misfit(weak, task.noise, held_to_data=False) is None
