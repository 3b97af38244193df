"""Measurements that are not linear: how often phases are retrieved, and HDR, nonlinear blur and JPEG at equal time.

    python -m benchmarks.nonlinear phase CLOTHES.npz --label T-Shirt --skip T-Shirt-4162 -o out/phase.jsonl
    python -m benchmarks.nonlinear tasks PHOTOS --crop 64 -o out/tasks.jsonl
    python -m benchmarks.nonlinear table out/phase.jsonl out/tasks.jsonl

Pictures are those of a folder, or of an archive of JPEG files (arrays `jpeg`, `offsets`, `label`); the measurements are
those of the presets. `--tune` tries all of `GRID`. What is in the JSON lines file is
not done again, and `--part 0/2` does half of the pictures, so that two processes share the work. One thread each.

Seconds are those of the processor, which other work on the machine hardly changes. Of several runs the one with the
smallest residual counts, whatever the truth says.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from app.gui.quality import ROWS
from app.pictures import read_picture, write_picture
from benchmarks.book import Book, Row
from benchmarks.methods import middle
from operators.errors import Diverged
from operators.likelihood import Likelihood
from operators.phase import PhaseRetrieval
from operators.phase_solvers import align, retrieve
from operators.rng import Rng
from restoration.assets import AssetStore
from restoration.methods.daps import DAPS
from restoration.metrics import psnr, ssim
from restoration.pipeline import Pipeline, with_seeds
from restoration.prior import Denoiser
from restoration.recipe import Recipe, read_recipe

Settings = dict[str, Any]

RUNS = 4
SUCCESS = 25.0
"""A phase retrieval has succeeded above this PSNR in dB, as it is or turned by 180°, whichever is nearer."""
PHASE = "phase-retrieval"
TASKS = ("hdr", "nonlinear-blur", "jpeg")


def walk(top: float, steps: int, low: float = 0.01) -> Settings:
    """Levels from `top` to `low`."""
    return {"kind": "karras", "steps": steps, "sigma_max": top, "sigma_min": low}


def dps(scale: float, top: float, steps: int) -> Settings:
    """DPS in its norm form."""
    return {"kind": "dps", "schedule": walk(top, steps), "guidance": {"kind": "norm", "scale": scale}}


def daps(rate: float, top: float, steps: int, tau: float | None = None, factor: float = 0.5) -> Settings:
    """DAPS by Langevin steps."""
    inner = {"kind": "langevin", "rate": rate, "tau": tau}
    width = {"kind": "proportional", "factor": factor}
    return {"kind": "daps", "schedule": walk(top, steps, 0.02), "inner": inner, "width": width, "shed": False}


def damped(rate: float, top: float, steps: int, tau: float | None = None) -> Settings:
    """DAPS by few damped Hamiltonian steps, for measurements that are slow beside the network."""
    inner = {"kind": "hmc", "steps": 15, "rate": rate, "last_rate": 0.1, "momentum": 0.7, "tau": tau}
    return daps(rate, top, steps) | {"inner": inner}


def red_diff(weight: float, rate: float, top: float, steps: int) -> Settings:
    """RED-diff."""
    return {"kind": "red-diff", "schedule": walk(top, steps), "weight": weight, "rate": rate}


def ddnm(top: float, eta: float, steps: int) -> Settings:
    """DDNM without noise: it projects onto the data."""
    return {"kind": "ddnm", "form": "noise-free", "schedule": walk(top, steps), "eta": eta}


GRID: dict[str, dict[str, list[Settings]]] = {
    "hdr": {
        "dps": [dps(3, 1.5, 15), dps(3, 1.5, 10), dps(1, 1.5, 10), dps(8, 1.5, 10)],
        "daps": [daps(1.5e-4, 0.2, 17), daps(1.5e-4, 0.1, 17), daps(1.5e-4, 0.5, 20)],
        "red-diff": [red_diff(4, 0.05, 0.2, 28), red_diff(4, 0.05, 0.2, 20), red_diff(1, 0.05, 0.2, 20)],
    },
    "nonlinear-blur": {
        "dps": [dps(8, 1.5, 10), dps(3, 1.5, 10), dps(1, 1.5, 10)],
        "daps": [damped(1e-4, 0.1, 15), damped(1e-4, 0.2, 15)],
        "red-diff": [red_diff(0.25, 0.05, 0.5, 20), red_diff(0.25, 0.05, 0.2, 20), red_diff(0.5, 0.05, 0.2, 20)],
    },
    "jpeg": {
        "dps": [dps(10, 1.5, 10), dps(1, 1.5, 10), dps(3, 0.3, 10)],
        "daps": [damped(2e-4, 0.06, 15, 0.025), damped(2e-4, 0.3, 15, 0.025), damped(1e-3, 0.1, 15, 0.05)],
        "red-diff": [red_diff(4, 0.01, 0.06, 20), red_diff(1, 0.02, 0.1, 20), red_diff(0.25, 0.05, 0.3, 20)],
        "ddnm": [ddnm(0.1, 0.85, 20), ddnm(0.3, 0.85, 20), ddnm(0.1, 0.0, 20), ddnm(0.06, 0.3, 20)],
    },
}
"""The chosen settings first, then what else was tried on photographs that no figure is reported on."""

ALONE = {
    "kind": "daps",
    "schedule": walk(1.0, 24, 0.02),
    "inner": {"kind": "hmc", "steps": 100, "rate": 2e-5, "last_rate": 0.1, "momentum": 0.8, "tau": 0.0125},
    "width": {"kind": "proportional", "factor": 0.5},
    "shed": False,
}
"""DAPS without restarts before it; four runs."""
PHASE_DPS = dps(4, 5.0, 72)
"""One run at the time of four of the preset."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A clean picture (C, H, W); `number` seeds its noise."""

    number: int
    name: str
    truth: Tensor


