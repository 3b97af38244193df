"""The table of bridges: its own measure, and rows that are the measurements they say."""

from pathlib import Path

import pytest
import torch

from app.pictures import read_picture
from benchmarks.book import Book
from benchmarks.bridges import OTHER, Bench, methods, spectral_distance, table
from benchmarks.methods import middle
from operators import BlurSpec
from restoration.assets import AssetStore


def test_spectra_tell_smooth_and_rough_estimates_from_the_truth() -> None:
    truth = middle(read_picture(AssetStore().picture("astronaut")).pixels, 64)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    blur = BlurSpec.model_validate({"kernel": {"kind": "gaussian", "size": 9, "std": 1.0}})
    smooth = blur.build((3, 64, 64))(truth[None])[0]
    assert spectral_distance(truth, truth) == 0
    assert spectral_distance(truth, 0.5 * truth) == pytest.approx(20 * torch.tensor(2.0).log10().item(), abs=1e-4)
    near, far = (spectral_distance(truth, truth + s * noise) for s in (0.02, 0.1))
    assert 0 < near < far
    assert spectral_distance(truth, smooth) > 5


def test_rows_are_made_once_and_the_other_operator_is_another(tmp_path: Path) -> None:
    truth = middle(read_picture(AssetStore().picture("astronaut")).pixels, 48)
    bench, book = Bench(AssetStore()), Book(tmp_path / "b.jsonl")
    direct, none = {"kind": "direct"}, {"kind": "none"}
    rows = {}
    for task in ("deblur-gaussian", OTHER):
        asked = {"task": task, "picture": "a", "method": "direct", "settings": direct}
        rows[task] = book.row(asked, lambda task=task: bench.restore(task, direct, none, truth, 0, None))
        again = Book(book.path).row(asked, lambda: pytest.fail("made again"))
        assert again == rows[task]
    assert rows[OTHER]["psnr"] < rows["deblur-gaussian"]["psnr"]
    assert "| deblur-gaussian | direct | 1 |" in table(list(book.rows.values()))
    filtered = bench.filtered("bilateral", {"colour": 25, "space": 2.0}, truth, 0)
    plain = bench.restore("jpeg", direct, none, truth, 0, None)
    assert filtered["psnr"] > plain["psnr"]
    assert {"bridge 1", "cddb 4", "diffpir 20"} <= set(methods("sr-x4", tune=False))
    assert not any(name.startswith("bridge") for name in methods(OTHER, tune=False))
