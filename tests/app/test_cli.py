"""The command line, run in process on tiny pictures."""

import hashlib
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch

from app import cli
from app.pictures import write_picture
from app.run import chosen_seeds
from operators.errors import RecipeError
from restoration.assets import AssetStore
from restoration.recipe import preset_names

CONFTEST_STEPS = 4


def run(*words: Any) -> int:
    return cli.main([str(word) for word in words])


def samples(out: Path) -> np.ndarray:
    with np.load(out / "samples.npz") as arrays:
        return arrays["samples"]


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


# What a run writes


def test_a_measurement_is_restored_into_a_folder(recipe: Path, photo: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "result"
    assert run("run", recipe, photo, "-o", out) == 0
    names = {"recipe.json", "report.json", "samples.npz", "input.png", "mean.png"}
    names |= {"sample-000.png", "imagined.png", "preview.png"}
    assert {p.name for p in out.iterdir()} == names
    printed = capsys.readouterr()
    assert str(out) in printed.out
    assert "sigma" in printed.out
    assert "PSNR" not in printed.out
    assert report(out)["psnr"] is None
    assert [p.name for p in out.parent.iterdir()] == ["result"]


def test_a_clean_picture_is_degraded_and_scored(recipe: Path, photo: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run("run", recipe, photo, "-o", out, "--truth", "--samples", 3) == 0
    names = {p.name for p in out.iterdir()}
    assert {"truth.png", "std.png", "sample-000.png", "sample-001.png", "sample-002.png"} <= names
    found = report(out)
    assert found["complete"] is True
    assert found["psnr"] > 15
    assert len(found["psnr_samples"]) == found["samples"] == 3
    assert found["seeds"] == [0, 1, 2]
    assert found["nfe"] == CONFTEST_STEPS
    assert found["residual_sigma"] > 0
    assert found["input_sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert found["intended_use"] == "research use only"
    assert "PSNR" in capsys.readouterr().out
    assert np.array_equal(cv2.imread(str(out / "truth.png")), cv2.imread(str(photo)))


def test_an_earlier_result_is_replaced(recipe: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("run", recipe, photo, "-o", out, "--samples", 2) == 0
    assert run("run", recipe, photo, "-o", out) == 0
    assert report(out)["samples"] == 1
    assert not (out / "sample-001.png").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photo.png", "recipe.json"]


def test_the_recorded_command_repeats_the_run(recipe: Path, photo: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "a folder", tmp_path / "again"
    assert run("run", recipe, photo, "-o", first, "--truth", "--seed", 7, 3, "--precision", "fp32") == 0
    words = shlex.split(report(first)["command"])
    assert words[:2] == ["preimage", "run"]
    words[words.index("-o") + 1] = str(again)
    assert cli.main(words[1:]) == 0
    assert np.array_equal(samples(first), samples(again))
    assert (first / "recipe.json").read_text() == (again / "recipe.json").read_text()


def test_a_saved_recipe_runs_again(recipe: Path, photo: Path, tmp_path: Path) -> None:
    assert run("run", recipe, photo, "-o", tmp_path / "a", "--seed", 5) == 0
    assert run("run", tmp_path / "a" / "recipe.json", photo, "-o", tmp_path / "b") == 0
    assert np.array_equal(samples(tmp_path / "a"), samples(tmp_path / "b"))


def test_sixteen_bits_stay_sixteen_bits(recipe: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    write_picture(deep, torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), 16)
    assert run("run", recipe, deep, "-o", tmp_path / "out", "--truth") == 0
    for name in ("input.png", "mean.png", "sample-000.png", "truth.png"):
        assert cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    truth = cv2.imread(str(tmp_path / "out" / "truth.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(truth, cv2.imread(str(deep), cv2.IMREAD_UNCHANGED))
    mean = cv2.imread(str(tmp_path / "out" / "mean.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    exact = samples(tmp_path / "out")[0].transpose(1, 2, 0).clip(0, 1) * 65535
    assert np.abs(mean - exact).max() <= 0.51


def test_a_grey_picture_stays_grey(recipe: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    write_picture(grey, torch.full((1, 32, 32), 0.5))
    assert run("run", recipe, grey, "-o", tmp_path / "out") == 0
    assert samples(tmp_path / "out").shape[1:] == (1, 32, 32)
    assert cv2.imread(str(tmp_path / "out" / "mean.png"), cv2.IMREAD_UNCHANGED).shape == (32, 32)


@pytest.mark.weights
def test_a_grey_picture_under_a_prior_of_colour_is_noted(tmp_path: Path, capsys) -> None:
    grey = tmp_path / "grey.png"
    write_picture(grey, torch.full((1, 32, 32), 0.5))
    assert run("run", "denoise", grey, "-o", tmp_path / "out") == 0
    assert report(tmp_path / "out")["notes"] == ["grey picture, by a prior of colour pictures"]
    assert "grey" in capsys.readouterr().out


def test_a_small_measurement_gives_a_larger_picture(
    write_recipe: Callable[..., Path], photo: Path, tmp_path: Path
) -> None:
    small = write_recipe(changes={"operator": {"kind": "downsample", "factor": 4, "method": "bicubic"}})
    assert run("run", small, photo, "-o", tmp_path / "out", "--samples", 2) == 0
    assert samples(tmp_path / "out").shape == (2, 3, 128, 160)
    assert cv2.imread(str(tmp_path / "out" / "input.png")).shape == (32, 40, 3)


def test_a_trained_prior_is_used_and_named(
    write_recipe: Callable[..., Path], assets: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREIMAGE_ASSETS", str(assets))
    trained = write_recipe(changes={"model": {"kind": "trained", "name": "tiny"}})
    out = tmp_path / "out"
    assert run("run", trained, photo, "-o", out, "--seed", 3, 5, "--precision", "fp32") == 0
    assert report(out)["asset_sha256"] == {"tiny": AssetStore(assets).cards["tiny"].sha256}
    assert report(out)["precision"] == "fp32"
    assert run("run", trained, photo, "-o", tmp_path / "alone", "--seed", 5, "--precision", "fp32") == 0
    assert np.abs(samples(out)[1] - samples(tmp_path / "alone")[0]).max() < 1e-5


# Seeds


def test_a_sample_is_the_same_alone_and_in_company(recipe: Path, photo: Path, tmp_path: Path) -> None:
    assert run("run", recipe, photo, "-o", tmp_path / "both", "--seed", 4, 0) == 0
    assert run("run", recipe, photo, "-o", tmp_path / "alone", "--seed", 0) == 0
    assert report(tmp_path / "alone")["seeds"] == [0]
    assert np.abs(samples(tmp_path / "both")[1] - samples(tmp_path / "alone")[0]).max() < 1e-6
    assert np.abs(samples(tmp_path / "both")[0] - samples(tmp_path / "alone")[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("recipe_seeds", "given", "number", "expected"),
    [
        ((0,), (), None, (0,)),
        ((3, 9), (), None, (3, 9)),
        ((3, 9), (0,), None, (0,)),
        ((3, 9), (), 3, (3, 4, 5)),
        ((3,), (0,), 2, (0, 1)),
        ((3,), (5, 1), None, (5, 1)),
        ((3,), (2**63 - 1,), 1, (2**63 - 1,)),
    ],
)
def test_seeds_are_the_given_the_recipes_or_consecutive(recipe_seeds, given, number, expected) -> None:
    assert chosen_seeds(recipe_seeds, given, number) == expected


@pytest.mark.parametrize(
    ("given", "number"),
    [((1, 2), 2), ((), 0), ((), -1), ((), 4097), ((-1,), None), ((2**63,), None), ((2**63 - 1,), 2), ((4, 4), None)],
)
def test_seeds_that_cannot_be_meant_are_refused(given, number) -> None:
    with pytest.raises(RecipeError, match="Expected"):
        chosen_seeds((0,), given, number)


# What its user can mend: one sentence, exit status 2, nothing written


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a valid PNG file that announces a size; no memory is needed to write it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    row = zlib.compress(b"\0" * (1 + 3 * width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def noise_png(path: Path) -> bytes:
    write_picture(path, torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return path.read_bytes()


BAD_PICTURES: dict[str, Callable[[Path], object]] = {
    "missing.png": lambda path: None,
    "text.png": lambda path: path.write_text("this is no picture\n" * 10),
    "empty.png": lambda path: path.write_bytes(b""),
    "one-pixel.png": lambda path: path.write_bytes(png_of_size(1, 1)),
    "enormous.png": lambda path: path.write_bytes(png_of_size(20000, 20000)),
    "cut-off.png": lambda path: path.write_bytes(noise_png(path)[:-200]),
    "nan.tif": lambda path: tifffile.imwrite(path, np.full((32, 32, 3), np.nan, np.float32), photometric="rgb"),
    "transparent.png": lambda path: cv2.imwrite(str(path), np.full((32, 32, 4), 128, np.uint8)),
    "folder.png": lambda path: path.mkdir(),
}


def refused(capsys, out: Path, *words: Any) -> str:
    """Run, and check all that holds for every refusal; returns the sentence."""
    before = set(out.parent.rglob("*"))
    assert run(*words, "-o", out) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("preimage: ")
    assert "Traceback" not in printed.err
    assert not out.exists()
    assert set(out.parent.rglob("*")) == before
    return printed.err


@pytest.mark.parametrize("name", BAD_PICTURES)
@pytest.mark.parametrize("truth", [[], ["--truth"]], ids=["measurement", "truth"])
def test_a_bad_picture_is_refused_in_a_sentence(
    name: str, truth: list[str], recipe: Path, tmp_path: Path, capsys
) -> None:
    BAD_PICTURES[name](tmp_path / name)
    assert name in refused(capsys, tmp_path / "out", "run", recipe, tmp_path / name, *truth)


BAD_RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "wrong type": ({"operator": {"kind": "downsample", "factor": "four"}}, "operator.downsample.factor"),
    "sigma zero": ({"noise": {"kind": "gaussian", "sigma": 0}}, "noise.gaussian.sigma"),
    "sigma negative": ({"noise": {"kind": "gaussian", "sigma": -0.1}}, "noise.gaussian.sigma"),
    "sigma text": ({"noise": {"kind": "gaussian", "sigma": "much"}}, "noise.gaussian.sigma"),
    "unknown key": ({"opeartor": {}}, "opeartor"),
    "unknown kind": ({"method": {"kind": "dsp"}}, "dsp"),
    "unknown weights": ({"model": {"kind": "trained", "name": "nobody"}}, "nobody"),
    "no prior": ({"model": {"kind": "none"}}, "prior"),
    "levels out of order": (
        {"method": {"kind": "diffpir", "schedule": {"kind": "karras", "sigma_min": 2.0, "sigma_max": 1.0}}},
        "sigma_min",
    ),
    "not inpainting": ({"method": {"kind": "opencv-inpaint"}, "model": {"kind": "none"}}, "inpainting"),
    "a list": ({"operator": []}, "operator"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_bad_recipe_is_refused_in_a_sentence(
    name: str, write_recipe: Callable[..., Path], photo: Path, tmp_path: Path, capsys
) -> None:
    changes, word = BAD_RECIPES[name]
    assert word in refused(capsys, tmp_path / "out", "run", write_recipe(changes=changes), photo)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"operator": NaN}', "\0"])
def test_a_file_that_is_no_recipe_is_refused(content: str, photo: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert "bad.json" in refused(capsys, tmp_path / "out", "run", path, photo)


def test_an_unknown_preset_is_refused_with_the_known_ones(photo: Path, tmp_path: Path, capsys) -> None:
    sentence = refused(capsys, tmp_path / "out", "run", "sharpen-everything", photo)
    assert "deblur-motion" in sentence
    assert "missing.json" in refused(capsys, tmp_path / "out", "run", tmp_path / "missing.json", photo)


def test_a_mask_of_another_size_is_refused(
    write_recipe: Callable[..., Path], photo: Path, tmp_path: Path, capsys
) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((16, 16), 255, np.uint8))
    mask = {"kind": "file", "file": {"path": "mask.png"}}
    path = write_recipe(changes={"operator": {"kind": "inpainting", "mask": mask}})
    sentence = refused(capsys, tmp_path / "out", "run", path, photo)
    assert "32x40" in sentence
    assert "16x16" in sentence


def test_a_mask_is_found_beside_its_recipe(write_recipe: Callable[..., Path], photo: Path, tmp_path: Path) -> None:
    white = np.full((32, 40), 255, np.uint8)
    white[8:16, 8:16] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), white)
    mask = {"kind": "file", "file": {"path": "mask.png"}}
    path = write_recipe(changes={"operator": {"kind": "inpainting", "mask": mask}})
    assert run("run", path, photo, "-o", tmp_path / "out") == 0


def test_a_damaged_weight_file_is_refused(
    write_recipe: Callable[..., Path],
    assets: Path,
    photo: Path,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREIMAGE_ASSETS", str(assets))
    path = write_recipe(changes={"model": {"kind": "trained", "name": "tiny"}})
    weights = assets / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "tiny.safetensors" in refused(capsys, tmp_path / "out", "run", path, photo)
    weights.unlink()
    assert "tiny" in refused(capsys, tmp_path / "out", "run", path, photo)


@pytest.mark.parametrize("manifest", [None, "not [toml", '[[asset]]\nname = "x"\n'])
def test_a_damaged_asset_folder_is_refused(
    manifest: str | None, recipe: Path, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if manifest is not None:
        (folder / "manifest.toml").write_text(manifest)
    monkeypatch.setenv("PREIMAGE_ASSETS", str(folder))
    assert "manifest" in refused(capsys, tmp_path / "out", "run", recipe, photo)


@pytest.mark.parametrize(
    "words",
    [["--seed", 1, 2, "--samples", 2], ["--samples", 0], ["--seed", -1], ["--seed", 3, 3], ["--seed", 2**63]],
    ids=lambda words: " ".join(map(str, words)),
)
def test_seeds_and_samples_that_conflict_are_refused(
    words: list[Any], recipe: Path, photo: Path, tmp_path: Path, capsys
) -> None:
    refused(capsys, tmp_path / "out", "run", recipe, photo, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there_is_refused(device: str, recipe: Path, photo: Path, tmp_path: Path, capsys) -> None:
    assert "CUDA" in refused(capsys, tmp_path / "out", "run", recipe, photo, "--device", device)


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "denoise", "x.png"],
        ["nonsense"],
        ["run", "a", "b", "-o", "c", "--device", "gpu"],
        ["run", "a", "b", "-o", "c", "--seed", "x"],
    ],
)
def test_words_that_are_no_command_are_exit_status_2(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_other_content_in_the_result_folder_is_left_alone(recipe: Path, photo: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    (out / "diary.txt").write_text("dear diary")
    assert run("run", recipe, photo, "-o", out) == 2
    assert (out / "diary.txt").read_text() == "dear diary"
    assert [p.name for p in out.iterdir()] == ["diary.txt"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_added_to_an_earlier_result_is_left_alone(recipe: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("run", recipe, photo, "-o", out) == 0
    (out / "notes.txt").write_text("looks good")
    assert run("run", recipe, photo, "-o", out) == 2
    assert (out / "notes.txt").read_text() == "looks good"


def test_a_result_folder_that_cannot_be_is_refused_before_the_work(
    write_recipe: Callable[..., Path], photo: Path, tmp_path: Path, capsys
) -> None:
    endless = write_recipe(steps=2000)
    for out in (photo, photo / "inside", tmp_path / ("n" * 300)):
        assert run("run", endless, photo, "-o", out) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert photo.is_file()


def test_an_input_inside_the_result_folder_is_not_overwritten(recipe: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("run", recipe, photo, "-o", out) == 0
    before = (out / "input.png").read_bytes()
    assert run("run", recipe, out / "input.png", "-o", out) == 2
    assert (out / "input.png").read_bytes() == before


def test_a_picture_put_into_an_earlier_result_is_left_alone(recipe: Path, photo: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run("run", recipe, photo, "-o", out) == 0
    (out / "mine.png").write_bytes(b"mine")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert run("run", recipe, photo, "-o", out) == 2
    assert "mine.png" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_the_current_folder_is_refused_before_the_work(
    write_recipe: Callable[..., Path], photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr("app.run.Pipeline.load", lambda *_: pytest.fail("the work had begun"))
    assert run("run", write_recipe(), photo, "-o", ".") == 2
    assert "in use" in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_link_to_an_earlier_result_stays_a_link(recipe: Path, photo: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "out", tmp_path / "link"
    assert run("run", recipe, photo, "-o", out) == 0
    link.symlink_to(out)
    assert run("run", recipe, photo, "-o", link, "--samples", 2) == 0
    assert link.is_symlink()
    assert report(out)["samples"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out", "photo.png", "recipe.json"]


def allocate_far_too_much(*_: Any) -> None:
    torch.empty(1 << 50)


def run_out(*_: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("failure", [allocate_far_too_much, run_out])
def test_too_little_memory_is_said_in_a_sentence(
    failure: Callable[..., None], recipe: Path, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.run.Pipeline.run", failure)
    assert "enough memory on cpu" in refused(capsys, tmp_path / "out", "run", recipe, photo)


def test_our_own_mistakes_show_a_trace(
    recipe: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.run.Pipeline.run", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run("run", recipe, photo, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Ctrl-C


def test_the_first_interrupt_asks_and_the_second_aborts() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with cli._Stop() as stop:
            assert not stop.wanted()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wanted()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_abort_while_writing_leaves_nothing_behind(
    recipe: Path, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("restoration.result.np.savez_compressed", interrupted)
    assert run("run", recipe, photo, "-o", tmp_path / "out") == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.png", "recipe.json"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("preimage: aborted")


PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background may ignore it
from restoration.pipeline import Pipeline
whole = Pipeline.steps
def steps(*words):
    for step in whole(*words):
        if step.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        yield step
Pipeline.steps = steps
from app.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupt_keeps_the_partial_result(write_recipe: Callable[..., Path], photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", str(write_recipe(steps=9)), str(photo), "-o", str(out), "--truth", "--samples", "2"]
    root = Path(cli.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert "stopping after this step" in done.stderr
    assert "stopped early" in done.stderr
    assert "Traceback" not in done.stderr
    found = report(out)
    assert found["complete"] is False
    assert found["nfe"] == 3
    assert samples(out).shape == (2, 3, 32, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photo.png", "recipe.json"]


# Readers that go away


def piped(words: list[str], program: str, stream: str) -> int:
    """Exit status of a command one of whose streams nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: writer}
    root = Path(cli.__file__).parents[1]
    try:
        return subprocess.run([sys.executable, "-c", program, *words], cwd=root, check=False, **streams).returncode
    finally:
        os.close(writer)


TALKATIVE = """
import sys
from app import cli, progress
progress.time.monotonic = iter(range(0, 10**9, 10)).__next__  # so slow that there is something to tell
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_nobody_listens_to_is_finished(stream: str, recipe: Path, photo: Path, tmp_path: Path) -> None:
    assert piped(["run", str(recipe), str(photo), "-o", str(tmp_path / "out")], TALKATIVE, stream) == 0
    assert report(tmp_path / "out")["complete"] is True


def test_a_failed_run_nobody_listens_to_has_failed(recipe: Path, tmp_path: Path) -> None:
    words = ["run", str(recipe), str(tmp_path / "none.png"), "-o", str(tmp_path / "out")]
    assert piped(words, TALKATIVE, "stderr") == 2


def test_an_interrupted_run_nobody_listens_to_says_so_by_its_status(
    write_recipe: Callable[..., Path], photo: Path, tmp_path: Path
) -> None:
    words = ["run", str(write_recipe(steps=9)), str(photo), "-o", str(tmp_path / "out")]
    assert piped(words, PROGRAM, "stderr") == 130
    assert report(tmp_path / "out")["complete"] is False


def test_a_list_may_be_cut_short() -> None:
    assert piped(["recipes"], TALKATIVE, "stdout") == 0


# The other commands


def test_help_answers_without_loading_torch() -> None:
    program = (
        "import sys\nfrom app.cli import main\ntry:\n    main(['--help'])\nfinally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(cli.__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert "recipes" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_help_says_which_noise_a_truth_gets(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "noise of seed 0" in " ".join(capsys.readouterr().out.split())


def test_no_command_prints_the_help(capsys) -> None:
    assert cli.main([]) == 0
    assert "usage: preimage" in capsys.readouterr().out


def test_the_version_is_printed(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("preimage ")


def test_presets_are_listed(capsys) -> None:
    assert cli.main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in preset_names())


def test_assets_are_listed_with_their_licences(assets: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREIMAGE_ASSETS", str(assets))
    assert cli.main(["assets"]) == 0
    printed = capsys.readouterr().out
    assert "The tiny one" in printed
    assert printed.count("CC0-1.0") == 3


def test_training_has_its_own_help_and_errors(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--help"])
    assert stopped.value.code == 0
    assert "--minutes" in capsys.readouterr().out
    assert run("train", tmp_path / "none.json", "--data", tmp_path, "--minutes", 1) == 2
