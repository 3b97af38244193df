"""Studies on tiny pictures, with closed-form priors and few steps."""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import cli, study_table
from app.batch import DONE, SOME_FAILED
from app.options import Outcome
from app.pictures import read_picture, write_picture
from app.study import Run, done_runs, read_plan, run_study
from app.study_page import page, report
from app.study_plan import Plan, Study, expand, read_study, study_names
from app.study_table import Interval, interval, latex, markdown, rows, summary, times, write_parquet
from operators.errors import NeedError, PreimageError, ReadError, RecipeError, WriteError
from restoration.assets import AssetStore
from restoration.pipeline import Pipeline
from restoration.recipe import TrainedPrior
from tests.app.conftest import smooth

STORE = AssetStore()
PICTURES = study_table.LEAST
KARRAS = {"kind": "karras", "steps": 3}
BASE: dict[str, Any] = {
    "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "size": 5, "std": 1.0}, "boundary": "circular"},
    "noise": {"kind": "gaussian", "sigma": 0.05},
    "model": {"kind": "power-law"},
    "method": {"kind": "diffpir", "schedule": KARRAS},
}
TOO_LARGE = {"kind": "blur", "kernel": {"kind": "gaussian", "size": 61, "std": 3}, "boundary": "valid"}
METHODS = {"DiffPIR": {"kind": "diffpir", "schedule": KARRAS}, "direct": {"kind": "direct"}}


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for k in range(count):
        write_picture(folder / f"p{k}.png", smooth(20, 24).roll(4 * k, -1) * (1 - 0.1 * k))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_table, "RESAMPLES", 199)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return pictures(tmp_path / "in", 2)


@pytest.fixture
def plan(inputs: Path) -> Plan:
    """Two methods on two pictures, two samples of the one that has several."""
    study = {"base": BASE, "vary": {"method": METHODS}, "inputs": ["in"], "seeds": [0, 7], "truth": True}
    return expand(Study.model_validate(study), inputs.parent, STORE)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """Two methods at two noise levels on five pictures, run; its folder is only read."""
    folder = tmp_path_factory.mktemp("study")
    pictures(folder / "in", PICTURES)
    vary = {"method": METHODS, "noise.sigma": [0.05, 0.1]}
    reference = {"method": "direct", "sigma": "0.05"}
    study = {"title": "Tiny & <b>small</b>", "base": BASE, "vary": vary, "inputs": ["in"], "seeds": [0, 7]}
    plan = expand(Study.model_validate(study | {"truth": True, "reference": reference}), folder, STORE)
    assert run_study(plan, folder / "out") == (DONE, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_table, "RESAMPLES", 199)
        report(folder / "out")
    return plan, folder / "out"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# expanding


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    write_picture(folder / "p.png", smooth(20, 24))
    return folder


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sigmas=st.lists(st.floats(0.01, 1).map(lambda x: round(x, 3)), min_size=1, max_size=4, unique=True),
    steps=st.lists(st.integers(2, 60), min_size=1, max_size=4, unique=True),
    labelled=st.booleans(),
)
def test_a_grid_is_every_combination_with_the_last_field_fastest(
    one: Path, sigmas: list[float], steps: list[int], labelled: bool
) -> None:
    varied: Any = {f"sigma {s}": s for s in sigmas} if labelled else sigmas
    vary = {"noise.sigma": varied, "method.schedule.steps": steps}
    plan = expand(Study.model_validate({"base": BASE, "vary": vary, "inputs": ["p.png"]}), one, STORE)
    wanted = [(s, n) for s in sigmas for n in steps]
    found = [(c.recipe.noise.sigma, c.recipe.method.schedule.steps) for c in plan.cells]  # type: ignore[union-attr]
    assert found == wanted
    assert [c.number for c in plan.cells] == list(range(1, len(wanted) + 1))
    assert [c.labels for c in plan.cells] == [(f"sigma {s}" if labelled else str(s), str(n)) for s, n in wanted]
    assert plan.axes == ("sigma", "steps")
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_whole_descriptions_fields_in_pairs_and_names(inputs: Path) -> None:
    pairs = {"none": [{"kind": "none"}, {"kind": "tv"}], "1/f": [{"kind": "power-law"}, {"kind": "daps"}]}
    vary = {"sampler: model, method": pairs, "operator.kernel.std": [1, 2]}
    study = {"base": BASE, "vary": vary, "inputs": ["in/p[01].png"], "reference": {"sampler": "1/f", "std": "2"}}
    plan = expand(Study.model_validate(study), inputs.parent, STORE)
    assert plan.axes == ("sampler", "std")
    kinds = [(c.recipe.model.kind, c.recipe.method.kind) for c in plan.cells]
    assert kinds == [("none", "tv"), ("none", "tv"), ("power-law", "daps"), ("power-law", "daps")]
    assert plan.cases == ("p0.png", "p1.png")
    assert plan.reference == 4
    assert plan.metrics == ("residual_sigma",)


