"""A guess of what is wrong with a picture, from the picture alone: missing parts, compression, blur and noise."""

import functools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from torch import Tensor

from app.gui.form import LEAST_SIGMA
from app.gui.proxy import read_shown
from app.pictures import read_picture
from operators import Gaussian
from operators.errors import PreimageError, ReadError
from operators.jpeg import quantisation_table
from operators.noise_level import estimate_sigma
from restoration.assets import AssetStore

_SIDE = 768  # pixels a side, in the middle, that are looked at
_SMALLEST = 48
_FALL = 1.25  # amplitudes of photographs fall as 1 / f^1.25, give or take 0.2
_BLURRED = 0.8  # px: photographs that nobody blurred are judged up to 0.5
_DIMMED = 1.5  # logarithm of power
_NOISY = 0.012
_COARSE = 60  # JPEG quality up to which compression shows
_MISFIT = 0.45  # of the spectrum's logarithm: spectra further from any photograph's are not judged

Array = NDArray[np.float64]


def suggest(path: Path, assets: AssetStore | None = None) -> dict[str, Any]:
    """What the form of problems is told; JSON.

    Returns:
        `problem` (a card of the form, or None), `sigma` and `width` (None where they cannot be told; unit range and
        pixels), `quality` of a JPEG file, `missing` (share of pixels that the file marks as missing), `value` of the
        form (or None), `sentence`, which says that it is a guess, and `when` (seconds), by which two guesses differ.

    Raises:
        ReadError: the picture cannot be read.
    """
    missing = 0.0
    try:
        pixels = read_picture(path).pixels
    except ReadError:
        shown = read_shown(path)  # what is refused there for its transparency or NaN can be read here
        if shown.missing is None:
            raise
        missing = float(shown.missing.mean())
        return _answer("missing", None, None, None, missing)
    middle = _middle(pixels)
    sigma = _noise(middle)
    width = blur_width(middle, sigma or 0.0)
    quality = _jpeg_quality(path)
    if quality is not None and quality[0] <= _COARSE:
        return _answer("jpeg", sigma, None, quality, missing)
    if width is not None and width >= _BLURRED:
        return _answer("blur", sigma, width, quality, missing)
    return _answer("noise" if sigma is not None and sigma >= _NOISY else None, sigma, width, quality, missing)


def blur_width(picture: Tensor, sigma: float) -> float | None:
    """Standard deviation of a Gaussian that could have blurred a photograph, in pixels; None where it cannot be told.

    The spectrum of brightness, averaged over directions, is fitted by that of photographs, c / f^2.5, times that of a
    Gaussian, exp(-4 pi² width² f²), over the frequencies from the lowest up to where noise takes over. Out-of-focus and
    motion blur have the width of a Gaussian about as wide.

    Args:
        picture: (C, H, W) in unit range.
        sigma: standard deviation of its noise.

    Source: the spectra of photographs, Field 1987. Deviations: the exponent is fixed.
    """
    light = picture.mean(0).double().numpy()
    frequency, power = _spectrum(light)
    floor = max(sigma, 1 / 255 / math.sqrt(12)) ** 2 / len(picture)
    heard = (power > 3 * floor) & (frequency < 0.45)
    count = int(np.argmin(heard)) if not heard.all() else len(heard)
    if count < 5:
        return None
    f, p = frequency[:count], power[:count]
    target = np.log(p - floor) + 2 * _FALL * np.log(f)
    design = np.stack([np.ones(count), -4 * np.pi**2 * f**2], 1)
    weight = np.sqrt(f)[:, None]  # rings hold as many frequencies as their radius is long
    best = np.linalg.lstsq(design * weight, target * weight[:, 0], rcond=None)[0]
    misfit = float(np.sqrt(np.average((target - design @ best) ** 2, weights=f)))
    # a width must have dimmed the highest of these frequencies, or a photograph of less detail would do as well
    dimmed = 4 * np.pi**2 * float(best[1]) * f[-1] ** 2
    if misfit > _MISFIT or (best[1] > _BLURRED**2 and dimmed < _DIMMED):
        return None
    return float(np.sqrt(max(0.0, best[1])))


