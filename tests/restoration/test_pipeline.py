"""From a recipe to a result folder: one sample alone and in a batch, partial runs, classical methods, atomic writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from app.pictures import read_picture
from operators.errors import Diverged, NeedError, ReadError, ShapeError, WriteError
from operators.rng import Rng
from restoration import pipeline as module
from restoration.analytic import PowerLawPrior
from restoration.assets import AssetStore
from restoration.metrics import psnr, ssim
from restoration.pipeline import Pipeline, Progress, RunDiverged, with_seeds
from restoration.prior import Prior
from restoration.recipe import Recipe, read_recipe
from restoration.result import Result, load_samples

TASKS = [
    "denoise",
    "deblur-gaussian",
    "deblur-motion",
    "sr-x4",
    "inpaint-random-70",
    "inpaint-box",
    "inpaint-scratches",
]


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return read_picture(AssetStore().picture("astronaut")).pixels[:, 16:80, 60:132]


def recipe(task: str, **changes: object) -> Recipe:
    preset, _ = read_recipe(task)
    quick = {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 4, "sigma_max": 0.5}}
    return Recipe.model_validate({**preset.model_dump(), "method": quick, **changes})


@pytest.mark.parametrize("task", TASKS)
def test_a_preset_restores(task: str, truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe(task, seeds=(0, 1)), precision="fp32")
    measurement = pipeline.simulate(truth)
    result = pipeline.run(measurement)
    report = result.report
    assert result.samples.shape == (2, 3, 64, 72)
    assert report.complete
    assert report.nfe == 4
    assert report.vjps == 0
    assert 0.3 < report.residual_sigma < 2.5
    assert report.psnr == pytest.approx(psnr(truth, result.mean))
    assert report.ssim == pytest.approx(ssim(truth, result.mean))
    guess = measurement.likelihood.operator.guess(measurement.likelihood.y)[0]
    assert report.psnr > psnr(truth, guess)


@pytest.mark.parametrize("task", TASKS)
def test_a_preset_as_shipped_fits_its_data(task: str) -> None:
    preset, _ = read_recipe(task)
    picture = read_picture(AssetStore().picture("coffee")).pixels[:, 100:148, 150:198]
    pipeline = Pipeline.load(preset, precision="fp32")
    report = pipeline.run(pipeline.simulate(picture)).report
    assert report.nfe == preset.method.schedule.steps  # type: ignore[union-attr]
    # One sigma is the truth's own residual; an estimate uses up some of the data's freedom.
    assert 0.6 < report.residual_sigma < 1.1


def test_double_precision_pictures_are_taken(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise"), precision="fp32")
    assert pipeline.run(pipeline.simulate(truth.double())).report.complete


def test_a_deterministic_method_says_that_its_samples_are_equal(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise", method={"kind": "tv"}, model={"kind": "none"}, seeds=(0, 1)))
    report = pipeline.run(pipeline.simulate(truth)).report
    assert "deterministic" in report.notes[-1]
    assert report.precision == "fp32"


def test_sample_k_is_the_same_alone_and_in_any_group(truth: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Pipeline.load(recipe("sr-x4", seeds=(5, 0, 9)), precision="fp32")
    measurement = together.simulate(truth)
    all_three = together.run(measurement).samples
    alone = Pipeline.load(recipe("sr-x4", seeds=(9,)), precision="fp32").run(measurement).samples
    assert torch.allclose(all_three[2], alone[0], atol=2e-5)
    monkeypatch.setattr(module, "PIXELS_PER_CALL", 2 * 64 * 72)
    assert [len(g) for g in together.groups(measurement)] == [2, 1]
    assert torch.allclose(together.run(measurement).samples, all_three, atol=2e-5)


def test_fp32_is_reproducible_to_the_bit(truth: Tensor) -> None:
    first, second = (Pipeline.load(recipe("inpaint-random-70"), precision="fp32") for _ in range(2))
    assert torch.equal(first.run(first.simulate(truth)).samples, second.run(second.simulate(truth)).samples)


def test_the_measurement_does_not_depend_on_the_seeds_of_the_samples(truth: Tensor) -> None:
    a, b = (Pipeline.load(recipe("denoise", seeds=s)).simulate(truth) for s in ((0,), (1, 2)))
    assert torch.equal(a.likelihood.y, b.likelihood.y)
    c = Pipeline.load(recipe("denoise")).simulate(truth, seed=1)
    assert not torch.equal(a.likelihood.y, c.likelihood.y)
    assert float((a.likelihood.y[0] - truth).std()) == pytest.approx(0.025, rel=0.05)


def test_a_real_measurement_gives_the_same_as_its_simulation(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("sr-x4"), precision="fp32")
    simulated = pipeline.simulate(truth)
    observed = pipeline.observe(simulated.picture())
    assert observed.truth is None
    a, b = pipeline.run(simulated), pipeline.run(observed)
    assert torch.equal(a.samples, b.samples)
    assert b.report.psnr is None
    assert b.report.residual_sigma == a.report.residual_sigma


def test_pictures_are_cropped_to_the_factor_and_it_is_said(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("sr-x4"))
    measurement = pipeline.simulate(truth[:, :63, :70])
    assert measurement.truth is not None
    assert measurement.truth.shape == (3, 60, 68)
    assert "cropped from 63x70 to 60x68" in measurement.notes[0]


def test_a_grey_picture_is_restored_and_it_is_said(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise"), precision="fp32")
    measurement = pipeline.simulate(truth.mean(0, keepdim=True))
    assert "grey" in measurement.notes[0]
    report = pipeline.run(measurement).report
    assert report.psnr is not None
    assert report.psnr > 30
    with pytest.raises(ShapeError, match="3 channels"):
        pipeline.observe(torch.zeros(2, 32, 32))


def test_watch_sees_every_step_and_stop_keeps_what_there_is(truth: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXELS_PER_CALL", 64 * 72)
    pipeline = Pipeline.load(recipe("deblur-gaussian", seeds=(0, 1, 2)), precision="fp32")
    measurement = pipeline.simulate(truth)
    seen: list[Progress] = []
    whole = pipeline.run(measurement, watch=seen.append)
    assert [(p.done, p.total) for p in seen] == [(i, 12) for i in range(1, 13)]
    seen.clear()
    part = pipeline.run(measurement, watch=seen.append, stop=lambda: len(seen) == 6)
    assert not part.report.complete
    assert part.report.samples == 2
    assert part.report.seeds == (0, 1)
    assert torch.equal(part.samples[0], whole.samples[0])
    assert not torch.equal(part.samples[1], whole.samples[1])


def test_stopping_at_the_very_end_changes_nothing(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise"))
    seen: list[Progress] = []
    assert pipeline.run(pipeline.simulate(truth), watch=seen.append, stop=lambda: len(seen) == 4).report.complete


def test_numbers_that_are_not_finite_end_the_run(truth: Tensor) -> None:
    wild = {
        "kind": "dps",
        "schedule": {"kind": "karras", "steps": 30},
        "guidance": {"kind": "likelihood", "weight": 10.0},
    }
    pipeline = Pipeline.load(recipe("denoise", method=wild, model={"kind": "power-law"}))
    with pytest.raises(Diverged, match="at step") as caught:
        pipeline.run(pipeline.simulate(truth))
    assert isinstance(caught.value, RunDiverged)
    last = caught.value.last
    assert last is not None
    assert last.index == caught.value.step - 1
    assert last.x0.isfinite().all()


def test_the_report_says_what_the_particles_were_worth(truth: Tensor) -> None:
    method = {"kind": "mcg-diff", "schedule": {"kind": "karras", "steps": 4}, "particles": 3}
    pipeline = Pipeline.load(recipe("inpaint-box", method=method, model={"kind": "power-law"}))
    notes = pipeline.run(pipeline.simulate(truth)).report.notes
    (note,) = (n for n in notes if "effective number of particles" in n)
    assert 1 <= float(note.split(": ")[1]) <= 3


def test_needs_are_checked_before_the_work() -> None:
    with pytest.raises(NeedError, match="denoises"):
        Pipeline.load(recipe("denoise", model={"kind": "none"}))


@pytest.mark.parametrize("task", ["deblur-gaussian", "sr-x4", "inpaint-random-70"])
@pytest.mark.parametrize("kind", ["tv", "wiener", "direct"])
def test_classical_methods_follow_the_same_protocol(task: str, kind: str, truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe(task, method={"kind": kind}, model={"kind": "none"}, seeds=(0, 1)))
    measurement = pipeline.simulate(truth)
    result = pipeline.run(measurement)
    assert result.samples.shape == (2, 3, 64, 72)
    assert torch.equal(result.samples[0], result.samples[1])
    direct = psnr(truth, measurement.likelihood.operator.guess(measurement.likelihood.y)[0])
    assert result.report.psnr is not None
    assert result.report.nfe == 0
    # Against bicubic enlargement, itself a fair estimate, the default weights need not win on so small a picture.
    assert result.report.psnr >= direct - (1.0 if task == "sr-x4" else 0.0)


@pytest.mark.parametrize("algorithm", ["telea", "ns"])
def test_opencv_inpainting_fills_holes_and_keeps_the_rest(algorithm: str, truth: Tensor) -> None:
    method = {"kind": "opencv-inpaint", "algorithm": algorithm}
    pipeline = Pipeline.load(recipe("inpaint-scratches", method=method, model={"kind": "none"}))
    measurement = pipeline.simulate(truth)
    x = pipeline.run(measurement).samples
    # Measured pixels come back to within the rounding to 8 bits and the clipping to [0, 1].
    kept = measurement.likelihood.operator(x) - measurement.likelihood.y.clamp(0, 1)
    assert float(kept.abs().max()) <= 0.5 / 255 + 1e-6
    with pytest.raises(NeedError, match="inpainting"):
        Pipeline.load(recipe("denoise", method=method, model={"kind": "none"}))


def test_tv_solves_its_problem() -> None:
    """Against a brute-force minimiser of the same objective, smoothed only far below the tolerance."""
    from operators import Gaussian, Identity, Likelihood, Rng
    from restoration.methods.tv import TV, gradient

    g = torch.Generator().manual_seed(0)
    y = torch.rand(1, 2, 5, 6, generator=g, dtype=torch.float64)
    likelihood, weight = Likelihood(Identity((2, 5, 6)), Gaussian(sigma=0.2), y), 3.0

    def objective(x: Tensor) -> Tensor:
        tv = (gradient(x).square().sum((1, 2)) + 1e-12).sqrt().sum()
        return -likelihood.log_prob(x).sum() + weight * tv

    *_, step = TV(weight=weight, iterations=3000).run(None, likelihood, Rng([0]))
    best = y.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [best], max_iter=4000, line_search_fn="strong_wolfe", tolerance_change=0, history_size=50
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective(best)
        value.backward()
        return value

    optimiser.step(closure)
    assert float(objective(step.x0)) <= float(objective(best.detach())) + 1e-5


def test_wiener_is_the_posterior_mean_of_its_prior() -> None:
    """For denoising with a periodic power law, the filter is known in closed form."""
    from operators import Gaussian, Identity, Likelihood, Rng
    from restoration.analytic import PowerLawPrior
    from restoration.methods.wiener import Wiener

    y = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likelihood = Likelihood(Identity((3, 24, 20)), Gaussian(sigma=0.1), y)
    (step,) = Wiener(std=0.2, exponent=1.1).run(None, likelihood, Rng([0]))
    prior = PowerLawPrior(float(y.mean()), 0.2, 1.1)
    expected = prior(y, torch.tensor([0.1], dtype=torch.float64))
    assert torch.allclose(step.x0, expected, atol=1e-5)


@pytest.fixture
def result(truth: Tensor) -> Result:
    pipeline = Pipeline.load(recipe("denoise", model={"kind": "power-law"}, seeds=(3, 4)), precision="fp32")
    return pipeline.run(pipeline.simulate(truth))


def test_a_saved_result_comes_back(result: Result, tmp_path: Path) -> None:
    described = result.described(input_sha256="0" * 64, command="preimage run denoise a.png -o out")
    described.save(tmp_path / "out", {"mean.png": b"png"})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "mean.png",
        "recipe.json",
        "report.json",
        "samples.npz",
    ]
    samples, recipe_again, report = load_samples(tmp_path / "out")
    assert torch.equal(samples, result.samples)
    assert recipe_again == result.recipe
    assert report == described.report
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        assert arrays["seeds"].tolist() == [3, 4]
        assert np.array_equal(arrays["y"], result.measurement.likelihood.y.numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_infinite_psnr_is_kept(result: Result, tmp_path: Path) -> None:
    report = result.report.model_copy(update={"psnr": float("inf")})
    replace(result, report=report).save(tmp_path / "out")
    assert load_samples(tmp_path / "out")[2].psnr == float("inf")
    json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)


def test_saving_replaces_a_result_and_nothing_else(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result.save(out)
    result.save(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("mine")
    with pytest.raises(WriteError, match="other files"):
        result.save(other)
    assert [p.name for p in other.iterdir()] == ["chapter.txt"]
    with pytest.raises(WriteError, match="got the file"):
        result.save(other / "chapter.txt")


def test_a_folder_without_a_report_is_unfinished(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(ReadError, match="finished result"):
        load_samples(tmp_path / "out")


def test_mean_and_spread(result: Result) -> None:
    assert torch.allclose(result.mean, result.samples.mean(0))
    assert torch.allclose(result.std, (result.samples[0] - result.samples[1]).abs() / 2, atol=1e-6)
    assert with_seeds(result.recipe, (1,)).seeds == (1,)


def test_what_the_prior_made_up_is_told_from_what_was_measured(truth: Tensor, tmp_path: Path) -> None:
    pipeline = Pipeline.load(recipe("inpaint-box", seeds=(0, 1)), precision="fp32")
    measurement = pipeline.simulate(truth)
    result = pipeline.run(measurement)
    mask = measurement.likelihood.operator.mask
    assert isinstance(mask, Tensor)
    centred = result.samples - result.samples.mean((2, 3), keepdim=True)
    assert result.imagined is not None
    # the noise is a tenth of the contrast: less than 2 % of what was measured is left to the prior
    assert float(result.imagined[:, mask].max()) < 0.02
    assert torch.allclose(result.imagined[:, ~mask], centred[..., ~mask].square().mean(0).sqrt(), atol=1e-6)
    hole = centred[..., ~mask].square().sum((1, 2)) / centred.square().sum((1, 2, 3))
    assert result.report.imagined_samples == pytest.approx(hole.tolist(), abs=1e-3)
    result.save(tmp_path / "r")
    with np.load(tmp_path / "r" / "samples.npz") as arrays:
        assert np.array_equal(arrays["imagined"], result.imagined.numpy())


def test_a_measurement_that_is_not_linear_has_no_such_parts(truth: Tensor) -> None:
    quick = {"kind": "dps", "schedule": {"kind": "karras", "steps": 2}}
    pipeline = Pipeline.load(recipe("denoise", operator={"kind": "jpeg"}, method=quick), precision="fp32")
    result = pipeline.run(pipeline.simulate(truth))
    assert result.imagined is None
    assert result.report.imagined_samples is None


def test_complex_images_are_refused_before_the_work() -> None:
    recipe = Recipe.model_validate({"operator": {"kind": "mri"}, "model": {"kind": "power-law"}})
    with pytest.raises(NeedError, match='say "image": "real"'):
        Pipeline.load(recipe)


@pytest.mark.parametrize(
    "operator",
    [
        {"kind": "grayscale"},
        {"kind": "bayer"},
        {"kind": "composed", "steps": [{"kind": "grayscale"}, {"kind": "downsample", "factor": 2}]},
        {"kind": "composed", "steps": [{"kind": "bayer"}, {"kind": "inpainting"}]},
        {"kind": "identity"},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_picture_has_the_channels_of_the_data(operator: dict[str, object], channels: int, truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise", operator=operator, model={"kind": "power-law"}))
    grey = operator["kind"] != "identity"
    simulated = pipeline.simulate(truth if grey else truth[:1].expand(3, -1, -1))
    # a grey PNG is read with one channel, or with three that are equal; noise would make those of "identity" differ
    y = simulated.likelihood.operator(simulated.truth[None])  # type: ignore[index]  # simulated from a truth
    picture = simulated.likelihood.operator.data_as_image(y)[0, :1].expand(channels, -1, -1)
    observed = pipeline.observe(picture)
    assert observed.likelihood.operator.in_shape == (3 if grey or channels == 3 else 1, 64, 72)
    assert torch.equal(observed.likelihood.y, y if grey or channels == 3 else y[:, :1])
    assert not any("three equal channels" in note for note in observed.notes)


@pytest.mark.weights
def test_a_grey_picture_stays_grey_and_its_noise_is_taken_off(truth: Tensor) -> None:
    pipeline = Pipeline.load(read_recipe("denoise")[0])
    measurement = pipeline.simulate(truth.mean(0, keepdim=True))
    result = pipeline.run(measurement)
    assert result.samples.shape[1:] == (1, 64, 72)
    assert measurement.notes == ("grey picture, by a prior of colour pictures",)
    assert 0.8 < result.report.residual_sigma < 1.1  # three equal channels kept most of the noise: 0.4
    assert psnr(result.mean, truth.mean(0, keepdim=True)) > 33.5  # the data have 32


def test_a_prior_of_any_channels_is_asked_for_grey_as_it_is(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise", model={"kind": "power-law"}, method={"kind": "ddrm"}))
    measurement = pipeline.simulate(truth[:1])
    alone = pipeline.run(measurement).samples
    prior = Prior(PowerLawPrior(0.5, 0.25, 1.2, channels=1))
    *_, last = pipeline.recipe.method.run(prior, measurement.likelihood, Rng(pipeline.recipe.seeds))
    assert torch.equal(alone, last.x0)
    assert measurement.notes == ()


def test_what_measures_colours_alone_gets_equal_channels(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise", operator={"kind": "bayer"}, model={"kind": "power-law"}))
    measurement = pipeline.simulate(truth[:1])
    assert measurement.likelihood.operator.in_shape == (3, 64, 72)
    assert measurement.notes == ("grey picture taken as three equal channels",)


def test_a_colour_photograph_of_grey_data_is_made_grey(truth: Tensor) -> None:
    pipeline = Pipeline.load(recipe("denoise", operator={"kind": "grayscale"}, model={"kind": "power-law"}))
    assert torch.allclose(pipeline.observe(truth).likelihood.y[0], truth.mean(0, keepdim=True), atol=1e-6)


def test_a_measured_sinogram_loses_its_background() -> None:
    values = {
        "operator": {"kind": "ct", "angles": {"kind": "uniform", "count": 9}, "window": {"low": -160, "high": 240}},
        "model": {"kind": "none"},
        "method": {"kind": "tv"},
    }
    recipe = Recipe.model_validate(values)
    op = recipe.operator.build((1, 12, 12))
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    measured = op.data_as_image(op(x))
    assert not torch.allclose(measured, op(x), atol=1e-2)
    assert torch.allclose(Pipeline.load(recipe).observe(measured[0]).likelihood.y, op(x), atol=1e-5)
