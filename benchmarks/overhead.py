"""What a sampler costs beyond its network, and what an operator costs beyond its bare transform; ratios in one run.

python -m benchmarks.overhead [--size 256] [--repeats 5]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from operators import Rng
from operators.blur import CircularBlur
from operators.kernels import gaussian_kernel
from restoration.assets import AssetStore
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS
from restoration.pipeline import Pipeline
from restoration.precision import Precision
from restoration.recipe import Recipe, read_recipe
from restoration.schedule import Karras


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def sampler(task: str, method: DiffPIR | DPS, size: int, precision: Precision, repeats: int) -> str:
    """Sampler time over network time of one sample, 1x3xsizexsize, the photo prior."""
    recipe, base = read_recipe(task)
    recipe = Recipe.model_validate({**recipe.model_dump(), "method": method, "seeds": (0,)})
    pipeline = Pipeline.load(recipe, AssetStore(), precision=precision, base=base)
    truth = Rng([1]).rand((3, size, size))[0]
    measurement = pipeline.simulate(truth)
    ratios, calls = [], 0.0
    for i in range(repeats + 1):
        report = pipeline.run(measurement).report
        calls = report.nfe
        if i:
            ratios.append(report.seconds / report.network_seconds)
    return (
        f"{type(method).__name__:8} {task:18} {precision}  {calls:.0f} calls  "
        f"sampler / network {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
    )


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
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(blur(options.size, options.repeats), flush=True)
    for task in ("deblur-gaussian", "deblur-motion", "sr-x4", "inpaint-random-70", "denoise"):
        for method in (DiffPIR(schedule=Karras(steps=10)), DPS(schedule=Karras(steps=5))):
            print(sampler(task, method, options.size, "auto", options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
