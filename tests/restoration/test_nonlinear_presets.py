"""The presets of measurements that are not linear, shortened, with the closed-form prior."""

from typing import Any

import pytest
import torch
from torch import Tensor

from operators import Clipping, Rng
from operators.jpeg import Jpeg
from restoration.best_of import BestOf
from restoration.pipeline import Pipeline
from restoration.recipe import PowerLaw, Recipe, read_recipe
from restoration.result import Result


def smooth(channels: int, size: int) -> Tensor:
    """A smooth random picture from black to white (C, H, W)."""
    noise = Rng([5]).randn((channels, size, size))
    frequency = torch.fft.fftfreq(size)[:, None].square() + torch.fft.rfftfreq(size).square()
    x: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / (1 / size + frequency.sqrt()) ** 2)[0]
    return (x - x.min()) / (x.max() - x.min())


def shortened(name: str, steps: int) -> Recipe:
    values: dict[str, Any] = read_recipe(name)[0].model_dump(mode="json")
    method = values["method"]["method"] if name == "phase-retrieval" else values["method"]
    method["schedule"]["steps"] = steps
    return Recipe.model_validate(values | {"model": PowerLaw().model_dump()})


def restored(name: str, truth: Tensor, steps: int = 6) -> Result:
    pipeline = Pipeline.load(shortened(name, steps))
    return pipeline.run(pipeline.simulate(truth))


@pytest.mark.parametrize("name", ["hdr", "nonlinear-blur"])
def test_a_preset_ends_on_the_data(name: str) -> None:
    assert 0.7 < restored(name, smooth(3, 32)).report.residual_sigma < 1.5


def test_the_jpeg_preset_ends_inside_the_cell_of_the_file() -> None:
    result = restored("jpeg", smooth(3, 32))
    operator = result.measurement.likelihood.operator
    assert isinstance(operator, Jpeg)
    clean = operator(result.measurement.truth[None]) if result.measurement.truth is not None else None
    torch.testing.assert_close(operator(result.samples), clean, atol=1e-3, rtol=0)


def test_the_hdr_preset_is_the_published_measurement() -> None:
    operator = read_recipe("hdr")[0].operator.build((3, 8, 8))
    assert isinstance(operator, Clipping)
    x = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
    torch.testing.assert_close(2 * operator((x + 1) / 2) - 1, (2 * x).clamp(-1, 1))


def test_phase_retrieval_takes_four_runs_and_ends_on_the_data() -> None:
    method = read_recipe("phase-retrieval")[0].method
    assert isinstance(method, BestOf)
    assert method.runs == 4
    result = restored("phase-retrieval", smooth(1, 24), steps=3)
    assert 0.7 < result.report.residual_sigma < 1.5
    assert result.report.nfe == 12