def test_a_field_of_a_description_that_was_put_in_whole_can_be_varied(inputs: Path) -> None:
    vary = {"method": [{"kind": "diffpir"}, {"kind": "pigdm"}], "method.schedule.steps": [2, 5]}
    plan = expand(Study.model_validate({"base": BASE, "vary": vary, "inputs": ["in"]}), inputs.parent, STORE)
    assert [c.recipe.method.schedule.steps for c in plan.cells] == [2, 5, 2, 5]  # type: ignore[union-attr]
    assert [c.labels[0] for c in plan.cells] == ["diffpir", "diffpir", "pigdm", "pigdm"]


def test_fields_of_lists_are_numbered(inputs: Path) -> None:
    operator = {"kind": "composed", "steps": [BASE["operator"], {"kind": "downsample", "factor": 2}]}
    vary = {"operator.steps.1.factor": [2, 4]}
    study = {"base": {**BASE, "operator": operator, "method": {"kind": "dps"}}, "vary": vary, "inputs": ["in"]}
    plan = expand(Study.model_validate(study | {"truth": True}), inputs.parent, STORE)
    assert [c.recipe.operator.model_dump()["steps"][1]["factor"] for c in plan.cells] == [2, 4]


def test_deterministic_methods_take_one_seed(plan: Plan) -> None:
    assert [len(cell.recipe.seeds) for cell in plan.cells] == [2, 1]


