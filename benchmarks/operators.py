"""What each operator costs beside its bare transform: time as a ratio in one run, and memory beside it.

python -m benchmarks.operators [--repeats 15] [--only mri]

Ours and the reference are called in turn, so that whatever else the machine does falls on both alike; the figure is the
median of the ratios. Memory is the most that torch holds during a call beyond its inputs and constants.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from operators import Inpainting, LinearOperator, Rng
from operators.blur import CircularBlur
from operators.coils import birdcage_maps
from operators.ct import CTSpec
from operators.ct_geometry import SubsetAngles
from operators.kernels import gaussian_kernel
from operators.masks import RandomMask
from operators.mri import MRI, MultiCoilMRI
from operators.sampling import EquispacedFraction

Work = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """An operator, and the bare products it is held against; `limit` is what the project allows for the ratio."""

    operator: LinearOperator
    bare: Work
    bare_adjoint: Work
    bare_data: Callable[[Tensor], Tensor]
    limit: float


def blur() -> Case:
    """A 61x61 Gaussian on 3x256x256 against rfft2, product with a stored transfer function, irfft2."""
    operator = CircularBlur(gaussian_kernel(61, 3.0), (3, 256, 256))
    transfer = operator.transfer.to(torch.complex64)
    conjugate = transfer.conj().resolve_conj()

    def product(x: Tensor, factor: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * factor, s=(256, 256))

    return Case(operator, lambda x: product(x, transfer), lambda y: product(y, conjugate), lambda y: y, 1.3)


def inpainting() -> Case:
    """70 % of the pixels of 3x256x256 missing, against the product with the mask."""
    mask = RandomMask(fraction=0.7).build(256, 256)
    operator = Inpainting(mask, (3, 256, 256))
    weights = mask.to(torch.float32)
    return Case(operator, lambda x: x * weights, lambda y: y * weights, operator.data_as_image, 1.2)


def mri() -> Case:
    """One coil, 320x320, fourfold equispaced columns, against fft2 and a mask shifted beforehand."""
    mask = EquispacedFraction().build(320, 320)
    operator = MRI(mask, (1, 320, 320))
    weights = torch.fft.ifftshift(mask).to(torch.float32)

    def forward(x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho") * weights

    def adjoint(y: Tensor) -> Tensor:
        return torch.fft.ifft2(y * weights, norm="ortho")

    return Case(operator, forward, adjoint, operator.data_as_image, 1.5)


def mri_15_coils() -> Case:
    """Fifteen coils, 320x320, against the same products with maps and mask shifted beforehand, all samples at once."""
    mask, maps = EquispacedFraction().build(320, 320), birdcage_maps(15, 320, 320, 0)
    operator = MultiCoilMRI(mask, maps, (320, 320))
    shifted = torch.fft.ifftshift(maps, dim=(-2, -1)).to(torch.complex64)
    conjugate = shifted.conj().resolve_conj()
    weights = torch.fft.ifftshift(mask).to(torch.float32)

    def forward(x: Tensor) -> Tensor:
        return torch.fft.fft2(shifted * x[:, None], norm="ortho") * weights

    def adjoint(y: Tensor) -> Tensor:
        return (torch.fft.ifft2(y * weights, norm="ortho") * conjugate).sum(1)

    return Case(operator, forward, adjoint, operator.data_as_image, 1.3)


def ct() -> Case:
    """60 views of 256x256 against the products of the stored sparse matrix and its stored transpose with columns."""
    operator = CTSpec(angles=SubsetAngles(count=60), window=None).build((1, 256, 256), Path())
    projector = operator.projector
    shape = (projector.tracer.views * projector.tracer.rays, projector.tracer.pixels)
    parts = (projector._starts, projector._columns, projector._values)
    parts_t = (projector._starts_t, projector._columns_t, projector._values_t)
    matrix = torch.sparse_csr_tensor(*parts, shape)
    transposed = torch.sparse_csr_tensor(*parts_t, shape[::-1])
    # columns are laid out as the product wants them before the clock starts
    return Case(operator, lambda x: matrix @ x, lambda y: transposed @ y, lambda y: y, 1.3)


CASES: dict[str, Callable[[], Case]] = {
    "blur 61x61, 3x256x256": blur,
    "inpainting 70 %, 3x256x256": inpainting,
    "MRI 1 coil, 320x320": mri,
    "MRI 15 coils, 320x320": mri_15_coils,
    "CT 60 views, 256x256": ct,
}


def prepared(name: str, batch: int) -> dict[str, Callable[[], Tensor]]:
    """The four calls of a case, on fixed random inputs."""
    case = CASES[name]()
    op, rng = case.operator, Rng(range(batch))
    x, y = rng.randn(op.in_shape, complex=op.in_complex), rng.randn(op.out_shape, complex=op.out_complex)
    bare_x, bare_y = x, case.bare_data(y)
    if name.startswith("CT"):
        # a single column is faster as a vector
        bare_x, bare_y = (v.flatten(1).T.contiguous().squeeze(1) for v in (x, y))
    return {
        "forward": lambda: op(x),
        "bare forward": lambda: case.bare(bare_x),
        "adjoint": lambda: op.adjoint(y),
        "bare adjoint": lambda: case.bare_adjoint(bare_y),
    }


def seconds(work: Callable[[], Tensor]) -> float:
    """Wall-clock seconds of a call, over as many calls as take a few milliseconds."""
    began, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - began < 0.01:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls


def ratio(ours: Callable[[], Tensor], bare: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """The median of ours / bare, called in turn, and our median milliseconds."""
    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(repeats)]
    return statistics.median(a / b for a, b in pairs), 1e3 * statistics.median(a for a, _ in pairs)


def peak_mib(work: Callable[[], Tensor]) -> float:
    """Most memory that torch holds for a call beyond its inputs and constants, in MiB; its result is counted."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    results = profile.profiler.kineto_results if profile.profiler else None
    assert results is not None
    changes = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        held += change
        peak = max(peak, held)
    return peak / 2**20


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="a part of a row's name")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| operator | batch | A / bare | A* / bare | allowed | A ms | A* ms | memory A / bare MiB | A* / bare MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in CASES.items():
        if options.only.lower() not in name.lower():
            continue
        limit = make().limit
        for batch in (1, 8):
            calls = prepared(name, batch)
            with torch.no_grad():
                a, a_ms = ratio(calls["forward"], calls["bare forward"], options.repeats)
                b, b_ms = ratio(calls["adjoint"], calls["bare adjoint"], options.repeats)
            memory = {call: peak_mib(work) for call, work in calls.items()}
            print(
                f"| {name} | {batch} | {a:.2f} | {b:.2f} | {limit} | {a_ms:.2f} | {b_ms:.2f} | "
                f"{memory['forward']:.0f} / {memory['bare forward']:.0f} | "
                f"{memory['adjoint']:.0f} / {memory['bare adjoint']:.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
