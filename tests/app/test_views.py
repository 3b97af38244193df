"""What a page is given of a job: pictures with the right values, the way there, TIFF, and all of it in one zip."""

import io
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from app.batch import DONE, INTERRUPTED, SOME_FAILED, Options, config_of, new_job, run_batch, run_job
from app.jobs import Job, JobStore, Request
from app.live import EVERY, SIDE, Live, picture, trace
from app.packed import zip_of
from app.pictures import encode_tiff, read_picture, write_picture
from app.uploads import Refused
from app.view import heat, reduced, resized, spread, spread_scale, to_colours
from app.views import cases_of, open_view, views_of
from app.work import fitting
from operators.errors import NeedError
from restoration.assets import AssetStore
from restoration.method import Step
from restoration.pipeline import Pipeline
from restoration.pipeline import Progress as Steps
from restoration.recipe import Recipe
from tests.app.conftest import BLUR, smooth

RECIPE: dict[str, Any] = {
    "operator": BLUR,
    "noise": {"kind": "gaussian", "sigma": 0.025},
    "model": {"kind": "power-law"},
    "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 4}},
    "seeds": [3, 5],
}


def made(folder: Path, inputs: list[Path], recipe: dict[str, Any] = RECIPE, **options: Any) -> Job:
    return new_job(Recipe.model_validate(recipe), inputs, folder, Options(**options))


def pixels(job: Job, case: str, name: str) -> np.ndarray[Any, Any]:
    with open_view(job, case, name) as file:
        return np.asarray(Image.open(file))


def test_views_are_the_result(tmp_path: Path, photo: Path) -> None:
    job = made(tmp_path / "job", [photo], truth=True, views=True, precision="fp32")
    assert views_of(job) == cases_of(job) == []
    assert run_job(job, live=True).code == DONE
    (case,) = views_of(job)
    assert (case.number, case.kind, case.state, case.folder) == (1, "picture", "done", "results/photo.png")
    assert set(case.outputs) == {"restored.png", "restored.json", "std.png", "imagined.png"}

    pipeline = Pipeline.load(Recipe.model_validate(RECIPE), precision="fp32")
    truth = read_picture(photo).pixels
    result = pipeline.run(pipeline.simulate(truth))
    views = {view["name"]: view for view in case.views}
    assert list(views) == ["before", "mean", "sample-1", "sample-2", "spread", "imagined", "truth"]
    wanted = {"mean": result.mean, "sample-1": result.samples[0], "sample-2": result.samples[1], "truth": truth}
    wanted["before"] = result.measurement.picture()
    for name, image in wanted.items():
        assert np.array_equal(pixels(job, case.case, views[name]["file"]), to_colours(image)), name
    assert result.imagined is not None
    for name, values in {"spread": spread(result.std), "imagined": spread(result.imagined)}.items():
        scale = views[name]["scale"]
        assert (scale["low"], scale["high"]) == (0, spread_scale([values]))
        assert np.array_equal(pixels(job, case.case, views[name]["file"]), heat(values, scale["high"]))
    assert [views[name]["seed"] for name in ("mean", "sample-1", "sample-2")] == [None, 3, 5]
    fits = [views[name]["residual_sigma"] for name in ("sample-1", "sample-2")]
    assert fits == pytest.approx(result.report.residual_sigma_samples)
    assert views["mean"]["residual_sigma"] == pytest.approx(result.report.residual_sigma_mean)
    assert f"{fits[0]:.2f} sigma" in views["sample-1"]["alt"]
    assert all(view["width"] == 40 and view["height"] == 32 and view["alt"] for view in views.values())
    assert {entry.name for entry in os.scandir(job.private / "views" / case.case)} == {
        "views.json",
        *(view["file"] for view in views.values()),
    }

    last = trace(job)[-1]
    assert last["step"] == last["steps"] == 4
    assert last["residual_sigma"] == pytest.approx(result.report.residual_sigma)
    shown = picture(job)
    assert shown is not None
    assert Image.open(io.BytesIO(shown)).size == (40, 32)


