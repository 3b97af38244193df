"""Figures of single samples against the truth, for studies: scores, and where the truth lies among the samples."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def sample_figures(
    truth: Tensor, samples: Tensor, psnrs: Sequence[float], ssims: Sequence[float], residuals: Sequence[float]
) -> dict[str, float]:
    """Numbers by flat names, so that means over slices are taken as of any other figure.

    "psnr[k]", "ssim[k]" and "residual_sigma[k]" are those of sample k; "rank[r]", for more than one sample, is the
    share of values that lie above exactly r samples (see `ranks`).

    Shapes: truth (C, H, W), samples (n, C, H, W); the others have n numbers.
    """
    named = {"psnr": psnrs, "ssim": ssims, "residual_sigma": residuals}
    if len(samples) > 1:
        named["rank"] = ranks(truth, samples)
    return {f"{name}[{k}]": float(value) for name, values in named.items() for k, value in enumerate(values)}


def ranks(truth: Tensor, samples: Tensor) -> list[float]:
    """Share of values at which the truth exceeds exactly r = 0 ... n of the n samples; 1 / (n + 1) each if right.

    A tie counts for all ranks it could have, in equal parts.   Shapes: truth (C, H, W), samples (n, C, H, W).

    Source: rank statistics as in Talts et al. 2018 (arXiv:1804.06788), over the pixels of an image.
    """
    below = (samples < truth).sum(0).flatten().cpu().numpy()
    ties = (samples == truth).sum(0).flatten().cpu().numpy()
    share = 1 / (1 + ties)
    rises = np.bincount(below, share, len(samples) + 2)
    falls = np.bincount(below + ties + 1, share, len(samples) + 2)
    counts = np.cumsum(rises - falls)[:-1]
    return [float(part) for part in counts / len(below)]


def coverage(shares: Sequence[float]) -> list[tuple[float, float]]:
    """Nominal and true coverage of the central intervals between the j-th smallest and the j-th largest sample.

    The interval of n samples that leaves out j on each side holds (n + 1 - 2 j) / (n + 1) of exchangeable truths, for
    any n: no correction for few samples is needed.

    Args:
        shares: as `ranks` gives them, n + 1 numbers.

    Returns:
        Pairs from the narrowest to the widest interval.
    """
    n = len(shares) - 1
    return [((n + 1 - 2 * j) / (n + 1), float(sum(shares[j : n - j + 1]))) for j in range(n // 2, 0, -1)]
