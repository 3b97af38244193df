"""Find the parameters of the classical baselines on photographs that no figure is reported on.

    python -m benchmarks.tune_classical FOLDER --crop 256

FOLDER holds photographs that are neither test pictures nor in the demo. Prints the mean PSNR over them for every
candidate; the best of each go into `app/classical.py`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from app.classical import CLASSICAL
from app.pictures import read_picture
from benchmarks.quality import classical
from restoration.method import Method
from restoration.methods.direct import Direct, OpenCVInpaint
from restoration.methods.tv import TV
from restoration.methods.wiener import Wiener
from restoration.pipeline import Pipeline
from restoration.recipe import NoPrior, Recipe, read_recipe

CANDIDATES: list[Method] = [
    Direct(),
    *(TV(weight=w) for w in (3, 4, 5, 6, 7, 9, 12, 18, 25, 35)),
    *(Wiener(std=s, exponent=e) for e, s in ((1.0, 0.15), (1.3, 0.1), (1.3, 0.15), (1.3, 0.3))),
]
INPAINTING: list[Method] = [OpenCVInpaint(algorithm=a, radius=r) for a, r in (("telea", 2.0), ("ns", 3.0))]


def main() -> int:
    """Print a line per candidate, best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crop", type=int, default=256)
    several = [task for task, methods in CLASSICAL.items() if len(methods) > 1]  # the others are not linear
    parser.add_argument("--tasks", nargs="+", default=several)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = [read_picture(p).pixels for p in sorted(options.folder.iterdir()) if p.suffix in {".jpg", ".png"}]
    n = options.crop
    for task in options.tasks:
        recipe, base = read_recipe(task)
        plain = Pipeline.load(
            Recipe.model_validate({**recipe.model_dump(), "model": NoPrior(), "method": Direct()}), base=base
        )
        crops = [p[:, (p.shape[1] - n) // 2 :, (p.shape[2] - n) // 2 :][:, :n, :n] for p in pictures]
        measurements = [plain.simulate(c, seed=i) for i, c in enumerate(crops)]
        lines = []
        for method in CANDIDATES + (INPAINTING if task.startswith("inpaint") else []):
            scores = [classical(recipe, method, m).report for m in measurements]
            psnr = float(np.mean([s.psnr or 0.0 for s in scores]))
            residual = float(np.mean([s.residual_sigma for s in scores]))
            lines.append((psnr, f"{task}  {psnr:.3f} dB  residual {residual:.2f}  {method.model_dump_json()}"))
        print("\n".join(line for _, line in sorted(lines, reverse=True)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