def test_views_are_no_part_of_the_result(tmp_path: Path, photo: Path) -> None:
    jobs = [made(tmp_path / str(views), [photo], views=views, precision="fp32") for views in (False, True)]
    for job in jobs:
        assert run_job(job, live=job is jobs[1]).code == DONE
    names = [[path for path in job.files() if path.parts[0] == "results"] for job in jobs]
    assert names[0] == names[1]
    assert all((jobs[0].folder / name).read_bytes() == (jobs[1].folder / name).read_bytes() for name in names[0])
    assert not (jobs[0].private / "views").exists()
    assert not (jobs[0].private / "live.jpg").exists()  # a batch pays nothing for the page
    assert views_of(jobs[0])[0].views == ()
    recipe, store = Recipe.model_validate(RECIPE), AssetStore()
    assert config_of(recipe, Options(), store) == config_of(recipe, Options(views=True, fail_fast=True), store)
    again = run_batch(recipe, [photo], tmp_path / "False", Options(views=True, precision="fp32"), resume=True)
    assert again.cases[0].proven


def test_one_sample_is_shown_once(tmp_path: Path, photo: Path) -> None:
    job = made(tmp_path / "job", [photo], RECIPE | {"seeds": [7]}, views=True)
    run_job(job)
    views = {view["name"]: view for view in views_of(job)[0].views}
    assert list(views) == ["before", "mean", "imagined"]
    assert views["mean"]["seed"] == 7


