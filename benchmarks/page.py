"""Quality of the page's three qualities: every kind of trouble on bundled photographs, as its forms would restore it.

    python -m benchmarks.page [--side 96] [--problems noise jpeg]

Prints the table of docs/front-end.md: PSNR in dB / residual in sigma, one sample, means over two photographs.
"""

import argparse
import sys
from typing import Any

import numpy as np

from app.gui.form import recipe_of
from app.pictures import read_picture
from benchmarks.methods import middle
from restoration.assets import AssetStore
from restoration.metrics import psnr
from restoration.pipeline import Pipeline

IMAGES = ("astronaut", "chelsea")
QUALITIES = ("quick", "balanced", "best")


def blur(**kernel: Any) -> dict[str, Any]:
    """A blur by a kernel made from parameters."""
    return {"kind": "blur", "kernel": kernel}


def missing(**mask: Any) -> dict[str, Any]:
    """Inpainting with a mask made from parameters."""
    return {"kind": "inpainting", "mask": mask}


PROBLEMS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "noise": ("noise 0.025", "noise", {"kind": "identity"}, 0.025),
    "strong-noise": ("noise 0.1", "noise", {"kind": "identity"}, 0.1),
    "random": ("70 % of the pixels missing", "missing", missing(kind="random", fraction=0.7), 0.025),
    "scratches": ("scratches", "missing", missing(kind="scratch"), 0.025),
    "strokes": ("thick strokes", "missing", missing(kind="strokes", style="thick"), 0.025),
    "box": ("a box of a quarter of the side", "missing", missing(kind="box", height=24, width=24), 0.025),
    "small": ("four times too small", "small", {"kind": "downsample", "factor": 4}, 0.025),
    "blur": ("Gaussian blur, 3 pixels", "blur", blur(kind="gaussian", size=25, std=3.0), 0.025),
    "motion": ("motion blur, 12 pixels", "blur", blur(kind="line", size=25, length=12, angle=20), 0.025),
    "jpeg": ("JPEG of quality 10, noise 0.005", "jpeg", {"kind": "jpeg", "quality": 10}, 0.005),
    "exposure": ("exposure blur, noise 0.02", "other", {"kind": "exposure-blur"}, 0.02),
}


def measured(problem: str, quality: str, side: int, store: AssetStore) -> tuple[str, float | None, float, float]:
    """Title of the method, PSNR of the data where they are a picture of the same size, PSNR and residual."""
    _, card, operator, sigma = PROBLEMS[problem]
    wrong = {"problem": card, "source": "pattern", "operator": operator, "noise": {"kind": "gaussian", "sigma": sigma}}
    found = {"width": side, "height": side, "channels": 3, "bits": 16}
    recipe, _ = recipe_of(wrong, {"quality": quality, "seed": 0, "samples": 1}, found, store=store)
    pipeline = Pipeline.load(recipe, store)
    rows = []
    for name in IMAGES:
        whole = read_picture(store.resolve(store.card(name, "image"))).pixels
        measurement = pipeline.simulate(middle(whole, side))
        report = pipeline.run(measurement).report
        truth, data = measurement.truth, measurement.likelihood.y
        same = truth is not None and data.shape[1:] == truth.shape
        rows.append((psnr(truth, data[0]) if same else np.nan, report.psnr, report.residual_sigma))
    data_psnr, result_psnr, residual = np.mean(np.array(rows, np.float64), axis=0)
    return recipe.method.title, None if np.isnan(data_psnr) else float(data_psnr), float(result_psnr), float(residual)


def main() -> int:
    """Measure and print a row for every problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=96, help="of the crops, in pixels")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    options = parser.parse_args()
    store = AssetStore()
    print("| problem | method | data | quick | balanced | best |\n| --- | --- | --- | --- | --- | --- |")
    for problem in options.problems:
        found = [measured(problem, quality, options.side, store) for quality in QUALITIES]
        data = "" if found[0][1] is None else f"{found[0][1]:.2f}"
        cells = " | ".join(f"{result:.2f} / {residual:.2f}" for _, _, result, residual in found)
        print(f"| {PROBLEMS[problem][0]} | {found[0][0]} | {data} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
