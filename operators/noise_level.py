"""How much noise there is, judged from the data alone.

Everything is computed per sample, on the CPU and in double precision. Data that were sharpened, denoised, resized or
compressed have no white noise left, and what is found here is then too low.
"""

from functools import cache
from math import log

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg, optimize, stats
from torch import Tensor

from operators.errors import ShapeError

_PATCH = 8  # largest side of a patch
_UNKNOWNS = 144  # pixels of a patch in all channels, at most, unless its side would fall below 3
_PATCHES = 60_000  # patches looked at, at most
_BINS = 20  # grey levels at which the noise of a camera is measured


def estimate_sigma(y: Tensor) -> Tensor:
    """Standard deviation of white Gaussian noise of one size in pictures, for `Gaussian(sigma)`.

    The variance is the mean of the smallest eigenvalues of the covariance of small patches, all channels together:
    those in which the picture itself has nothing. Patches with more texture than noise can explain are left out, and
    so are patches with clipped pixels. docs/operators.md has the errors found on photographs.

    Args:
        y: pictures (B, C, H, W), real or complex, at least 32 x 32.

    Returns:
        (B,), in the units of y; per real component for complex pictures.

    Raises:
        ShapeError: wrong shape, too small or not finite.

    Source: Chen, Zhu, Heng 2015 (ICCV), choice of the eigenvalues; Liu, Tanaka, Okutomi 2013 (IEEE TIP), choice of the
    patches.
    Deviations: the two are combined; patches shrink with the picture, so that there are 160 pixels per unknown.
    """
    _check(y)
    found = []
    for picture in y.detach().cpu():
        parts = torch.view_as_real(picture).movedim(-1, 0).flatten(0, 1) if picture.is_complex() else picture
        x = parts.double()
        side = _side(x[0].numel(), len(x))
        patches = _patches(x[None], side, lower_end=True)
        found.append(_flat_variance(patches)[0] ** 0.5)
    return torch.tensor(found, dtype=y.real.dtype, device=y.device)


