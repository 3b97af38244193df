r"""Every method on every preset's task at equal time, with settings tuned on other photographs than those reported.

    python -m benchmarks.methods tune PHOTOS --names 044_* 067_* 041_* --crop 32 -o out/tuning.jsonl
    python -m benchmarks.methods choose out/tuning.jsonl
    python -m benchmarks.methods tune PHOTOS --names 067_* --crop 48 -o out/again.jsonl \
        --tasks deblur-gaussian deblur-motion inpaint-scratches
    python -m benchmarks.methods choose out/again.jsonl
    python -m benchmarks.methods report SET5 CBSD68 --every 1 9 --crop 48 -o out/methods.jsonl
    python -m benchmarks.methods table out/methods.jsonl

are the commands that made the table of docs/methods.md, with whole names of photographs in place of 044_* and so on.

`tune` tries a few settings of each method on the first photograph, and those close to the best on the others;
`choose` puts the best of them into `methods.json` beside this file, which `report` reads. What is in the JSON lines
file is not done again, and `--part 0/2` does one half of the rows, so that two processes share the work. One thread
each.

Equal time is that of `CALLS` network calls; a pullback counts as `PULLBACK` of a call, as measured. Seconds are those
of the processor, which other work on the machine hardly changes.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from app.classical import CLASSICAL
from app.pictures import read_picture
from operators.errors import Diverged
from operators.spec import kinds
from restoration.assets import AssetStore
from restoration.method import Method
from restoration.pipeline import Pipeline
from restoration.prior import Denoiser, Prior
from restoration.recipe import AnyMethod, NoPrior, Recipe, read_recipe

CHOSEN = Path(__file__).with_suffix(".json")
CALLS = 20
PULLBACK = 0.9
CLOSE = 1.0
"""In dB."""

TOPS = {
    "denoise": (0.05, 0.1),
    "deblur-gaussian": (0.5, 1.5),
    "deblur-motion": (0.5, 1.5),
    "sr-x4": (0.5, 1.5),
    "inpaint-random-70": (0.3, 1.0),
    "inpaint-box": (1.5, 5.0),
    "inpaint-scratches": (0.5, 1.5),
}
"""Two first noise levels for methods that start from the operator's guess, by task."""

LIKE = {"deblur-motion": "deblur-gaussian"}
"""A task that takes the settings tuned on another, to save time; the classical methods are tuned on each."""

Settings = dict[str, Any]


def walk(top: float, calls: int = 1, pullbacks: int = 0) -> Settings:
    """As many levels from `top` as the time allows at so many calls and pullbacks a level."""
    steps = max(2, round(CALLS / (calls + PULLBACK * pullbacks)))
    return {"kind": "karras", "steps": steps, "sigma_max": top, "sigma_min": 0.01}


