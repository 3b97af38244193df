"""What a batch costs beyond its network calls: images a second of both, and seconds a case without a network.

python -m benchmarks.batch [--size 64] [--cases 24] [--steps 10]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from app.batch import Options, run_batch
from app.pictures import write_picture
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    noise = {"kind": "gaussian", "sigma": 0.05}
    method = {"kind": "diffpir", "schedule": {"kind": "karras", "steps": options.steps}}
    recipe = Recipe.model_validate({"operator": {"kind": "identity"}, "noise": noise, "method": method})
    bare = Recipe.model_validate(
        {"operator": {"kind": "identity"}, "noise": noise, "model": {"kind": "none"}, "method": {"kind": "direct"}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn = np.random.Generator(np.random.PCG64DXSM(0))
        (folder / "in").mkdir()
        for k in range(options.cases):
            pixels = drawn.random((3, options.size, options.size), np.float32)
            write_picture(folder / "in" / f"{k:03d}.png", torch.from_numpy(pixels))
        outcome = run_batch(recipe, [folder / "in"], folder / "warm", Options(precision="fp32"))
        began = time.perf_counter()
        outcome = run_batch(recipe, [folder / "in"], folder / "out", Options(precision="fp32"))
        whole = time.perf_counter() - began
        inside = sum(case.figures["network_seconds"] for case in outcome.cases)
        network = _network(recipe, options.size, options.steps, options.cases)
        run_batch(bare, [folder / "in"], folder / "warm2")
        began = time.perf_counter()
        cheap = run_batch(bare, [folder / "in"], folder / "out2")
        overhead = time.perf_counter() - began
    n = options.cases
    print(f"{n} pictures {options.size}x{options.size}, {options.steps} calls each, {torch.get_num_threads()} threads")
    print(f"batch                    {n / whole:.3f} images/s")
    print(f"bare network, alone      {n / network:.3f} images/s; ratio {network / whole:.3f}")
    print(f"network inside the batch {n / inside:.3f} images/s; ratio {inside / whole:.3f}")
    median = statistics.median(case.seconds for case in cheap.cases)
    print(f"a case without a network {1e3 * overhead / n:.1f} ms, of which {1e3 * median:.1f} ms reading and writing")


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