def estimate_poisson_gaussian(y: Tensor) -> tuple[Tensor, Tensor]:
    """The noise of a camera, variance = gain · clean + sigma², for `PoissonGaussian(peak=1 / gain, sigma)`.

    The variance is measured at 20 grey levels as by `estimate_sigma`, and a line is fitted that outliers (textured
    levels) pull at only weakly. A picture tells gain and sigma apart only by its range of grey levels: the line is
    much better known near its middle than its two parameters are, and a picture without shadows says little of sigma.

    Args:
        y: pictures (B, C, H, W), real, linear in light, black at 0, at least 64 x 64; all channels share the noise.

    Returns:
        gain (B,) and sigma (B,), both >= 0; gain 0 is Gaussian noise, sigma 0 Poisson noise.

    Raises:
        ShapeError: wrong shape, complex, too small, not finite or without any patch that is not clipped.

    Source: Foi, Trimeche, Katkovnik, Egiazarian 2008 (IEEE TIP), the model and the fit over grey levels.
    Deviations: patches instead of wavelet level sets, `estimate_sigma`'s variance, a soft absolute loss.
    """
    _check(y, 64)
    if y.is_complex():
        raise ShapeError("Camera noise expected real pictures, got complex ones; use estimate_sigma.")
    gains, sigmas = [], []
    for picture in y.detach().cpu():
        side = _side(picture.numel() // _BINS, 1)
        patches = _patches(picture.double()[:, None], side, lower_end=False)
        order = patches.mean((1, 2, 3)).argsort()
        levels, variances = [], []
        for part in order.tensor_split(_BINS):
            variance, kept = _flat_variance(patches[part])
            levels.append(float(patches[part][kept].mean()))
            variances.append(variance)
        gain, offset = _line(np.array(levels), np.array(variances))
        gains.append(gain)
        sigmas.append(offset**0.5)
    return torch.tensor(gains).to(y), torch.tensor(sigmas).to(y)


def estimate_kspace_sigma(kspace: Tensor, *, outer: float = 0.15) -> Tensor:
    """Standard deviation, per real component, of the noise in k-space, for `Gaussian(sigma)` on MRI data.

    The median magnitude of the outermost measured samples, where anatomy has all but died out, over that of unit
    complex noise, sqrt(2 log 2). Zeros count as not measured. Coils are taken together; put them into the batch to
    have one figure each.

    Args:
        kspace: (B, ..., H, W) complex, zero frequency in the middle.
        outer: share of the measured samples that is looked at, farthest out first.

    Returns:
        (B,), in the units of `kspace`.

    Raises:
        ShapeError: not complex, or fewer than 100 samples to look at.

    Source: medians of magnitudes, Gudbjartsson & Patz 1995 (noise alone is Rayleigh distributed). Deviations: none.
    """
    if not kspace.is_complex() or kspace.ndim < 3:
        raise ShapeError(
            f"Expected complex k-space (B, ..., H, W), got {tuple(kspace.shape)} {kspace.dtype}; use estimate_sigma."
        )
    rows, columns = (torch.arange(size).sub(size // 2).div(size).square() for size in kspace.shape[-2:])
    radius = rows[:, None] + columns
    found = []
    for data in kspace.detach().cpu():
        magnitude = data.abs().double()
        measured = magnitude > 0
        where = radius.expand_as(magnitude)[measured]
        count = int(outer * where.numel())
        if count < 100:
            raise ShapeError(f"Expected at least 100 outer k-space samples, got {count}; look at a larger share.")
        farthest = magnitude[measured][where.argsort(descending=True, stable=True)[:count]]
        found.append(float(farthest.median()) / (2 * log(2)) ** 0.5)
    return torch.tensor(found, dtype=kspace.real.dtype, device=kspace.device)


def _check(y: Tensor, smallest: int = 32) -> None:
    if y.ndim != 4 or min(y.shape[-2:]) < smallest or not (y.is_floating_point() or y.is_complex()):
        raise ShapeError(
            f"Expected pictures (B, C, H, W) of at least {smallest} x {smallest}, got {tuple(y.shape)} {y.dtype}; "
            "noise cannot be judged from less."
        )
    if not bool(y.isfinite().all()):
        raise ShapeError("Expected finite pictures, got NaN or infinity; repair the data first.")


def _side(pixels: int, channels: int) -> int:
    """Side of the patches: so many unknowns, channels · side², that there are 160 pixels for each."""
    return int(np.clip((min(_UNKNOWNS, pixels / 160) / channels) ** 0.5, 3, _PATCH))


def _patches(x: Tensor, side: int, *, lower_end: bool) -> Tensor:
    """Square patches without clipped pixels: (G, C, H, W) → (n, C, side, side).

    The extreme values count as clipped where more than one pixel in a thousand has them; the lower one may be no light.
    """
    clipped = torch.zeros_like(x, dtype=torch.bool)
    for end in (x.max(), x.min()) if lower_end else (x.max(),):
        at_end = x == end
        if int(at_end.sum()) > max(8, 1e-3 * x.numel()):
            clipped = clipped | at_end
    places = x.shape[0] * (x.shape[2] - side + 1) * (x.shape[3] - side + 1)
    stride = int(np.ceil(max(1.0, places / _PATCHES) ** 0.5))
    windows, spoilt = (v.unfold(2, side, stride).unfold(3, side, stride) for v in (x, clipped))
    good = ~spoilt.transpose(1, 2).transpose(2, 3).flatten(3).any(-1)
    patches: Tensor = windows.permute(0, 2, 3, 1, 4, 5)[good]
    if len(patches) < 5 * x.shape[1] * side**2:
        raise ShapeError("Expected pictures that are not clipped, got few such patches; expose or crop otherwise.")
    return patches


def _flat_variance(patches: Tensor) -> tuple[float, Tensor]:
    """Variance of the noise, and which patches were flat enough to tell.   Shapes: (n, C, side, side) → (n,) bool."""
    steps = patches.diff(dim=-1).square().sum((1, 2, 3)) + patches.diff(dim=-2).square().sum((1, 2, 3))
    # without the means, by which the patches of one grey level were chosen
    vectors = (patches.flatten(2) @ _details(patches.shape[-1])).flatten(1)
    most = _most_gradient(patches.shape[1], patches.shape[-1])
    kept = torch.ones(len(patches), dtype=torch.bool)
    variance = _smallest(vectors)
    for _ in range(10):
        flat = steps < most * variance
        if flat.sum() < 10 * vectors.shape[1]:
            break
        kept, before, variance = flat, variance, _smallest(vectors[flat])
        if abs(variance - before) <= 1e-3 * before:
            break
    return variance, kept


def _smallest(vectors: Tensor) -> float:
    """Mean of the smallest eigenvalues of the covariance, so many that mean and median agree, as those of noise do."""
    values = torch.linalg.eigvalsh(vectors.T.cov()).clamp(min=0).numpy()
    for count in range(len(values), 1, -1):
        if values[:count].mean() <= np.median(values[:count]):
            return float(values[:count].mean())
    return float(values[0])


@cache
def _details(side: int) -> Tensor:
    """Orthonormal basis of the patches of mean zero.   Shapes: → (side², side² − 1)."""
    return torch.from_numpy(linalg.null_space(np.ones((1, side**2))))


@cache
def _most_gradient(channels: int, side: int) -> float:
    """Sum of squared differences in a patch that unit noise exceeds once in a million (gamma law of equal moments)."""
    step = np.diff(np.eye(side), axis=0)
    one = step.T @ step
    form = np.kron(np.eye(side), one) + np.kron(one, np.eye(side))
    mean, variance = channels * np.trace(form), 2 * channels * np.trace(form @ form)
    return float(stats.gamma.isf(1e-6, mean**2 / variance, scale=variance / mean))


def _line(levels: npt.NDArray[np.float64], variances: npt.NDArray[np.float64]) -> tuple[float, float]:
    """gain, offset >= 0 of variances ≈ gain · levels + offset, in relative errors and with a soft absolute loss."""
    unit, reach = float(np.median(variances)), float(np.abs(levels).max())
    if unit == 0 or reach == 0:
        return 0.0, unit

    def errors(guess: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        fitted = np.maximum(guess[0] * levels / reach + guess[1], 1e-3)
        logs: npt.NDArray[np.float64] = np.log(np.maximum(variances / unit, 1e-6) / fitted)
        return logs

    best = optimize.least_squares(errors, [0.5, 0.5], bounds=(0, np.inf), loss="soft_l1", f_scale=0.03)
    return float(best.x[0]) * unit / reach, float(best.x[1]) * unit