def candidates(task: str) -> dict[str, list[Settings]]:
    """The settings that are tried on a task, by method."""
    low, high = TOPS[task]
    flow = {"kind": "flow", "steps": CALLS + 1}
    grey = ((1.5, 3.0), (1.5, 6.0), (1.5, 10.0), (3.0, 3.0), (5.0, 3.0))  # DPS starts from grey, so from a high level
    grid: dict[str, list[Settings]] = {
        "diffpir": [
            {"schedule": walk(top), "weight": weight, "zeta": zeta}
            for top, weight, zeta in (
                (low / 4, 1, 1),
                (low / 2, 1, 1),
                (low / 2, 0.5, 1),
                (low, 1, 1),
                (high, 1, 1),
                (low, 2, 1),
                (low, 0.5, 1),
                (low, 1, 0.3),
                (low, 5, 0.3),
            )
        ],
        "ddrm": [
            {"schedule": walk(top), "eta": eta}
            for top, eta in ((low, 1), (low, 0.85), (low, 0.5), (high, 0.85), (high, 0.5), (3.0, 0.85))
        ],
        "ddnm": [
            {"schedule": walk(top), "eta": eta}
            for top, eta in ((low, 1), (low, 0.85), (low, 0.5), (high, 0.85), (high, 0.5))
        ],
        "daps": [
            {"schedule": walk(top), "width": {"kind": "proportional", "factor": factor}}
            for top, factor in (
                (low / 2, 0.5),
                (low, 0.5),
                (high, 0.5),
                (low, 0.25),
                (low, 0.65),
                (low / 2, 0.65),
            )
        ],
        "dps": [{"schedule": walk(top, 1, 1), "guidance": {"kind": "norm", "scale": scale}} for top, scale in grey],
        "pigdm": [
            {"schedule": walk(top, 1, 1), "std": std}
            for top, std in (
                (low / 2, 0.25),
                (low, 0.25),
                (high, 0.25),
                (low, 0.1),
                (low, 1.0),
                (low / 2, 1.0),
            )
        ],
        "moment-matching": [
            {"schedule": walk(low, 1, 3), "iterations": 2},
            {"schedule": walk(high, 1, 3), "iterations": 2},
            {"schedule": walk(low, 1, 2), "iterations": 1},
            {"schedule": walk(low / 2, 1, 2), "iterations": 1},
        ],
        "dds": [
            {"schedule": walk(top), "gamma": gamma}
            for top, gamma in ((low, 0.03), (low, 0.1), (low, 0.3), (low, 1), (low, 10), (high, 0.3), (high, 10))
        ],
        "lgd": [
            {"schedule": walk(top, 1, 1), "average": {"kind": "mean-misfit", "scale": scale}} for top, scale in grey
        ],
        "red-diff": [
            {"schedule": walk(low), "weight": weight, "rate": rate}
            for weight, rate in ((0.25, 0.05), (1, 0.05), (1, 0.02), (4, 0.02), (1, 0.01), (4, 0.01))
        ],
        "pnp-dm": [
            {"schedule": walk(top, calls), "hold": 0, "reverse_steps": calls}
            for top, calls in ((low / 4, 2), (low / 2, 2), (low, 2), (low, 4), (high, 2))
        ],
        "sitcom": [
            {"schedule": walk(top, k + 1, k), "iterations": k, "rate": rate}
            for top, k, rate in (
                (1.5, 1, 0.1),
                (1.5, 2, 0.1),
                (1.5, 3, 0.1),
                (1.5, 2, 0.2),
                (5.0, 2, 0.1),
                (high, 3, 0.03),
            )
        ],
        "pnp-flow": [
            {"schedule": schedule, "draws": 1, "alpha": alpha}
            for schedule, alpha in (
                (flow, 0.5),
                (walk(low), 0.8),
                (walk(low), 0.5),
                (walk(low), 0.25),
                (walk(low), 0.1),
            )
        ],
        "flow-dps": [
            {"schedule": schedule, "iterations": iterations}
            for schedule, iterations in ((flow, 3), (flow, 10), (walk(1.5), 3), (walk(1.5), 10), (walk(5.0), 10))
        ],
    }
    if task.startswith("inpaint"):
        pairs = ((1.5, 0.3), (1.5, 1.0), (5.0, 1.0), (5.0, 3.0), (10.0, 1.0))
        grid["mcg"] = [{"schedule": walk(top, 1, 1), "weight": weight} for top, weight in pairs]
    named = {name: [{"kind": name, **settings} for settings in several] for name, several in grid.items()}
    return named | {"classical": [method.model_dump(mode="json") for method in CLASSICAL[task]]}


def preset(task: str) -> Settings:
    """The shipped method of a preset, with the steps that the time allows."""
    method = read_recipe(task)[0].method.model_dump(mode="json")
    return method | {"schedule": method["schedule"] | {"steps": CALLS}}


@dataclass(frozen=True)
class Cell:
    """One restoration: what was asked and what came of it; figures are None where the run left the finite numbers."""

    task: str
    method: str
    settings: Settings
    picture: str
    crop: int
    psnr: float | None = None
    ssim: float | None = None
    residual: float | None = None
    calls: float | None = None
    pullbacks: float | None = None
    seconds: float | None = None

    @property
    def key(self) -> str:
        """What makes it the same restoration."""
        asked = (self.task, self.settings, self.picture, self.crop)
        return json.dumps(asked, sort_keys=True)


class Book:
    """Finished cells in a JSON lines file, and the work of one part of the rows."""

    def __init__(self, path: Path, part: str = "0/1") -> None:
        self.path = path
        self.part, self.parts = (int(n) for n in part.split("/"))
        lines = path.read_text().splitlines() if path.exists() else []
        self.cells = {cell.key: cell for cell in (Cell(**json.loads(line)) for line in lines)}

    def mine(self, row: int) -> bool:
        """Whether a row belongs to this part."""
        return row % self.parts == self.part

    def done(self, asked: Cell, bench: "Bench", file: Path, seed: int) -> Cell:
        """The finished cell, made now if it is not there."""
        if asked.key not in self.cells:
            self.cells[asked.key] = cell = bench.restore(asked, file, seed)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as lines:
                lines.write(json.dumps(asdict(cell)) + "\n")
            print(cell.task, cell.method, cell.picture, cell.psnr, cell.residual, cell.seconds, flush=True)
        return self.cells[asked.key]


