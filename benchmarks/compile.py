"""torch.compile for the photo prior's network: how much a call gains, what compiling costs, what changes in the answer.

python -m benchmarks.compile [--against channels-last] [--sizes 128 256] [--threads 1 2] [--repeats 15]

With --against channels-last it is the network as it is, in the other layout, that is compared.
"""

import argparse
import copy
import statistics
import sys
import time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import torch
from torch import nn

from operators import Rng
from restoration.assets import AssetStore, load_state


def network() -> nn.Module:
    """The bare network of the photo prior, fp32."""
    store = AssetStore()
    card = store.card("photo", "prior")
    if card.net is None:
        raise TypeError("the photo prior has a network")
    net = card.net.build()
    load_state(net, store.resolve(card))
    return net.requires_grad_(requires_grad=False).eval()


def seconds(net: Any, *inputs: torch.Tensor) -> tuple[float, float]:
    """Seconds of a call by the clock, and of processors, which hardly depend on what else runs; gcc's are included."""
    clock, work = time.perf_counter(), _processors()
    net(*inputs)
    return time.perf_counter() - clock, _processors() - work


def _processors() -> float:
    spent = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def line(net: nn.Module, against: str, size: int, threads: int, repeats: int) -> str:
    """A row of the table at 1x3xsizexsize: both networks called in turn on the same image; medians."""
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    x, noise = Rng([0]).randn((3, size, size)), torch.full((1,), -0.5)
    other: Any = torch.compile(net)
    y = x
    if against == "channels-last":
        other = copy.deepcopy(net).to(memory_format=torch.channels_last)
        y = x.contiguous(memory_format=torch.channels_last)
    net(x, noise)
    first = seconds(other, y, noise)
    gap = (other(y, noise) - net(x, noise)).abs().max().item()
    pairs = [(seconds(net, x, noise), seconds(other, y, noise)) for _ in range(repeats)]
    wall, work = ([(a[k], b[k]) for a, b in pairs] for k in (0, 1))
    eager, fast = (statistics.median(side) * 1e3 for side in zip(*work, strict=True))
    return (
        f"| {size} | {threads} | {eager:.0f} | {fast:.0f} | {_ratio(work)} | {_ratio(wall)} | "
        f"{first[0]:.0f} / {first[1]:.0f} | {gap:.1e} |"
    )


def _ratio(pairs: list[tuple[float, float]]) -> str:
    """Median of the ratios of pairs, and their middle half."""
    ratios = sorted(b / a for a, b in pairs)
    quarter = len(ratios) // 4
    return f"{statistics.median(ratios):.3f} ({ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})"


def main() -> int:
    """Print the table, in ms of processor time; torch's cache on disk is off, so that compiling is paid in full."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", choices=["compiled", "channels-last"], default="compiled")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch._inductor.config.force_disable_caches = True
    torch._inductor.config.compile_threads = 1  # in this process, so that its time is counted
    net, name = network(), options.against
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, fp32")
    print(f"| size | threads | eager | {name} | {name} / eager | the same, wall clock | first call, s | difference |")
    print("|---|---|---|---|---|---|---|---|")
    with torch.no_grad():
        for size in options.sizes:
            for threads in options.threads:
                print(line(net, name, size, threads, options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