def test_a_measurement_of_another_size_is_shown_at_that_of_the_result(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", smooth(16, 20))
    recipe = RECIPE | {"operator": {"kind": "downsample", "factor": 2}}
    job = made(tmp_path / "job", [tmp_path / "a.png"], recipe, views=True)
    run_job(job)
    (case,) = views_of(job)
    before, mean = case.views[:2]
    assert (before["width"], before["height"]) == (mean["width"], mean["height"]) == (40, 32)
    small = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(pixels(job, case.case, before["file"]), small.repeat(2, 0).repeat(2, 1))


def test_a_stopped_run_can_be_looked_at_and_taken_up(tmp_path: Path, photo: Path) -> None:
    recipe = RECIPE | {"method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 6}}}
    job = made(tmp_path / "job", [photo, photo], recipe, views=True)
    seen: list[int] = []
    ended = run_job(job, live=True, watch=lambda progress: seen.append(progress.step), stop=lambda: 3 in seen)
    assert ended.code == INTERRUPTED
    (case,) = views_of(job)
    assert (case.state, case.folder) == ("partial", "results/photo.png/partial")
    assert {f"{case.folder}/{name}" for name in case.outputs} <= {path.as_posix() for path in job.files()}
    assert (job.folder / case.folder / "restored.png").is_file()
    early = case.views[1]["file"]
    assert pixels(job, case.case, early).shape == (32, 40, 3)
    assert f"{case.folder}/restored.png" in zipfile.ZipFile(io.BytesIO(b"".join(zip_of(job, job.files())))).namelist()

    assert run_job(job, live=True).code == DONE
    first, second = views_of(job)
    assert (first.state, second.state) == ("done", "done")
    assert first.folder == "results/photo.png"
    assert first.views[1]["file"] != early  # browsers keep what they have by that name
    with pytest.raises(Refused):
        open_view(job, case.case, early)
    assert [entry["step"] for entry in trace(job) if entry["case"] == 1][-1] == 6


def test_a_job_can_be_stopped_after_its_case(tmp_path: Path, photo: Path) -> None:
    job = made(tmp_path / "job", [photo, photo])

    def asked(progress: Any) -> None:
        if progress.step == 2 and progress.ended == 0:
            job.request_stop(after_case=True)
            assert not job.stop_wanted()
            assert job.status().state == "stopping"

    ended = run_job(job, watch=asked)
    assert ended.code == INTERRUPTED
    assert [case.state for case in ended.cases] == ["done"]
    assert run_job(job).code == DONE


def test_a_job_can_end_with_its_first_failure(tmp_path: Path, photo: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    job = made(tmp_path / "job", [bad, photo], fail_fast=True, views=True)
    ended = run_job(job)
    assert (ended.code, len(ended.cases)) == (SOME_FAILED, 1)
    (case,) = views_of(job)
    assert (case.state, case.views, case.outputs) == ("failed", (), ())
    assert case.message.startswith("Expected ")
    assert [(entry.number, entry.name, entry.bytes) for entry in cases_of(job)] == [
        (1, "bad.png", 10),
        (2, "photo.png", photo.stat().st_size),
    ]


def test_names_of_cases_are_those_inside_a_zip(tmp_path: Path, photo: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as packed:
        packed.write(photo, "inner/a.png")
    job = made(tmp_path / "job", [tmp_path / "many.zip"])
    run_job(job)
    assert [(entry.name, entry.bytes) for entry in cases_of(job)] == [("inner/a.png", None)]


@pytest.mark.parametrize("name", ["views.json.x", "../views.json", "x/y.png", ".png", "request.json", "a.png\0"])
def test_views_give_nothing_else(tmp_path: Path, photo: Path, name: str) -> None:
    job = made(tmp_path / "job", [photo], views=True)
    run_job(job)
    digest = views_of(job)[0].case
    for case in (digest, "..", digest[:-1], f"../views/{digest}"):
        with pytest.raises(Refused):
            open_view(job, case, name)


# the way there


def steps(image: Tensor, done: int = 1, total: int = 4) -> Steps:
    pipeline = Pipeline.load(Recipe.model_validate(RECIPE))
    likelihood = pipeline.simulate(smooth()).likelihood
    return Steps(Step(done, total, 0.0, image, image), done, total, likelihood)


def test_pictures_come_twice_a_second_and_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.create(tmp_path / "job", Request.new((), {}, {}))
    live, now, written = Live(job), [100.0], []
    monkeypatch.setattr("app.live.time.monotonic", lambda: now[0])
    monkeypatch.setattr("app.live.put", lambda *_, **__: written.append(now[0]))
    for moment in np.arange(0, 3, 0.1):
        now[0] = 100.0 + moment
        live.step(1, steps(smooth()[None]))
    assert np.diff(written).min() >= EVERY
    assert len(written) == 6

    written.clear()
    live.begin()

    def slow(*_: object, **__: object) -> None:
        written.append(now[0])
        now[0] += 1.0  # a second for a picture

    monkeypatch.setattr("app.live.put", slow)
    for _ in range(60):
        now[0] += 1.0
        live.step(1, steps(smooth()[None]))
    assert np.diff(written).min() >= 20


def test_large_and_complex_estimates_become_small_pictures(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", Request.new((), {}, {}))
    live = Live(job)
    for image in (torch.rand(1, 1, 1100, 700), torch.rand(1, 1, 20, 30, dtype=torch.complex64), torch.rand(1, 7, 9)):
        live.begin()
        live.step(1, Steps(Step(1, 2, 0.0, image, image), 1, 2))
        shown = picture(job)
        assert shown is not None
        assert max(Image.open(io.BytesIO(shown)).size) <= SIDE
    assert trace(job) == []  # without a likelihood there is no residual


def test_the_trace_starts_anew_and_bears_damage(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", Request.new((), {}, {}))
    assert trace(job) == []
    rows = [(1, 1), (1, 2), (2, 1), (1, 1), (1, 3)]
    lines = [{"case": case, "step": step, "steps": 4, "residual_sigma": 1.0, "seconds": 0.1} for case, step in rows]
    text = "\n".join(json.dumps(line) for line in lines)
    (job.private / "trace.jsonl").write_text(text + '\n{"case": 1\nnull\n{"cas')
    assert [(entry["case"], entry["step"]) for entry in trace(job)] == [(1, 1), (1, 3), (2, 1)]


def test_residuals_are_told_of_the_first_samples_alone(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", Request.new((), {}, {}))
    live = Live(job)
    first = steps(smooth()[None], 4, 4)
    live.step(1, Steps(first.step, 4, 8, first.likelihood))
    live.begin()
    live.step(1, Steps(first.step, 5, 8, first.likelihood))
    live.end(1, 1.5)
    live.end(2, None)
    assert [(entry["step"], entry["steps"]) for entry in trace(job)] == [(4, 8), (5, 8)]
    assert trace(job)[1]["residual_sigma"] == 1.5


# TIFF and zip


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_has_the_depth_and_the_profile_of_its_input(tmp_path: Path, channels: int) -> None:
    recipe = RECIPE | {"model": {"kind": "none"}, "method": {"kind": "wiener"}, "seeds": [0]}
    profile = b"\0" * 128
    image = smooth()[:channels]
    write_picture(tmp_path / "eight.tif", image, 8, icc=profile)
    write_picture(tmp_path / "sixteen.tif", image, 16, icc=profile)
    (tmp_path / "float.tif").write_bytes(encode_tiff(image * 1.2, 32, icc=profile))
    names = {"eight": np.uint8, "sixteen": np.uint16, "float": np.float32}
    inputs = [tmp_path / f"{name}.tif" for name in names]
    job = made(tmp_path / "job", inputs, recipe, output_types=("tiff", "npz"))
    assert run_job(job).code == DONE
    for name, kind in names.items():
        folder = job.folder / "results" / f"{name}.tif"
        stored = tifffile.imread(folder / "restored.tif")
        assert stored.dtype == kind
        assert stored.shape == (image.shape[1:] if channels == 1 else (*image.shape[1:], 3))  # grey stays grey
        mean = np.moveaxis(np.load(folder / "samples.npz")["samples"].mean(0), 0, -1).reshape(stored.shape)
        depth = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[kind]
        assert np.array_equal(stored, mean if kind is np.float32 else np.round(mean.clip(0, 1) * np.float32(depth)))
        with tifffile.TiffFile(folder / "restored.tif") as file:
            assert file.pages.first.iccprofile == profile
        if kind is not np.float32:
            assert read_picture(folder / "restored.tif").bits == 8 * stored.itemsize


def test_volumes_have_no_tiff() -> None:
    with pytest.raises(NeedError, match="out of nifti"):
        fitting(Options(output_types=("tiff",)), ("nifti", "png", "npz"))
    assert fitting(Options(output_types=("tiff", "dicom")), ("png", "tiff", "npz")) == ("tiff",)


def test_a_zip_is_made_while_it_is_sent(tmp_path: Path) -> None:
    job = JobStore(tmp_path).create(Request.new((), {}, {}))
    content = os.urandom(3 << 20)
    names = ["results/a.bin", "results/B:x.txt", "results/b_x.txt", "results/é.png", "summary.csv"]
    for name in names:
        path = job.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if name.endswith(".bin") else name.encode() * 1000)
    (job.folder / "results" / "link").symlink_to("/etc/hostname")
    pieces = list(zip_of(job, [*job.files(), Path("results/link"), Path("results/gone"), Path("job/request.json")]))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 2 << 20
    packed = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert packed.testzip() is None
    assert sorted(packed.namelist()) == sorted(
        ["results/a.bin", "results/B_x.txt", "results/b_x.txt-2", "results/é.png", "summary.csv"]
    )
    assert packed.read("results/a.bin") == content


# helpers


def test_pictures_are_reduced_by_averaging() -> None:
    image = torch.rand(3, 40, 60)
    assert reduced(image, 60) is image
    small = reduced(image, 30)
    assert small.shape == (3, 20, 30)
    torch.testing.assert_close(small, image.unflatten(1, (20, 2)).unflatten(3, (30, 2)).mean((2, 4)))
    assert resized(image, 80, 120).shape == (3, 80, 120)
    torch.testing.assert_close(resized(image, 20, 30), small)
    assert resized(image, 80, 30).shape == (3, 80, 30)


def test_a_page_may_ask_while_the_worker_writes(tmp_path: Path, photo: Path) -> None:
    job = made(tmp_path / "job", [photo], views=True)
    found: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            found.append((views_of(job), trace(job), picture(job), cases_of(job)))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert run_job(job, live=True).code == DONE
    finally:
        done.set()
        asking.join()
    assert found[0][0] == []