class Bench:
    """Restores; the prior is loaded once."""

    def __init__(self) -> None:
        self._denoiser: Denoiser | None = None

    def pipeline(self, task: str, method: Settings, seeds: int) -> Pipeline:
        """The preset of a task with another method."""
        preset, base = read_recipe(task)
        recipe = Recipe.model_validate({**preset.model_dump(mode="json"), "method": method})
        return Pipeline.load(with_seeds(recipe, tuple(range(seeds))), AssetStore(), base=base, load=self._load)

    def restore(
        self, task: str, method: Settings, seeds: int, subject: Subject, file: Path, *, turned: bool = False
    ) -> Row:
        """Figures of all runs on one picture, degraded with the noise of its number; the picked run is written."""
        pipeline = self.pipeline(task, method, seeds)
        measurement = pipeline.simulate(subject.truth, seed=subject.number)
        began = time.process_time()
        try:
            result = pipeline.run(measurement)
        except Diverged as error:
            return {"psnr": None, "residual": str(error), "seconds": time.process_time() - began}
        row = figures(result.measurement.truth, result.samples, measurement.likelihood, file, turned=turned)
        row |= {"calls": result.report.nfe * seeds, "pullbacks": result.report.vjps * seeds}
        return row | {"seconds": round(time.process_time() - began, 2)}

    def _load(self, model: Any) -> Denoiser:
        if self._denoiser is None:
            self._denoiser = model.load(AssetStore(), torch.device("cpu"), "fp32")
        return self._denoiser


def figures(
    truth: Tensor | None, samples: Tensor, likelihood: Likelihood, picture: Path, *, turned: bool = False
) -> Row:
    """PSNR and SSIM of all runs, and of the one with the smallest residual, which is written to `picture`.

    With `turned`, each run is scored as it is or turned by 180°, and `as_is` says what it scores untouched.

    Shapes: truth (C, H, W), samples (B, C, H, W).
    """
    assert truth is not None
    residuals = likelihood.residual_sigma(samples)
    pick = int(residuals.nan_to_num(nan=torch.inf).argmin())
    clipped = samples.clamp(0, 1)
    nearest = align(clipped, truth) if turned else clipped
    write_picture(picture, torch.cat([truth, nearest[pick]], -1))
    runs = [psnr(truth, x) for x in nearest]
    row = {"psnr": runs[pick], "ssim": ssim(truth, nearest[pick]), "residual": float(residuals[pick]), "runs": runs}
    return row | ({"as_is": psnr(truth, clipped[pick])} if turned else {})


