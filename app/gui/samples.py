"""Pictures for a person who has none at hand: a bundled photograph, damaged here as a measurement would be."""

import threading
from dataclasses import dataclass
from pathlib import Path

from app.jobs import put
from app.pictures import encode_png, read_picture
from restoration.assets import AssetStore
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe, read_recipe


@dataclass(frozen=True)
class Sample:
    """`label` of its button, the preset that damages it, the bundled picture and a square of it (top, left, side)."""

    label: str
    preset: str
    image: str
    crop: tuple[int, int, int]


SAMPLES = {
    "blurred": Sample("Blurred", "deblur-gaussian", "astronaut", (0, 40, 192)),
    "holes": Sample("Holes", "inpaint-scratches", "chelsea", (30, 40, 192)),
    "small": Sample("Small ×4", "sr-x4", "astronaut", (0, 40, 192)),
    "noisy": Sample("Noisy", "denoise", "coffee", (0, 70, 192)),
}

_making = threading.Lock()


def sample(name: str, folder: Path, assets: AssetStore) -> tuple[Path, Recipe]:
    """The damaged picture `name` of SAMPLES, made in `folder` if it is not there yet, and the recipe that restores it.

    Raises:
        AssetMissing, WriteError: the prior is not here, or the disk refuses.
    """
    chosen = SAMPLES[name]
    recipe, _ = read_recipe(chosen.preset)
    path = folder / f"example-{name}.png"
    with _making:
        if not path.exists():
            top, left, side = chosen.crop
            whole = read_picture(assets.resolve(assets.card(chosen.image, "image"))).pixels
            truth = whole[:, top : top + side, left : left + side]
            data = Pipeline.load(recipe, assets).simulate(truth).likelihood.y
            folder.mkdir(parents=True, exist_ok=True)
            put(path, encode_png(data[0] if data.ndim == 4 else data, 16), durable=False)
    return path, recipe
