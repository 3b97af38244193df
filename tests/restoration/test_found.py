"""What blind methods found of a measurement: in the result, its folder and its report."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from app.pictures import read_picture
from app.run import result_pictures
from operators import Likelihood, Rng
from restoration.assets import AssetStore
from restoration.best_of import BestOf
from restoration.methods.gdp import GDP
from restoration.pipeline import Pipeline
from restoration.prior import Prior
from restoration.recipe import Recipe
from restoration.result import Result
from restoration.schedule import Karras

TEN = {"kind": "karras", "steps": 10}
BLIND: dict[str, dict[str, object]] = {
    "blind-dps": {"operator": {"kind": "unknown-kernel"}, "method": {"kind": "blind-dps", "schedule": TEN}},
    "gdp": {
        "operator": {"kind": "unknown-exposure", "gains": [0.3, 0.8]},
        "method": {"kind": "gdp", "schedule": TEN},
    },
    "alternating": {
        "operator": {"kind": "unknown-width"},
        "method": {"kind": "alternating", "unknown": "noise and width", "rounds": 3},
    },
    "known operator": {"operator": {"kind": "identity"}, "method": {"kind": "alternating", "rounds": 3}},
}
FOUND = {
    "blind-dps": {"kernel": (2, 15, 15)},
    "gdp": {"gain": (2, 2)},
    "alternating": {"sigma": (2,), "width": (2,), "kernel": (2, 17, 17)},
    "known operator": {"sigma": (2,)},
}


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return read_picture(AssetStore().picture("astronaut")).pixels[:, 16:48, 60:92]


def run(name: str, truth: Tensor) -> tuple[Result, Likelihood]:
    recipe = Recipe.model_validate({**BLIND[name], "model": {"kind": "power-law"}, "seeds": (0, 1)})
    pipeline = Pipeline.load(recipe)
    measurement = pipeline.simulate(truth)
    return pipeline.run(measurement), measurement.likelihood


@pytest.mark.parametrize("name", BLIND)
def test_found_values_are_kept(name: str, truth: Tensor, tmp_path: Path) -> None:
    result, _ = run(name, truth)
    assert {key: tuple(value.shape) for key, value in result.found.items()} == FOUND[name]
    for _ in range(2):  # the second time over the first
        result.save(tmp_path / "out", result_pictures(result, read_picture(AssetStore().picture("astronaut"))))
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        for key, value in result.found.items():
            assert np.array_equal(arrays[f"found_{key}"], value.numpy())
    kernels = sorted(path.name for path in (tmp_path / "out").glob("kernel-*.png"))
    assert kernels == (["kernel-000.png", "kernel-001.png"] if "kernel" in result.found else [])
    small = {key: value for key, value in result.found.items() if key != "kernel"}
    for key, value in small.items():
        first = f"{float(value.flatten()[0]):.4g}"
        assert any(note.startswith(f"found {key}, sample by sample: {first}") for note in result.report.notes)


def test_residuals_are_those_at_the_found_values(truth: Tensor) -> None:
    result, likelihood = run("gdp", truth)
    frames = likelihood.y.tensor_split(2, -1)
    for sample, gains, reported in zip(
        result.samples, result.found["gain"], result.report.residual_sigma_samples, strict=True
    ):
        gaps = torch.cat([y - (g * sample).clamp(0, 1) for g, y in zip(gains, frames, strict=True)], -1)
        assert reported == pytest.approx(float(gaps.square().mean().sqrt() / 0.025), rel=1e-4)


def test_the_best_of_several_runs_keeps_what_it_found(truth: Tensor) -> None:
    recipe = Recipe.model_validate({**BLIND["gdp"], "model": {"kind": "power-law"}})
    pipeline = Pipeline.load(recipe)
    likelihood = pipeline.simulate(truth).likelihood
    assert pipeline.denoiser is not None
    prior, method = Prior(pipeline.denoiser), GDP(schedule=Karras(steps=10))
    *_, best = BestOf(runs=3, method=method).run(prior, likelihood, Rng([4, 5]))
    assert best.found is not None
    runs = [[*method.run(prior, likelihood, Rng([4, 5]).child(f"run {k}"))][-1] for k in range(3)]
    residuals = torch.stack([r.found.held(likelihood).residual_sigma(r.x0) for r in runs if r.found is not None])
    for k, chosen in enumerate(residuals.argmin(0).tolist()):
        found = runs[chosen].found
        assert found is not None
        assert torch.equal(best.x0[k], runs[chosen].x0[k])
        assert torch.equal(best.found.of(k).parameters, found.of(k).parameters)  # type: ignore[arg-type]


def test_methods_that_are_not_blind_are_refused_before_anything_is_loaded() -> None:
    for kind in ("unknown-kernel", "unknown-width", "unknown-exposure"):
        recipe = Recipe.model_validate({"operator": {"kind": kind}, "method": {"kind": "dps"}})
        (reason, *others) = recipe.problems(AssetStore())
        assert "differentiated" in reason
        assert "'gdp'" in " ".join(others)
