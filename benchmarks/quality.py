"""Restoration quality on a folder of photographs: samplers beside tuned classical baselines.

    python -m benchmarks.quality FOLDER --count 10 --samples 8 -o out/quality.json

Every picture is degraded by a preset's operator and noise, then restored by the preset's method and by each classical
baseline of `app.classical`, whose parameters were tuned on other photographs (`benchmarks.tune_classical`).
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.classical import CLASSICAL
from app.pictures import read_picture
from restoration.assets import AssetStore
from restoration.method import Method
from restoration.pipeline import Pipeline, with_seeds
from restoration.precision import Precision
from restoration.recipe import NoPrior, Recipe, read_recipe
from restoration.result import Measurement, Result

TASKS = ("deblur-gaussian", "deblur-motion", "sr-x4", "inpaint-random-70")


def classical(recipe: Recipe, method: Method, measurement: Measurement) -> Result:
    """One classical restoration of a measurement."""
    plain = Recipe.model_validate({**recipe.model_dump(), "model": NoPrior(), "method": method, "seeds": (0,)})
    return Pipeline.load(plain).run(measurement)


@dataclass(frozen=True)
class Score:
    """PSNR and SSIM of a restoration."""

    name: str
    psnr: float
    ssim: float


def evaluate(
    picture: Path, number: int, task: str, samples: int, precision: Precision, store: AssetStore
) -> dict[str, object]:
    """All figures of one picture, with the noise of its number, and one task."""
    recipe, base = read_recipe(task)
    pipeline = Pipeline.load(with_seeds(recipe, tuple(range(samples))), store, precision=precision, base=base)
    measurement = pipeline.simulate(read_picture(picture).pixels, seed=number)
    row: dict[str, object] = {"picture": picture.name, "task": task}
    scores = []
    for method in CLASSICAL[task]:
        began = time.perf_counter()
        report = classical(recipe, method, measurement).report
        scores.append(Score(method.kind, report.psnr or 0.0, report.ssim or 0.0))
        row[f"{method.kind}_psnr"] = report.psnr
        row[f"{method.kind}_seconds"] = round(time.perf_counter() - began, 2)
    best = max(scores, key=lambda s: s.psnr)
    report = pipeline.run(measurement).report
    row |= {
        "baseline": best.name,
        "baseline_psnr": best.psnr,
        "baseline_ssim": best.ssim,
        "one_psnr": float(np.mean(report.psnr_samples or (0.0,))),
        "mean_psnr": report.psnr,
        "mean_ssim": report.ssim,
        "residual_sigma": report.residual_sigma,
        "nfe": report.nfe,
        "seconds": report.seconds,
        "network_seconds": report.network_seconds,
    }
    return row


def main() -> int:
    """Evaluate, print a line per picture and a mean per task, write all rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10, help="pictures, evenly spaced in name order")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    files = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".bmp"})
    if not files:
        print(f"no pictures in {options.folder}", file=sys.stderr)
        return 2
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(options.count, len(files)))]
    store, rows = AssetStore(), []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(chosen):
        for task in options.tasks:
            row = evaluate(file, number, task, options.samples, options.precision, store)
            rows.append(row)
            options.out.write_text(json.dumps(rows, indent=1))
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
    print("| task | baseline | one sample | mean of samples | gain | SSIM | residual | NFE | s |")
    gains = []
    for task in options.tasks:
        of = [r for r in rows if r["task"] == task]

        def mean(key: str, of: list[dict[str, object]] = of) -> float:
            return float(np.mean([float(str(r[key])) for r in of]))

        gain = mean("mean_psnr") - mean("baseline_psnr")
        gains.append(gain)
        print(
            f"| {task} | {mean('baseline_psnr'):.2f} | {mean('one_psnr'):.2f} | {mean('mean_psnr'):.2f} | "
            f"{gain:+.2f} | {mean('mean_ssim'):.3f} | {mean('residual_sigma'):.3f} | "
            f"{mean('nfe'):.0f} | {mean('seconds'):.1f} |"
        )
    print(f"mean gain {np.mean(gains):+.2f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