def projections(
    operator: PhaseRetrieval, y: Tensor, rule: str, seconds: float, iterations: int = 1000, together: int = 16
) -> tuple[Tensor, int]:
    """Restarts of error reduction or HIO for so many seconds: the four that fit best, and how many there were."""
    began, count = time.process_time(), 0
    best, left = torch.zeros(0), torch.zeros(0)
    while count == 0 or time.process_time() - began < seconds:
        rng = Rng(range(count, count + together))
        counts = (iterations, 100) if rule == "hio" else (0, iterations + 100)
        found = retrieve(operator, y, rng, iterations=counts[0], polish=counts[1])
        best = torch.cat([best.reshape(-1, *operator.in_shape), found.restarts])
        left = torch.cat([left, found.residuals.flatten(1).mean(1)])
        keep = left.argsort()[:RUNS]
        best, left, count = best[keep], left[keep], count + together
    return best, count


def classical(bench: Bench, subject: Subject, rule: str, seconds: float, file: Path) -> Row:
    """Figures of error reduction or HIO in so many seconds."""
    preset = read_recipe(PHASE)[0].method.model_dump(mode="json")
    likelihood = bench.pipeline(PHASE, preset, 1).simulate(subject.truth, seed=subject.number).likelihood
    assert isinstance(likelihood.operator, PhaseRetrieval)
    began = time.process_time()
    best, count = projections(likelihood.operator, likelihood.y, rule, seconds)
    spent = round(time.process_time() - began, 2)
    row = figures(subject.truth, best, likelihood, file, turned=True)
    return row | {"restarts": count, "calls": 0, "pullbacks": 0, "seconds": spent}


def phase(book: Book, bench: Bench, subjects: list[Subject], methods: list[str]) -> None:
    """Every method on every picture; HIO gets the processor's seconds that DAPS took, ER a quarter."""
    preset = read_recipe(PHASE)[0].method.model_dump(mode="json")
    alone = DAPS.model_validate(ALONE).model_dump(mode="json")
    samplers = {"daps": (alone, RUNS), "dps": (PHASE_DPS, 1), "preset": (preset, 1)}
    samplers |= {
        f"page {quality}": (choice.method.model_dump(mode="json"), 1)
        for quality, choice in next(row for row in ROWS if PHASE in row.kinds).three.items()
    }
    seconds: dict[str, float] = {}
    for method in ["daps", *(m for m in methods if m != "daps")]:
        for subject in subjects:
            file = _file(book, PHASE, subject.name, method)
            settings, runs = samplers.get(method, ({}, 0))
            if runs:
                make = partial(bench.restore, PHASE, settings, runs, subject, file, turned=True)
            else:
                share = 1 if method == "hio" else 0.25  # more of ER changes nothing
                make = partial(classical, bench, subject, method, share * seconds[subject.name], file)
            row = book.row({"task": PHASE, "picture": subject.name, "method": method, "settings": settings}, make)
            if method == "daps":
                seconds[subject.name] = row["seconds"]


def tasks(book: Book, bench: Bench, subjects: list[Subject], *, tune: bool) -> None:
    """The chosen settings, or all of the grid, on every picture; one sample each."""
    for subject in subjects:
        for task in TASKS:
            grid = GRID[task] | {"direct": [{"kind": "direct"}]}
            for method, settings in [
                (m, s) for m, several in grid.items() for s in (several if tune else [several[0]])
            ]:
                file = _file(book, task, subject.name, method)
                asked = {"task": task, "picture": subject.name, "method": method, "settings": settings}
                book.row(asked, partial(bench.restore, task, settings, 1, subject, file))