def test_everything_that_is_wrong_is_said_at_once_and_no_weight_is_loaded(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedPrior, "load", lambda *rest: pytest.fail("loaded"))
    (inputs / "bad.png").write_bytes(b"nothing")
    study = {
        "base": "deblur-gaussian",
        "vary": {
            "operator.kernel.std": [3, -1],
            "method": [{"kind": "diffpir"}, {"kind": "opencv-inpaint"}],
            "noise.sgima": [0.1],
            "model, method": [[{"kind": "none"}]],
        },
        "inputs": ["in", "nowhere/*.png"],
        "metrics": ["psnr"],
        "reference": {"method": "dps"},
    }
    with pytest.raises(RecipeError) as error:
        expand(Study.model_validate(study), inputs.parent, STORE)
    text = str(error.value)
    for part in ("Expected a list of 2 values for model, method", "nowhere/*.png", '"truth": true for psnr'):
        assert part in text
    del study["vary"]["model, method"]  # type: ignore[attr-defined]
    study["inputs"] = ["in"]
    with pytest.raises(RecipeError) as error:
        expand(Study.model_validate(study), inputs.parent, STORE)
    text = str(error.value)
    for part in ("noise.gaussian.sgima", "kernel.gaussian.std", '"truth": true', "problems. (1)"):
        assert part in text
    del study["vary"]["noise.sgima"]  # type: ignore[attr-defined]
    study["vary"]["operator.kernel.std"] = [3]  # type: ignore[index]
    with pytest.raises(RecipeError, match=r"\[3, opencv-inpaint\] The method needs a measurement with missing pixels"):
        expand(Study.model_validate(study), inputs.parent, STORE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vary": {"noise.sigma": [0.1, 0.1]}}, "got one twice"),
        ({"vary": {"noise.sigma": {"a": 0.1, "b": 0.1}}}, "the same twice: a and b"),
        ({"vary": {"noise.sigma": []}}, "Expected values for noise.sigma"),
        ({"vary": {"nose.sigma": [1]}}, "got 'nose.sigma'"),
        ({"vary": {"operator.kind.size": [1]}}, "got 'operator.kind.size'"),
        ({"vary": {"seeds.5": [1]}}, "got 'seeds.5'"),
        ({"vary": {"noise.sigma": list(range(1, 20002))}}, "at most 10000 recipes, got 20001"),
        ({"inputs": []}, "Expected inputs, got none"),
        ({"inputs": ["empty"]}, "Expected pictures, DICOM or NIfTI, found none"),
        ({"base": "deblur"}, "Expected a recipe file, a preset out of"),
        ({"base": {**BASE, "operator": TOO_LARGE}, "truth": True}, r"\[diffpir on p0.png\] "),
        ({"reference": {"sigma": "3"}}, "Expected names of varied fields"),
        ({"vary": {"noise.sigma": [0.1, 0.2]}, "reference": {"sigma": "3"}}, r"got none of \[\['0.1', '0.2'\]\]"),
        ({"inputs": ["in", "bad.png"]}, "bad.png: expected a PNG"),
    ],
)
def test_a_study_that_will_not_do(inputs: Path, change: dict[str, Any], sentence: str) -> None:
    (inputs.parent / "empty").mkdir()
    (inputs.parent / "bad.png").write_bytes(b"")
    study = Study.model_validate({"base": BASE, "inputs": ["in"], **change})
    with pytest.raises(PreimageError, match=sentence):
        expand(study, inputs.parent, STORE)


