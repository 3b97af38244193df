"""Draws the pictures of the Help tab, damaged and restored, by the package itself: `python -m docs.make_help`.

The photographs are bundled samples, the phantom is that of Shepp and Logan.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import shepp_logan_phantom
from torch import Tensor
from torch.nn import functional as F

import app.gui
from app.pictures import read_picture
from app.view import data_picture, enlarged, heat, spread, spread_scale, to_colours
from restoration.assets import AssetStore
from restoration.pipeline import Pipeline, with_seeds
from restoration.recipe import Recipe, read_recipe

PLACE = Path(app.gui.__file__).parent / "static"
SIDE = 176
GAP = 6

PHOTO = {"model": {"kind": "trained"}, "noise": {"kind": "gaussian", "sigma": 0.02}}
EXACT = {
    "model": {"kind": "trained"},
    "noise": {"kind": "gaussian", "sigma": 0.005},
    "method": {"kind": "ddnm", "form": "noise-free", "schedule": {"kind": "karras", "steps": 20, "sigma_max": 0.5}},
}
PLAIN = {"model": {"kind": "none"}, "method": {"kind": "tv"}, "noise": {"kind": "gaussian", "sigma": 0.02}}

# name, picture, recipe
ENTRIES: list[tuple[str, str, str | dict[str, Any]]] = [
    ("missing", "chelsea", "inpaint-scratches"),
    ("blur", "astronaut", "deblur-gaussian"),
    ("small", "astronaut", "sr-x4"),
    ("noise", "coffee", {**PHOTO, "operator": {"kind": "identity"}, "noise": {"kind": "gaussian", "sigma": 0.1}}),
    ("jpeg", "chelsea", {**EXACT, "operator": {"kind": "jpeg"}}),
    ("ct", "phantom", {**PLAIN, "operator": {"kind": "ct", "window": None, "pixel_size": 0.02}}),
    ("mri", "phantom", {**PLAIN, "operator": {"kind": "mri", "image": "real"}}),
]
"""Of each, `help-NAME.jpg` is drawn."""


def main() -> int:
    """Draw all pictures, or those that are named."""
    wanted = set(sys.argv[1:])
    for name, picture, recipe in ENTRIES:
        if not wanted or name in wanted:
            measurement, samples = restored(picture, recipe)
            shape = samples.shape[-2:]
            before = (
                measurement.picture()
                if name not in ("ct", "mri")
                else measurement.likelihood.operator.guess(measurement.likelihood.y)
            )
            save(name, enlarged(data_picture(before), *shape), samples.mean(0))
    if not wanted or "spread" in wanted:
        _, samples = restored("astronaut", "inpaint-box", samples=8)
        values = spread(samples.std(0))
        save("spread", samples.mean(0), heat(values, spread_scale([values])))
    return 0


def restored(picture: str, recipe: str | dict[str, Any], samples: int = 1) -> tuple[Any, Tensor]:
    """The measurement of a picture, and samples (n, C, h, w) of what could have made it."""
    chosen = read_recipe(recipe)[0] if isinstance(recipe, str) else Recipe.model_validate(recipe)
    chosen = with_seeds(chosen, tuple(range(samples)))
    pipeline = Pipeline.load(chosen, AssetStore())
    measurement = pipeline.simulate(image(picture))
    return measurement, pipeline.run(measurement).samples


def image(name: str) -> Tensor:
    """A square of a bundled picture, or the phantom (C, SIDE, SIDE)."""
    if name == "phantom":
        phantom = torch.from_numpy(np.asarray(shepp_logan_phantom(), np.float32))[None, None]
        return F.interpolate(phantom, (SIDE, SIDE), mode="area")[0]
    store = AssetStore()
    whole = read_picture(store.picture(name)).pixels
    top, left = {"astronaut": (8, 48), "chelsea": (30, 60), "coffee": (20, 80)}[name]
    return whole[:, top : top + SIDE, left : left + SIDE]


def save(name: str, *pictures: Any) -> None:
    """Pictures beside each other, with a white gap."""
    cells = [to_colours(p) if isinstance(p, Tensor) else p for p in pictures]
    cells = [
        cell if cell.ndim == 3 and cell.shape[-1] == 3 else np.repeat(cell.reshape(SIDE, SIDE, 1), 3, -1)
        for cell in cells
    ]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    parts = [part for cell in cells for part in (gap, cell)][1:]
    Image.fromarray(np.concatenate(parts, 1)).save(PLACE / f"help-{name}.jpg", quality=84, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
