"""The training loop on real (tiny) photographs: it learns, resumes, and refuses what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restoration.assets import AssetStore
from restoration.nets.unet import ResidualUNet
from restoration.train.__main__ import main
from restoration.train.data import Crops, load_photos
from restoration.train.loop import TrainRecipe, learning_rate, load_weights, train
from restoration.train.optim import orthogonalise
from restoration.train.widen import grey, widen

TINY = TrainRecipe(
    name="tiny", channels=(8, 12), blocks=1, embedding=16, crop=32, batch=4, scales=(1.0,), held_out=("b.png",),
    warmup_steps=5, learning_rate=2e-3, planned_minutes=100.0, ema=0.9,
)  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    store = AssetStore()
    for name, asset in (("a.png", "astronaut"), ("b.png", "coffee"), ("x.png", "chelsea")):
        (folder / name).write_bytes(store.picture(asset).read_bytes())
    return folder


def test_training_learns_and_resumes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(TINY, photos, out, minutes=0.01, threads=1)
    steps = int(first["step"])
    assert steps >= 1
    with pytest.raises(FileExistsError, match="resume"):
        train(TINY, photos, out, minutes=0.01)
    second = train(TINY, photos, out, minutes=0.06, resume=True, threads=1)
    assert second["step"] > steps
    assert second["minutes"] > first["minutes"]
    # Noise of 50/255 alone is 14.15 dB on unclipped pictures: a few seconds must already beat it clearly.
    assert second["psnr50"] > 17
    assert second["psnr50"] > first["psnr50"]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [steps, second["step"]]
    net = ResidualUNet(TINY.channels, TINY.blocks, TINY.embedding)
    net.load_state_dict(load_weights(out / "ema.safetensors"))


def test_a_finished_plan_stays_finished(photos: Path, tmp_path: Path) -> None:
    recipe = TrainRecipe(**{**TINY.__dict__, "planned_minutes": 0.01})
    done = train(recipe, photos, tmp_path / "run", minutes=1, threads=1)
    again = train(recipe, photos, tmp_path / "run", minutes=1, resume=True, threads=1)
    assert again["step"] == done["step"]


def test_learning_rate_warms_up_holds_and_ends_at_zero() -> None:
    recipe = TrainRecipe(name="r", learning_rate=1.0, warmup_steps=10, flat_share=0.5)
    assert learning_rate(recipe, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(recipe, 50, 0.5) == 1.0
    assert learning_rate(recipe, 50, 0.75) == pytest.approx(0.5)
    assert learning_rate(recipe, 50, 1.0) == pytest.approx(0.0)


def test_crops_skip_the_held_out_and_weigh_the_light(photos: Path) -> None:
    loaded = load_photos(photos, (1.0, 2.0), "x", 0.25)
    assert [p.name for p in loaded] == ["a.png", "b.png", "x.png"]
    assert [p.weight for p in loaded] == [1.0, 1.0, 0.25]
    crops = Crops(loaded, 64)
    assert len(crops.images) == 6
    assert crops.probabilities == pytest.approx(np.array([4, 4, 4, 4, 1, 1]) / 18)
    x = crops.draw(5, np.random.default_rng(0))
    assert x.shape == (5, 3, 64, 64)
    assert -1 <= float(x.min()) < float(x.max()) <= 1


def test_orthogonalise_flattens_the_singular_values() -> None:
    g = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=g)))
        assert 0.5 < float(values.min()) < float(values.max()) < 1.3


def test_widening_keeps_the_function() -> None:
    with torch.random.fork_rng():
        narrow, wide = ResidualUNet((4, 6), 1, 8), ResidualUNet((6, 10), 1, 8)
    g = torch.Generator().manual_seed(1)
    for p in narrow.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=g)
    widen(narrow.state_dict(), wide)
    x, level = torch.randn(2, 3, 16, 16, generator=g), torch.randn(2, generator=g)
    assert torch.allclose(wide(x, level), narrow(x, level), atol=1e-4)
    with pytest.raises(ValueError, match="no larger"):
        widen(wide.state_dict(), narrow)
    with pytest.raises(ValueError, match="same layout"):
        widen(ResidualUNet((4, 6), 2, 8).state_dict(), wide)


def test_a_colour_network_becomes_a_grey_one_that_answers_the_same_for_equal_channels() -> None:
    with torch.random.fork_rng():
        colour, one = ResidualUNet((4, 6), 1, 8), ResidualUNet((4, 6), 1, 8, image_channels=1)
    g = torch.Generator().manual_seed(1)
    for p in colour.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=g)
    widen(grey(colour.state_dict()), one)
    x, level = torch.randn(2, 1, 16, 16, generator=g), torch.randn(2, generator=g)
    assert torch.allclose(one(x, level), colour(x.expand(-1, 3, -1, -1), level).mean(1, keepdim=True), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"lerning_rate": 1}, "lerning_rate"), ({"optimiser": "sgd"}, "optimiser"), ({"held_out": ["no.png"]}, "no.png")],
)
def test_wrong_recipes_are_refused(
    change: dict[str, object], sentence: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"name": "r", "channels": [4, 6], "crop": 32, **change}))
    assert main([str(path), "--data", str(photos), "--minutes", "0.01", "-o", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "JSON object"),
        ('{"name": "r", "blocks": "1"}', "blocks as int"),
        ("{", "Expecting"),
        ('{"blocks": 1}', "name"),
    ],
)
def test_malformed_recipes_are_refused(
    text: str, sentence: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    assert main([str(path), "--data", str(photos), "--minutes", "0.01", "-o", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_network_and_its_split(photos: Path, tmp_path: Path) -> None:
    train(TINY, photos, tmp_path / "run", minutes=0.005, threads=1)
    for change in ({"channels": (8, 16)}, {"held_out": ()}, {"optimiser": "muon"}):
        with pytest.raises(ValueError, match="got others"):
            train(TrainRecipe(**{**TINY.__dict__, **change}), photos, tmp_path / "run", minutes=0.01, resume=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        train(TINY, photos, tmp_path / "run", minutes=0.01, resume=True)
    with pytest.raises(ValueError, match="positive"):
        train(TINY, photos, tmp_path / "other", minutes=-1)


def test_muon_trains(photos: Path, tmp_path: Path) -> None:
    recipe = TrainRecipe(**{**TINY.__dict__, "optimiser": "muon"})
    assert train(recipe, photos, tmp_path / "run", minutes=0.06, threads=1)["psnr50"] > 17


def test_photos_smaller_than_the_crop_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (40, 32)).save(tmp_path / "small.png")
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    crops = Crops(load_photos(tmp_path, (1.0,), "", 1.0), 64)
    assert len(crops.images) == 1
    (tmp_path / "wide.png").unlink()
    with pytest.raises(ValueError, match="at least 64"):
        Crops(load_photos(tmp_path, (1.0,), "", 1.0), 64)


def test_an_empty_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="photographs"):
        train(TINY, tmp_path / "empty", tmp_path / "run", minutes=0.01)


def test_training_needs_only_torch_numpy_and_pillow() -> None:
    import subprocess
    import sys

    code = (
        "import sys, builtins; real = builtins.__import__\n"
        "def only(name, *a, **k):\n"
        "    if name.split('.')[0] in {'pydantic', 'scipy', 'skimage', 'cv2', 'safetensors', 'tqdm', 'tifffile'}:\n"
        "        raise ImportError(name)\n"
        "    return real(name, *a, **k)\n"
        "builtins.__import__ = only\n"
        "import restoration.train.__main__"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_shipped_recipe_reads() -> None:
    recipe = TrainRecipe.read(AssetStore().folder / "training" / "photo.json")
    assert ResidualUNet(recipe.channels, recipe.blocks, recipe.embedding).multiple == 8
    assert len(recipe.held_out) == 10


def test_pictures_of_the_demo_are_not_in_the_recipe() -> None:
    recipe = TrainRecipe.read(AssetStore().folder / "training" / "photo.json")
    pictures = {c.name for c in AssetStore().cards.values() if c.role == "image"}
    assert len(pictures) == 3
    assert not any(name in held for name in pictures for held in recipe.held_out)


def test_a_resized_photo_keeps_its_ratio(tmp_path: Path) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    (photo,) = load_photos(tmp_path, (1.0, 1.5), "", 1.0)
    assert [s.shape for s in photo.scales] == [(60, 90, 3), (40, 60, 3)]
