"""Do the samplers sample the posterior? Samples of one measurement against the exact answer; Markdown on stdout.

python -m benchmarks.calibration [--samples 48] [--size 32] [--measurements 4]

Priors are Gaussian or a mixture of two, denoisers exact, so that whatever is wrong is the method's. See
docs/calibration.md for what the columns mean and for what each method claims.
"""

import argparse
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators import CircularBlur, Inpainting, LinearOperator, Rng
from operators.kernels import gaussian_kernel
from restoration.analytic import PowerLawPrior
from restoration.method import Method
from restoration.methods.daps import DAPS, Shrinking
from restoration.methods.ddnm import DDNM
from restoration.methods.ddrm import DDRM
from restoration.methods.dds import DDS
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS, LikelihoodGuidance, NormGuidance, ZetaGuidance
from restoration.methods.flow_chef import FlowChef
from restoration.methods.flow_dps import FlowDPS
from restoration.methods.lgd import LGD, LogMeanExp
from restoration.methods.mcg import MCG
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.pnp_flow import PnPFlow
from restoration.methods.rad import RAD
from restoration.methods.red_diff import REDDiff
from restoration.methods.sitcom import SITCOM
from restoration.prior import Prior
from restoration.schedule import Karras
from tests.oracle import Conjugate, Mixture

STD = 0.15
FINE = Karras(steps=100, sigma_max=5, sigma_min=0.01)
METHODS: dict[str, Method] = {
    "moment matching, full, 20 iterations": MomentMatching(iterations=20, tolerance=1e-4),
    "moment matching, full (default, 5)": MomentMatching(),
    "moment matching, full, 20 iterations, 400 levels": MomentMatching(
        schedule=Karras(steps=400, sigma_max=5, sigma_min=0.002), iterations=20, tolerance=1e-4
    ),
    "moment matching, row sums (TMPD)": MomentMatching(covariance="row-sums"),
    "PiGDM, std of the prior": PiGDM(std=STD),
    "PiGDM (default)": PiGDM(),
    "PiGDM, released step": PiGDM(step="released"),
    "DAPS, exact draw, width of the prior": DAPS(schedule=FINE, width=Shrinking(std=STD), shed=False),
    "DAPS (default)": DAPS(),
    "DPS, norm 0.3 (default)": DPS(),
    "DPS, norm 0.01": DPS(guidance=NormGuidance(scale=0.01)),
    "DPS, zeta' 1": DPS(guidance=ZetaGuidance()),
    "DPS, likelihood": DPS(guidance=LikelihoodGuidance()),
    "LGD-MC, mean misfit 0.3 (default)": LGD(),
    "LGD-MC, log-mean-exp, 10 particles": LGD(average=LogMeanExp(), particles=10),
    "DDRM (default)": DDRM(),
    "DDRM, eta 1": DDRM(eta=1.0),
    "DDNM+, spectrum (default)": DDNM(),
    "DDNM+, scalar": DDNM(form="scalar"),
    "DDNM, noise-free": DDNM(form="noise-free"),
    "DDS (default)": DDS(),
    "MCG (default)": MCG(),
    "DiffPIR (default)": DiffPIR(),
    "DiffPIR, 100 levels, zeta 0.3": DiffPIR(schedule=FINE, zeta=0.3),
    "PnP-DM (default)": PnPDM(),
    "PnP-DM, 60 + 60 rounds down to 0.03": PnPDM(schedule=Karras(steps=60, sigma_max=1.5, sigma_min=0.03), hold=60),
    "RED-diff (default)": REDDiff(),
    "SITCOM (default)": SITCOM(),
    "MCG-diff, 16 particles": MCGDiff(particles=16),
    "RAD (default)": RAD(),
    "RAD, 400 levels": RAD(schedule=Karras(steps=400, sigma_max=20, sigma_min=0.005)),
    "PnP-Flow (default)": PnPFlow(),
    "PnP-Flow, 1 draw": PnPFlow(draws=1),
    "FlowDPS (default)": FlowDPS(),
    "FlowChef (default)": FlowChef(),
    "FlowChef, rate 0.1": FlowChef(rate=0.1),
}


@dataclass(frozen=True)
class Problem:
    """Measurements of a Gaussian prior, and the orthonormal directions, as columns, of the statistics."""

    title: str
    worlds: list[Conjugate]
    directions: Tensor
    seen: Tensor


def problems(size: int, measurements: int) -> list[Problem]:
    """Half the pixels of independent and of correlated images, and a blur of correlated ones."""
    shape = (1, size, size)
    mask = Rng([2], dtype=torch.float64).rand((size, size))[0] < 0.5
    pixels, seen, together = torch.eye(size * size).double(), mask.flatten(), power_law(size)
    # The same prior as the covariance says, but fast.
    fast = Prior(PowerLawPrior(0.5, STD, 1.2, 1))

    def worlds(operator: LinearOperator, sigma: float, covariance: Tensor | None) -> list[Conjugate]:
        made = [
            Conjugate.make(operator, std=STD, sigma=sigma, covariance=covariance, seed=k) for k in range(measurements)
        ]
        return made if covariance is None else [replace(w, prior=fast) for w in made]

    apart = worlds(Inpainting(mask, shape), 0.1, None)
    holes = worlds(Inpainting(mask, shape), 0.1, together)
    blurred = worlds(CircularBlur(gaussian_kernel(9, 1.5), shape), 0.02, together)
    _, waves = torch.linalg.eigh(blurred[0].posterior_covariance)
    before = (waves * (together @ waves)).sum(0)
    after = (waves * (blurred[0].posterior_covariance @ waves)).sum(0)
    return [
        Problem("Independent pixels, half of them measured, noise 0.1", apart, pixels, seen),
        Problem("Correlated pixels (1/f), half of them measured, noise 0.1", holes, pixels, seen),
        Problem("Correlated pixels (1/f), Gaussian blur of std 1.5, noise 0.02", blurred, waves, after < 0.5 * before),
    ]


