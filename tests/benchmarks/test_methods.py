"""The comparison at equal time: what is asked can be run and costs the same, nothing is done twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import methods
from benchmarks.methods import CALLS, PULLBACK, TOPS, Bench, Book, Cell, candidates, choose, middle, rows, tune
from restoration.assets import AssetStore
from restoration.recipe import NoPrior, Recipe, read_recipe


class FakeBench(Bench):
    """PSNR goes with the number of the candidate, the other way on the second picture; notes what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def restore(self, asked: Cell, file: Path, seed: int) -> Cell:
        self.asked.append(asked.key)
        number = candidates(asked.task)[asked.method].index(asked.settings)
        return replace(asked, psnr=0.4 * number * (1 if seed == 0 else -3), residual=1.0, seconds=0.0)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 33, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("task", TOPS)
def test_every_candidate_is_a_recipe_that_can_be_run(task):
    recipe, base = read_recipe(task)
    for method, several in candidates(task).items():
        model = NoPrior() if method == "classical" else recipe.model
        for settings in several:
            changed = Recipe.model_validate({**recipe.model_dump(), "model": model, "method": settings})
            assert not changed.problems(AssetStore(), base)


def test_all_methods_cost_the_same(picture):
    bench = Bench(model={"kind": "power-law"})
    for method, several in candidates("inpaint-box").items():
        cell = bench.restore(Cell("inpaint-box", method, several[-1], picture.name, 16), picture, 0)
        cost = cell.calls + PULLBACK * cell.pullbacks
        if method == "classical":
            assert cost == 0
        elif method == "sitcom":  # a sample stops by itself
            assert cost <= 1.05 * CALLS
        else:
            assert cost == pytest.approx(CALLS, rel=0.1), method


def test_two_parts_do_all_of_the_work_once(tmp_path):
    files, out = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "cells.jsonl"
    benches = FakeBench(), FakeBench()
    for part, bench in enumerate(benches):
        tune(Book(out, f"{part}/2"), bench, files, 16)
    asked = benches[0].asked + benches[1].asked
    assert len(set(asked)) == len(asked) == sum(len(several) + min(3, len(several)) for *_, several in rows())
    again = FakeBench()
    tune(Book(out), again, files, 16)
    assert not again.asked


def test_the_best_over_all_photographs_is_chosen(tmp_path):
    out = tmp_path / "cells.jsonl"
    tune(Book(out), FakeBench(), [tmp_path / "a.png", tmp_path / "b.png"], 16)
    chosen = choose(Book(out).cells.values())
    # the last three were best on the first and close to each other; of these the first is best on the mean
    assert chosen["denoise"]["diffpir"] == candidates("denoise")["diffpir"][-3]
    assert chosen["deblur-motion"]["dps"] == chosen["deblur-gaussian"]["dps"]
    assert chosen["deblur-motion"]["classical"] == candidates("deblur-motion")["classical"][-3]


def test_who_is_far_ahead_on_the_first_photograph_is_chosen():
    fast, slow = candidates("denoise")["dps"][:2]
    cells = [Cell("denoise", "dps", fast, "a", 16, psnr=30.0)]
    cells += [Cell("denoise", "dps", slow, name, 16, psnr=p) for name, p in (("a", 20.0), ("b", 40.0))]
    assert choose(cells)["denoise"]["dps"] == fast


def test_a_run_that_diverges_is_never_best():
    good, bad = candidates("denoise")["dps"][:2]
    cells = Cell("denoise", "dps", bad, "p", 16), Cell("denoise", "dps", good, "p", 16, psnr=5.0)
    assert choose(cells)["denoise"]["dps"] == good


def test_the_middle_is_in_the_middle(picture):
    pixels = methods.read_picture(picture).pixels
    assert (middle(pixels, 11) == pixels[:, 14:25, 11:22]).all()
