"""Guesses of what is wrong with a picture, held to what was done to bundled photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from app.gui.form import LEAST_SIGMA, recipe_of
from app.gui.suggest import blur_width, suggest
from app.pictures import encode_png, read_picture
from operators.errors import ReadError
from restoration.assets import AssetStore

STORE = AssetStore()


def photo(name: str) -> Tensor:
    return read_picture(STORE.resolve(STORE.card(name, "image"))).pixels


def damaged(name: str, blur: float, sigma: float, folder: Path, *, seed: int = 0) -> Path:
    clean = photo(name).numpy()
    soft = np.stack([gaussian_filter(plane, blur, mode="reflect") if blur else plane for plane in clean])
    noisy = soft + sigma * np.random.default_rng(seed).standard_normal(soft.shape)
    path = folder / f"{name}.png"
    path.write_bytes(encode_png(torch.from_numpy(noisy.clip(0, 1)).float(), 16))
    return path


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("sigma", [0.01, 0.03])
def test_blur_and_noise_of_photographs(name: str, sigma: float, tmp_path: Path) -> None:
    for width in (1.0, 3.0):
        guess = suggest(damaged(name, width, sigma, tmp_path))
        assert guess["problem"] == "blur"
        assert guess["width"] == pytest.approx(width, abs=0.35)  # below 0.15 for most
        assert guess["sigma"] == pytest.approx(sigma, rel=0.1)
        assert guess["sentence"].startswith("A guess: noise about ")
        assert guess["sentence"].endswith("px. Check it by eye.")


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_sharp_photographs(name: str, tmp_path: Path) -> None:
    clean = suggest(damaged(name, 0, 0, tmp_path))
    assert clean["problem"] is None
    assert clean["value"] is None
    assert clean["sigma"] == LEAST_SIGMA
    assert clean["sentence"].startswith("I cannot tell: the picture looks sharp")
    for sigma in (0.03, 0.1):
        guess = suggest(damaged(name, 0, sigma, tmp_path))
        assert guess["problem"] == "noise"
        assert guess["sigma"] == pytest.approx(sigma, rel=0.1)


def test_what_noise_hides_is_not_told(tmp_path: Path) -> None:
    guess = suggest(damaged("chelsea", 1, 0.1, tmp_path))
    assert guess["width"] is None
    assert "whether it is blurred cannot be told" in guess["sentence"]


def test_what_is_no_photograph_is_not_told() -> None:
    assert blur_width(torch.zeros(1, 64, 64), 0.0) is None
    stripes = torch.arange(128).remainder(16).lt(8).float().expand(1, 128, 128)
    assert blur_width(stripes, 0.0) is None


def test_small_and_clipped_pictures_are_not_told(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "black").save(tmp_path / "small.png")
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    for name in ("small.png", "white.png"):
        guess = suggest(tmp_path / name)
        assert (guess["problem"], guess["value"]) == (None, None)
        assert guess["sentence"].startswith("I cannot tell")


@pytest.mark.parametrize("quality", [3, 10, 30, 60])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_compression_is_read_from_the_file(quality: int, sampling: str, tmp_path: Path) -> None:
    picture = Image.fromarray((255 * photo("coffee").numpy().transpose(1, 2, 0)).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=quality, subsampling=sampling)
    guess = suggest(tmp_path / "a.jpg")
    assert guess["problem"] == "jpeg"
    assert guess["value"]["operator"] == {"kind": "jpeg", "quality": quality, "subsampling": sampling}
    picture.save(tmp_path / "fine.jpg", quality=90)
    assert suggest(tmp_path / "fine.jpg")["problem"] != "jpeg"


def test_marked_pixels_are_missing_parts(tmp_path: Path) -> None:
    opened = Image.new("RGBA", (64, 64), (90, 90, 90, 255))
    opened.paste((0, 0, 0, 0), (0, 0, 64, 16))
    opened.save(tmp_path / "alpha.png")
    holes = np.full((64, 64), 0.5, np.float32)
    holes[:16] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", holes)
    for name in ("alpha.png", "nan.tif"):
        guess = suggest(tmp_path / name)
        assert guess["problem"] == "missing"
        assert guess["missing"] == 0.25
        assert guess["sentence"].startswith("25 % of the picture")


def test_guesses_are_values_of_the_form(tmp_path: Path) -> None:
    for path in (damaged("coffee", 2, 0.02, tmp_path), damaged("chelsea", 0, 0.05, tmp_path)):
        guess = json.loads(json.dumps(suggest(path)))
        value = {"operator": {"kind": "identity"}, **guess["value"]}
        recipe, _ = recipe_of(value, {})
        assert recipe.noise.sigma == guess["sigma"]  # type: ignore[union-attr]


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ReadError):
        suggest(tmp_path / "notes.png")
