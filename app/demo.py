"""The demo: bundled pictures, damaged and restored, beside the best of the classical methods."""

import json
import math
import textwrap
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from app.cases import Case, Row, Task, average, method_name
from app.classical import CLASSICAL
from app.memory import enough_memory
from app.page import page
from app.pictures import read_picture
from app.view import Cell, Colours, data_picture, enlarged, fitted, heat, montage, png, spread, spread_scale, to_colours
from operators.errors import AssetMissing, RecipeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from restoration.assets import AssetCard, AssetStore
from restoration.folders import FolderKind, check_folder, write_folder
from restoration.method import Method
from restoration.metrics import psnr, ssim
from restoration.pipeline import Pipeline, Progress, with_seeds
from restoration.recipe import read_recipe
from restoration.result import Result

DEMO = FolderKind("demo", frozenset({"index.html", "montage.png", "report.json"}))
CELL_SIDE = 256
"""Longest side of a picture in `montage.png`, in pixels."""

Watch = Callable[[int, int, str], None]
"""Told of parts done, of their total and of the part under way."""


def demo_tasks() -> tuple[Task, ...]:
    """Four kinds of damage undone by sampling, and three undone by the bridge, as the presets have them."""
    texts = {
        "deblur-gaussian": ("Gaussian blur", "Out of focus: fine detail is gone, and noise hides what is left of it."),
        "deblur-motion": ("Motion blur", "The camera moved along a known, crooked path while the shutter was open."),
        "sr-x4": ("Four times smaller", "One pixel stands for sixteen; fifteen of them have to be found."),
        "inpaint-random-70": ("70 % of the pixels missing", "Three pixels of ten were measured, with noise."),
        "bridge-sr-x4": ("Four times smaller, by the bridge", "Four calls of a network trained on small pictures."),
        "bridge-inpaint": ("Scratches, by the bridge", "Four calls of a network trained on pictures with holes."),
        "bridge-jpeg": ("JPEG of quality 10, by the bridge", "Four calls of a network trained on JPEG artefacts."),
    }
    return tuple(Task(n, *text, read_recipe(n)[0], CLASSICAL[n]) for n, text in texts.items())