def test_files_are_found_from_the_study_and_pinned(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(inputs.parent / "mask.png", smooth(20, 24)[:1].gt(0.5).float())
    recipe = {**BASE, "operator": {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": "mask.png"}}}}
    (inputs.parent / "recipe.json").write_text(json.dumps(recipe))
    (inputs.parent / "study.json").write_text(json.dumps({"base": "recipe.json", "inputs": ["in"]}))
    monkeypatch.chdir("/")
    plan = expand(*read_study(str(inputs.parent / "study.json")), STORE)
    text = plan.model_dump_json()
    assert str(inputs.parent / "mask.png") in text
    assert plan.cells[0].name == "diffpir"


def test_a_study_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="or one of ct-views, mri-acceleration, photo-samplers, got"):
        read_study(str(tmp_path / "none.json"))
    (tmp_path / "s.json").write_text('{"base": "denoise", "inputs": ["x"], "colour": 1, "seeds": []}')
    with pytest.raises(RecipeError, match=r"seeds: .*; colour: Extra inputs"):
        read_study(str(tmp_path / "s.json"))


@pytest.mark.parametrize("name", study_names())
def test_studies_that_ship_can_be_run(name: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", smooth(64, 64)[:1])
    study, folder = read_study(name)
    plan = expand(study, folder, STORE, [tmp_path / "p.png"])
    assert len(plan.cells) >= 4
    assert plan.truth
    assert plan.title


# running


def test_every_row_is_what_the_recipe_gives_alone(done: tuple[Plan, Path]) -> None:
    plan, folder = done
    found = table(folder / "table.csv")
    assert len(found) == PICTURES * (2 * 3 + 2 * 2)  # mean and two samples, or mean and one
    cell = plan.cells[1]
    assert cell.labels == ("DiffPIR", "0.1")
    pipeline = Pipeline.load(cell.recipe)
    alone = pipeline.run(pipeline.simulate(read_picture(Path(plan.inputs[0]) / "p3.png").pixels)).report
    mean, first, second = [row for row in found if row["case"] == "p3.png" and row["recipe"] == "2"]
    assert [mean["estimate"], first["estimate"], second["estimate"]] == ["mean", "sample", "sample"]
    assert [mean["seed"], first["seed"], second["seed"]] == ["", "0", "7"]
    assert alone.psnr_samples is not None
    for row, psnr, residual in (
        (mean, alone.psnr, alone.residual_sigma),
        (first, alone.psnr_samples[0], alone.residual_sigma_samples[0]),
        (second, alone.psnr_samples[1], alone.residual_sigma_samples[1]),
    ):
        assert float(row["psnr"]) == pytest.approx(psnr, rel=1e-8)
        assert float(row["residual_sigma"]) == pytest.approx(residual, rel=1e-6)
        assert (row["method"], row["sigma"], row["nfe"], row["state"]) == ("DiffPIR", "0.1", "3", "done")
    assert len(table(folder / "times.csv")) == PICTURES * 4
    assert all(float(row["seconds"]) > 0 for row in table(folder / "times.csv"))


def test_no_clock_is_in_the_table(done: tuple[Plan, Path]) -> None:
    assert "seconds" not in (done[1] / "table.csv").read_text()
    assert "seconds" not in (done[1] / "summary.csv").read_text()


def test_traces_end_where_the_result_is(done: tuple[Plan, Path]) -> None:
    folder = done[1]
    trace = [row for row in table(folder / "trace.csv") if row["recipe"] == "2"]
    assert [row["step"] for row in trace] == ["1", "2", "3"]
    last = next(r for r in table(folder / "table.csv") if (r["recipe"], r["seed"], r["case"]) == ("2", "0", "p0.png"))
    assert float(trace[-1]["psnr"]) == pytest.approx(float(last["psnr"]), rel=1e-6)
    assert float(trace[-1]["residual_sigma"]) == pytest.approx(float(last["residual_sigma"]), rel=1e-5)


def test_calibration_is_known_for_those_with_several_samples(done: tuple[Plan, Path]) -> None:
    found = table(done[1] / "calibration.csv")
    assert [row["recipe"] for row in found] == ["1", "2"]
    assert all(float(row["nominal"]) == pytest.approx(1 / 3) and 0 < float(row["held"]) < 1 for row in found)


def test_the_summary_agrees_with_the_table(done: tuple[Plan, Path]) -> None:
    plan, folder = done
    assert plan.reference == 3
    cells = [row for row in table(folder / "table.csv") if row["estimate"] == "mean"]
    psnr = {(row["recipe"], row["case"]): float(row["psnr"]) for row in cells}
    for line in table(folder / "summary.csv"):
        if (line["metric"], line["estimate"]) == ("psnr", "mean"):
            values = [psnr[line["recipe"], case] for case in plan.cases]
            apart = [psnr[line["recipe"], case] - psnr["3", case] for case in plan.cases]
            assert float(line["mean"]) == pytest.approx(np.mean(values))
            assert float(line["low"]) < float(line["mean"]) < float(line["high"])
            assert line["cases"] == str(PICTURES)
            if line["recipe"] == "3":
                assert line["difference"] == ""
            else:
                assert float(line["difference"]) == pytest.approx(np.mean(apart), abs=1e-6)


def test_resuming_what_is_done_changes_nothing_and_runs_nothing(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_study(plan, tmp_path / "out") == (DONE, "")
    report(tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.*")}
    monkeypatch.setattr(Pipeline, "run", lambda *rest: pytest.fail("ran again"))
    monkeypatch.setattr(Pipeline, "steps", lambda *rest: pytest.fail("traced again"))
    assert run_study(plan, tmp_path / "out", resume=True) == (DONE, "")
    report(tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.*")} == before


def test_killed_and_resumed_it_ends_with_the_same_table(done: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, whole = done
    vary, reference = {"method": METHODS, "noise.sigma": [0.05, 0.1]}, {"method": "direct", "sigma": "0.05"}
    study = {"base": BASE, "vary": vary, "seeds": [0, 7], "truth": True, "reference": reference}
    (tmp_path / "study.json").write_text(json.dumps(study))
    words = ["study", "run", tmp_path / "study.json", "-i", plan.inputs[0], "-o", tmp_path / "out", "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(cli.__file__).parents[1],
    )

    def cases() -> int:
        journals = (tmp_path / "out").glob("runs/*/job/journal.jsonl")
        return sum(path.read_text().count('"event": "case"') for path in journals)

    deadline = time.monotonic() + 120
    while cases() < PICTURES + 2 and process.poll() is None and time.monotonic() < deadline:  # in the second recipe
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert PICTURES + 2 <= cases() < 4 * PICTURES
    assert cli.main([str(word) for word in words]) == 0
    assert cases() == 4 * PICTURES  # none done twice
    for name in ("table.csv", "summary.csv", "trace.csv", "calibration.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_stopped_it_can_be_reported_and_resumed(plan: Plan, tmp_path: Path) -> None:
    seen = []
    code, message = run_study(plan, tmp_path / "out", watch=seen.append, stop=lambda: len(seen) > 8)
    assert code == 130
    assert "resume" in message
    report(tmp_path / "out")
    assert "1 of 2 recipes are not done yet" in (tmp_path / "out" / "report.html").read_text()
    assert run_study(plan, tmp_path / "out", resume=True) == (DONE, "")
    assert len(done_runs(plan, tmp_path / "out")) == 2
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1


def test_a_picture_that_fails_is_a_row_without_figures(plan: Plan, inputs: Path, tmp_path: Path) -> None:
    (inputs / "p1.png").write_bytes(b"nothing any more")
    code, message = run_study(plan, tmp_path / "out")
    assert code == SOME_FAILED
    assert "2 of 4 restorations failed" in message
    report(tmp_path / "out")
    bad = [row for row in table(tmp_path / "out" / "table.csv") if row["case"] == "p1.png"]
    assert [(row["state"], row["psnr"]) for row in bad] == [("failed", "")] * 2
    assert {row["cases"] for row in table(tmp_path / "out" / "summary.csv")} == {"1"}
    text = (tmp_path / "out" / "report.html").read_text()
    assert "p1.png" in text
    assert "failed" in text


def test_a_folder_is_only_taken_for_the_same_study(plan: Plan, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("")
    with pytest.raises(WriteError, match="Expected a new or empty folder for a study"):
        run_study(plan, taken, resume=True)
    one = plan.model_copy(update={"cells": plan.cells[1:], "reference": 2})
    assert run_study(one, tmp_path / "out")[0] == DONE
    with pytest.raises(WriteError, match="say --resume"):
        run_study(one, tmp_path / "out")
    other = one.model_copy(update={"truth": False})
    with pytest.raises(WriteError, match="other recipes, inputs or options"):
        run_study(other, tmp_path / "out", resume=True)
    again = one.model_copy(update={"title": "Another title"})
    assert run_study(again, tmp_path / "out", resume=True)[0] == DONE
    with pytest.raises(ReadError, match="Expected the folder of a study"):
        read_plan(taken)


def test_without_truth_there_is_the_residual(inputs: Path, tmp_path: Path) -> None:
    vary = {"method": METHODS}
    plan = expand(Study.model_validate({"base": BASE, "vary": vary, "inputs": ["in"]}), inputs.parent, STORE)
    assert run_study(plan, tmp_path / "out")[0] == DONE
    _, found = report(tmp_path / "out")
    assert {line.metric for line in found.lines.values()} == {"residual_sigma"}
    assert {row["psnr"] for row in table(tmp_path / "out" / "table.csv")} == {""}


# intervals


def normal(count: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, count)


def test_intervals_are_those_of_the_normal_law_where_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_table, "RESAMPLES", 4999)
    values = normal(400)
    found = interval(list(values))
    half = 1.96 * values.std(ddof=1) / 20
    assert found.n == 400
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((half, half), rel=0.06)


def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_table, "RESAMPLES", 400)
    found = [interval(list(normal(25, seed, 3.0))) for seed in range(150)]
    held = np.mean([x.low <= 3.0 <= x.high for x in found])
    assert 0.87 <= held <= 0.985  # 0.95 less the few percent that 25 values cost; 150 trials have 1.8 % standard error


def test_intervals_agree_with_plain_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_table, "RESAMPLES", 9999)
    values = np.random.default_rng(3).gamma(2.0, 1.0, 80)
    picked = np.random.default_rng(4).integers(0, 80, (20_000, 80))
    low, high = np.quantile(values[picked].mean(1), [0.025, 0.975])
    found = interval(list(values))
    # BCa moves both ends a little to the side of the long tail
    assert found.low == pytest.approx(low, abs=0.05)
    assert found.high == pytest.approx(high, abs=0.07)
    assert found.low > low
    assert found.high > high


def test_intervals_repeat_and_follow_the_seed() -> None:
    values = list(normal(20))
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)


def test_there_is_no_interval_of_too_little() -> None:
    assert math.isnan(interval([1.0, 2.0, 3.0, 4.0]).low)
    assert math.isnan(interval([]).mean)
    assert interval([1.0, math.inf, 2.0, 3.0, 4.0]).mean == math.inf
    assert math.isnan(interval([1.0, math.inf, 2.0, 3.0, 4.0]).high)
    assert interval([2.5] * 6) == Interval(6, 2.5, 2.5, 2.5)


def made(plan: Plan, psnrs: dict[int, list[float]]) -> dict[int, Run]:
    """Runs with these figures, by number of the cell; NaN is a failed case."""

    def outcome(number: int, value: float) -> Outcome:
        figures = {"psnr": value, "psnr_sample": value - 1, "ssim": 0.5, "residual_sigma": 1.0, "nfe": 3, "seconds": 2}
        if math.isnan(value):
            return Outcome(number=number, case="x", kind="picture", state="failed", message="<script>alert(1)</script>")
        return Outcome(number=number, case="x", kind="picture", state="done", figures=figures)

    return {
        number: Run(outcomes=tuple(outcome(k, v) for k, v in enumerate(values, 1)), trace=(), made={"torch": "2"})
        for number, values in psnrs.items()
    }


def test_differences_are_paired_over_the_cases_that_both_have(plan: Plan) -> None:
    own = [20.0, 25.0, 30.0, 22.0, 28.0, 24.0]
    better = [v + 0.5 + 0.01 * k for k, v in enumerate(own)]
    better[2] = math.nan
    found = summary(plan, made(plan, {1: own, 2: better}))
    first, second = (found.line(cell, "psnr", "mean") for cell in plan.cells[:2])
    assert first is not None
    assert first.difference is None
    assert second is not None
    assert second.difference is not None
    assert (first.value.n, second.value.n, second.difference.n) == (6, 5, 5)
    assert second.difference.mean == pytest.approx(0.526, abs=1e-9)
    # pairing takes the differences between pictures out
    assert second.difference.high - second.difference.low < 0.05
    assert second.value.high - second.value.low > 3
    sample = found.line(plan.cells[1], "psnr", "sample")
    assert sample is not None
    assert sample.value.mean == pytest.approx(second.value.mean - 1)


# pages and tables


class Page(HTMLParser):
    """What a page would load, and whether its tags are closed in order."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "action", "data", "xlink:href")]
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_the_page_holds_everything_and_loads_nothing(done: tuple[Plan, Path]) -> None:
    text = (done[1] / "report.html").read_text()
    found = Page(text)
    assert found.addresses == ["data:,"]
    for word in ("http:", "https:", "url(", "@import", "<script", "//"):
        assert word not in text
    assert found.tags.count("svg") >= 7  # over sigma and time; residual over sigma; traces; calibration
    for part in ("Δ", "DiffPIR", "torch", "BCa bootstrap", "0.05", "p0.png", "Tiny &amp; &lt;b&gt;small&lt;/b&gt;"):
        assert part in text
    assert "<b>small" not in text


def test_hostile_words_stay_words(plan: Plan) -> None:
    cells = tuple(c.model_copy(update={"labels": ("<img src=x>", '"&|$_%')}) for c in plan.cells)
    odd = plan.model_copy(
        update={"cells": cells, "cases": ("<script>",) * 6, "reference": 1, "title": "</title><script>"}
    )
    runs = made(plan, {1: [20.0, math.nan, 21.0, 22.0, 23.0, 24.0], 2: [20.0] * 6})
    found = Page(page(odd, runs, summary(odd, runs)))
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert "\\|$_%" in markdown(odd, summary(odd, runs))
    assert "\\&|\\$\\_\\%" in latex(odd, summary(odd, runs))


def test_markdown_and_latex_have_the_same_cells(done: tuple[Plan, Path]) -> None:
    folder = done[1]
    lines = (folder / "summary.md").read_text().splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    rows_ = [line for line in (folder / "summary.tex").read_text().splitlines() if line.endswith("\\\\")]
    assert len(rows_) == 1 + 4
    assert {row.count(" & ") for row in rows_} == {lines[0].count("|") - 2}
    spec = (folder / "summary.tex").read_text().split("{tabular}{")[1].split("}")[0]
    assert len(spec) == lines[0].count("|") - 1


def test_parquet_holds_the_same_rows(done: tuple[Plan, Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    plan, folder = done
    runs = done_runs(plan, folder)
    write_parquet(plan, runs, tmp_path / "t.parquet")
    found = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    header, wanted = rows(plan, runs)
    assert list(found[0]) == header
    assert len(found) == len(wanted)
    assert found[1]["psnr"] == float(wanted[1][header.index("psnr")])
    assert (found[0]["seed"], found[1]["seed"]) == (None, 0)


def test_without_pyarrow_there_is_a_sentence(
    done: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NeedError, match=r"pip install 'preimage\[parquet\]'"):
        write_parquet(done[0], done_runs(*done), tmp_path / "t.parquet")


def test_times_and_tables_have_a_header_even_of_nothing(plan: Plan) -> None:
    assert rows(plan, {})[1] == times(plan, {})[1] == []
    Page(page(plan, {}, summary(plan, {})))


# command line


def test_the_command_line(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"base": BASE, "vary": {"method": METHODS}, "truth": True}
    (tmp_path / "study.json").write_text(json.dumps(study))
    out = tmp_path / "out"

    def run(*words: Any) -> int:
        return cli.main(["study", *map(str, words)])

    assert run("run", tmp_path / "study.json", "-o", out) == 2
    assert "--input" in capsys.readouterr().err
    assert run("run", tmp_path / "study.json", "-o", out, "-i", inputs, "--dry-run") == 0
    assert "2 recipes on 2 cases" in capsys.readouterr().out
    assert not out.exists()
    assert run("run", tmp_path / "study.json", "-o", out, "-i", inputs) == 0
    printed = capsys.readouterr().out
    assert "| direct |" in printed
    assert "report.html" in printed
    assert run("run", tmp_path / "study.json", "-o", out, "-i", inputs) == 2
    (out / "table.csv").unlink()
    assert run("report", out) == 0
    assert (out / "table.csv").exists()
    assert run("report", inputs) == 2
