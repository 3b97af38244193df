"""Doing results again, on tiny pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import cli
from app.pictures import write_picture
from app.reproduce import TOLERANCE, _Apart, _apart, _verdict
from tests.app.conftest import smooth


def run(*words: Any) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture
def result(recipe: Path, photo: Path, tmp_path: Path) -> Path:
    assert run("run", recipe, photo, "-o", tmp_path / "result", "--seed", 5, 3) == 0
    return tmp_path / "result"


@pytest.fixture
def batch(recipe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(2):
        write_picture(folder / f"p{k}.png", smooth(20, 24).roll(4 * k, -1))
    (folder / "p2.png").write_bytes(b"no picture")
    assert run("batch", "-i", folder, "-o", tmp_path / "batch", "--recipe", recipe, "--output-type", "png,npz") == 1
    return tmp_path / "batch"


def change(path: Path, by: float) -> None:
    with np.load(path) as arrays:
        kept = dict(arrays)
    kept["samples"].flat[7] += np.float32(by)
    np.savez_compressed(path, **kept)


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# runs


@pytest.mark.parametrize("truth", [(), ("--truth",)])
def test_a_run_is_equal_bit_by_bit(
    recipe: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], truth: tuple[str, ...]
) -> None:
    assert run("run", recipe, photo, "-o", tmp_path / "result", "--seed", 5, 3, *truth) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "result").iterdir()}
    capsys.readouterr()
    assert run("reproduce", tmp_path / "result") == 0
    assert capsys.readouterr().out == "equal, bit by bit (all samples)\n"
    assert {path: path.read_bytes() for path in (tmp_path / "result").iterdir()} == before


def test_a_result_that_was_changed_is_different_and_it_says_how_much(
    result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(result / "samples.npz", 0.25)
    capsys.readouterr()
    assert run("reproduce", result) == 1
    printed = capsys.readouterr().out
    assert "different" in printed
    assert "0.25 at most" in printed
    assert "versions are the same" in printed


def test_other_versions_are_named(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(result / "samples.npz", 0.25)
    versions = json.loads((result / "report.json").read_text())["versions"]
    rewrite(result / "report.json", versions=versions | {"torch": "1.0"})
    assert run("reproduce", result) == 1
    assert "torch 1.0 then" in capsys.readouterr().out


def test_an_input_that_was_moved_is_asked_for(
    result: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo.rename(tmp_path / "moved.png")
    write_picture(tmp_path / "other.png", smooth().flip(0))
    assert run("reproduce", result) == 2
    assert "none there; say --input PATH" in capsys.readouterr().err
    assert run("reproduce", result, "--input", tmp_path / "other.png") == 2
    assert "with other contents" in capsys.readouterr().err
    assert run("reproduce", result, "--input", tmp_path / "moved.png") == 0
    assert run("reproduce", result, "--input", tmp_path / "moved.png", tmp_path / "other.png") == 2


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("recipe.json", {"seeds": [1, 2]}, "one that was changed since"),
        ("report.json", {"complete": False}, "stopped early"),
        ("report.json", {"command": None}, "only saved runs"),
        ("report.json", {"asset_sha256": {"photo": "0" * 64}}, "Expected the weights that made the result"),
    ],
)
def test_what_cannot_be_done_again(
    result: Path, file: str, changes: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(result / file, **changes)
    assert run("reproduce", result) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reproduce", tmp_path) == 2
    assert "Expected a finished result" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{}")
    assert run("reproduce", tmp_path) == 2
    assert "one of the folders in its runs/" in capsys.readouterr().err


# batches


def test_a_batch_is_equal_bit_by_bit_and_fails_where_it_failed(batch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in batch.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run("reproduce", batch) == 0
    assert capsys.readouterr().out == "equal, bit by bit (3 cases)\n"
    assert {path: path.read_bytes() for path in batch.rglob("*") if path.is_file()} == before


def test_a_batch_that_was_changed_is_different(batch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(next(batch.rglob("p1.png/samples.npz")), 0.5)
    assert run("reproduce", batch) == 1
    assert "1 of 3 cases" in (printed := capsys.readouterr().out)
    assert "case 2" in printed
    assert "0.5 at most" in printed
    next(batch.rglob("p1.png/samples.npz")).unlink()
    assert run("reproduce", batch) == 1
    assert "samples.npz is there only once" in capsys.readouterr().out


def test_inputs_of_a_batch_that_were_moved_or_changed(
    batch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").rename(tmp_path / "moved")
    assert run("reproduce", batch) == 2
    assert "say --input PATH" in capsys.readouterr().err
    assert run("reproduce", batch, "--input", tmp_path / "moved") == 0
    write_picture(tmp_path / "moved" / "p0.png", smooth(20, 24).flip(0))
    assert run("reproduce", batch, "--input", tmp_path / "moved") == 2
    assert "others for case 1" in capsys.readouterr().err


def test_a_recipe_of_a_study_is_a_batch(recipe: Path, photo: Path, tmp_path: Path) -> None:
    study = {"base": str(recipe), "vary": {"noise.sigma": [0.02, 0.05]}, "inputs": [str(photo)], "truth": True}
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert run("study", "run", tmp_path / "study.json", "-o", tmp_path / "study") == 0
    (second,) = (tmp_path / "study").glob("runs/02-*/")
    assert run("reproduce", second) == 0


# how far apart


def test_the_bits_count_on_a_processor_in_fp32_and_a_tolerance_elsewhere() -> None:
    def equal(by: float, device: str, precision: str) -> bool:
        first = np.full((1, 3, 8, 8), 0.5, np.float32)
        return _verdict([("samples", _apart(first, first + np.float32(by)))], device, precision, "").equal

    assert equal(0, "cpu", "fp32")
    assert not equal(1e-6, "cpu", "fp32")
    assert equal(0.5 * TOLERANCE["fp32"], "cuda", "fp32")
    assert not equal(2 * TOLERANCE["fp32"], "cuda", "fp32")
    assert equal(0.5 * TOLERANCE["bf16"], "cpu", "bf16")
    assert not equal(2 * TOLERANCE["bf16"], "cpu", "bf16")
    assert not equal(float("nan"), "cuda", "bf16")


def test_differences_are_in_unit_range() -> None:
    first = np.zeros((2, 4, 4))
    assert _apart(first, first + 50, span=2000).rms == pytest.approx(0.025)
    assert _apart(first, first[:1]).words == "shape (2, 4, 4) then, (1, 4, 4) now"
    assert not _apart(first, first.astype(np.float32)).same
    assert not _verdict([("case 1", _Apart(False, "other files"))], "cuda", "bf16", "").equal
