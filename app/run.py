"""From the files a person names to a result folder: what `preimage run` does, without the talking."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch

from app.memory import enough_memory
from app.pictures import Picture, encode_png, read_picture
from app.view import (
    IMAGINED,
    SPREAD,
    Cell,
    Colours,
    data_picture,
    enlarged,
    fitted,
    heat,
    heat_with_scale,
    montage,
    png,
    spread,
    spread_scale,
    to_colours,
)
from operators.errors import RecipeError, WriteError
from restoration.assets import AssetStore
from restoration.folders import check_folder
from restoration.pipeline import Pipeline, Progress, with_seeds
from restoration.precision import Precision
from restoration.recipe import read_recipe
from restoration.result import RESULT, Result

MOST_SAMPLES = 4096
"""As many as a recipe can hold."""

PREVIEW_SIDE = 400
"""Longest side of a picture in `preview.png`, in pixels."""


@dataclass(frozen=True)
class Order:
    """A run as it was asked for.

    Attributes:
        recipe: file or name of a preset.
        input: picture of the measurement or, with `truth`, a clean picture that is degraded first and scored.
        out: result folder.
        truth: whether `input` is clean.
        seeds: one a sample; empty takes the recipe's.
        samples: this many consecutive seeds from the first one.
        device: "cpu", "cuda" or "cuda:N".
        precision: of the network.
    """

    recipe: str
    input: Path
    out: Path
    truth: bool = False
    seeds: tuple[int, ...] = ()
    samples: int | None = None
    device: str = "cpu"
    precision: Precision = "auto"


def run_order(
    order: Order,
    store: AssetStore,
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Read, restore and save; what is wrong is found before the work starts, and a failure leaves no folder.

    `watch` sees every step; once `stop` says so, the partial result is saved and its report says that it is partial.
    """
    out = check_folder(order.out, RESULT)
    if out in order.input.resolve().parents:
        raise WriteError(f"Expected an input outside the result folder, got {order.input}; it would be replaced.")
    recipe, base = read_recipe(order.recipe)
    recipe = with_seeds(recipe, chosen_seeds(recipe.seeds, order.seeds, order.samples))
    _check_device(order.device)
    with enough_memory(order.device):
        picture = read_picture(order.input)
        pipeline = Pipeline.load(recipe, store, order.device, order.precision, base)
        measurement = pipeline.simulate(picture.pixels) if order.truth else pipeline.observe(picture.pixels)
        result = pipeline.run(measurement, watch, stop)
        command = command_line(order, recipe.seeds, pipeline.precision)
        result = result.described(input_sha256=picture.sha256, command=command)
        result.save(out, result_pictures(result, picture))
    return result


def chosen_seeds(recipe: tuple[int, ...], given: tuple[int, ...], samples: int | None) -> tuple[int, ...]:
    """The seeds of a run: the given ones, or `samples` consecutive ones from the first, or the recipe's.

    Raises:
        RecipeError: several seeds and a number of samples, seeds twice or out of range, too many or no samples.
    """
    seeds = given or recipe
    if samples is not None:
        if len(given) > 1:
            raise RecipeError(
                f"Expected several --seed or --samples, got {len(given)} seeds and --samples {samples}; leave one out."
            )
        if not 1 <= samples <= MOST_SAMPLES:
            raise RecipeError(f"Expected 1 to {MOST_SAMPLES} samples, got {samples}; change --samples.")
        seeds = tuple(range(seeds[0], seeds[0] + samples))
    if wrong := [s for s in seeds if not 0 <= s < 2**63]:
        raise RecipeError(f"Expected seeds from 0 to 2**63 - 1, got {wrong[0]}; choose another --seed.")
    if len(seeds) > MOST_SAMPLES or len(set(seeds)) != len(seeds):
        raise RecipeError(f"Expected at most {MOST_SAMPLES} different seeds, got {len(seeds)}; change --seed.")
    return seeds