def table(books: list[Book]) -> str:
    """A line for each task, method and setting."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in (row for book in books for row in book.rows.values()):
        groups.setdefault((row["task"], row["method"], json.dumps(row["settings"])), []).append(row)
    text = ["| task | method | pictures | success | median | PSNR | SSIM | residual | calls | pullbacks | s |"]
    text.append("|---" * 11 + "|")
    for (task, method, settings), rows in groups.items():
        done = [row for row in rows if row["psnr"] is not None]
        figures_ = [row["psnr"] for row in done]
        if not done:
            text.append(f"| {task} | {method} | {len(rows)} diverged | {settings}")
            continue
        success = f"{sum(p > SUCCESS for p in figures_)}" if task == PHASE else ""
        mean = {
            what: statistics.fmean(row[what] for row in done)
            for what in ("ssim", "residual", "calls", "pullbacks", "seconds")
        }
        text.append(
            f"| {task} | {method} | {len(done)} | {success} | {statistics.median(figures_):.2f} "
            f"| {statistics.fmean(figures_):.2f} | {mean['ssim']:.3f} | {mean['residual']:.2f} | {mean['calls']:.0f} "
            f"| {mean['pullbacks']:.0f} | {mean['seconds']:.1f} | {settings if settings != json.dumps({}) else ''}"
        )
    return "\n".join(text)


def _file(book: Book, task: str, name: str, method: str) -> Path:
    folder = book.path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{task}-{Path(name).stem}-{method.replace(' ', '-')}.png"


def archive(path: Path, label: str, size: int, every: int) -> Iterator[tuple[str, Tensor]]:
    """Every n-th of the pictures of a label, grey (1, size, size)."""
    with np.load(path, allow_pickle=False) as arrays:
        members = np.flatnonzero(arrays["label"] == label)
        raw, ends = arrays["jpeg"].tobytes(), arrays["offsets"]
        for member in members[::every]:
            picture = Image.open(io.BytesIO(raw[ends[member] : ends[member + 1]])).convert("L")
            small = np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255
            yield f"{label}-{member}", torch.from_numpy(small)[None]


def folder(path: Path, names: list[str] | None, size: int) -> Iterator[tuple[str, Tensor]]:
    """The middle (C, size, size) of each picture of a folder, or of those named."""
    kinds = {".png", ".jpg", ".bmp"}
    for file in [path / n for n in names] if names else sorted(p for p in path.iterdir() if p.suffix.lower() in kinds):
        yield file.name, middle(read_picture(file).pixels, size)


def main() -> int:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("phase", "tasks"):
        command = commands.add_parser(name)
        command.add_argument("pictures", type=Path, help="a folder, or an archive of JPEG files")
        command.add_argument("--names", nargs="+", help="these files of the folder alone")
        command.add_argument("--label", default="T-Shirt", help="class of the archive's pictures")
        command.add_argument("--every", type=int, default=50, help="every n-th of that class")
        command.add_argument(
            "--skip", nargs="*", default=[], help="names to leave out, such as what a prior was trained on"
        )
        command.add_argument("--crop", type=int, default=64, help="side of the pictures")
        command.add_argument("--part", default="0/1")
        command.add_argument("-o", "--out", type=Path, required=True)
        if name == "phase":
            command.add_argument("--methods", nargs="+", default=["hio", "dps", "er", "preset"], help="beside DAPS")
    command.add_argument("--tune", action="store_true", help="try the grid")
    commands.add_parser("table").add_argument("books", type=Path, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "table":
        print(table([Book(path) for path in options.books]))
        return 0
    if options.pictures.is_dir():
        found = folder(options.pictures, options.names, options.crop)
    else:
        found = archive(options.pictures, options.label, options.crop, options.every)
    part, parts = (int(n) for n in options.part.split("/"))
    subjects = [Subject(number, *one) for number, one in enumerate(found) if number % parts == part]
    subjects = [subject for subject in subjects if subject.name not in options.skip]
    book, bench = Book(options.out), Bench()
    if options.command == "phase":
        phase(book, bench, subjects, options.methods)
    else:
        tasks(book, bench, subjects, tune=options.tune)
    return 0


if __name__ == "__main__":
    sys.exit(main())