def run_demo(
    out: Path,
    samples: int = 4,
    *,
    size: int | None = None,
    store: AssetStore | None = None,
    tasks: Sequence[Task] | None = None,
    watch: Watch | None = None,
) -> list[Row]:
    """Restore every bundled picture from every kind of damage; write `index.html`, `montage.png` and `report.json`.

    The folder appears when all is done; an earlier demo there is replaced, anything else is an error.

    Args:
        out: folder to write.
        samples: samples a picture, of seeds 0, 1, ...
        size: use only the middle `size` x `size` pixels of each picture.
        store: where pictures and weights are; the package's own by default.
        tasks: kinds of damage; `demo_tasks()` by default.
        watch: told how far the demo is.
    """
    out = check_folder(out, DEMO)
    if not 2 <= samples <= 64:
        raise RecipeError(f"Expected 2 to 64 samples for a mean and a spread, got {samples}; change --samples.")
    if size is not None and size < 32:
        raise RecipeError(f"Expected pictures of at least 32 pixels a side, got {size}; change --size.")
    store, tasks = store or AssetStore(), tasks or demo_tasks()
    cards = [card for card in store.cards.values() if card.role == "image"]
    if not cards:
        raise AssetMissing(f"Expected assets of role 'image' in {store.folder}, found none; reinstall the package.")
    pictures = {card.name: _middle(read_picture(store.resolve(card)).pixels, size) for card in cards}
    # All of them first: what is wrong with the weights or a recipe is found before minutes of work.
    pipelines = [Pipeline.load(with_seeds(task.recipe, tuple(range(samples))), store) for task in tasks]
    cases: list[Case] = []
    for task, pipeline in zip(tasks, pipelines, strict=True):
        for card in cards:
            told = None if watch is None else _percent(watch, len(cases), len(tasks) * len(cards), task, card)
            with enough_memory("cpu"):
                cases.append(restore(task, card, pipeline, pictures[card.name], told))
    rows = [case.row for case in cases]
    files = {
        "index.html": page(cases).encode(),
        "montage.png": png(demo_montage(cases)),
        "report.json": (json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode(),
    }
    with write_folder(out, DEMO) as part:
        for name, content in files.items():
            (part / name).write_bytes(content)
    return rows


def restore(
    task: Task, card: AssetCard, pipeline: Pipeline, picture: Tensor, watch: Callable[[Progress], None] | None = None
) -> Case:
    """Damage one picture, restore it by the sampler and by every classical method, and keep the best of those."""
    measurement = pipeline.simulate(picture)
    truth, likelihood = measurement.truth, measurement.likelihood
    if truth is None:
        raise RuntimeError("a simulated measurement has its truth")
    result = pipeline.run(measurement, watch)
    tried = [(method, *_classical(method, likelihood)) for method in task.classical]
    best, restored, seconds = max(tried, key=lambda one: psnr(truth, one[1]))
    guess = likelihood.operator.guess(likelihood.y)[0]
    row = _row(task, card, result, truth, guess, (method_name(best), restored, seconds))
    return Case(
        row=row,
        task=task,
        card=card,
        measurement=to_colours(enlarged(data_picture(measurement.picture()), *truth.shape[-2:])),
        classical=to_colours(restored),
        sample=to_colours(result.samples[0]),
        mean=to_colours(result.mean),
        spread=spread(result.std),
        truth=to_colours(truth),
    )


def demo_montage(cases: Sequence[Case]) -> Colours:
    """One picture for each kind of damage, taken in turn, so that none is chosen for its result."""
    tasks = list(dict.fromkeys(case.row.task for case in cases))
    shown = []
    for number, task in enumerate(tasks):
        candidates = [case for case in cases if case.row.task == task]
        shown.append(candidates[number % len(candidates)])
    top = spread_scale([case.spread for case in shown])
    rows = []
    for case in shown:
        row = case.row
        pairs = [
            (case.measurement, f"{row.input_psnr:.1f} dB"),
            (case.classical, f"{row.baseline}, {row.baseline_psnr:.1f} dB"),
            (case.sample, f"{row.sample_psnr:.1f} dB"),
            (case.mean, f"{row.mean_psnr:.1f} dB"),
            (heat(case.spread, top), ""),
            (case.truth, ""),
        ]
        rows.append([Cell(fitted(colours, CELL_SIDE), caption) for colours, caption in pairs])
    return montage(
        rows,
        ["\n".join(textwrap.wrap(case.task.title, 12)) for case in shown],
        [
            "Measurement",
            "Best classical",
            "One sample",
            f"Mean of {shown[0].row.samples} samples",
            f"Spread, 0 to {top:g}",
            "Truth",
        ],
        note="Simulated measurements. Best classical: the best of several by PSNR on that very picture. "
        "Spread: standard deviation over the samples; white is 1.",
    )


def table(rows: Sequence[Row]) -> str:
    """The figures as text, with the mean over the pictures of each kind of damage."""
    line = "{:<18} {:<10} {:>6} {:>6} {:>6} {:>6}  {:>6} {:>6} {:>6}  {:>8} {:>5} {:>7}  {}"
    groups = f"{'':<30}{'PSNR, dB':<29}SSIM"
    head = ("damage", "picture", "input", *("best", "sample", "mean") * 2, "residual", "calls", "seconds", "best is")
    figures = {
        "input_psnr": ".2f",
        "baseline_psnr": ".2f",
        "sample_psnr": ".2f",
        "mean_psnr": ".2f",
        "baseline_ssim": ".3f",
        "sample_ssim": ".3f",
        "mean_ssim": ".3f",
        "residual_sigma": ".2f",
        "nfe": ".0f",
        "seconds": ".1f",
    }
    lines = [groups, line.format(*head)]
    for task in dict.fromkeys(row.task for row in rows):
        same = [row for row in rows if row.task == task]
        for name, baseline, group in [*((r.picture, r.baseline, [r]) for r in same), ("average", "", same)]:
            values = [format(average(group, figure), form) for figure, form in figures.items()]
            lines.append(line.format(task, name, *values, baseline).rstrip())
    return "\n".join(
        [*lines, "best: the best classical method by PSNR on that picture; residual in sigma of the noise."]
    )


def _row(
    task: Task, card: AssetCard, result: Result, truth: Tensor, guess: Tensor, baseline: tuple[str, Tensor, float]
) -> Row:
    report, (name, restored, seconds) = result.report, baseline
    noise = task.recipe.noise
    return Row(
        picture=card.name,
        task=task.name,
        input_psnr=psnr(truth, guess),
        baseline=name,
        baseline_psnr=psnr(truth, restored),
        baseline_ssim=ssim(truth, restored),
        baseline_seconds=round(seconds, 3),
        sample_psnr=psnr(truth, result.samples[0]),
        sample_ssim=ssim(truth, result.samples[0]),
        mean_psnr=psnr(truth, result.mean),
        mean_ssim=ssim(truth, result.mean),
        residual_sigma=report.residual_sigma,
        spread_rms=math.sqrt(float(result.std.square().mean())),
        error_rms=math.sqrt(float((result.mean - truth).square().mean())),
        nfe=report.nfe,
        seconds=report.seconds,
        samples=report.samples,
        seeds=report.seeds,
        noise_sigma=noise.sigma if noise.kind == "gaussian" else None,
        device=report.device,
        precision=report.precision,
        threads=report.threads,
        recipe_digest=report.recipe_digest,
        asset_sha256=report.asset_sha256,
        versions=report.versions,
    )


def _classical(method: Method, likelihood: Likelihood) -> tuple[Tensor, float]:
    """The answer of a method without a prior, (C, H, W), and its seconds."""
    began = time.perf_counter()
    last = deque(method.run(None, likelihood, Rng([0], device=likelihood.y.device)), maxlen=1)
    return last[0].x0[0], time.perf_counter() - began


def _middle(picture: Tensor, size: int | None) -> Tensor:
    if size is None:
        return picture
    height, width = picture.shape[-2:]
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return picture[:, top : top + size, left : left + size]


def _percent(watch: Watch, before: int, cases: int, task: Task, card: AssetCard) -> Callable[[Progress], None]:
    def told(progress: Progress) -> None:
        watch(100 * before + 100 * progress.done // progress.total, 100 * cases, f"{task.name}, {card.name}")

    return told
