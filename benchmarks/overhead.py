"""What a sampler costs beyond its network, and what an operator costs beyond its bare transform; ratios in one run.

python -m benchmarks.overhead [--size 256] [--repeats 5] [--all TASK]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from operators import Rng
from operators.blur import CircularBlur
from operators.kernels import gaussian_kernel
from operators.spec import kinds
from restoration.assets import AssetStore
from restoration.method import Method
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS
from restoration.pipeline import Pipeline
from restoration.precision import Precision
from restoration.recipe import AnyMethod, Recipe, read_recipe
from restoration.schedule import Karras

_FEWER: dict[str, dict[str, Any]] = {
    "daps": {"shed": False},
    "sitcom": {"iterations": 3},
    "mcg-diff": {"particles": 4},
}
"""What would take minutes a level at its defaults, or more levels than four; the work between calls is the same."""


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def sampler(task: str, method: Method, size: int, precision: Precision, repeats: int) -> str:
    """Sampler time over network time of one sample, 1x3xsizexsize, the photo prior."""
    recipe, base = read_recipe(task)
    recipe = Recipe.model_validate({**recipe.model_dump(), "method": method, "seeds": (0,)})
    pipeline = Pipeline.load(recipe, AssetStore(), precision=precision, base=base)
    truth = Rng([1]).rand((3, size, size))[0]
    measurement = pipeline.simulate(truth)
    ratios = []
    for _ in range(repeats + 1):
        report = pipeline.run(measurement).report
        ratios.append(report.seconds / report.network_seconds)
    calls, ratios = report.nfe, ratios[1:]
    return (
        f"{type(method).__name__:14} {task:18} {precision}  {calls:.0f} calls, {report.vjps:.0f} pullbacks  "
        f"sampler / network {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
    )


def all_samplers(task: str, size: int, repeats: int) -> Iterator[str]:
    """A line for every method with levels that can do a task, at four of them and otherwise its defaults."""
    recipe, base = read_recipe(task)
    for name, kind in kinds(AnyMethod).items():
        if "schedule" not in kind.model_fields:
            continue
        settings = kind.model_validate({"kind": name}).model_dump() | _FEWER.get(name, {})
        settings["schedule"]["steps"] = 4
        changed = Recipe.model_validate({**recipe.model_dump(), "method": settings})
        if not changed.problems(AssetStore(), base):
            yield sampler(task, changed.method, size, "auto", repeats)


def blur(size: int, repeats: int) -> str:
    """FFT blur over the bare product of transforms with a stored transfer function, in alternation."""
    operator = CircularBlur(gaussian_kernel(61, 3.0), (3, size, size))
    x = Rng([0]).randn((3, size, size))
    transfer = operator.transfer.to(torch.complex64)

    def bare() -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=(size, size))

    ratios = []
    with torch.no_grad():
        for _ in range(repeats * 10):
            ratios.append(median_seconds(lambda: operator(x), 5) / median_seconds(bare, 5))
    return f"CircularBlur / bare rfft2 {statistics.median(ratios):.3f} (1x3x{size}x{size})"


def main() -> int:
    """Print a line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all", metavar="TASK", help="every method that can do this preset, instead")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.all:
        for line in all_samplers(options.all, options.size, options.repeats):
            print(line, flush=True)
        return 0
    print(blur(options.size, options.repeats), flush=True)
    for task in ("deblur-gaussian", "deblur-motion", "sr-x4", "inpaint-random-70", "denoise"):
        for method in (DiffPIR(schedule=Karras(steps=10)), DPS(schedule=Karras(steps=5))):
            print(sampler(task, method, options.size, "auto", options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