def power_law(size: int) -> Tensor:
    """Covariance of `PowerLawPrior` images of one channel, (size², size²)."""
    basis = torch.eye(size * size).double().reshape(-1, size, size)
    spectrum = PowerLawPrior(0.0, STD, 1.2, 1).spectrum(size, size, basis)
    spread = torch.fft.irfft2(spectrum * torch.fft.rfft2(basis, norm="ortho"), s=(size, size), norm="ortho")
    columns: Tensor = spread.flatten(1)
    return (columns + columns.T) / 2


def figures(problem: Problem, world: Conjugate, samples: Tensor) -> Tensor:
    """Mean error, std ratios, coverages and residual of samples (n, d), (6,)."""
    along = problem.directions
    exact = (along * (world.posterior_covariance @ along)).sum(0).sqrt()
    here, truth, mean = samples @ along, world.truth.flatten() @ along, world.posterior_mean @ along
    error = ((here.mean(0) - mean) / exact).square().mean().sqrt()
    ratio = here.std(0) / exact
    low, high = torch.quantile(here, torch.tensor([0.05, 0.95]).double(), dim=0)
    held = ((low <= truth) & (truth <= high)).double()
    images = samples.reshape(-1, *world.likelihood.operator.in_shape)
    residual = world.likelihood.residual_sigma(images).square().mean().sqrt()
    parts = [values[part].mean() for values in (ratio, held) for part in (problem.seen, ~problem.seen)]
    return torch.stack([error, *parts, residual])


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0e}"


def draws(mean: Tensor, covariance: Tensor, seeds: range) -> Tensor:
    """Exact draws, (n, d): what a right method would give."""
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    return mean + Rng(seeds, dtype=torch.float64).randn((len(mean),)) @ root.T


def run(method: Method, world: Conjugate | Mixture, seeds: range) -> Tensor | None:
    """Samples (n, d), or None where the measurement lacks what the method needs."""
    likelihood, denoiser = world.likelihood, world.prior.denoiser
    if not method.needs <= likelihood.operator.offers | likelihood.noise.offers | denoiser.offers:
        return None
    *_, step = method.run(world.prior, likelihood, Rng(seeds, dtype=torch.float64))
    return step.x0.flatten(1)


def table(problem: Problem, seeds: range) -> None:
    """A row for each method, averaged over the measurements."""

    def line(name: str, sampled: list[Tensor], rest: str) -> None:
        each = [figures(problem, w, x) for w, x in zip(problem.worlds, sampled, strict=True)]
        values = torch.stack(each).mean(0)
        columns = " | ".join(map(_short, values.tolist())) if values.isfinite().all() else "diverges | | | | |"
        print(f"| {name} | {columns} | {rest} |", flush=True)

    print(f"\n### {problem.title}\n")
    print("| method | mean error | std seen | std unseen | cov seen | cov unseen | residual | calls | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    line("*exact draws*", [draws(w.posterior_mean, w.posterior_covariance, seeds) for w in problem.worlds], "|")
    blind = [draws(torch.full_like(w.posterior_mean, w.mean), w.covariance, seeds) for w in problem.worlds]
    line("*draws of the prior*", blind, "|")
    for name, method in METHODS.items():
        began, bill = time.process_time(), problem.worlds[0].prior.cost
        before = bill.denoised
        first = run(method, problem.worlds[0], seeds)
        if first is None:
            continue
        calls, seconds = (bill.denoised - before) // len(seeds), time.process_time() - began
        others = [x for w in problem.worlds[1:] if (x := run(method, w, seeds)) is not None]
        line(name, [first, *others], f"{calls} | {seconds:.0f}")


def modes(seeds: range) -> None:
    """Two modes of which the data prefer the second: the share of samples in the first, and the spread of a pixel."""
    shape = (1, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2, 2] = mask[5, 5] = True
    means = torch.stack([torch.full(shape, 0.35), torch.full(shape, 0.65)]).double()
    y = torch.tensor([[[0.54, 0.55]]]).double()
    even, std = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.1, 0.1]).double()
    world = Mixture.make(Inpainting(mask, shape), even, means, std, y=y, sigma=0.1)
    print(f"\n### Two modes, two pixels measured ({len(seeds)} samples)\n")
    print("| method | share of the first mode | spread of a pixel over the exact one |\n|---|---|---|")
    print(f"| *exact* | {float(world.weights[0]):.2f} | 1.00 |")
    exact = world.covariance.diagonal().sqrt()
    for name, method in METHODS.items():
        samples = run(method, world, seeds)
        if samples is not None:
            share = float(world.shares(samples)[0])
            print(f"| {name} | {share:.2f} | {_short(float((samples.std(0) / exact).mean()))} |", flush=True)


def main() -> None:
    """Every method on every problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--measurements", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for problem in problems(options.size, options.measurements):
        table(problem, range(options.samples))
    modes(range(4 * options.samples))


if __name__ == "__main__":
    main()
