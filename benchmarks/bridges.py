"""Bridges beside posterior samplers and classical methods: distortion, fit, sharpness and time by network calls.

    python -m benchmarks.bridges report SET5 CBSD68 --every 1 9 --crop 128 -o out/bridges.jsonl
    python -m benchmarks.bridges table out/bridges.jsonl

Measurements are those of the presets `TASKS`, and with `OTHER` one that the bridge was not trained for. `--tune` tries
more steps towards the data, for photographs that no figure is reported on. What is in the JSON lines file is not done
again. One thread; seconds are those of the processor.

"spectrum" is the mean absolute difference of the power spectra of estimate and truth, in dB over rings of 0.1 to 0.5
cycles a pixel: too smooth and too rough both count.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from app.classical import CLASSICAL
from app.pictures import read_picture, write_picture
from benchmarks.book import Book, Row
from benchmarks.methods import middle, pictures
from restoration.assets import AssetStore
from restoration.metrics import psnr, ssim
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe, read_recipe

Settings = dict[str, Any]

TASKS = ("sr-x4", "deblur-gaussian", "jpeg", "inpaint-scratches")
OTHER = "deblur-gaussian at std 5"
"""Wider than any blur of the bridge's training."""
STEPS = (1, 4, 10)
RATES = (0.25, 0.5, 1.0)


def methods(task: str, *, tune: bool) -> dict[str, tuple[Settings, Settings]]:
    """Rows by name: method and model."""
    bridge, none = {"kind": "bridge", "name": "photo-bridge"}, {"kind": "none"}
    form = {"form": "projection"} if task == "jpeg" else {}
    rates: Sequence[float] = (1.0,) if task == "jpeg" else RATES if tune else (RATE.get(task, 1.0),)
    rows: dict[str, tuple[Settings, Settings]] = {}
    for classical in CLASSICAL[task.partition(" ")[0]]:
        settings = classical.model_dump(mode="json")
        rows[" ".join(str(v) for v in settings.values())] = settings, none
    if task != OTHER:
        rows |= {f"bridge {n}": ({"kind": "bridge", "steps": n}, bridge) for n in STEPS}
    for rate in rates:
        end = f" at {rate:g}" if tune else ""
        rows |= {
            f"cddb {n}{end}": ({"kind": "cddb", "steps": n, "rate": rate, **form}, bridge)
            for n in STEPS
            if not tune or n in (4, 10)
        }
    if not tune:
        preset = read_recipe(task.partition(" ")[0])[0]
        for n in (4, 10, 20):
            settings = preset.method.model_dump(mode="json")
            settings["schedule"] = settings["schedule"] | {"steps": n}
            rows[f"{settings['kind']} {n}"] = settings, preset.model.model_dump(mode="json")
    return rows


RATE = {"sr-x4": 0.25, "inpaint-scratches": 0.25}
"""Steps towards the data, found with `--tune`; 1 elsewhere."""


