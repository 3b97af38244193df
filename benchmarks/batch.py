"""What a batch costs beyond its network calls, and what Dask workers add or take: a table of images a second.

python -m benchmarks.batch [--size 64] [--cases 24] [--steps 10] [--workers 2]

With --workers N the same cases also go to N local Dask processes of one thread each. Their start is timed by itself:
it is paid once a run. Leave OMP_NUM_THREADS alone, so that the process by itself has a thread for each core.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from app.batch import HERE, BatchOutcome, Options, Workers, run_batch
from app.cluster import local_cluster
from app.pictures import write_picture
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe

_OPTIONS = Options(precision="fp32")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    noise = {"kind": "gaussian", "sigma": 0.05}
    method = {"kind": "diffpir", "schedule": {"kind": "karras", "steps": options.steps}}
    recipe = Recipe.model_validate({"operator": {"kind": "identity"}, "noise": noise, "method": method})
    bare = Recipe.model_validate(
        {"operator": {"kind": "identity"}, "noise": noise, "model": {"kind": "none"}, "method": {"kind": "direct"}}
    )
    n = options.cases
    print(
        f"{n} pictures {options.size}x{options.size}, {options.steps} calls each, {torch.get_num_threads()} threads\n"
    )
    print(f"\n{'':<34}{'images/s':>9}{'against in-process':>20}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn = np.random.Generator(np.random.PCG64DXSM(0))
        (folder / "in").mkdir()
        for k in range(n):
            pixels = drawn.random((3, options.size, options.size), np.float32)
            write_picture(folder / "in" / f"{k:03d}.png", torch.from_numpy(pixels))
        inputs = sorted((folder / "in").iterdir())
        _timed(recipe, inputs[:2], folder / "warm")
        whole, done = _timed(recipe, inputs, folder / "out")

        def row(what: str, seconds: float) -> None:
            print(f"{what:<34}{n / seconds:>9.3f}{whole / seconds:>20.3f}", flush=True)

        row("batch, in-process", whole)
        row("network calls within it", sum(case.figures["network_seconds"] for case in done.cases))
        row("bare network, alone", _network(recipe, options.size, options.steps, n))
        cheap, of_them = _timed(bare, inputs, folder / "cheap")
        inside = statistics.median(case.seconds for case in of_them.cases)
        if options.workers:
            with _cluster(options.workers) as (there, started):
                began = time.perf_counter()
                _timed(recipe, inputs[: 2 * options.workers], folder / "warm-there", there)
                started += time.perf_counter() - began
                row(f"batch, {options.workers} Dask workers", _timed(recipe, inputs, folder / "there", there)[0])
                cheap_there = _timed(bare, inputs, folder / "cheap-there", there)[0]
    print(f"\na case without a network: {1e3 * cheap / n:.1f} ms, of which {1e3 * inside:.1f} ms reading and writing")
    if options.workers:
        print(f"the same with Dask: {1e3 * cheap_there / n:.1f} ms; workers are there and warm after {started:.1f} s")


def _timed(recipe: Recipe, inputs: Sequence[Path], out: Path, workers: Workers = HERE) -> tuple[float, BatchOutcome]:
    began = time.perf_counter()
    outcome = run_batch(recipe, inputs, out, _OPTIONS, workers=workers)
    return time.perf_counter() - began, outcome


@contextmanager
def _cluster(count: int) -> Iterator[tuple[Workers, float]]:
    began = time.perf_counter()
    with local_cluster(count) as cluster:
        yield Workers(0, cluster.scheduler_address), time.perf_counter() - began


def _network(recipe: Recipe, size: int, steps: int, cases: int) -> float:
    """Seconds of as many network calls as the batch makes, one image each: more at once gain nothing on a CPU."""
    denoiser = Pipeline.load(recipe, precision="fp32").denoiser
    assert denoiser is not None
    x, sigma = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.full((1,), 0.3)
    with torch.no_grad():
        denoiser(x, sigma)
        began = time.perf_counter()
        for _ in range(steps * cases):
            denoiser(x, sigma)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
