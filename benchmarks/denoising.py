"""Colour denoising PSNR of a prior, as the literature measures it: noise 15, 25 and 50 of 255, whole images.

    python -m benchmarks.denoising FOLDER [--count 68] [--precision auto]

The noise is Gaussian with a fixed seed per image and is not clipped; the estimate is clipped to [0, 1], unrounded.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from app.pictures import read_picture
from operators import Rng
from restoration.assets import AssetStore, load_denoiser
from restoration.metrics import psnr
from restoration.prior import Prior


def main() -> int:
    """Print the mean PSNR per level."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--levels", type=int, nargs="+", default=[15, 25, 50])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options = parser.parse_args()
    store = AssetStore()
    card = store.card(options.prior, "prior")
    denoiser = load_denoiser(card, store.resolve(card), torch.device("cpu"), options.precision)
    files = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".bmp"})
    files = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(options.count, len(files)))]
    for level in options.levels:
        values, prior = [], Prior(denoiser)
        for number, file in enumerate(files):
            truth = read_picture(file).pixels
            noisy = truth + level / 255 * Rng([number]).randn(tuple(truth.shape))[0]
            values.append(psnr(truth, prior.denoise(noisy[None], level / 255)[0]))
        each = prior.cost.seconds / len(values)
        print(
            f"noise {level}: {np.mean(values):.3f} dB, {each:.3f} s an image, {len(values)} images, {options.precision}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