class Bench:
    """Restores; the prior is loaded once."""

    def __init__(self, model: Settings | None = None) -> None:
        self._model = model
        self._denoiser: Denoiser | None = None

    def restore(self, asked: Cell, file: Path, seed: int) -> Cell:
        """Degrade the middle of a picture as the preset does, restore it, and measure."""
        recipe, base = read_recipe(asked.task)
        values = recipe.model_dump(mode="json")
        if asked.method == "classical":
            values["model"] = NoPrior().model_dump()
        elif self._model is not None:
            values["model"] = self._model
        mask = values["operator"].get("mask", {})
        if mask.get("kind") == "scratch":  # as large a share is missing as of a picture of 256 pixels
            mask["count"] = max(1, round(mask["count"] * asked.crop / 256))
        changed = Recipe.model_validate({**values, "method": asked.settings, "seeds": (0,)})
        pipeline = Pipeline.load(changed, AssetStore(), base=base, precision="fp32", load=self._load)
        measurement = pipeline.simulate(middle(read_picture(file).pixels, asked.crop), seed=seed)
        began = time.process_time()
        try:
            report = pipeline.run(measurement).report
        except Diverged:
            return asked
        return replace(
            asked,
            seconds=round(time.process_time() - began, 3),
            psnr=report.psnr,
            ssim=report.ssim,
            residual=report.residual_sigma,
            calls=report.nfe,
            pullbacks=report.vjps,
        )

    def _load(self, model: Any) -> Denoiser | None:
        if isinstance(model, NoPrior):
            return None
        if self._denoiser is None:
            self._denoiser = model.load(AssetStore(), torch.device("cpu"), "fp32")
            # The first derivative of a process costs it most of a second.
            x = torch.zeros(1, 3, 32, 32)
            Prior(self._denoiser).denoise_vjp(x, 1.0)[1](x)
        return self._denoiser


def middle(picture: torch.Tensor, size: int) -> torch.Tensor:
    """The middle size x size pixels of (C, H, W)."""
    top, left = (picture.shape[1] - size) // 2, (picture.shape[2] - size) // 2
    return picture[:, top : top + size, left : left + size]


def mean(cells: Sequence[Cell], what: str = "psnr") -> float:
    """Mean of a figure; minus infinity where there is none or one is missing."""
    values = [getattr(cell, what) for cell in cells]
    return sum(values) / len(values) if values and None not in values else float("-inf")


def rows(tasks: Iterable[str] = TOPS) -> Iterator[tuple[int, str, str, list[Settings]]]:
    """Number, task, method and candidates of every row."""
    number = 0
    for task in tasks:
        for method, several in candidates(task).items():
            if method == "classical" or task not in LIKE:
                yield number, task, method, several
                number += 1


def tune(book: Book, bench: Bench, files: Sequence[Path], crop: int, tasks: Iterable[str] = TOPS) -> None:
    """All settings on the first file; the best three of a method, if within `CLOSE` of the best, on the others too."""
    close: list[Cell] = []
    for number, task, method, several in rows(tasks):
        if book.mine(number):
            first = [book.done(Cell(task, method, s, files[0].name, crop), bench, files[0], 0) for s in several]
            best, *rest = sorted(first, key=lambda c: mean([c]), reverse=True)[:3]
            near = [cell for cell in rest if mean([best]) - mean([cell]) < CLOSE]
            close += [best, *near] if near else []
    for seed, file in enumerate(files[1:], 1):
        for cell in close:
            book.done(Cell(cell.task, cell.method, cell.settings, file.name, crop), bench, file, seed)


def choose(cells: Iterable[Cell]) -> dict[str, dict[str, Settings]]:
    """For every task and method the best on the first photograph or, of those that were close, the best on all."""
    tried: dict[str, list[Cell]] = {}
    for cell in cells:
        tried.setdefault(json.dumps((cell.task, cell.settings), sort_keys=True), []).append(cell)
    chosen: dict[str, dict[str, Settings]] = {}
    for _, task, method, several in rows():
        runs = [tried[key] for s in several if (key := json.dumps((task, s), sort_keys=True)) in tried]
        if runs:
            first = max(runs, key=lambda run: mean(run[:1]))
            best = max((run for run in runs if len(run) >= len(first) > 1), key=mean, default=first)
            chosen.setdefault(task, {})[method] = best[0].settings
    return {task: chosen.get(LIKE.get(task, task), {}) | chosen.get(task, {}) for task in TOPS if task in chosen}