def command_line(order: Order, seeds: tuple[int, ...], precision: str) -> str:
    """The command that repeats the run.

    Seeds, device and precision are spelled out, whatever the recipe leaves open. Two settings of the environment are
    not in it: the number of threads (OMP_NUM_THREADS) and PREIMAGE_ASSETS; the report has the threads and the checksums
    of the assets. Relative paths are as they were given.
    """
    parts = ["preimage", "run", order.recipe, str(order.input), "-o", str(order.out)]
    parts += ["--truth"] if order.truth else []
    if all(b == a + 1 for a, b in pairwise(seeds)):
        parts += ["--seed", str(seeds[0]), "--samples", str(len(seeds))]
    else:
        parts += ["--seed", *map(str, seeds)]
    return shlex.join([*parts, "--device", order.device, "--precision", precision])


def result_pictures(result: Result, picture: Picture) -> dict[str, bytes]:
    """The PNG files of a result folder; in 16 bits where the input had more than 8, with the input's colour profile."""
    bits: Literal[8, 16] = 8 if picture.bits == 8 else 16
    measurement = result.measurement
    images = {"input.png": data_picture(measurement.picture()), "mean.png": result.mean}
    images |= {f"sample-{i:03d}.png": sample for i, sample in enumerate(result.samples)}
    if measurement.truth is not None:
        images["truth.png"] = measurement.truth
    # kernels are white where they are largest
    kernels = result.found.get("kernel", result.samples[:0])
    images |= {f"kernel-{i:03d}.png": (kernel / kernel.max())[None] for i, kernel in enumerate(kernels)}
    files = {name: encode_png(image, bits, icc=picture.icc) for name, image in images.items()}
    if len(result.samples) > 1:
        values = spread(result.std)
        files["std.png"] = png(heat_with_scale(values, spread_scale([values]), SPREAD))
    if result.imagined is not None:
        values = spread(result.imagined)
        files["imagined.png"] = png(heat_with_scale(values, spread_scale([values]), IMAGINED))
    files["preview.png"] = png(preview(result))
    return files


def preview(result: Result) -> Colours:
    """Measurement, estimate, spread, imagined part and truth in one row, the first samples in the next."""
    report, truth, samples = result.report, result.measurement.truth, result.samples
    height, width = samples.shape[-2:]

    def cell(image: torch.Tensor, caption: str, psnr: float | None = None) -> Cell:
        score = "" if psnr is None else f", {psnr:.1f} dB"
        return Cell(fitted(to_colours(image), PREVIEW_SIDE), caption + score)

    def map_cell(values: torch.Tensor, what: str) -> Cell:
        scale = spread_scale([values])
        return Cell(fitted(heat(values, scale), PREVIEW_SIDE), f"{what}: black 0, pale yellow {scale:g}")

    top: list[Cell | None] = [cell(enlarged(data_picture(result.measurement.picture()), height, width), "measurement")]
    rows = [top]
    if len(samples) == 1:
        top.append(cell(samples[0], f"sample, seed {report.seeds[0]}", report.psnr))
    else:
        top.append(cell(result.mean, f"mean of {len(samples)} samples", report.psnr))
        top.append(map_cell(spread(result.std), "spread"))
        scores = report.psnr_samples or (None,) * len(samples)
        shown = list(zip(samples, report.seeds, scores, strict=True))[:4]
        rows.append([cell(image, f"sample, seed {seed}", psnr) for image, seed, psnr in shown])
    if result.imagined is not None:
        top.append(map_cell(spread(result.imagined), "imagined"))
    if truth is not None:
        top.append(cell(truth, "truth"))
    columns = max(map(len, rows))
    return montage([[*row, *[None] * (columns - len(row))] for row in rows])


def _check_device(name: str) -> None:
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise RecipeError(
            f"Expected one of {torch.cuda.device_count()} CUDA devices, got {name}; choose another --device."
        )