class Bench:
    """Restores; each network is loaded once."""

    def __init__(self, store: AssetStore) -> None:
        self.store, self._loaded = store, dict[str, Any]()

    def restore(
        self, task: str, settings: Settings, model: Settings, truth: Tensor, number: int, file: Path | None
    ) -> Row:
        """Figures of one sample of a picture, degraded with the noise of its number."""
        preset, base = read_recipe(task.partition(" ")[0])
        values = preset.model_dump(mode="json") | {"method": settings, "model": model, "seeds": (0,)}
        if task == OTHER:
            values["operator"]["kernel"]["std"] = 5.0
        if values["operator"].get("mask", {}).get("kind") == "scratch":  # as large a share as of 256 pixels
            values["operator"]["mask"]["count"] = max(1, round(12 * truth.shape[-1] / 256))
        recipe = Recipe.model_validate(values)
        pipeline = Pipeline.load(recipe, self.store, base=base, precision="fp32", load=self._load)
        measurement = pipeline.simulate(truth, seed=number)
        began = time.process_time()
        result = pipeline.run(measurement)
        seconds = time.process_time() - began
        if file is not None:
            write_picture(file, result.samples[0].clamp(0, 1))
        report = result.report
        row = figures(truth, result.samples[0]) | {"residual": report.residual_sigma, "seconds": round(seconds, 3)}
        return row | {"calls": report.nfe, "pullbacks": report.vjps}

    def filtered(self, kind: str, settings: Settings, truth: Tensor, number: int) -> Row:
        """Figures of an OpenCV filter on the decoded JPEG file."""
        preset, base = read_recipe("jpeg")
        recipe = Recipe.model_validate(
            preset.model_dump(mode="json") | {"method": {"kind": "direct"}, "model": {"kind": "none"}}
        )
        measurement = Pipeline.load(recipe, base=base).simulate(truth, seed=number)
        likelihood = measurement.likelihood
        began = time.process_time()
        shown = (255 * likelihood.guess()[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        if kind == "bilateral":
            made = cv2.bilateralFilter(shown, 5, settings["colour"], settings["space"])
        else:
            made = cv2.fastNlMeansDenoisingColored(shown, None, settings["h"], settings["h"], 5, 15)
        seconds = time.process_time() - began
        x = torch.from_numpy(made).permute(2, 0, 1).float() / 255
        residual = float(likelihood.residual_sigma(x[None])[0])
        return figures(truth, x) | {"residual": residual, "seconds": round(seconds, 3), "calls": 0, "pullbacks": 0}

    def _load(self, model: Any) -> Any:
        key = model.model_dump_json()
        if key not in self._loaded:
            self._loaded[key] = model.load(self.store, torch.device("cpu"), "fp32")
        return self._loaded[key]


FILTERS: dict[str, list[Settings]] = {
    "bilateral": [{"colour": colour, "space": space} for colour in (15, 25, 40) for space in (1.0, 2.0)],
    "nl-means": [{"h": h} for h in (2, 4, 6)],
}


def figures(truth: Tensor, x: Tensor) -> Row:
    """PSNR, SSIM and distance of spectra of an estimate.   Shapes: (C, H, W)."""
    clipped = x.clamp(0, 1)
    return {"psnr": psnr(truth, clipped), "ssim": ssim(truth, clipped), "spectrum": spectral_distance(truth, clipped)}


def spectral_distance(truth: Tensor, x: Tensor) -> float:
    """Mean absolute difference of radial power spectra in dB, over 0.1 to 0.5 cycles a pixel, mean of the channels."""
    height, width = truth.shape[-2:]
    window = torch.from_numpy(np.outer(np.hanning(height), np.hanning(width)))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    rings = torch.from_numpy(np.floor(radius * 64).astype(int)).flatten()
    wanted = slice(7, 32)

    def spectrum(image: Tensor) -> Tensor:
        power = torch.fft.fft2((image.double() - image.double().mean()) * window).abs().square().mean(0).flatten()
        sums = torch.zeros(int(rings.max()) + 1, dtype=torch.float64).index_add_(0, rings, power)
        counts = torch.zeros_like(sums).index_add_(0, rings, torch.ones_like(power))
        return 10 * (sums / counts)[wanted].log10()

    return float((spectrum(x) - spectrum(truth)).abs().mean())


def report(book: Book, bench: Bench, files: Sequence[Path], crop: int, *, tune: bool) -> None:
    """Every row of every task on every file; a file is done by all before the next."""
    for number, file in enumerate(files):
        truth = middle(read_picture(file).pixels, crop)
        for task in (*TASKS, OTHER):
            for name, (settings, model) in methods(task, tune=tune).items():
                made = None
                if number < 2:
                    made = book.path.with_suffix("") / f"{task}-{file.stem}-{name}.png".replace(" ", "-")
                    made.parent.mkdir(parents=True, exist_ok=True)
                of = {"crop": crop, "weights": bench.store.cards[model["name"]].sha256[:12] if "name" in model else ""}
                asked = {"task": task, "picture": file.name, "method": name, "settings": settings | of}
                book.row(asked, partial(bench.restore, task, settings, model, truth, number, made))
        for kind, several in FILTERS.items():
            for settings in several:
                name = f"{kind} {' '.join(str(v) for v in settings.values())}"
                asked = {"task": "jpeg", "picture": file.name, "method": name, "settings": settings | {"crop": crop}}
                book.row(asked, partial(bench.filtered, kind, settings, truth, number))


def table(rows: Sequence[Row]) -> str:
    """A line for each task and row: means over the pictures that all of its task have."""
    text = ["| task | method | pictures | PSNR | SSIM | residual | spectrum dB | calls | s |", "|---" * 9 + "|"]
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["method"]), {})[row["picture"]] = row
    for task in dict.fromkeys(task for task, _ in groups):
        of = {name: group for (t, name), group in groups.items() if t == task}
        shared = sorted(set.intersection(*(set(group) for group in of.values())))
        for name, group in of.items():
            mean = {
                what: statistics.fmean(group[p][what] for p in shared)
                for what in ("psnr", "ssim", "residual", "spectrum", "calls", "seconds")
            }
            text.append(
                f"| {task} | {name} | {len(shared)} | {mean['psnr']:.2f} | {mean['ssim']:.3f} | {mean['residual']:.2f} "
                f"| {mean['spectrum']:.1f} | {mean['calls']:.0f} | {mean['seconds']:.2f} |"
            )
    return "\n".join(text)


def main() -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("report")
    command.add_argument("folders", type=Path, nargs="+")
    command.add_argument("--names", nargs="+", help="these files of the first folder alone, in this order")
    command.add_argument("--every", type=int, nargs="+", help="every n-th picture, a number for each folder")
    command.add_argument("--crop", type=int, default=128)
    command.add_argument("--tune", action="store_true", help="several steps towards the data")
    command.add_argument("--assets", type=Path, help="folder of a manifest with another photo-bridge")
    command.add_argument("-o", "--out", type=Path, required=True)
    commands.add_parser("table").add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    book = Book(options.out)
    if options.command == "table":
        print(table(list(book.rows.values())))
        return 0
    every = options.every or [1] * len(options.folders)
    files = [options.folders[0] / n for n in options.names] if options.names else pictures(options.folders, every)
    report(book, Bench(AssetStore(options.assets)), files, options.crop, tune=options.tune)
    return 0


if __name__ == "__main__":
    sys.exit(main())