def report(book: Book, bench: Bench, files: Sequence[Path], crop: int) -> None:
    """The chosen settings, and those of the presets, on every file; a file is done by all before the next."""
    chosen = json.loads(CHOSEN.read_text())
    jobs = [(task, method, s) for task, several in chosen.items() for method, s in several.items()]
    jobs += [(task, "preset", preset(task)) for task in TOPS]
    for seed, file in enumerate(files):
        for number, (task, method, settings) in enumerate(jobs):
            if book.mine(number):
                book.done(Cell(task, method, settings, file.name, crop), bench, file, seed)


def table(cells: Sequence[Cell]) -> str:
    """Methods in rows, tasks in columns: PSNR, SSIM and residual; the best PSNR of a task is bold."""
    chosen = json.loads(CHOSEN.read_text())
    wanted = {(t, m): s for t, several in chosen.items() for m, s in several.items()}
    wanted |= {(task, "preset"): preset(task) for task in TOPS}
    lines: dict[str, dict[str, list[Cell]]] = {}
    for (task, method), settings in wanted.items():
        same = [c for c in cells if c.task == task and c.settings == settings]
        lines.setdefault(method, {})[task] = same
    shared = set.intersection(*({c.picture for c in same} for of in lines.values() for same in of.values()))
    kept = {m: {t: [c for c in same if c.picture in shared] for t, same in of.items()} for m, of in lines.items()}
    best = {t: max(mean(of[t]) for of in kept.values() if t in of) for t in TOPS}
    text = [f"{len(shared)} pictures: {', '.join(sorted(shared))}", ""]
    text += ["| method | " + " | ".join(TOPS) + " | calls | pullbacks | s |", "|---" * (len(TOPS) + 4) + "|"]
    for method, of in sorted(kept.items(), key=lambda line: -sum(mean(c) for c in line[1].values()) / len(line[1])):
        shown = []
        for task in TOPS:
            here = of.get(task, [])
            figure = f"{mean(here):.2f}" if mean(here) > float("-inf") else "diverged" if here else ""
            figure = f"**{figure}**" if here and mean(here) == best[task] else figure
            more = f" {mean(here, 'ssim'):.3f} {mean(here, 'residual'):.2f}" if mean(here) > float("-inf") else ""
            shown.append(figure + more)
        every = [c for same in of.values() for c in same if c.seconds is not None]
        bill = [f"{mean(every, what):.{digits}f}" for what, digits in (("calls", 0), ("pullbacks", 0), ("seconds", 2))]
        text.append(f"| {title(method)} | " + " | ".join([*shown, *bill]) + " |")
    return "\n".join(text)


def title(method: str) -> str:
    """The name of a row for a person."""
    rest = {"classical": "best classical", "preset": "the preset's settings"}
    kind = kinds(AnyMethod).get(method)
    return kind.title if kind is not None and issubclass(kind, Method) else rest[method]


def pictures(folders: Sequence[Path], every: Sequence[int]) -> list[Path]:
    """Every n-th picture of each folder by name, from the folders in turn."""
    suffixes = {".png", ".jpg", ".bmp"}
    lists = [
        sorted(p for p in f.iterdir() if p.suffix.lower() in suffixes)[n - 1 :: n]
        for f, n in zip(folders, every, strict=True)
    ]
    return [several[i] for i in range(max(map(len, lists))) for several in lists if i < len(several)]


def main() -> int:
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("tune", "report"):
        command = commands.add_parser(name)
        command.add_argument("folders", type=Path, nargs="+")
        command.add_argument("--names", nargs="+", help="these files of the first folder alone, in this order")
        command.add_argument("--every", type=int, nargs="+", help="every n-th picture, a number for each folder")
        command.add_argument("--crop", type=int, default=64)
        command.add_argument("--tasks", nargs="+", default=list(TOPS), help="tune these alone")
        command.add_argument("--part", default="0/1")
        command.add_argument("-o", "--out", type=Path, required=True)
    for name in ("choose", "table"):
        commands.add_parser(name).add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "choose":
        kept = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
        CHOSEN.write_text(json.dumps(kept | choose(Book(options.out).cells.values()), indent=1) + "\n")
        return 0
    if options.command == "table":
        print(table(list(Book(options.out).cells.values())))
        return 0
    every = options.every or [1] * len(options.folders)
    files = [options.folders[0] / n for n in options.names] if options.names else pictures(options.folders, every)
    book = Book(options.out, options.part)
    if options.command == "tune":
        tune(book, Bench(), files, options.crop, options.tasks)
    else:
        report(book, Bench(), files, options.crop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