def _spectrum(light: Array) -> tuple[Array, Array]:
    """Mean power on rings of equal width, as their median tells it (power is exponentially distributed)."""
    height, width = light.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2((light - light.mean()) * window)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    edges = np.linspace(0.02, 0.5, 49 if min(light.shape) >= 128 else 25)
    ring = np.digitize(radius.ravel(), edges)
    flat = power.ravel()
    medians = np.array([np.median(flat[ring == k]) for k in range(1, len(edges))]) / math.log(2)
    return (edges[1:] + edges[:-1]) / 2, medians


def _middle(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    top, left = max(0, height - _SIDE) // 2, max(0, width - _SIDE) // 2
    return pixels[:, top : top + _SIDE, left : left + _SIDE]


def _noise(picture: Tensor) -> float | None:
    if min(picture.shape[-2:]) < _SMALLEST:
        return None
    try:
        with torch.no_grad():
            return float(estimate_sigma(picture[None])[0])
    except PreimageError:  # nearly all of it is clipped
        return None


def _jpeg_quality(path: Path) -> tuple[int, str] | None:
    """Quality and chroma sampling of a JPEG file, if its tables are about those of libjpeg."""
    try:
        with Image.open(path, formats=["JPEG"]) as opened:
            tables = opened.quantization if isinstance(opened, JpegImagePlugin.JpegImageFile) else {}
            sampling = JpegImagePlugin.get_sampling(opened)
    except (OSError, ValueError, SyntaxError):
        return None
    if 0 not in tables:
        return None
    found = sorted(tables[0])
    distance = {q: sum(abs(a - b) for a, b in zip(found, own, strict=False)) for q, own in _luma_tables().items()}
    return min(distance, key=lambda q: distance[q]), "4:4:4" if sampling == 0 else "4:2:0"


@functools.cache
def _luma_tables() -> dict[int, list[float]]:
    """The entries of libjpeg's table of each quality in order of size, for files may hold them in any order."""
    return {q: sorted(quantisation_table("luma", q).flatten().tolist()) for q in range(1, 101)}


def _answer(
    problem: str | None, sigma: float | None, width: float | None, jpeg: tuple[int, str] | None, missing: float
) -> dict[str, Any]:
    used = None if sigma is None else max(LEAST_SIGMA, float(f"{sigma:.2g}"))
    value: dict[str, Any] | None = None if problem is None else {"problem": problem}
    if value is not None and used is not None:
        value["noise"] = Gaussian(sigma=used).model_dump(mode="json")
    if value is not None and problem == "blur" and width is not None:
        std = max(0.1, round(width, 1))
        kernel = {"kind": "gaussian", "size": min(255, 2 * math.ceil(4 * std) + 1), "std": std}
        value["operator"] = {"kind": "blur", "kernel": kernel, "boundary": "reflect"}
    if value is not None and problem == "jpeg" and jpeg is not None:
        value["operator"] = {"kind": "jpeg", "quality": jpeg[0], "subsampling": jpeg[1]}
    return {
        "when": time.time(),  # the page hears of changes alone
        "problem": problem,
        "sigma": used,
        "width": width,
        "quality": None if jpeg is None else jpeg[0],
        "missing": missing,
        "value": value,
        "sentence": _sentence(problem, used, width, jpeg, missing),
    }


def _sentence(
    problem: str | None, sigma: float | None, width: float | None, jpeg: tuple[int, str] | None, missing: float
) -> str:
    noise = "" if sigma is None else f"noise about {sigma:.2g}"
    match problem:
        case "missing":
            return f"{100 * missing:.2g} % of the picture is transparent or has no value: these parts are missing."
        case "jpeg" if jpeg is not None:
            return f"The file is a JPEG of quality {jpeg[0]}: its compression may be what you see. Check it by eye."
        case "blur":
            return f"A guess: {noise + ', ' if noise else ''}blur about {width:.1f} px. Check it by eye."
        case "noise":
            blur = "whether it is blurred cannot be told" if width is None else "no blur to be seen"
            return f"A guess: {noise}, {blur}. Check it by eye."
    if sigma is None:
        return "I cannot tell: the picture is too small, too dark or too bright to judge. Choose yourself."
    return f"I cannot tell: the picture looks sharp, with hardly any noise (about {sigma:.2g}). Choose yourself."
